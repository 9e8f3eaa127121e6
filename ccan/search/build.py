"""Making an index: beside its place and moved there whole, with the recall of what is not exact."""

from __future__ import annotations

import os
import uuid
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from ccan.config import SearchConfig
from ccan.data.records import JUNK
from ccan.errors import ConfigError, SearchError
from ccan.evaluation.feature_set import FeatureSet
from ccan.files import work_folder
from ccan.search.connection import Place, drop_collection
from ccan.search.exact import ExactEngine
from ccan.search.folder import (
    DATABASE,
    FEATURES,
    Description,
    Names,
    Recall,
    Source,
    StoredFacts,
)
from ccan.search.index import SearchIndex, exact_index, open_index
from ccan.search.interface import Views, Where
from ccan.search.milvus import MOST, build_milvus, settings_of
from ccan.search.numbers import write_numbers

RECALL_TOP, RECALL_QUERIES = 10, 200

Progress = Callable[[int, int, str], None]
"""Called with (images done, images in all, what is being done)."""


def build_index(
    folder: str | Path,
    gallery: FeatureSet,
    config: SearchConfig | None = None,
    *,
    source: Source | None = None,
    progress: Progress | None = None,
) -> SearchIndex:
    """Make an index and open it. It is built beside its place and moved there whole; a failure leaves nothing.

    Args:
        folder: where; must not be there yet.
        gallery: G images. If none has an identity, all are taken for people who are not known (identity 0).
        config: by what it is searched; Milvus keeps float32.
        source: of the descriptors.
        progress: told how far the work is.

    Raises: SearchError if the folder is there or Milvus does not do it; ConfigError for a gallery that is empty or that
    Milvus cannot hold.
    """
    config, source = config or SearchConfig(), source or Source()
    folder = check_place(folder)
    if not len(gallery):
        raise ConfigError("there is no image to index; check the dataset or the file")
    gallery = _searchable(gallery)
    with work_folder(folder.parent, mode=0o777) as work:
        names = Names.of(gallery.names or [str(row) for row in range(len(gallery))])
        StoredFacts(gallery.identities, gallery.cameras, names).save(work)
        width = gallery.features.shape[1]
        description = Description(config.engine, len(gallery), width, source)
        if config.engine == "exact":
            write_numbers(work / FEATURES, {"features": gallery.features.cpu().contiguous()})
            description.save(work)
            _move(work, folder)
            return open_index(folder)
        place = Place(config.uri, work / DATABASE)
        description = _fill(
            place,
            replace(
                description,
                kind=config.kind,
                uri=config.uri,
                settings=settings_of(config, len(gallery)),
                collection=f"ccan_{uuid.uuid4().hex}",
            ),
            gallery,
            progress,
        )
        with _dropped_on_failure(place, description):
            description.save(work)
            _move(work, folder)
    return open_index(folder)


def check_place(folder: str | Path) -> Path:
    """The whole path of a folder that an index may be made at. Raises: SearchError if something is there."""
    path = Path(os.path.abspath(Path(folder).expanduser()))
    if os.path.lexists(path):
        raise SearchError(f"{folder}: is there already; remove it or choose another place")
    return path


@contextmanager
def _dropped_on_failure(place: Place, description: Description) -> Iterator[None]:
    """A collection on a server does not outlive a failure; an embedded one goes with its folder."""
    try:
        yield
    except BaseException:
        if place.uri is not None and description.collection is not None:
            drop_collection(place, description.collection)
        raise


def _searchable(gallery: FeatureSet) -> FeatureSet:
    """The gallery, in which somebody can be found."""
    if (gallery.identities != JUNK).any():
        return gallery
    warnings.warn(
        "no image has an identity: all are indexed as people who are not known (identity 0)",
        stacklevel=3,
    )
    unknown = np.zeros_like(gallery.identities)
    return FeatureSet(gallery.features, unknown, gallery.cameras, gallery.names, gallery.metadata)


def _fill(
    place: Place, description: Description, gallery: FeatureSet, progress: Progress | None
) -> Description:
    """Write Milvus' collection; the description with what was measured.

    Raises: ConfigError for numbers whose distances float32 cannot tell apart.
    """
    assert description.kind is not None and description.collection is not None
    gallery = gallery.with_features(gallery.features.cpu().float())
    reference = exact_index(gallery)
    offset = isinstance(reference.engine, ExactEngine) and reference.engine.offset is not None
    if offset and len(gallery) > MOST:  # of fewer all can be fetched and compared
        raise ConfigError(
            "the features lie much farther from zero than from each other, and Milvus' float32 distances would be "
            "noise; subtract their mean first, or use the engine exact"
        )

    def report(done: int) -> None:
        if progress is not None:
            progress(done, len(gallery), "images in Milvus")

    engine = build_milvus(
        place, description.collection, gallery, description.kind, description.settings, report
    )
    with _dropped_on_failure(place, description), closing(engine):
        recall = None
        if not engine.exact:
            recall = measure_recall(SearchIndex(engine, gallery, description), reference, gallery)
    return replace(description, recall=recall, longest=engine.longest)


def measure_recall(
    index: SearchIndex,
    reference: SearchIndex,
    gallery: FeatureSet,
    queries: int = RECALL_QUERIES,
    top: int = RECALL_TOP,
) -> Recall:
    """How much of the truth an index finds: the share of its answers that are as near as the true nearest ones.

    Args:
        index: what is measured.
        reference: an exact index of the same images.
        gallery: the images, evenly chosen ones of which are the queries, each without its own view.
        queries, top: how many queries, and of how many nearest.
    """
    counted = np.flatnonzero(gallery.identities != JUNK)
    chosen = counted[np.linspace(0, len(counted) - 1, min(queries, len(counted))).astype(int)]
    asked = gallery.select(np.unique(chosen))
    where = Where(own=Views(asked.identities, asked.cameras, asked.names))
    true = reference.search(asked.features, top, where)
    found = index.search(asked.features, top, where)
    wanted = np.isfinite(true.distances)
    farthest = np.where(wanted, true.distances, 0).max(axis=1, keepdims=True)
    right = np.isfinite(found.distances) & (found.distances <= farthest)
    return Recall(float(right.sum() / max(1, wanted.sum())), top, len(asked))


def _move(work: Path, folder: Path) -> None:
    """Put a finished index in its place. Raises: SearchError if something has come to be there."""
    try:
        os.rename(work, folder)
    except OSError as error:
        raise SearchError(f"{folder}: could not be put in its place ({error})") from error
