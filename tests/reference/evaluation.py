"""The evaluation protocol by plain loops over single images, written from the rules and not from the package.

Slow and obvious: one query after another, one gallery image after another, Python numbers only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Image:
    """An image as the protocol sees it."""

    feature: Sequence[float]
    identity: int
    camera: int
    name: str | None = None


@dataclass(frozen=True)
class Scores:
    """What one query scores; None where it has no match."""

    positions: list[int]
    kept: int
    ap: float | None
    trapezoid_ap: float | None
    inp: float | None


def distance(a: Sequence[float], b: Sequence[float], kind: str) -> float:
    """Distance of two vectors by its definition."""
    if kind == "cosine":
        lengths = math.sqrt(sum(x * x for x in a)) * math.sqrt(sum(y * y for y in b))
        return 1.0 - sum(x * y for x, y in zip(a, b, strict=True)) / lengths if lengths else 1.0
    squared = sum((x - y) ** 2 for x, y in zip(a, b, strict=True))
    return squared if kind == "squared_euclidean" else math.sqrt(squared)


def is_ignored(query: Image, image: Image) -> bool:
    """Whether the protocol leaves an image out of a query's ranking."""
    if image.identity == -1:
        return True
    if image.identity != query.identity:
        return False
    if query.camera == -1 or image.camera == -1:
        return query.name is not None and query.name == image.name
    return image.camera == query.camera


def score(query: Image, gallery: Sequence[Image], kind: str = "euclidean") -> Scores:
    """Rank by distance, then by place in the gallery; walk down the list and count."""
    kept = [image for image in gallery if not is_ignored(query, image)]
    ranked = sorted(kept, key=lambda image: distance(query.feature, image.feature, kind))
    positions: list[int] = []
    precisions: list[float] = []
    trapezoids: list[float] = []
    for row, image in enumerate(ranked):
        if image.identity != query.identity:
            continue
        found = len(positions) + 1
        before = 1.0 if row == 0 else (found - 1) / row
        precisions.append(found / (row + 1))
        trapezoids.append((before + found / (row + 1)) / 2)
        positions.append(row + 1)
    if not positions:
        return Scores([], len(kept), None, None, None)
    return Scores(
        positions,
        len(kept),
        sum(precisions) / len(positions),
        sum(trapezoids) / len(positions),
        len(positions) / positions[-1],
    )


def mean(values: Sequence[float | None], over_all: bool = False) -> float:
    """Mean over the queries that have a value, or over all of them with 0 for the others."""
    known = [value for value in values if value is not None]
    return sum(known) / (len(values) if over_all else len(known))


def cmc(scores: Sequence[Scores], k: int, over_all: bool = False) -> float:
    """Share of queries with a match among the first k."""
    return mean(
        [float(s.positions[0] <= k) if s.positions else None for s in scores], over_all=over_all
    )
