"""The loss of section 3.3 (Eq. 4–5) by plain loops over a batch, written from the paper alone.

B images, d embedding width, K identities. `normalize` is Decision D8; pairs without a semi-hard negative are Decision
D9.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Triplet:
    """One mined triplet: indices into the batch and its two squared distances."""

    anchor: int
    positive: int
    negative: int
    to_positive: float
    to_negative: float

    def hinge(self, margin: float) -> float:
        """max(0, D_p − D_n + τ)."""
        return max(0.0, self.to_positive - self.to_negative + margin)


def smoothed_cross_entropy(
    logits: Sequence[Sequence[float]], labels: Sequence[int], epsilon: float
) -> float:
    """Mean over the batch of −Σ_k t_k log softmax(logits)_k with t = (1−ε) one-hot + ε/K."""
    total = 0.0
    for row, label in zip(logits, labels, strict=True):
        top = max(row)
        log_sum = top + math.log(sum(math.exp(value - top) for value in row))
        for k, value in enumerate(row):
            wanted = (1.0 - epsilon) * (k == label) + epsilon / len(row)
            total -= wanted * (value - log_sum)
    return total / len(logits)


def unit(vector: Sequence[float]) -> list[float]:
    """The vector over its Euclidean length; a zero vector stays zero."""
    length = max(math.sqrt(sum(x * x for x in vector)), 1e-12)
    return [x / length for x in vector]


def squared_distance(a: Sequence[float], b: Sequence[float]) -> float:
    """‖a − b‖²."""
    return sum((x - y) ** 2 for x, y in zip(a, b, strict=True))


def mine_semi_hard(
    embeddings: Sequence[Sequence[float]],
    identities: Sequence[int],
    negatives: int,
    normalize: bool,
) -> list[Triplet]:
    """For every ordered pair of one identity, the r nearest negatives that are farther than the positive."""
    points = [unit(e) for e in embeddings] if normalize else [list(e) for e in embeddings]
    count = len(points)
    mined: list[Triplet] = []
    for a in range(count):
        for p in range(count):
            if a == p or identities[a] != identities[p]:
                continue
            d_p = squared_distance(points[a], points[p])
            farther: list[tuple[float, int]] = []
            for n in range(count):
                if identities[n] != identities[a]:
                    d_n = squared_distance(points[a], points[n])
                    if d_p < d_n:
                        farther.append((d_n, n))
            farther.sort()
            mined += [Triplet(a, p, n, d_p, d_n) for d_n, n in farther[:negatives]]
    return mined


def triplet_loss(
    embeddings: Sequence[Sequence[float]],
    identities: Sequence[int],
    margin: float,
    negatives: int,
    normalize: bool,
) -> tuple[float, int, int]:
    """(loss, mined triplets, active triplets): the mean hinge over all mined triplets, 0 when there are none."""
    mined = mine_semi_hard(embeddings, identities, negatives, normalize)
    hinges = [triplet.hinge(margin) for triplet in mined]
    loss = sum(hinges) / len(hinges) if hinges else 0.0
    return loss, len(mined), sum(hinge > 0.0 for hinge in hinges)
