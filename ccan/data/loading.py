"""From files to batches: safe decoding, pixels kept in memory, batches that depend on (seed, epoch) alone.

Each random draw of an epoch comes from a generator seeded by (seed, epoch, place in the epoch). So batches do not
depend on the number of workers, and a resumed run sees exactly the batches of an uninterrupted one.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from ccan.config import DataConfig, EvalConfig, ModelConfig
from ccan.data.listing import IMAGE_SUFFIXES
from ccan.data.records import Sample
from ccan.data.sampler import IdentityBalancedSampler
from ccan.data.transforms import TrainingAugmentation, prepare_image, resize_pixels
from ccan.errors import DatasetError

MAX_PIXELS = 50_000_000
"""Larger images are refused before they are decoded (a small file can unpack to gigabytes)."""


def open_image(source: str | Path | BinaryIO) -> Image.Image:
    """Decode one image wholly, upright (EXIF), as RGB; transparent pixels stand on white.

    Raises: DatasetError that names the file if it is missing, truncated, too large or not an image.
    """
    name = str(source if isinstance(source, str | Path) else getattr(source, "name", "the image"))
    try:
        with Image.open(source) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise DatasetError(
                    f"expected at most {MAX_PIXELS:,} pixels, got {width}×{height}; scale it down"
                )
            image.load()
            return to_rgb(ImageOps.exif_transpose(image))
    except DatasetError as error:
        raise DatasetError(f"{name}: {error}") from error
    except FileNotFoundError as error:
        raise DatasetError(f"{name}: no such image file; check the path") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DatasetError(
            f"{name}: expected at most {MAX_PIXELS:,} pixels, got more ({error}); scale it down"
        ) from error
    except Exception as error:  # damaged bytes make Pillow's decoders raise errors of many kinds
        raise DatasetError(
            f"{name}: expected a readable image, got {error}; the file is damaged, cut off or not an image"
        ) from error


def image_files(folder: str | Path) -> list[Path]:
    """The image files of a folder and of all folders below it, sorted by path; hidden ones are left out.

    Raises: DatasetError if there is no such folder, or no image in it.
    """
    root = Path(folder)
    if not root.is_dir():
        raise DatasetError(f"{root}: expected a folder of images, got none; check the path")
    found = [
        path
        for path in sorted(root.rglob("*"))
        if path.suffix.lower() in IMAGE_SUFFIXES
        and not any(part.startswith(".") for part in path.relative_to(root).parts)
        and path.is_file()
    ]
    if not found:
        kinds = ", ".join(sorted(IMAGE_SUFFIXES))
        raise DatasetError(f"{root}: expected images ({kinds}), got none; check the folder")
    return found


def to_rgb(image: Image.Image) -> Image.Image:
    """Any PIL image as 8-bit RGB; transparent pixels stand on white, 16- and 32-bit grey is stretched to 0…255.

    Raises: DatasetError if a pixel is not a finite number.
    """
    if image.mode.startswith(("I", "F")):  # 16- and 32-bit grey: stretch to 8 bits
        values = np.asarray(image, dtype=np.float64)
        low, high = float(values.min()), float(values.max())
        if not np.isfinite([low, high]).all():
            raise DatasetError("expected finite pixel values, got NaN or infinity; mend the image")
        grey = (values - low) / max(high - low, 1e-12) * 255
        image = Image.fromarray(grey.astype(np.uint8))
    if "A" in image.getbands() or "transparency" in image.info:
        picture = image.convert("RGBA")
        backdrop = Image.new("RGBA", picture.size, "white")
        image = Image.alpha_composite(backdrop, picture)
    return image.convert("RGB")


def find_broken(samples: Sequence[Sample]) -> dict[Path, str]:
    """Images that cannot be decoded, each with the reason."""

    def problem(sample: Sample) -> tuple[Path, str] | None:
        try:
            open_image(sample.path)
        except DatasetError as error:
            return sample.path, str(error)
        return None

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return dict(found for found in pool.map(problem, samples) if found)


class TrainingBatch(NamedTuple):
    """One P×K batch: images (B, 3, H, W), class labels (B,), and the places of the images in the training list."""

    images: torch.Tensor
    labels: torch.Tensor
    indices: torch.Tensor


class TrainingImages(Dataset[tuple[torch.Tensor, int, int]]):
    """Augmented training images, addressed by (index, seed, epoch, place in the epoch)."""

    def __init__(
        self,
        samples: Sequence[Sample],
        labels: Sequence[int],
        model: ModelConfig,
        data: DataConfig,
        progress: bool = False,
    ) -> None:
        self.samples = list(samples)
        self.labels = list(labels)
        self.augment = TrainingAugmentation(model.image_height, model.image_width, data)
        height, width = self.augment.resized
        fits = len(self.samples) * height * width * 3 <= data.keep_decoded_limit_mb * 2**20
        self.pixels = self._decode_all(progress) if data.keep_decoded and fits else None

    def _decode_all(self, progress: bool) -> np.ndarray:
        pixels = np.empty((len(self.samples), *self.augment.resized, 3), np.uint8)

        def decode(index: int) -> None:
            pixels[index] = self._decode(index)

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            done = pool.map(decode, range(len(self.samples)))
            for _ in tqdm(done, "decoding", len(self.samples), disable=not progress, unit="img"):
                pass
        return pixels

    def _decode(self, index: int) -> np.ndarray:
        return resize_pixels(open_image(self.samples[index].path), *self.augment.resized)

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, key: tuple[int, int, int, int]) -> tuple[torch.Tensor, int, int]:
        index, seed, epoch, place = key
        pixels = self._decode(index) if self.pixels is None else self.pixels[index]
        # From 1, because NumPy pads a short seed with zeros: (seed, epoch) is the sampler's.
        generator = np.random.default_rng([seed, epoch, 1 + place])
        return self.augment(pixels, epoch, generator), self.labels[index], index

    def batches_in_epoch(self, data: DataConfig, seed: int, epoch: int) -> int:
        """Number of batches of one epoch; it differs a little from epoch to epoch."""
        return len(_EpochKeys(self.labels, data, seed, epoch))

    def batches(
        self, data: DataConfig, seed: int, epoch: int, pin_memory: bool = False
    ) -> Iterator[TrainingBatch]:
        """The batches of one epoch, the same for every number of workers (Decision D12)."""
        loader = DataLoader(
            self,
            batch_sampler=_EpochKeys(self.labels, data, seed, epoch),
            num_workers=0 if self.pixels is not None else data.workers,
            pin_memory=pin_memory,
            generator=torch.Generator(),  # a loader of its own draws from the global one
        )
        for images, labels, indices in loader:
            yield TrainingBatch(images, labels, indices)


class _EpochKeys:
    """The keys of one epoch's batches, for a DataLoader."""

    def __init__(self, labels: Sequence[int], data: DataConfig, seed: int, epoch: int) -> None:
        sampler = IdentityBalancedSampler(
            labels, data.identities_per_batch, data.images_per_identity
        )
        batches = sampler.epoch(np.random.default_rng([seed, epoch]))
        size = data.batch_size
        self.keys = [
            [(index, seed, epoch, number * size + place) for place, index in enumerate(batch)]
            for number, batch in enumerate(batches)
        ]

    def __iter__(self) -> Iterator[list[tuple[int, int, int, int]]]:
        return iter(self.keys)

    def __len__(self) -> int:
        return len(self.keys)


