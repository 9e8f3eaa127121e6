"""k-reciprocal re-ranking by plain loops over all pairs of images, written from the paper.

The two thirds and the half of k1 are those of the program that the paper's figures were made with. Python numbers only;
(Q+G)² of everything.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

Vector = Sequence[float]


def squared(a: Vector, b: Vector) -> float:
    return sum((x - y) ** 2 for x, y in zip(a, b, strict=True))


def nearest_first(distances: list[list[float]], image: int) -> list[int]:
    """All images by distance from this one, which comes first."""
    others = [other for other in range(len(distances)) if other != image]
    return [image, *sorted(others, key=lambda other: distances[image][other])]


def reciprocal(ranked: list[list[int]], image: int, count: int) -> set[int]:
    """Images among the first `count` that have this image among their own first `count`."""
    return {other for other in ranked[image][:count] if image in ranked[other][:count]}


def expanded(ranked: list[list[int]], image: int, k1: int) -> set[int]:
    """The reciprocal set, and the smaller sets of its members that lie in it for more than two thirds."""
    core = reciprocal(ranked, image, k1 + 1)
    result = set(core)
    for member in core:
        candidate = reciprocal(ranked, member, k1 // 2 + 1)
        if len(candidate & core) > 2 / 3 * len(candidate):
            result |= candidate
    return result


def rerank(
    query: Sequence[Vector], gallery: Sequence[Vector], k1: int, k2: int, weight: float
) -> list[list[float]]:
    """Final distances, one list for each query."""
    images = [*query, *gallery]
    everyone = range(len(images))
    distances = [[squared(a, b) for b in images] for a in images]
    ranked = [nearest_first(distances, image) for image in everyone]
    scaled = [[d / max(line) for d in line] for line in distances]
    encodings: list[list[float]] = []
    for image in everyone:
        members = expanded(ranked, image, k1)
        weights = [math.exp(-scaled[image][g]) if g in members else 0.0 for g in everyone]
        encodings.append([w / sum(weights) for w in weights])
    averaged = []
    for image in everyone:
        near = ranked[image][:k2]
        averaged.append([sum(encodings[n][g] for n in near) / len(near) for g in everyone])
    final = []
    for p in range(len(query)):
        line = []
        for g in range(len(query), len(images)):
            least = sum(min(a, b) for a, b in zip(averaged[p], averaged[g], strict=True))
            most = sum(max(a, b) for a, b in zip(averaged[p], averaged[g], strict=True))
            line.append((1 - weight) * (1 - least / most) + weight * scaled[p][g])
        final.append(line)
    return final
