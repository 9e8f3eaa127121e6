"""Multi-query pooling and query expansion by plain loops, written from the rules alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from tests.reference.evaluation import Image


def unit(vector: Sequence[float]) -> list[float]:
    """The vector over its length; a zero vector stays zero."""
    length = math.sqrt(sum(x * x for x in vector))
    return [x / length for x in vector] if length else list(vector)


def pool(query: Image, extra: Sequence[Image], pooling: str) -> list[float]:
    """Unit vectors of the query's identity and camera, pooled number by number; the query itself if there are none."""
    view = [
        unit(image.feature)
        for image in extra
        if image.identity == query.identity != -1 and image.camera == query.camera != -1
    ]
    if not view:
        return unit(query.feature)
    combine: Callable[[Sequence[float]], float] = max
    if pooling == "mean":
        combine = lambda values: sum(values) / len(values)  # noqa: E731
    return unit([combine(numbers) for numbers in zip(*view, strict=True)])


def expand(
    feature: Sequence[float], gallery: Sequence[Sequence[float]], neighbours: int, alpha: float
) -> list[float]:
    """The unit query plus its most similar gallery images, each times max(0, similarity)^alpha; then unit length."""
    own, images = unit(feature), [unit(image) for image in gallery]
    similarity = [sum(x * y for x, y in zip(own, image, strict=True)) for image in images]
    nearest = sorted(range(len(images)), key=lambda place: -similarity[place])[:neighbours]
    total = own
    for place in nearest:
        weight = max(0.0, similarity[place]) ** alpha
        total = [x + weight * y for x, y in zip(total, images[place], strict=True)]
    return unit(total)
