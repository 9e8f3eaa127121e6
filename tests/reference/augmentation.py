"""The training augmentation of one image in NumPy, one step after the other (section 4.1, Decision D1)."""

from __future__ import annotations

import math

import numpy as np

from ccan.config import DataConfig

MEAN, STD = np.array((0.485, 0.456, 0.406)), np.array((0.229, 0.224, 0.225))


def augmented(
    pixels: np.ndarray, size: tuple[int, int], config: DataConfig, epoch: int, generator: np.random.Generator
) -> np.ndarray:  # fmt: skip
    """uint8 (resized H, resized W, 3) → (3, H, W): crop, mirror, normalise, erase, in the order of the draws."""
    height, width = size
    top = int(generator.integers(pixels.shape[0] - height + 1))
    left = int(generator.integers(pixels.shape[1] - width + 1))
    crop = pixels[top : top + height, left : left + width]
    if generator.random() < config.flip_probability:
        crop = crop[:, ::-1]
    image = ((crop / 255 - MEAN) / STD).transpose(2, 0, 1)
    if epoch >= config.erasing_from_epoch and generator.random() < config.erasing_probability:
        for _ in range(100):
            area = generator.uniform(*config.erasing_area) * height * width
            aspect = generator.uniform(*config.erasing_aspect)
            tall, wide = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if 0 < tall <= height and 0 < wide <= width:
                top = int(generator.integers(height - tall + 1))
                left = int(generator.integers(width - wide + 1))
                image[:, top : top + tall, left : left + wide] = 0
                break
    return image
