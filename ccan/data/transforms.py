"""Pixels in, network input out: the paper's augmentation (section 4.1) and the test-time resize.

Pictures travel as uint8 (H, W, 3) arrays until the last moment; the network's input is float32 (3, H, W), RGB,
normalised with ImageNet's mean and standard deviation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

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


_MEAN, _STD = (np.array(values, np.float32) for values in (IMAGENET_MEAN, IMAGENET_STD))
_SCALE, _SHIFT = np.float32(1 / 255) / _STD, _MEAN / _STD


def normalize(pixels: np.ndarray) -> torch.Tensor:
    """uint8 (H, W, 3) in 0…255 → float32 (3, H, W), ImageNet-normalised."""
    values = pixels.astype(np.float32) * _SCALE - _SHIFT
    return torch.from_numpy(np.ascontiguousarray(values.transpose(2, 0, 1)))


def prepare_image(image: Image.Image, height: int, width: int) -> torch.Tensor:
    """What the evaluation does to an image: resize, normalise, nothing else → float32 (3, height, width)."""
    return normalize(resize_pixels(image, height, width))


@dataclass(frozen=True)
class Draw:
    """What chance decided for one image; lengths in pixels of the network's input.

    Attributes:
        top, left: corner of the crop in the resized image.
        flip: whether it is mirrored.
        box: (top, left, height, width) of what is erased; an empty box erases nothing.
        colour: colour jitter as RGB′ = M·RGB + o on shares of 1, M (3, 3) and o (3,) in one (3, 4) array; None = none.
    """

    top: int
    left: int
    flip: bool
    box: tuple[int, int, int, int] = (0, 0, 0, 0)
    colour: np.ndarray | None = None


class TrainingAugmentation:
    """Random crop → random horizontal flip → random erasing (section 4.1, Decision D1), and colour jitter if it is on.

    Chance and pixels are apart: `draw` decides for one image, `apply` does it to a whole batch on any device.
    """

    def __init__(self, height: int, width: int, config: DataConfig) -> None:
        self.height, self.width, self.config = height, width, config
        self.resized = (round(height * config.crop_margin), round(width * config.crop_margin))

    def draw(self, epoch: int, generator: np.random.Generator) -> Draw:
        """Decide for one image by the draws of ``generator``; erasing depends on the ``epoch`` (from 0)."""
        config = self.config
        top = int(generator.integers(self.resized[0] - self.height + 1))
        left = int(generator.integers(self.resized[1] - self.width + 1))
        flip = bool(generator.random() < config.flip_probability)
        box, colour = (0, 0, 0, 0), None
        if epoch >= config.erasing_from_epoch and generator.random() < config.erasing_probability:
            box = self._erased_box(generator)
        if config.jitter_probability > 0 and generator.random() < config.jitter_probability:
            colour = self._colour(generator)
        return Draw(top, left, flip, box, colour)

    def apply(self, pixels: torch.Tensor, draws: Sequence[Draw]) -> torch.Tensor:
        """Do to each image what was drawn for it. The input is not modified.

        Shapes: uint8 (B, resized H, resized W, 3), B draws → float32 (B, 3, H, W), on the pixels' device; in memory
        the channels of a pixel lie together (channels last).
        """
        device = pixels.device
        images = torch.from_numpy(np.arange(len(draws))).to(device)[:, None, None]
        rows, columns = self._cropped(draws)
        cropped = pixels[
            images,
            torch.from_numpy(rows).to(device)[:, :, None],
            torch.from_numpy(columns).to(device)[:, None, :],
        ]  # B H W 3
        values = cropped.float()
        if any(draw.colour is not None for draw in draws):
            values = self._jittered(values, draws)
        values *= torch.from_numpy(_SCALE).to(device)
        values -= torch.from_numpy(_SHIFT).to(device)
        if any(draw.box[2] for draw in draws):
            erased = torch.from_numpy(self._erased(draws)).to(device)
            values.masked_fill_(erased[..., None], 0)  # the ImageNet mean
        return values.permute(0, 3, 1, 2)

    def _cropped(self, draws: Sequence[Draw]) -> tuple[np.ndarray, np.ndarray]:
        """Rows (B, H) and columns (B, W) of the resized images that each pixel comes from."""
        tops, lefts, flips = (
            np.array([getattr(draw, name) for draw in draws])[:, None]
            for name in ("top", "left", "flip")
        )
        across = np.arange(self.width)
        columns = lefts + np.where(flips, across[::-1], across)
        return tops + np.arange(self.height), columns

    def _erased(self, draws: Sequence[Draw]) -> np.ndarray:
        """Which pixels are erased, (B, H, W)."""
        erased = np.zeros((len(draws), self.height, self.width), bool)
        for mask, draw in zip(erased, draws, strict=True):
            top, left, height, width = draw.box
            mask[top : top + height, left : left + width] = True
        return erased

    def _jittered(self, values: torch.Tensor, draws: Sequence[Draw]) -> torch.Tensor:
        """The colours of each image through its matrix, (B, H, W, 3) in 0…255; cut off at both ends."""
        same = np.eye(3, 4)
        matrices = np.stack([same if d.colour is None else d.colour for d in draws])
        colour = torch.from_numpy(matrices).to(values.device, values.dtype)  # B 3 4
        flat = values.flatten(1, 2) @ colour[:, :, :3].transpose(1, 2) + 255 * colour[:, None, :, 3]
        return flat.clamp_(0, 255).reshape(values.shape)

    def _colour(self, generator: np.random.Generator) -> np.ndarray:
        """Brightness, contrast, saturation and hue as one affine map of RGB, (3, 4)."""
        config = self.config
        brightness, contrast, saturation = (
            generator.uniform(max(0.0, 1 - reach), 1 + reach)
            for reach in (
                config.jitter_brightness,
                config.jitter_contrast,
                config.jitter_saturation,
            )
        )
        turn = 2 * math.pi * generator.uniform(-config.jitter_hue, config.jitter_hue)
        return colour_map(brightness, contrast, saturation, turn)

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


_TO_YIQ = np.array(
    [[0.299, 0.587, 0.114], [0.595716, -0.274453, -0.321263], [0.211456, -0.522591, 0.311135]]
)
"""RGB → NTSC's luma and two chromas: saturation stretches the chromas, hue turns them."""


def colour_map(brightness: float, contrast: float, saturation: float, turn: float) -> np.ndarray:
    """RGB′ = M·RGB + o on shares of 1, (3, 4) = [M o]: all four changes at once, because each of them is affine.

    Args:
        brightness: factor of all channels.
        contrast: factor of the distance from middle grey (½).
        saturation: factor of the chromas; 0 = grey.
        turn: of the hue in radians. Luma (NTSC weights) stays.
    """
    cos, sin = saturation * math.cos(turn), saturation * math.sin(turn)
    chroma = np.array([[1, 0, 0], [0, cos, -sin], [0, sin, cos]])
    matrix = contrast * brightness * np.linalg.inv(_TO_YIQ) @ chroma @ _TO_YIQ
    return np.column_stack([matrix, np.full(3, (1 - contrast) / 2)])
