"""The loss of section 3.3 (Eq. 4–5) by plain loops over a batch, written from the paper alone; below it, others.

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


def anchors_with_both(identities: Sequence[int]) -> list[tuple[int, list[int], list[int]]]:
    """(anchor, its positives, its negatives) where there is at least one of each."""
    found: list[tuple[int, list[int], list[int]]] = []
    for a, own in enumerate(identities):
        positives = [i for i, other in enumerate(identities) if other == own and i != a]
        negatives = [i for i, other in enumerate(identities) if other != own]
        if positives and negatives:
            found.append((a, positives, negatives))
    return found


def soft_margin_loss(
    embeddings: Sequence[Sequence[float]], identities: Sequence[int], normalize: bool
) -> tuple[float, int, int]:
    """Hermans et al. 2017, batch hard: (mean of log(1 + e^x) with x = max D_p − min D_n, anchors, those with x > 0)."""
    points = [unit(e) for e in embeddings] if normalize else [list(e) for e in embeddings]
    excess: list[float] = []
    for a, positives, negatives in anchors_with_both(identities):
        to_positive = max(math.sqrt(squared_distance(points[a], points[p])) for p in positives)
        to_negative = min(math.sqrt(squared_distance(points[a], points[n])) for n in negatives)
        excess.append(to_positive - to_negative)
    losses = [math.log(1 + math.exp(x)) for x in excess]
    return sum(losses) / max(len(losses), 1), len(losses), sum(x > 0 for x in excess)


def circle_loss(
    embeddings: Sequence[Sequence[float]],
    identities: Sequence[int],
    margin: float,
    scale: float,
    weights_at: Sequence[Sequence[float]] | None = None,
) -> tuple[float, int, int]:
    """Sun et al. 2020, Eq. 4–6 and 8 with pairs of one anchor each: (mean, anchors, those with a sum above 1).

    The weights α are taken at ``weights_at``, by default at the embeddings themselves.
    """

    def cosine(points: list[list[float]], i: int, j: int) -> float:
        return sum(x * y for x, y in zip(points[i], points[j], strict=True))

    points = [unit(e) for e in embeddings]
    still = points if weights_at is None else [unit(e) for e in weights_at]
    losses: list[float] = []
    active = 0
    for a, positives, negatives in anchors_with_both(identities):
        pull = [
            -scale
            * max(0.0, 1 + margin - cosine(still, a, p))
            * (cosine(points, a, p) - 1 + margin)
            for p in positives
        ]
        push = [
            scale * max(0.0, cosine(still, a, n) + margin) * (cosine(points, a, n) - margin)
            for n in negatives
        ]
        product = sum(math.exp(x) for x in pull) * sum(math.exp(x) for x in push)
        losses.append(math.log1p(product))
        active += product > 1
    return sum(losses) / max(len(losses), 1), len(losses), active


def attention_diversity(maps: Sequence[Sequence[Sequence[Sequence[float]]]]) -> float:
    """Mean over images and parts of the mean cosine between two rows of A; dead rows and maps are left out."""
    means: list[float] = []
    for part in (part for image in maps for part in image):
        rows = [unit(row) for row in part if any(value > 0 for value in row)]
        cosines = [
            sum(x * y for x, y in zip(one, other, strict=True))
            for i, one in enumerate(rows)
            for j, other in enumerate(rows)
            if i != j
        ]
        if cosines:
            means.append(sum(cosines) / len(cosines))
    return sum(means) / max(len(means), 1)
