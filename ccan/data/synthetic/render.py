"""Rounded solids into pixels: a z-buffer of tapered, flattened capsules with wrapped textures.

A *solid* runs from a top to a bottom point; its cross-section at t ∈ [0, 1] is an ellipse of half-widths a(t) (to the
body's left) and b(t) (forward). Seen from azimuth θ that ellipse has the half-width w = √(a²cos²θ + b²sin²θ), and the
surface point that projects to w·sin u, u ∈ [-π/2, π/2], lies at the ellipse angle φ = ψ + u, ψ = atan2(b sin θ,
a cos θ), at the depth (ab/w)·cos u + ((a²-b²) sin θ cos θ / w)·sin u. So each pixel knows its depth, its normal and
its place (t, φ) on the cloth, and stripes wrap round a limb as they should.

Axes: body x = the person's left, y = up, z = forward, in metres; screen x = right, y = down in pixels, z = towards the
camera in pixels. θ = 0 looks at the face, θ = 90° at the person's left side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

PROFILE = 48
"""Samples of a solid's half-widths along its axis."""


@dataclass(frozen=True)
class Solid:
    """A tapered capsule in body coordinates.

    Attributes:
        top, bottom: ends of the axis, metres.
        a, b: half-widths at equal steps along the axis (any number ≥ 1), sideways and forward, metres.
        cloth: name of its texture in the atlas.
        cap: roundness of the ends; 1 = half a ball, 0 = flat.
        yaw: turn of the cross-section against the body, radians.
    """

    top: tuple[float, float, float]
    bottom: tuple[float, float, float]
    a: tuple[float, ...]
    b: tuple[float, ...]
    cloth: str
    cap: float = 1.0
    yaw: float = 0.0


@dataclass(frozen=True)
class Atlas:
    """All textures of one figure, flattened: texel (i, j) of a texture of `columns` stands at start + i·columns + j.

    Attributes:
        colours: (K, 3) float32 albedo in [0, 255].
        labels: (K,) uint8 regions.
        places: texture name → (start, rows, columns); rows run along t, columns round φ from 0 to 2π.
    """

    colours: Floats
    labels: NDArray[np.uint8]
    places: dict[str, tuple[int, int, int]]


@dataclass(frozen=True)
class View:
    """A weak-perspective camera: where it stands and how body metres become pixels.

    Attributes:
        azimuth: θ, radians.
        elevation: angle of looking down, radians.
        scale: pixels per metre at the body's axis.
        origin: pixel (x, y) of the point on the ground beneath the body.
        distance: metres from the camera to the body, for the growth of what is near.
        depth: metres by which the whole figure stands nearer than the main person.
    """

    azimuth: float
    elevation: float
    scale: float
    origin: tuple[float, float]
    distance: float = 9.0
    depth: float = 0.0

    @cached_property
    def _turn(self) -> tuple[float, float, float, float]:
        angles = (self.azimuth, self.elevation)
        sin_a, cos_a, sin_e, cos_e = (float(f(x)) for x in angles for f in (np.sin, np.cos))
        return sin_a, cos_a, sin_e, cos_e

    def project(self, point: tuple[float, float, float]) -> tuple[float, float, float, float]:
        """Screen x, y, z in pixels and the local pixels per metre of a body point."""
        x, y, z = point
        sin_a, cos_a, sin_e, cos_e = self._turn
        near = x * sin_a + z * cos_a
        depth = near * cos_e + y * sin_e
        scale = self.scale * self.distance / (self.distance - depth)
        across = (x * cos_a - z * sin_a) * scale
        down = (near * sin_e - y * cos_e) * scale
        z_screen = (depth + self.depth) * self.scale
        return self.origin[0] + across, self.origin[1] + down, z_screen, scale


@dataclass(frozen=True)
class Light:
    """Direction towards the light in screen axes (unit length), and the share of light from everywhere."""

    direction: tuple[float, float, float]
    ambient: float


