"""Distances, the one rule of what a query ignores, and the ranking of one query (section 3.4).

Letters: Q queries, B of them in a block, G gallery images, D numbers of a descriptor, P pairs (query, gallery image).
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from ccan.data.records import JUNK, UNKNOWN_CAMERA
from ccan.errors import ConfigError, ProtocolError, ShapeError
from ccan.evaluation.feature_set import FeatureSet, check_features
from ccan.evaluation.metrics import (
    APRule,
    MatchPositions,
    average_precision,
    first_match,
    inverse_negative_penalty,
)

Distance = Literal["euclidean", "squared_euclidean", "cosine"]
DISTANCES: tuple[Distance, ...] = ("euclidean", "squared_euclidean", "cosine")

OFFSET = 100.0
"""Features are moved to their mean if its squared length is so many times their mean squared distance from it."""

Indices = NDArray[np.int64]
Flags = NDArray[np.bool_]

Mark = Literal["right", "wrong", "ignored", "unknown"]
"""What a gallery image is to a query; `unknown` where the query's identity is not known."""


def pairwise_distance(
    query: Tensor | ArrayLike, gallery: Tensor | ArrayLike, distance: Distance = "euclidean"
) -> Tensor:
    """Distance of each query to each gallery image: (Q, D), (G, D) → (Q, G), never negative.

    `euclidean` ‖q-g‖; `squared_euclidean` ‖q-g‖²; `cosine` 1 - ⟨q, g⟩/(‖q‖‖g‖), which is 1 where a vector is
    zero. Computed in float32, or in float64 if either side is.

    Raises: ShapeError if the widths differ; ProtocolError for values that are not finite or whose squares are not;
    ConfigError for another distance.
    """
    queries, images = check_features(query), check_features(gallery)
    return DistanceTo(images, distance, queries.dtype)(queries)


class DistanceTo:
    """Distances from blocks of queries to one gallery, whose norms are computed once.

    Args:
        gallery: (G, D) checked features, which set the device of the distances.
        distance: as in `pairwise_distance`, whose errors are raised here too.
        query_dtype: dtype of the queries; the wider of the two is computed in.
    """

    def __init__(self, gallery: Tensor, distance: Distance, query_dtype: torch.dtype) -> None:
        if distance not in DISTANCES:
            raise ConfigError(f"distance must be one of {', '.join(DISTANCES)}, got {distance!r}")
        self.distance: Distance = distance
        self.gallery = gallery.to(torch.promote_types(gallery.dtype, query_dtype))
        self.norms = _squared_norms(self.gallery, "gallery")  # (G,)
        self.offset = None if distance == "cosine" else self._common_offset()  # (D,)
        if self.offset is not None:
            self.gallery = self.gallery - self.offset
            self.norms = _squared_norms(self.gallery, "gallery")

    def _common_offset(self) -> Tensor | None:
        """The gallery's mean where features lie much farther from zero than from each other, else None.

        ‖q‖² + ‖g‖² − 2⟨q, g⟩ would cancel there and leave noise; distances do not change if both sides are moved.
        """
        if not len(self.gallery):
            return None
        mean = self.gallery.mean(dim=0)
        squared = float(mean @ mean)
        around = float(self.norms.mean()) - squared
        far = squared > OFFSET * max(around, 0.0) and squared > 0
        # Numbers so large that moving them could overflow stay where they are.
        return mean if far and squared < torch.finfo(mean.dtype).max ** 0.5 else None

    def __call__(self, query: Tensor) -> Tensor:
        """(B, D) → (B, G)."""
        check_widths(query, self.gallery)
        query = query.to(self.gallery)
        if self.offset is not None:
            query = query - self.offset
        norms = _squared_norms(query, "query")[:, None]  # (B, 1)
        with full_precision(query.device.type):
            if self.distance == "cosine":
                products = query @ self.gallery.T  # (B, G)
                cosine = products.div_(_lengths(norms)).div_(_lengths(self.norms))
                return cosine.neg_().add_(1).clamp_(min=0)
            squared = torch.addmm(self.norms, query, self.gallery.T, alpha=-2)  # (B, G)
        squared.add_(norms).clamp_(min=0)
        return squared if self.distance == "squared_euclidean" else squared.sqrt_()


