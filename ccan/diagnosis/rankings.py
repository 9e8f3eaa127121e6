"""The head of every query's ranking, and its nearest right and wrong image: one pass, from which all else is told.

Letters: Q queries, G gallery images, k places.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from ccan.data.records import JUNK
from ccan.errors import ConfigError
from ccan.evaluation.feature_set import FeatureSet
from ccan.evaluation.protocol import check_both_sides
from ccan.evaluation.ranking import Distance, DistanceTo, IdentityIndex, ignored_pairs

NOBODY = -1
"""Where there is no such image."""

Rows = NDArray[np.int64]
Values = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class TopRankings:
    """The ranking of every query as far as the k-th image that counts; rows of the gallery, -1 where there is none.

    Attributes:
        rows: (Q, k) nearest first; ignored images are left out.
        distances: (Q, k), infinite where there is none.
        right: (Q, k) whether it shows the query's identity.
        nearest_right, nearest_wrong: (Q,) rows.
        right_distance, wrong_distance: (Q,), infinite where there is none.
    """

    rows: Rows
    distances: Values
    right: NDArray[np.bool_]
    nearest_right: Rows
    nearest_wrong: Rows
    right_distance: Values
    wrong_distance: Values

    @property
    def margin(self) -> Values:
        """d(nearest wrong) − d(nearest right), (Q,): negative where rank 1 is wrong; NaN where either is missing."""
        both = (self.nearest_right != NOBODY) & (self.nearest_wrong != NOBODY)
        gap = np.full(len(self.rows), np.nan)
        gap[both] = self.wrong_distance[both] - self.right_distance[both]
        return gap

    @property
    def failed(self) -> NDArray[np.bool_]:
        """(Q,) which queries have a match and something else at rank 1."""
        return (self.nearest_right != NOBODY) & ~self.right[:, 0]


def rank_all(
    query: FeatureSet,
    gallery: FeatureSet,
    *,
    top: int = 10,
    distance: Distance = "euclidean",
    block: int = 256,
) -> TopRankings:
    """Rank the gallery for every query, as `rank_gallery` does, and keep the head; Q×G never exists.

    Raises: ConfigError if top or block is below 1; ProtocolError if a side is empty; otherwise as `pairwise_distance`.
    """
    if top < 1 or block < 1:
        raise ConfigError(f"top and block must be at least 1, got {top} and {block}")
    check_both_sides(query, gallery)
    distance_to = DistanceTo(gallery.features, distance, query.features.dtype)
    index, junk = IdentityIndex(gallery), np.flatnonzero(gallery.identities == JUNK)
    count = min(top, len(gallery))
    parts: list[tuple[NDArray, ...]] = []
    for start in range(0, len(query), block):
        stop = min(start + block, len(query))
        values = distance_to(query.features[start:stop]).cpu().numpy().astype(np.float64)
        row, column = index.pairs(query.identities[start:stop])
        ignored = ignored_pairs(query, gallery, row + start, column)
        values[row[ignored], column[ignored]] = np.inf
        values[:, junk] = np.inf
        right = np.zeros(values.shape, bool)
        right[row[~ignored], column[~ignored]] = True
        parts.append(_heads(values, right, count))
    return TopRankings(*(np.concatenate(one) for one in zip(*parts, strict=True)))


def _heads(values: Values, right: NDArray[np.bool_], count: int) -> tuple[NDArray, ...]:
    """What is kept of a block, (B, G) each."""
    # A stable sort of the few that a partition leaves, ties in the gallery's order.
    bound = np.partition(values, count - 1, axis=1)[:, count - 1 : count]
    lines = np.arange(len(values))
    rows = np.full((len(values), count), NOBODY)
    for line in lines:
        near = np.flatnonzero(values[line] <= bound[line])
        near = near[np.argsort(values[line, near], kind="stable")][:count]
        rows[line] = near
    distances = np.take_along_axis(values, rows, axis=1)
    is_right = np.take_along_axis(right, rows, axis=1)
    gone = ~np.isfinite(distances)
    rows[gone], is_right[gone] = NOBODY, False
    sides = []
    for mask in (right, ~right):
        own = np.where(mask, values, np.inf)
        nearest = own.argmin(axis=1)
        found = own[lines, nearest]
        sides.append((np.where(np.isfinite(found), nearest, NOBODY), found))
    (near_right, d_right), (near_wrong, d_wrong) = sides
    return rows, distances, is_right, near_right, near_wrong, d_right, d_wrong


def names_of(features: FeatureSet, rows: Rows) -> list[str]:
    """Names of images by row, as file names where they are paths; the row where they have none, – for nobody."""
    if features.names is None:
        return ["–" if row == NOBODY else f"row {row}" for row in rows.tolist()]
    last = [name.replace("\\", "/").rsplit("/", 1)[-1] for name in features.names]
    return ["–" if row == NOBODY else last[row] for row in rows.tolist()]


def facts_of(values: NDArray, rows: Rows, missing: float = np.nan) -> NDArray:
    """A fact of each image by row; ``missing`` for nobody."""
    found = values[np.maximum(rows, 0)]
    return np.where(rows == NOBODY, missing, found) if (rows == NOBODY).any() else found


def all_images(query: FeatureSet, gallery: FeatureSet) -> tuple[FeatureSet, list[str]]:
    """Queries and gallery as one set without junk and metadata, in float64, and the split of each image."""
    sides = [one.select(one.identities != JUNK) for one in (query, gallery)]
    names = [name for one in sides for name in names_of(one, np.arange(len(one)))]
    joined = FeatureSet(
        torch.cat([one.features.double().cpu() for one in sides]),
        np.concatenate([one.identities for one in sides]),
        np.concatenate([one.cameras for one in sides]),
        names,
    )
    return joined, ["query"] * len(sides[0]) + ["gallery"] * len(sides[1])