class Canvas:
    """A z-buffer that remembers texels and shading, and is resolved to colours and labels at the end."""

    def __init__(self, height: int, width: int) -> None:
        self.depth: Floats = np.full((height, width), -1e9, np.float32)
        self.texel: NDArray[np.int32] = np.zeros((height, width), np.int32)
        self.shade: Floats = np.ones((height, width), np.float32)
        self._colours: list[Floats] = [np.zeros((1, 3), np.float32)]
        self._labels: list[NDArray[np.uint8]] = [np.zeros(1, np.uint8)]
        self._texels = 1

    def draw(
        self,
        solids: Sequence[Solid],
        atlas: Atlas,
        view: View,
        light: Light,
        label: int | None = None,
    ) -> None:
        """Rasterise a figure; `label` overrides the atlas's regions (for occluders and bystanders)."""
        start = self._texels
        self._colours.append(atlas.colours)
        labels = atlas.labels
        self._labels.append(labels if label is None else np.full_like(labels, label))
        self._texels += len(labels)
        for solid in solids:
            self._draw_solid(solid, atlas.places[solid.cloth], start, view, light)

    def _draw_solid(
        self, solid: Solid, place: tuple[int, int, int], start: int, view: View, light: Light
    ) -> None:
        x0, y0, z0, scale0 = view.project(solid.top)
        x1, y1, z1, scale1 = view.project(solid.bottom)
        profile = _profile(solid, view, scale0, scale1)
        reach = float(profile.half.max()) + 1.0
        height, width = self.depth.shape
        left, right = max(0, int(min(x0, x1) - reach)), min(width, int(max(x0, x1) + reach) + 1)
        upper, lower = max(0, int(min(y0, y1) - reach)), min(height, int(max(y0, y1) + reach) + 1)
        if left >= right or upper >= lower:
            return
        length = max(float(np.hypot(x1 - x0, y1 - y0)), 1e-3)
        dx, dy = (x1 - x0) / length, (y1 - y0) / length
        if length < 0.01:
            dx, dy = 0.0, 1.0
        columns = np.arange(left, right, dtype=np.float32) + np.float32(0.5 - x0)
        rows = (np.arange(upper, lower, dtype=np.float32) + np.float32(0.5 - y0))[:, None]
        along = columns * np.float32(dx) + rows * np.float32(dy)
        across = columns * np.float32(dy) - rows * np.float32(dx)
        t = along * np.float32(1 / length)
        np.clip(t, 0.0, 1.0, out=t)
        step = (t * np.float32(PROFILE - 1) + np.float32(0.5)).astype(np.intp)
        half = profile.half.take(step)
        beyond = along - t * np.float32(length)
        square = half * half - across * across
        square -= (beyond * beyond) * np.float32(1 / max(solid.cap, 0.03) ** 2)
        rise = np.sqrt(np.maximum(square, 0.0))
        z = np.float32(z0) + t * np.float32(z1 - z0)
        z += profile.bulge.take(step) * rise + profile.shear.take(step) * across
        seen = np.flatnonzero((square > 0) & (z > self.depth[upper:lower, left:right]))
        if not len(seen):
            return
        row, column = np.divmod(seen, right - left)
        pixel = (row + upper) * width + (column + left)
        self.depth.ravel()[pixel] = z.take(seen)
        step, across, rise = step.take(seen), across.take(seen), rise.take(seen)
        lx, ly, lz = light.direction
        facing = across * np.float32(lx * dy - ly * dx) + rise * np.float32(lz)
        facing += beyond.take(seen) * np.float32((lx * dx + ly * dy) / max(solid.cap, 0.25))
        facing /= half.take(seen)
        np.clip(facing, 0.0, 1.0, out=facing)
        self.shade.ravel()[pixel] = (
            np.float32(light.ambient) + np.float32(1 - light.ambient) * facing
        )
        angle = profile.phase.take(step) + np.arctan2(across, rise)
        self.texel.ravel()[pixel] = _texels(place, t.take(seen), angle) + start

    def paint_over(self, ground: Floats) -> None:
        """Put the shaded colours of everything drawn onto a ground (H, W, 3) in [0, 255]; in place."""
        place = np.flatnonzero(self.texel)
        colours = np.concatenate(self._colours)[self.texel.ravel()[place]]
        colours *= self.shade.ravel()[place][:, None]
        ground.reshape(-1, 3)[place] = colours

    def labels(self) -> NDArray[np.uint8]:
        """Regions (H, W) uint8."""
        return np.concatenate(self._labels)[self.texel]


def _texels(
    place: tuple[int, int, int], t: NDArray[np.floating], angle: NDArray[np.floating]
) -> NDArray[np.int32]:
    """Places in the atlas of points at t along and `angle` ≥ 0 (radians) round a solid."""
    first, rows, around = place
    row = (t * np.float32(rows - 1e-3)).astype(np.int32)
    column = (angle * np.float32(around / (2 * np.pi))).astype(np.int32) % around
    return row * around + column + first


@dataclass(frozen=True)
class _Profile:
    """Tables over t in pixels: half-width, depth per unit of height and of across, angle φ at the middle."""

    half: Floats
    bulge: Floats
    shear: Floats
    phase: Floats


_STEPS = np.linspace(0.0, 1.0, PROFILE)


def _profile(solid: Solid, view: View, scale0: float, scale1: float) -> _Profile:
    scale = scale0 + (scale1 - scale0) * _STEPS
    a, b = (
        np.interp(_STEPS * (len(side) - 1), np.arange(len(side)), side) * scale
        for side in (solid.a, solid.b)
    )
    angle = view.azimuth - solid.yaw
    sin, cos = np.sin(angle), np.cos(angle)
    half = np.maximum(np.hypot(a * cos, b * sin), 1e-3)
    return _Profile(
        half=half.astype(np.float32),
        bulge=(a * b / half**2).astype(np.float32),
        shear=((a * a - b * b) * (sin * cos) / half**2).astype(np.float32),
        phase=np.mod(np.arctan2(b * sin, a * cos), 2 * np.pi).astype(np.float32)
        + np.float32(2 * np.pi),
    )