class TestImages(Dataset[tuple[torch.Tensor | None, int]]):
    """Images as the evaluation sees them: resized and normalised, nothing else (section 4.1).

    With ``skip_broken`` an image that cannot be decoded comes as None and is named in a warning.
    """

    __test__ = False  # not a test case, whatever its name begins with

    def __init__(
        self, paths: Sequence[Path], height: int, width: int, skip_broken: bool = False
    ) -> None:
        self.paths = list(paths)
        self.size = (height, width)
        self.skip_broken = skip_broken

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[torch.Tensor | None, int]:
        try:
            return prepare_image(open_image(self.paths[index]), *self.size), index
        except DatasetError as error:
            if not self.skip_broken:
                raise
            warnings.warn(f"left out: {error}", stacklevel=2)
            return None, index

    def batches(self, config: EvalConfig) -> Iterator[tuple[torch.Tensor, list[int]]]:
        """Batches of images (B, 3, H, W) with their places in ``paths``; broken ones are left out."""
        loader = DataLoader(
            self,
            batch_size=config.batch_size,
            num_workers=config.workers if len(self) > config.batch_size else 0,
            collate_fn=_stack_readable,
            generator=torch.Generator(),
        )
        for images, indices in loader:
            if indices:
                yield images, indices


def _stack_readable(
    items: list[tuple[torch.Tensor | None, int]],
) -> tuple[torch.Tensor, list[int]]:
    readable = [(image, index) for image, index in items if image is not None]
    images = torch.stack([image for image, _ in readable]) if readable else torch.empty(0)
    return images, [index for _, index in readable]
