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
from ccan.data.prefetch import prefetched
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
    """One P×K batch on the training device: images (B, 3, H, W), class labels (B,).

    ``indices``, on the CPU, are the places of the images in the training list.
    """

    images: torch.Tensor
    labels: torch.Tensor
    indices: torch.Tensor


class TrainingImages:
    """Augmented training images in P×K batches, on the device that trains.

    Pixels are decoded once and kept as uint8, on a CUDA device even there, if they fit; otherwise processes decode them
    anew for each batch. What chance does to an image depends on (seed, epoch, its place in the epoch) alone.

    Args:
        samples, labels: the training list and the class of each image.
        model, data: settings.
        progress: show a bar while decoding.
        device: where batches are wanted.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        labels: Sequence[int],
        model: ModelConfig,
        data: DataConfig,
        progress: bool = False,
        device: torch.device | str = "cpu",
    ) -> None:
        self.samples = list(samples)
        self.labels = list(labels)
        self.device = torch.device(device)
        self.augment = TrainingAugmentation(model.image_height, model.image_width, data)
        self.decoder = _Decoder(self.samples, *self.augment.resized)
        height, width = self.augment.resized
        fits = len(self.samples) * height * width * 3 <= data.keep_decoded_limit_mb * 2**20
        self.pixels = self._decode_all(progress) if data.keep_decoded and fits else None
        if self.pixels is not None and data.pixels_on_device and self.device.type == "cuda":
            self.pixels = self.pixels.to(self.device)

    def _decode_all(self, progress: bool) -> torch.Tensor:
        """uint8 (N, resized H, resized W, 3)."""
        pixels = np.empty((len(self.samples), *self.augment.resized, 3), np.uint8)

        def decode(index: int) -> None:
            pixels[index] = self.decoder[index]

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            done = pool.map(decode, range(len(self.samples)))
            for _ in tqdm(done, "decoding", len(self.samples), disable=not progress, unit="img"):
                pass
        return torch.from_numpy(pixels)

    def __len__(self) -> int:
        return len(self.samples)

    def batches_in_epoch(self, data: DataConfig, seed: int, epoch: int, processes: int = 1) -> int:
        """Number of batches of one epoch in each process; it differs a little from epoch to epoch."""
        return len(self._dealt(data, seed, epoch, processes))

    def batches(
        self, data: DataConfig, seed: int, epoch: int, *, rank: int = 0, processes: int = 1
    ) -> Iterator[TrainingBatch]:
        """The batches of one epoch, the same for every number of workers (Decision D12).

        With several training processes each step deals P·processes identities, of which process ``rank`` takes its own
        P: no identity stands in two of them. The next batch is made while the caller works on one.
        """
        share = data.batch_size
        dealt = self._dealt(data, seed, epoch, processes)
        first = [(number * processes + rank) * share for number in range(len(dealt))]
        mine = [batch[rank * share : (rank + 1) * share] for batch in dealt]
        return prefetched(self._made(mine, first, data.workers, seed, epoch))

    def _dealt(self, data: DataConfig, seed: int, epoch: int, processes: int) -> list[list[int]]:
        sampler = IdentityBalancedSampler(
            self.labels, data.identities_per_batch, data.images_per_identity, processes
        )
        return sampler.epoch(np.random.default_rng([seed, epoch]))

    def _made(
        self,
        batches: list[list[int]],
        first: Sequence[int],
        workers: int,
        seed: int,
        epoch: int,
    ) -> Iterator[TrainingBatch]:
        """Batches of these images, whose places in the epoch begin at ``first``."""
        labels = torch.tensor(self.labels)
        for batch, place, pixels in zip(
            batches, first, self._pixels(batches, workers), strict=True
        ):
            # From 1, because NumPy pads a short seed with zeros: (seed, epoch) is the sampler's.
            draws = [
                self.augment.draw(epoch, np.random.default_rng([seed, epoch, 1 + place + number]))
                for number in range(len(batch))
            ]
            indices = torch.tensor(batch)
            images = self.augment.apply(pixels.to(self.device, non_blocking=True), draws)
            yield TrainingBatch(images, labels[indices].to(self.device, non_blocking=True), indices)

    def _pixels(self, batches: list[list[int]], workers: int) -> Iterator[torch.Tensor]:
        """uint8 (B, resized H, resized W, 3) of each batch."""
        if self.pixels is not None:
            for batch in batches:
                yield self.pixels[torch.tensor(batch).to(self.pixels.device)]
            return
        yield from DataLoader(
            self.decoder,
            batch_sampler=batches,
            num_workers=workers,
            collate_fn=_stack_pixels,
            pin_memory=self.device.type == "cuda",
            generator=torch.Generator(),  # a loader of its own draws from the global one
        )


def _stack_pixels(pixels: list[np.ndarray]) -> torch.Tensor:
    return torch.from_numpy(np.stack(pixels))


class _Decoder(Dataset[np.ndarray]):
    """Pixels of training images, uint8 (height, width, 3); what decoding processes run."""

    def __init__(self, samples: Sequence[Sample], height: int, width: int) -> None:
        self.samples, self.size = samples, (height, width)

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> np.ndarray:
        return resize_pixels(open_image(self.samples[index].path), *self.size)


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
