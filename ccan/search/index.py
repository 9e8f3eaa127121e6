"""An index that is searched: numbers behind one of the engines, and who is on which image.

    index = open_index("indices/mine")
    found = index.search(predictor.embed("person.jpg"), top=10, where=Where(cameras=(1, 2)))
    found.rows, found.distances, index.identities[found.rows[0]]

Letters: Q queries, G gallery images, D numbers of a descriptor, k images that are found.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
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
from ccan.files import inside
from ccan.search.connection import Place
from ccan.search.exact import ExactEngine
from ccan.search.folder import (
    DATABASE,
    FEATURES,
    Description,
    Names,
    Source,
    StoredFacts,
)
from ccan.search.interface import Engine, Found, Rows, Where
from ccan.search.milvus import open_milvus, settings_of
from ccan.search.numbers import read_numbers

if TYPE_CHECKING:
    from ccan.predictor import Predictor

SPARE = 32
"""Candidates beyond those that are wanted, so that their rounded order does not decide."""


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

    @cached_property
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

        Raises: ShapeError if the widths differ or `where.own` is not of Q queries; ConfigError if top is below 1 or
        more than the engine gives; ProtocolError for numbers that are not finite; SearchError if it does not answer.
        """
        where = where or Where()
        asked = torch.as_tensor(queries)
        rows = check_features(asked[None] if asked.ndim == 1 else asked).cpu().numpy()
        self._check(rows, top, where)
        ignored = self._ignored(where.own)
        need = top + max(map(len, ignored), default=0)
        most = min(len(self), self.engine.most)
        if min(need, len(self)) > most:
            raise ConfigError(
                f"{self.name} gives at most {most:,} images, and {need:,} were to be looked at; ask for fewer"
            )
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
        if {*description.settings} != {*settings_of(config, description.count)}:
            raise SearchError(f"{folder}: settings of another kind of index; make the index anew")
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
