"""An index that is searched: numbers behind one of the engines, and who is on which image.

    index = open_index("indices/mine")
    found = index.search(predictor.embed("person.jpg"), top=10, where=Where(cameras=(1, 2)))
    found.rows, found.distances, index.identities[found.rows[0]]

Letters: Q queries, G gallery images, D numbers of a descriptor, k images that are found.
"""

from __future__ import annotations

import os
import uuid
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from ccan.config import SearchConfig
from ccan.data.records import JUNK
from ccan.errors import CheckpointError, ConfigError, SearchError, ShapeError
from ccan.evaluation.extraction import fingerprint
from ccan.evaluation.feature_set import FeatureSet, check_features
from ccan.evaluation.ranking import Facts, IdentityIndex, ignored_pairs
from ccan.files import inside, work_folder
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
from ccan.search.interface import Engine, Found, Rows, Views, Where
from ccan.search.milvus import (
    MOST,
    Place,
    build_milvus,
    drop_collection,
    open_milvus,
    settings_of,
)
from ccan.search.numbers import read_numbers, write_numbers

if TYPE_CHECKING:
    from ccan.predictor import Predictor

SPARE = 32
"""Candidates beyond those that are wanted, so that their rounded order does not decide."""
RECALL_TOP, RECALL_QUERIES = 10, 200

Progress = Callable[[int, int, str], None]
"""Called with (images done, images in all, what is being done)."""


@dataclass(frozen=True, eq=False)
class SearchIndex:
    """G gallery images that are searched. A context: at its end files and connections are let go.

    Attributes:
        engine: what finds.
        facts: identities, cameras and names of the images.
        description: what `index.json` says.
        folder: the index on disk; None where there is none.
    """

    engine: Engine
    facts: Facts
    description: Description
    folder: Path | None = None

    def __len__(self) -> int:
        return len(self.facts.identities)

    def __enter__(self) -> SearchIndex:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of files and connections."""
        self.engine.close()

    @property
    def identities(self) -> Rows:
        """(G,); -1 junk, 0 distractor."""
        return self.facts.identities

    @property
    def cameras(self) -> Rows:
        """(G,); -1 unknown."""
        return self.facts.cameras

    @property
    def names(self) -> Sequence[str]:
        """G names: paths within `root`, or whatever the features' file called the images."""
        return self.facts.names or Names.of([str(row) for row in range(len(self))])

    @property
    def root(self) -> Path | None:
        """The folder of the pictures; None where there are none."""
        return None if self.description.source.root is None else Path(self.description.source.root)

    @property
    def exact(self) -> bool:
        """Whether nothing nearer is ever missed."""
        return self.engine.exact

    @property
    def name(self) -> str:
        """The engine in words."""
        return self.engine.name

    def describe(self) -> str:
        """One line: engine, rows, and whether it is exact or how much it finds."""
        recall = self.description.recall
        quality = "exact"
        if not self.exact:
            quality = "approximate, recall not measured"
        if recall is not None:
            quality = (
                f"recall@{recall.top} {recall.value:.3f} measured with {recall.queries} queries"
            )
        return f"{self.name}: {len(self):,} images of {self.engine.width} numbers, {quality}"

    def picture(self, row: int) -> Path | None:
        """The picture of a row; None where there is none. Nothing outside of `root` is ever named."""
        if self.root is None:
            return None
        path = inside(self.root, self.names[row])
        return path if path.is_file() else None

    def name_of(self, path: str | Path) -> str:
        """What a picture is called here: its path within `root`, or else its whole path."""
        return image_name(Path(path), self.root)

    def search(
        self, queries: Tensor | ArrayLike, top: int = 10, where: Where | None = None
    ) -> Found:
        """The nearest gallery images of each query, as `ccan.evaluation.rank_gallery` ranks them.

        Distances are those of the stored numbers, computed in float64; equal distances rank in the gallery's order. An
        engine that is not exact may miss images; those that it finds are ranked by the same distances.

        Args:
            queries: (Q, D), or (D,) for one.
            top: k.
            where: which images may be found; all but junk if None.

        Raises: ShapeError if the widths differ or `where.own` is not of Q queries; ConfigError if top is below 1;
        ProtocolError for numbers that are not finite; SearchError if the engine does not answer.
        """
        where = where or Where()
        asked = torch.as_tensor(queries)
        rows = check_features(asked[None] if asked.ndim == 1 else asked).cpu().numpy()
        self._check(rows, top, where)
        ignored = self._ignored(where.own)
        need = top + max(map(len, ignored), default=0)
        most = min(len(self), self.engine.most)
        count = min(most, need + SPARE)
        found = Found(np.full((len(rows), top), -1, np.int64), np.full((len(rows), top), np.inf))
        open_: Rows = np.arange(len(rows))
        while len(open_):
            near = self.engine.nearest(rows[open_], count, where)
            unsettled: list[int] = []
            for place, query in enumerate(open_.tolist()):
                kept = (near.rows[place] >= 0) & np.isfinite(near.squared[place])
                if query < len(ignored):
                    kept &= ~np.isin(near.rows[place], ignored[query])
                candidates, squared = near.rows[place][kept], near.squared[place][kept]
                order = np.lexsort((candidates, squared))[:top]
                found.rows[query, : len(order)] = candidates[order]
                found.distances[query, : len(order)] = np.sqrt(squared[order])
                last = squared[order[-1]] if len(order) == top else np.inf
                if np.isfinite(near.floor[place]) and not last < near.floor[place]:
                    unsettled.append(query)
            # What was left out may be as near as the last of these: ask for more.
            open_ = np.array(unsettled, dtype=np.int64) if count < most else open_[:0]
            count = min(most, 4 * count)
        return found

    def _check(self, queries: NDArray[Any], top: int, where: Where) -> None:
        if top < 1:
            raise ConfigError(f"top must be at least 1, got {top}")
        if queries.shape[1] != self.engine.width:
            raise ShapeError(
                f"expected queries of width {self.engine.width}, as the index has, got {queries.shape[1]}; "
                "were they made by the same model?"
            )
        if where.own is not None and len(where.own.identities) != len(queries):
            raise ShapeError(
                f"where.own must be of the {len(queries)} queries, got {len(where.own.identities)}"
            )

    @cached_property
    def _identity_index(self) -> IdentityIndex:
        return IdentityIndex(self.facts)

    def _ignored(self, own: Facts | None) -> list[Rows]:
        """For each query the rows that the protocol ignores for it, but for junk."""
        if own is None:
            return []
        row, column = self._identity_index.pairs(own.identities)
        ignored = ignored_pairs(own, self.facts, row, column)
        ignored &= self.identities[column] != JUNK
        return [column[ignored & (row == query)] for query in range(len(own.identities))]

    def check_source(self) -> None:
        """Raises: CheckpointError if the descriptors are of a network that is not known here."""
        if self.description.source.fingerprint is None:
            raise CheckpointError(
                "this index was made of a file of features, whose network is not known here, so no image can be "
                "described for it; search it in Python with descriptors of the same network (docs/search.md)"
            )

    def check_model(self, predictor: Predictor) -> None:
        """Raises: CheckpointError unless the descriptors in the index are this network's."""
        self.check_source()
        if fingerprint(predictor.model, ()) != self.description.source.fingerprint:
            raise CheckpointError(
                f"expected the network that the index was made with ({self.description.source.checkpoint}), got one "
                "with other weights or settings, whose descriptors are not comparable; make the index anew or pass "
                "the right --checkpoint"
            )


