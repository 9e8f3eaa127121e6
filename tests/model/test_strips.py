"""Horizontal strips (Decision D5): boundaries, the bilinear resize, and the way back to rows of the uncut map."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from ccan.errors import ShapeError
from ccan.model.strips import resized_strips, strip_bounds
from tests.reference.network import stretched_strip, strip_rows

Cutter = Callable[[Tensor, int], list[Tensor]]


def test_boundaries_worked_by_hand() -> None:
    assert strip_bounds(32, 4) == [(0, 8), (8, 16), (16, 24), (24, 32)]
    assert strip_bounds(16, 1) == [(0, 16)]
    assert strip_bounds(16, 6) == [(0, 3), (2, 6), (5, 8), (8, 11), (10, 14), (13, 16)]
    assert strip_bounds(32, 6) == [(0, 6), (5, 11), (10, 16), (16, 22), (21, 27), (26, 32)]


def test_boundaries_follow_the_paper_for_every_height() -> None:
    for rows in range(1, 41):
        for parts in range(1, rows + 1):
            bounds = strip_bounds(rows, parts)
            assert bounds == [strip_rows(rows, parts, s) for s in range(parts)]
            covered = [row for top, end in bounds for row in range(top, end)]
            assert set(covered) == set(range(rows))
            if rows % parts == 0:
                assert len(covered) == rows  # they tile


def test_strips_of_z1_and_z2_differ_by_some_pixels_at_six_parts() -> None:
    """Documented in D5: in pixels, Z1's second strip begins at 5·8 and Z2's at 2·16."""
    in_pixels = {stride: strip_bounds(256 // stride, 6)[1] for stride in (8, 16)}
    assert in_pixels[8][0] * 8 == 40 and in_pixels[16][0] * 16 == 32
    assert [8 * top for top, _ in strip_bounds(32, 4)] == [
        16 * top for top, _ in strip_bounds(16, 4)
    ]


@pytest.mark.parametrize(("rows", "parts"), [(0, 1), (4, 0), (4, 5), (4, -1)])
def test_impossible_cuts_are_errors(rows: int, parts: int) -> None:
    with pytest.raises(ShapeError, match=f"between 1 and the map's {rows} rows, got {parts}"):
        strip_bounds(rows, parts)


def assert_strips_equal_twin(cut: Cutter) -> None:
    generator = torch.Generator().manual_seed(2)
    for rows, columns, parts in ((7, 3, 2), (8, 3, 4), (16, 5, 6), (5, 2, 5), (6, 5, 1)):
        maps = torch.randn(2, 3, rows, columns, generator=generator, dtype=torch.float64)
        before = maps.clone()
        strips = cut(maps, parts)
        assert len(strips) == parts and torch.equal(maps, before)
        for s, strip in enumerate(strips):
            expected = stretched_strip(maps, parts, s)
            np.testing.assert_allclose(strip.numpy(), expected.numpy(), rtol=0, atol=1e-12)


def test_strips_equal_the_twin() -> None:
    assert_strips_equal_twin(resized_strips)


def test_one_part_is_the_map_itself() -> None:
    maps = torch.randn(1, 2, 5, 3)
    torch.testing.assert_close(resized_strips(maps, 1)[0], maps, rtol=0, atol=0)


def test_a_resize_worked_by_hand() -> None:
    """Two rows (0, 8) stretched to four: half-pixel centres give 0, 1/4·8, 3/4·8, 8."""
    column = torch.tensor([0.0, 8.0, 80.0, 88.0]).view(1, 1, 4, 1)
    first, second = resized_strips(column, 2)
    assert first.flatten().tolist() == [0.0, 2.0, 6.0, 8.0]
    assert second.flatten().tolist() == [80.0, 82.0, 86.0, 88.0]


def test_planted_mistakes_are_rejected() -> None:
    def aligned_corners(maps: Tensor, parts: int) -> list[Tensor]:
        size = (int(maps.shape[2]), int(maps.shape[3]))
        return [
            functional.interpolate(maps[:, :, a:b], size, mode="bilinear", align_corners=True)
            for a, b in strip_bounds(maps.shape[2], parts)
        ]

    def floors_only(maps: Tensor, parts: int) -> list[Tensor]:
        rows, size = maps.shape[2], (int(maps.shape[2]), int(maps.shape[3]))
        return [
            functional.interpolate(
                maps[:, :, s * rows // parts : (s + 1) * rows // parts], size, mode="bilinear"
            )
            for s in range(parts)
        ]

    def bottom_up(maps: Tensor, parts: int) -> list[Tensor]:
        return resized_strips(maps, parts)[::-1]

    def nearest(maps: Tensor, parts: int) -> list[Tensor]:
        size = (int(maps.shape[2]), int(maps.shape[3]))
        return [
            functional.interpolate(maps[:, :, a:b], size)
            for a, b in strip_bounds(maps.shape[2], parts)
        ]

    for mistake in (aligned_corners, floors_only, bottom_up, nearest):
        with pytest.raises(AssertionError):
            assert_strips_equal_twin(mistake)
