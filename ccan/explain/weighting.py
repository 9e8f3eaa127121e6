"""What if a part counted more, or less? Distances with weights on the parts, without reading a feature again.

A weight w_s acts on B_s p_s before the normalisation: f_L(w) = Σ_s w_s B_s p_s + b. All that the distance needs of an
image is the Gram matrix of its parts and the bias, (kp+1)×(kp+1) numbers, and those of the query with it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ccan.errors import ShapeError
from ccan.evaluation.feature_set import FeatureSet
from ccan.evaluation.ranking import Ranking, rank_distances
from ccan.explain.embedding import LOCAL, EmbeddingMaps, branch_of
from ccan.explain.trace import GLOBAL, Trace

Values = NDArray[np.float64]


@dataclass(frozen=True)
class PartVectors:
    """What weights act on, for N images; in float64, or in float32 where many images are to be gone through quickly.

    Attributes:
        parts: B_s p_s of each part, then the bias b, (N, kp+1, d); None without a local branch.
        direction: f_G/‖f_G‖, (N, d); None without a global branch.
    """

    parts: Values | None
    direction: Values | None


@dataclass(frozen=True)
class QueryGrams:
    """One query beside N gallery images, as small as sliders need it.

    Attributes:
        own: Gram matrix of the query's parts and bias, (kp+1, kp+1); None without a local branch.
        gallery: that of each gallery image, (N, kp+1, kp+1).
        between: inner products of the query's with each gallery image's, (N, kp+1, kp+1).
        global_squared: ‖Δ_G‖², (N,); zeros without a global branch.
    """

    own: Values | None
    gallery: Values | None
    between: Values | None
    global_squared: Values

    def distances(self, parts: Sequence[float] | None = None, global_weight: float = 1.0) -> Values:
        """d² = w_G ‖Δ_G‖² + ‖Δ_L(w)‖², (N,): squared Euclidean distances with these weights.

        Args:
            parts: w_1 … w_kp, each ≥ 0; None = all 1, which together with w_G = 1 is the plain distance.
            global_weight: w_G ≥ 0.

        Raises: ShapeError for another number of weights or a negative one.
        """
        weights = np.asarray([] if parts is None else parts, dtype=np.float64)
        if global_weight < 0 or (weights < 0).any():
            raise ShapeError(f"weights must be at least 0, got {global_weight} and {parts}")
        squared = global_weight * self.global_squared
        if self.own is None or self.gallery is None or self.between is None:
            return squared
        count = len(self.own) - 1
        weights = np.ones(count) if parts is None else weights
        if weights.shape != (count,):
            raise ShapeError(f"expected {count} weights, one for each part, got {len(weights)}")
        w = np.append(weights, 1.0)  # the bias counts as it is
        lengths = np.sqrt(np.einsum("s,nst,t->n", w, self.gallery, w).clip(min=0))
        own = np.sqrt(max(float(w @ self.own @ w), 0.0))
        inner = np.einsum("s,nst,t->n", w, self.between, w)
        cosine = inner / np.maximum(own * lengths, 1e-24)
        # A zero vector stays zero when it is normalised.
        mine, theirs = float(own > 1e-12), (lengths > 1e-12).astype(np.float64)
        return squared + (mine + theirs - 2 * cosine * mine * theirs).clip(min=0)


def part_vectors(maps: EmbeddingMaps, trace: Trace) -> PartVectors:
    """The vectors of the images of a trace."""
    shares = maps.parts(trace)
    local = [value for name, value in shares.items() if branch_of(name) == LOCAL]
    parts = direction = None
    if local:
        bias = maps.biases[LOCAL].expand_as(local[0])
        parts = np.stack([value.cpu().double().numpy() for value in (*local, bias)], axis=1)
    if GLOBAL in maps.biases:
        embedding = maps.embedding(trace, GLOBAL).cpu().double().numpy()
        length = np.linalg.norm(embedding, axis=1, keepdims=True)
        direction = embedding / np.maximum(length, 1e-12)
    return PartVectors(parts, direction)


def gram_matrices(parts: Values) -> Values:
    """Gram matrix of each image's parts and bias, (N, kp+1, d) → (N, kp+1, kp+1)."""
    return parts @ parts.transpose(0, 2, 1)


def query_grams(
    query: PartVectors, gallery: PartVectors, grams: Values | None = None
) -> QueryGrams:
    """What sliders need of one query and a gallery.

    Args:
        grams: `gram_matrices` of the gallery's parts, where they were made before.

    Raises: ShapeError unless there is one query.
    """
    counts = {len(values) for values in (query.parts, query.direction) if values is not None}
    if counts != {1}:
        raise ShapeError(f"expected the vectors of one query, got {sorted(counts)}")
    size = next(len(v) for v in (gallery.parts, gallery.direction) if v is not None)
    squared = np.zeros(size)
    if query.direction is not None and gallery.direction is not None:
        difference = gallery.direction - query.direction.astype(gallery.direction.dtype)
        squared = np.square(difference).sum(axis=1).astype(np.float64)
    if query.parts is None or gallery.parts is None:
        return QueryGrams(None, None, None, squared)
    own = query.parts[0].astype(gallery.parts.dtype)
    between = (gallery.parts @ own.T).transpose(0, 2, 1).astype(np.float64)
    grams = gram_matrices(gallery.parts).astype(np.float64) if grams is None else grams
    return QueryGrams(gram_matrices(query.parts)[0], grams, between, squared)


def join_grams(blocks: Sequence[QueryGrams]) -> QueryGrams:
    """One query beside several blocks of a gallery, as beside the whole. Raises: ShapeError if there is no block."""
    if not blocks:
        raise ShapeError("expected at least one block of a gallery, got none")

    def joined(name: str) -> Values | None:
        values = [getattr(block, name) for block in blocks]
        return None if values[0] is None else np.concatenate(values)

    squared = np.concatenate([block.global_squared for block in blocks])
    return QueryGrams(blocks[0].own, joined("gallery"), joined("between"), squared)


def without_each_part(
    grams: QueryGrams, query: FeatureSet, gallery: FeatureSet
) -> dict[str, Ranking]:
    """What becomes of a query when one stream counts no longer, for it and for the whole gallery.

    Args:
        grams: of the query and the gallery's images, in their order.
        query, gallery: what the protocol must know of them; one query.

    Returns: ``unchanged``, then stream → ranking without it (weight 0); ``G`` only where there are parts too.
    Raises: ShapeError unless there is one query.
    """
    count = 0 if grams.own is None else len(grams.own) - 1
    squared = {"unchanged": grams.distances()}
    if count and grams.global_squared.any():
        squared[GLOBAL] = grams.distances(global_weight=0)
    if count > 1 or (count and grams.global_squared.any()):
        for part in range(count):
            weights = [0.0 if one == part else 1.0 for one in range(count)]
            squared[f"P{part + 1}"] = grams.distances(weights)
    return {
        name: rank_distances(query, gallery, np.sqrt(values)) for name, values in squared.items()
    }


def repairing_parts(rankings: Mapping[str, Ranking]) -> tuple[str, ...]:
    """Which single stream, removed, repairs the query: those without which the nearest image is right, best AP first.

    None for a query that is right as it is.
    """
    if rankings["unchanged"].first_match == 1:
        return ()
    repaired = [name for name, ranking in rankings.items() if ranking.first_match == 1]
    return tuple(sorted(repaired, key=lambda name: -rankings[name].ap))