def image_name(path: Path, root: Path | None) -> str:
    """A picture's name in an index: its path within a folder, or else its whole path."""
    whole = Path(os.path.abspath(path))
    if root is not None and whole.is_relative_to(root):
        return whole.relative_to(root).as_posix()
    return str(whole)


def exact_index(gallery: FeatureSet) -> SearchIndex:
    """Exact search over features in memory, which are not copied."""
    engine = ExactEngine(gallery.features.cpu(), gallery)
    description = Description("exact", len(gallery), engine.width, Source())
    return SearchIndex(engine, gallery, description)


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


def open_index(folder: str | Path) -> SearchIndex:
    """An index from its folder. Its numbers are mapped from the file or stay with Milvus.

    Raises: SearchError if the folder is no index, is damaged, or Milvus does not answer; ConfigError if Milvus is
    needed and not installed.
    """
    folder = Path(os.path.abspath(Path(folder).expanduser()))
    description = Description.load(folder)
    facts = StoredFacts.load(folder, description.count)
    engine: Engine
    if description.engine == "exact":
        engine = ExactEngine(_features(folder, description), facts)
    elif description.engine == "milvus" and description.collection and description.kind:
        config = SearchConfig.from_dict(
            {"engine": "milvus", "kind": description.kind, "uri": description.uri}
        )
        engine = open_milvus(
            Place(config.uri, folder / DATABASE),
            description.collection,
            config.kind,
            description.settings,
            facts,
            description.width,
            description.longest,
        )
    else:
        raise SearchError(
            f"{folder}: no engine {description.engine!r} with a collection here; make the index anew"
        )
    return SearchIndex(engine, facts, description, folder)


def _features(folder: Path, description: Description) -> Tensor:
    path = folder / FEATURES
    features = read_numbers(path).get("features")
    if features is None or features.shape != (description.count, description.width):
        shape = None if features is None else tuple(features.shape)
        raise SearchError(
            f"{path}: expected features of {description.count} images, {description.width} each, got {shape}; "
            "make the index anew"
        )
    return features
