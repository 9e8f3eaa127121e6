"""Where a generator knows what every pixel shows: do streams look at their parts, does attention avoid occluders?

The synthetic world gives a label map with each image. A map is held against it in three ways: the *pointing game* (does
its highest cell lie on the region?), *IoU* (of the region and the map's highest pixels, as many as the region has), and
its share on a region beside the region's share of the area. Each comes with what a blind map would reach.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ccan.errors import ShapeError
from ccan.explain.maps import Picture

Labels = NDArray[np.integer]


@dataclass(frozen=True)
class Grounding:
    """One map against one region of one image; NaN where the region is not in the map's reach.

    Attributes:
        hit: share of the map's highest cell that shows the region, 0 … 1.
        iou: of the region and the map's highest pixels, as many as the region has within the map's reach.
        share: of the map's mass on the region.
        area: of the region in the map's reach: what a blind map's `hit` and `share` are in the mean.
        blind_iou: what a random choice of as many pixels reaches in the mean (area / (2 − area), to first order).
    """

    hit: float
    iou: float
    share: float
    area: float
    blind_iou: float


def ground(picture: Picture, labels: Labels, regions: Sequence[int]) -> Grounding:
    """Hold a map over the image, (H, W), NaN where it does not reach, against some regions of a label map of any size.

    Negative values count as nothing. Raises: ShapeError unless both have two axes.
    """
    if picture.ndim != 2 or labels.ndim != 2:
        raise ShapeError(
            f"expected a map and labels (H, W), got {picture.shape} and {labels.shape}"
        )
    reach = np.isfinite(picture)
    region = np.isin(labels_like(labels, picture.shape), list(regions))[reach]
    values = np.maximum(picture[reach].astype(np.float64), 0)
    area = float(region.mean()) if region.size else 0.0
    if area <= 0 or values.max(initial=0) <= 0:
        return Grounding(np.nan, np.nan, np.nan, area if region.size else np.nan, np.nan)
    highest = values == values.max()
    chosen = np.zeros(len(values), bool)
    chosen[np.argsort(-values, kind="stable")[: int(region.sum())]] = True
    both, either = int((chosen & region).sum()), int((chosen | region).sum())
    return Grounding(
        hit=float(region[highest].mean()),
        iou=both / either,
        share=float(values[region].sum() / values.sum()),
        area=area,
        blind_iou=area / (2 - area),
    )


def labels_like(labels: Labels, shape: tuple[int, ...]) -> Labels:
    """A label map sampled at the middles of the pixels of another size."""
    rows, columns = (
        ((np.arange(size) + 0.5) * have / size).astype(int)
        for size, have in zip(shape, labels.shape, strict=True)
    )
    return labels[rows[:, None], columns[None, :]]


def mean_grounding(found: Sequence[Grounding]) -> tuple[Grounding, int]:
    """Means over the images where the region is in reach and the map has any contrast to nothing, and their number."""
    counted = [one for one in found if np.isfinite(one.hit)]
    if not counted:
        return Grounding(*[np.nan] * 5), 0
    rows = np.array([[one.hit, one.iou, one.share, one.area, one.blind_iou] for one in counted])
    return Grounding(*map(float, rows.mean(axis=0))), len(counted)