def check_widths(query: Tensor, gallery: Tensor, side: str = "gallery") -> None:
    """Raises: ShapeError if descriptors (Q, D) and (G, D) differ in D; `side` is what the latter are called."""
    if query.shape[1] != gallery.shape[1]:
        raise ShapeError(
            f"query and {side} features must have the same width D, got "
            f"{query.shape[1]} and {gallery.shape[1]}; were they made by the same model?"
        )


def _squared_norms(rows: Tensor, side: str) -> Tensor:
    """‖row‖². As |⟨q, g⟩| is at most the larger of two of them, distances are finite if four times the largest is."""
    with full_precision(rows.device.type):
        norms = torch.einsum("nd,nd->n", rows, rows)
    if len(norms) and not bool(torch.isfinite(4 * norms.max())):
        raise ProtocolError(
            f"distances must be finite, but the squared length of {side} row {int(norms.argmax())} "
            f"overflows {rows.dtype}; normalise the features or pass float64"
        )
    return norms


def _lengths(squared_norms: Tensor) -> Tensor:
    """Divisors for the cosine; 1 for a zero vector, whose products are 0 anyway."""
    return torch.where(squared_norms > 0, squared_norms, 1).sqrt()


@contextmanager
def full_precision(device_type: str) -> Generator[None]:
    """No TF32, no bfloat16 and no autocast in the products, whatever training has switched on."""
    before = torch.get_float32_matmul_precision()
    if before != "highest":
        torch.set_float32_matmul_precision("highest")
    try:
        with torch.autocast(device_type, enabled=False):
            yield
    finally:
        if before != "highest":
            torch.set_float32_matmul_precision(before)


class Facts(Protocol):
    """What the protocol knows of N images: of a FeatureSet all but its features."""

    @property
    def identities(self) -> Indices:
        """(N,); -1 junk, 0 distractor."""
        ...

    @property
    def cameras(self) -> Indices:
        """(N,); -1 unknown."""
        ...

    @property
    def names(self) -> Sequence[str] | None:
        """N names of the images, or None."""
        ...


def ignored_pairs(query: Facts, gallery: Facts, row: Indices, column: Indices) -> Flags:
    """The protocol's one rule: is gallery image column[p] left out of query row[p]'s ranking?

    It is if it is junk (identity -1), or shows the query's identity under the query's camera. Where either camera is
    unknown (-1), only the query image itself is left out, known by its name.

    Shapes: row (P,), column (P,) → (P,) bool.
    """
    same_identity = query.identities[row] == gallery.identities[column]
    query_camera, gallery_camera = query.cameras[row], gallery.cameras[column]
    unknown = (query_camera == UNKNOWN_CAMERA) | (gallery_camera == UNKNOWN_CAMERA)
    same_view = (query_camera == gallery_camera) & ~unknown
    if query.names is not None and gallery.names is not None:
        for pair in np.flatnonzero(unknown & same_identity):
            same_view[pair] = query.names[row[pair]] == gallery.names[column[pair]]
    return (gallery.identities[column] == JUNK) | (same_identity & same_view)


class IdentityIndex:
    """The gallery images of each identity: a query meets its few candidates, and no Q×G mask is ever built."""

    def __init__(self, gallery: Facts) -> None:
        self.columns = np.argsort(gallery.identities, kind="stable")
        self.identities = gallery.identities[self.columns]

    def pairs(self, identities: NDArray[np.int64]) -> tuple[Indices, Indices]:
        """All pairs of equal identity, (Q,) → row (P,), column (P,), by row and then by column."""
        start = np.searchsorted(self.identities, identities)
        counts = np.searchsorted(self.identities, identities, side="right") - start
        row = np.repeat(np.arange(len(identities)), counts)
        return row, self.columns[start[row] + _place_within(row, counts)]


def _place_within(row: Indices, counts: Indices) -> Indices:
    """0, 1, 2 … for the entries of each row; `row` ascends and has `counts` entries of each."""
    return np.arange(len(row)) - (np.cumsum(counts) - counts)[row]


