"""Pixels in, network input out: the paper's augmentation (section 4.1) and the test-time resize.

Pictures travel as uint8 (H, W, 3) arrays until the last moment; the network's input is float32 (3, H, W), RGB,
normalised with ImageNet's mean and standard deviation.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from PIL import Image

from ccan.config import DataConfig

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def resize_pixels(image: Image.Image, height: int, width: int) -> np.ndarray:
    """An RGB image as uint8 (height, width, 3), bilinear with antialiasing."""
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(image, dtype=np.uint8)


def normalize(pixels: np.ndarray) -> torch.Tensor:
    """uint8 (H, W, 3) in 0…255 → float32 (3, H, W), ImageNet-normalised."""
    mean, std = (np.array(values, np.float32) for values in (IMAGENET_MEAN, IMAGENET_STD))
    scale, shift = np.float32(1 / 255) / std, mean / std
    values = pixels.astype(np.float32) * scale - shift
    return torch.from_numpy(np.ascontiguousarray(values.transpose(2, 0, 1)))


def prepare_image(image: Image.Image, height: int, width: int) -> torch.Tensor:
    """What the evaluation does to an image: resize, normalise, nothing else → float32 (3, height, width)."""
    return normalize(resize_pixels(image, height, width))


class TrainingAugmentation:
    """Random crop → random horizontal flip → random erasing (section 4.1, Decision D1).

    Shapes: uint8 (resized H, resized W, 3) → float32 (3, H, W). The input is not modified.
    """

    def __init__(self, height: int, width: int, config: DataConfig) -> None:
        self.height, self.width, self.config = height, width, config
        self.resized = (round(height * config.crop_margin), round(width * config.crop_margin))

    def __call__(
        self, pixels: np.ndarray, epoch: int, generator: np.random.Generator
    ) -> torch.Tensor:
        """Augment one image with the draws of ``generator``; erasing depends on the ``epoch`` (from 0)."""
        top = int(generator.integers(pixels.shape[0] - self.height + 1))
        left = int(generator.integers(pixels.shape[1] - self.width + 1))
        crop = pixels[top : top + self.height, left : left + self.width]
        if generator.random() < self.config.flip_probability:
            crop = crop[:, ::-1]
        image = normalize(crop)
        erasing = epoch >= self.config.erasing_from_epoch
        if erasing and generator.random() < self.config.erasing_probability:
            top, left, height, width = self._erased_box(generator)
            image[:, top : top + height, left : left + width] = 0  # the ImageNet mean
        return image

    def _erased_box(self, generator: np.random.Generator) -> tuple[int, int, int, int]:
        """(top, left, height, width) in pixels; an empty box if no draw of 100 fits in the image."""
        for _ in range(100):
            area = generator.uniform(*self.config.erasing_area) * self.height * self.width
            aspect = generator.uniform(*self.config.erasing_aspect)
            height, width = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if 0 < height <= self.height and 0 < width <= self.width:
                top = int(generator.integers(self.height - height + 1))
                left = int(generator.integers(self.width - width + 1))
                return top, left, height, width
        return 0, 0, 0, 0
