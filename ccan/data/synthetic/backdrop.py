"""The fixed, cluttered background of a camera: a street with facades, windows, signs, trees, cars and paving."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from ccan.data.synthetic.people import COLOURS
from ccan.data.synthetic.wardrobe import smooth_noise
from ccan.data.synthetic.world import WorldConfig

BACKDROP_STREAM = 5
_WALLS = ((146, 126, 116), (143, 124, 114), (150, 128, 118), (176, 152, 140), (140, 121, 112))
_GROUNDS = ((144, 126, 116), (148, 130, 120), (140, 121, 112), (145, 125, 114))


def backdrop(config: WorldConfig, camera: int) -> NDArray[np.uint8]:
    """The background of a camera, (1.75 × scene height, 6 × scene width, 3); windows of it stand behind people."""
    rng = np.random.default_rng([config.seed, BACKDROP_STREAM, camera])
    unit = config.height / 256
    height, width = round(600 * unit), round(1050 * config.width / 128)
    horizon = height * rng.uniform(0.42, 0.52)
    ground = tuple(_GROUNDS[int(rng.integers(len(_GROUNDS)))])
    image = Image.new("RGB", (width, height), ground)
    draw = ImageDraw.Draw(image)
    _paving(draw, width, height, horizon, ground, rng)
    _facades(draw, width, horizon, unit, rng)
    _clutter(draw, width, height, horizon, unit, rng)
    image = image.filter(ImageFilter.GaussianBlur(1.3 * unit))
    pixels = np.asarray(image, np.float32)
    patches = smooth_noise(rng, (height, width), (7, 13))
    grain = rng.normal(0, 0.025, (height, width)).astype(np.float32)
    pixels = pixels * (1 + 0.08 * patches + grain)[..., None]
    return np.clip(pixels, 0, 255).astype(np.uint8)


def _shade(colour: Any, factor: float) -> tuple[int, int, int]:
    red, green, blue = (int(np.clip(value * factor, 0, 255)) for value in colour)
    return red, green, blue


def _any_colour(rng: np.random.Generator) -> tuple[int, int, int]:
    """A paint of the street: a cloth colour, faded towards grey so that people stand out."""
    red, green, blue = COLOURS[str(rng.choice(list(COLOURS)))]
    grey = 60 + 0.2 * (red + green + blue) / 3
    return int(grey + 0.42 * red), int(grey + 0.42 * green), int(grey + 0.42 * blue)


def _paving(
    draw: ImageDraw.ImageDraw,
    width: int,
    height: int,
    horizon: float,
    ground: tuple[int, ...],
    rng: np.random.Generator,
) -> None:
    """Joints that run to a vanishing point, and cross joints that grow with nearness."""
    dark, vanishing = _shade(ground, 0.86), width * float(rng.uniform(0.2, 0.8))
    steps = int(rng.integers(14, 34))
    for x in np.linspace(-2 * width, 3 * width, steps * 3):
        draw.line([(vanishing, horizon), (float(x), height)], fill=dark, width=2)
    for k in range(1, 14):
        y = horizon + (height - horizon) * (k / 13) ** 1.7
        draw.line([(0, y), (width, y)], fill=dark, width=2)
    if rng.random() < 0.6:
        y = horizon + (height - horizon) * float(rng.uniform(0.1, 0.4))
        draw.rectangle([0, y, width, y + 9], fill=_shade(ground, 1.25))
        draw.rectangle([0, y + 9, width, y + 14], fill=_shade(ground, 0.7))


def _facades(
    draw: ImageDraw.ImageDraw, width: int, horizon: float, unit: float, rng: np.random.Generator
) -> None:
    """Houses side by side with windows, doors and shop signs."""
    left = 0.0
    while left < width:
        wide = float(rng.uniform(140, 320)) * unit
        wall = _WALLS[int(rng.integers(len(_WALLS)))]
        wall = _shade(wall, float(rng.uniform(0.9, 1.06)))
        draw.rectangle([left, 0, left + wide, horizon], fill=wall)
        glass = _shade((92, 106, 122), float(rng.uniform(0.45, 1.3)))
        column, row = float(rng.uniform(38, 70)) * unit, float(rng.uniform(52, 90)) * unit
        for x in np.arange(left + column * 0.3, left + wide - column * 0.6, column):
            for y in np.arange(horizon - row * 1.7, -row, -row):
                draw.rectangle([x, y, x + column * 0.6, y + row * 0.62], fill=glass)
                draw.line([(x + column * 0.3, y), (x + column * 0.3, y + row * 0.62)], fill=wall)
        if rng.random() < 0.6:
            y = horizon - row * 1.05
            draw.rectangle([left + 8, y, left + wide - 8, y + 16 * unit], fill=_any_colour(rng))
            draw.rectangle(
                [left + 14, y + 20 * unit, left + wide - 14, horizon - 4], fill=_shade(glass, 0.8)
            )
        door = left + float(rng.uniform(0.1, 0.8)) * wide
        draw.rectangle(
            [door, horizon - 74 * unit, door + 34 * unit, horizon], fill=_shade(wall, 0.45)
        )
        left += wide


def _clutter(
    draw: ImageDraw.ImageDraw,
    width: int,
    height: int,
    horizon: float,
    unit: float,
    rng: np.random.Generator,
) -> None:
    """Trees, cars, bins, benches, posters and lamp posts, the far ones first."""
    for y in np.sort(rng.uniform(horizon, horizon + 0.35 * (height - horizon), 13)):
        x = float(rng.uniform(0, width))
        kind = int(rng.integers(5))
        size = unit * (0.7 + 1.2 * (y - horizon) / (height - horizon))
        colour = _any_colour(rng)
        if kind == 0:
            draw.rectangle([x - 6 * size, y - 150 * size, x + 6 * size, y], fill=(84, 66, 50))
            for _ in range(14):
                u, v = (
                    x + float(rng.normal(0, 34)) * size,
                    y - (165 + float(rng.normal(0, 26))) * size,
                )
                r, leaf = 24 * size, _shade((76, 104, 58), float(rng.uniform(0.6, 1.2)))
                draw.ellipse([u - r, v - r, u + r, v + r], fill=leaf)
        elif kind == 1:
            w, h = 120 * size, 34 * size
            draw.rounded_rectangle([x - w, y - 1.5 * h, x + w, y - 0.3 * h], 10 * size, fill=colour)
            roof = [x - 0.6 * w, y - 2.5 * h, x + 0.55 * w, y - 1.4 * h]
            draw.rounded_rectangle(roof, 12 * size, fill=_shade(colour, 0.45))
            for wheel in (x - 0.6 * w, x + 0.6 * w):
                r = 17 * size
                draw.ellipse([wheel - r, y - 2 * r, wheel + r, y], fill=(30, 30, 32))
        elif kind == 2:
            draw.rectangle(
                [x - 18 * size, y - 58 * size, x + 18 * size, y], fill=_shade(colour, 0.8)
            )
            draw.rectangle(
                [x - 20 * size, y - 64 * size, x + 20 * size, y - 56 * size], fill=(50, 52, 54)
            )
        elif kind == 3:
            draw.rectangle(
                [x - 34 * size, y - 150 * size, x + 34 * size, y - 50 * size], fill=colour
            )
            draw.rectangle(
                [x - 22 * size, y - 135 * size, x + 22 * size, y - 100 * size],
                fill=_any_colour(rng),
            )
            draw.rectangle([x - 4 * size, y - 50 * size, x + 4 * size, y], fill=(70, 72, 74))
        else:
            draw.rectangle([x - 3 * size, 0, x + 3 * size, y], fill=(64, 66, 70))
