"""What a camera is: where it stands, and what its lens, sensor and light make of a scene."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from ccan.data.synthetic.backdrop import backdrop
from ccan.data.synthetic.render import Light
from ccan.data.synthetic.world import WorldConfig

CAMERA_STREAM = 3

Box = tuple[float, float, float, float]
"""Left, upper, right, lower in scene pixels."""


@dataclass(frozen=True)
class Camera:
    """What stays the same in every picture of one camera.

    Attributes:
        number: from 1.
        azimuth: middle of the directions people are seen from, radians; 0 = from the front.
        spread: half the range of these directions, radians.
        elevation: lowest and highest angle of looking down, radians.
        light: direction and softness of the light.
        gains: factor on R, G, B, exposure included.
        contrast, saturation: factors around 1.
        native: lowest and highest height of people on the sensor, as shares of the output height.
        blur: radius in output pixels at full resolution.
        noise: standard deviation in grey levels.
        quality: lowest and highest JPEG quality.
    """

    number: int
    azimuth: float
    spread: float
    elevation: tuple[float, float]
    light: Light
    gains: tuple[float, float, float]
    contrast: float
    saturation: float
    native: tuple[float, float]
    blur: float
    noise: float
    quality: tuple[int, int]


def camera_of(config: WorldConfig, number: int) -> Camera:
    """Camera `number` of a world."""
    rng = np.random.default_rng([config.seed, CAMERA_STREAM, number])
    strength = config.cast
    warm, tint = rng.normal(0, 0.022 * strength), rng.normal(0, 0.009 * strength)
    exposure = float(np.exp(np.clip(rng.normal(0, 0.045), -0.09, 0.075) * strength))
    gains = np.exp([warm + tint / 2, -tint, -warm + tint / 2]) * exposure
    side, above = rng.uniform(-0.75, 0.75), rng.uniform(0.35, 0.8)
    direction = np.array([side, -above, rng.uniform(0.45, 0.9)])
    direction /= np.linalg.norm(direction)
    low = float(rng.uniform(0.02, 0.22))
    small = float(rng.uniform(0.26, 0.62))
    quality = int(rng.integers(55, 85))
    return Camera(
        number=number,
        azimuth=2 * np.pi * ((number - 1) * 0.381966 + float(rng.uniform(-0.04, 0.04))),
        spread=float(rng.uniform(0.5, 1.0)),
        elevation=(low, low + 0.16),
        light=Light(tuple(direction.tolist()), float(rng.uniform(0.54, 0.66))),
        gains=tuple(gains.tolist()),
        contrast=float(np.exp(rng.normal(0, 0.03) * strength)),
        saturation=float(np.exp(np.clip(rng.normal(-0.015, 0.052), -0.13, 0.09) * strength)),
        native=(small, min(1.0, small * 1.5)),
        blur=float(rng.uniform(0.0, 0.8)),
        noise=float(rng.uniform(1.0, 4.0)),
        quality=(quality, quality + 12),
    )


@lru_cache(maxsize=16)
def station(config: WorldConfig, number: int) -> tuple[Camera, NDArray[np.uint8]]:
    """A camera and its background, kept for the next shot."""
    return camera_of(config, number), backdrop(config, number)


def expose(
    config: WorldConfig,
    camera: Camera,
    scene: NDArray[np.uint8],
    box: Box,
    aligned_height: float,
    rng: np.random.Generator,
) -> Image.Image:
    """What the camera makes of a box of a scene: sensor size, light, cast, blur, noise, at the output size.

    A box lower than the well-aligned one, `aligned_height` scene pixels, gets as many fewer pixels on the sensor.
    """
    share = float(rng.uniform(*camera.native)) * (box[3] - box[1]) / aligned_height
    size = (max(8, round(config.width * share)), max(16, round(config.height * share)))
    image = Image.fromarray(scene).resize(size, Image.Resampling.BILINEAR, box=box)
    radius = float(camera.blur * share * config.height / 256)
    if radius > 0.15:
        image = image.filter(ImageFilter.GaussianBlur(radius))
    pixels = np.asarray(image, np.float32)
    gains = np.array(camera.gains) * np.exp(rng.normal(0, 0.03 * config.cast))
    gains *= np.exp(rng.normal(0, 0.011 * config.cast, 3))
    pixels = pixels * gains.astype(np.float32)
    grey = pixels @ np.array([0.299, 0.587, 0.114], np.float32)
    pixels = grey[..., None] + np.float32(camera.saturation) * (pixels - grey[..., None])
    slope = np.linspace(-1, 1, size[0], dtype=np.float32) * np.float32(rng.normal(0, 0.05))
    pixels *= (1 + slope)[None, :, None]
    pixels = (pixels - np.float32(118)) * np.float32(camera.contrast) + np.float32(118)
    noise = rng.standard_normal(pixels.shape, dtype=np.float32)
    pixels += noise * np.float32(camera.noise)
    image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    return image.resize((config.width, config.height), Image.Resampling.BICUBIC)