@dataclass(frozen=True, eq=False)
class Ranking:
    """One query's gallery, nearest first.

    Attributes:
        order: (K,) rows of the gallery; equal distances keep the gallery's order.
        distances: (K,) distance of each.
        marks: K marks, aligned with `order`.
        positions: (K,) 1-based place among the images that count; -1 where a mark is `ignored`.
        ap, inp, first_match: of the *whole* ranking, whatever K; NaN, NaN, -1 where nothing matches.
        matches: images of the query's identity that count.
    """

    order: NDArray[np.int64]
    distances: NDArray[np.floating[Any]]
    marks: tuple[Mark, ...]
    positions: NDArray[np.int64]
    ap: float
    inp: float
    first_match: int
    matches: int

    def __len__(self) -> int:
        return len(self.order)


def rank_gallery(
    query: FeatureSet | Tensor | ArrayLike,
    gallery: FeatureSet,
    *,
    distance: Distance = "euclidean",
    ap: APRule = "rank-sum",
    top: int | None = None,
    include_ignored: bool = True,
) -> Ranking:
    """Rank the whole gallery for one query and mark each image by the protocol's rule.

    Args:
        query: a FeatureSet of one image; or a bare descriptor (D,), the identity being unknown: then no image is
            right or wrong, and only junk is ignored.
        gallery: G images.
        distance: as in `pairwise_distance`.
        ap: rule of average precision (Decision D14).
        top: how many entries to return, all if None; the scores are always those of the whole ranking.
        include_ignored: whether ignored images stay in the list, in their place, or are taken out before `top`.

    Raises: ShapeError if there is not exactly one query; otherwise as `pairwise_distance`.
    """
    probe = query if isinstance(query, FeatureSet) else _anonymous(query)
    if len(probe) != 1:
        raise ShapeError(f"rank_gallery ranks for one query at a time, got {len(probe)}")
    distance_to = DistanceTo(gallery.features, distance, probe.features.dtype)
    values: NDArray[np.floating[Any]] = distance_to(probe.features)[0].cpu().numpy()  # (G,)
    known = isinstance(query, FeatureSet)
    return rank_distances(
        probe, gallery, values, known=known, ap=ap, top=top, include_ignored=include_ignored
    )


def rank_distances(
    probe: FeatureSet,
    gallery: FeatureSet,
    values: NDArray[np.floating[Any]],
    *,
    known: bool = True,
    ap: APRule = "rank-sum",
    top: int | None = None,
    include_ignored: bool = True,
) -> Ranking:
    """`rank_gallery` by distances that are given, (G,), however they were made.

    Args:
        probe: the query, of which only the facts count; known: whether its identity is one of them.

    Raises: ShapeError unless there is one query and a distance for each gallery image; ConfigError if top is below 1.
    """
    if top is not None and top < 1:
        raise ConfigError(f"top must be at least 1, got {top}")
    if len(probe) != 1 or values.shape != (len(gallery),):
        raise ShapeError(
            f"expected one query and {len(gallery)} distances, got {len(probe)} and {values.shape}"
        )
    order = np.argsort(values, kind="stable")
    ignored = ignored_pairs(probe, gallery, np.zeros_like(order), order)
    right = (gallery.identities[order] == probe.identities) & ~ignored
    positions = np.where(ignored, -1, np.cumsum(~ignored))
    places = positions[right]
    matches = MatchPositions(np.zeros_like(places), places, queries=1)
    listed = np.flatnonzero(~ignored | include_ignored)[:top]
    return Ranking(
        order=order[listed],
        distances=values[order[listed]],
        marks=tuple(_mark(bool(right[k]), bool(ignored[k]), known) for k in listed),
        positions=positions[listed],
        ap=float(average_precision(matches, ap)[0]),
        inp=float(inverse_negative_penalty(matches)[0]),
        first_match=int(first_match(matches)[0]),
        matches=len(places),
    )


def _anonymous(descriptor: Tensor | ArrayLike) -> FeatureSet:
    """A query of which only the descriptor is known: counted as junk, it matches nothing and ignores only junk."""
    rows = torch.as_tensor(descriptor)
    rows = rows[None] if rows.ndim == 1 else rows
    return FeatureSet(rows, [JUNK] * len(rows), [UNKNOWN_CAMERA] * len(rows))


def _mark(right: bool, ignored: bool, known: bool) -> Mark:
    if ignored:
        return "ignored"
    if not known:
        return "unknown"
    return "right" if right else "wrong"
