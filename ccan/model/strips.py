"""Horizontal strips: how Z1 and Z2 are cut into parts (section 3.3, Fig. 3; Decision D5)."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from ccan.errors import ShapeError


def strip_bounds(rows: int, parts: int) -> list[tuple[int, int]]:
    """First row and end row (exclusive) of each strip: ⌊s·H/kp⌋ to ⌈(s+1)·H/kp⌉ (Decision D5).

    Strips tile the map where kp divides H; elsewhere neighbours share a row. Raises: ShapeError if parts > rows.
    """
    if not 1 <= parts <= rows:
        raise ShapeError(f"parts must lie between 1 and the map's {rows} rows, got {parts}")
    return [(s * rows // parts, -(-(s + 1) * rows // parts)) for s in range(parts)]


def resized_strips(feature_map: Tensor, parts: int) -> list[Tensor]:
    """Cut a map (B, C, M, N) into kp strips, each resized bilinearly back to (B, C, M, N)."""
    rows, columns = feature_map.shape[-2:]
    return [
        functional.interpolate(
            feature_map[:, :, top:end], size=(rows, columns), mode="bilinear", align_corners=False
        )
        for top, end in strip_bounds(rows, parts)
    ]
