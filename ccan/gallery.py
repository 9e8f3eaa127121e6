"""An indexed dataset: descriptors of its query and gallery images with thumbnails, made once and kept on disk.

An index belongs to one checkpoint and one list of images. Its folder is named by a hash of both, so another checkpoint
or a changed image never meets an old index; a damaged index is made again, never trusted.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from ccan.data.loading import open_image
from ccan.data.records import ReIDDataset, Sample
from ccan.errors import DatasetError
from ccan.evaluation.extraction import fingerprint
from ccan.evaluation.feature_set import FeatureSet
from ccan.evaluation.features import feature_set_of
from ccan.files import atomic_path, cache_folder, remove_leftovers
from ccan.predictor import Predictor

FORMAT = 1
THUMBNAIL_HEIGHT = 192
"""Pixels; wide images are scaled by their height too."""
SPLITS = ("query", "gallery")

Progress = Callable[[int, int, str], None]
"""Called with (steps done, steps in all, what is being done); an image is two steps, its thumbnail and its features."""


@dataclass(frozen=True)
class GalleryIndex:
    """A dataset as one checkpoint sees it.

    Attributes:
        dataset: what was indexed.
        query, gallery: descriptors, aligned with ``dataset.query`` and ``dataset.gallery``.
        folder: the index on disk.
    """

    dataset: ReIDDataset
    query: FeatureSet
    gallery: FeatureSet
    folder: Path

    @property
    def thumbnails(self) -> Path:
        """Folder of the thumbnails; it holds nothing else."""
        return self.folder / "thumbnails"

    def thumbnail(self, split: str, row: int) -> Path:
        """Thumbnail of one image, by its split and its row there."""
        return self.thumbnails / thumbnail_name(split, row)


def thumbnail_name(split: str, row: int) -> str:
    """File name of a thumbnail: names of the user's files never become names of ours."""
    return f"{split}-{row:06d}.jpg"


def index_dataset(
    predictor: Predictor,
    dataset: ReIDDataset,
    *,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> GalleryIndex:
    """The index of a dataset's query and gallery under a checkpoint: read from the cache, or made and kept there.

    Args:
        predictor: whose descriptors.
        dataset: whose images.
        cache: where indices are kept (`ccan.files.cache_folder`).
        progress: told how far the work is.

    Raises: DatasetError if query or gallery is empty or an image cannot be read.
    """
    for split in SPLITS:
        if not getattr(dataset, split):
            raise DatasetError(
                f"{dataset.root}: expected {split} images to index, got none; "
                "check the folder with the layout that the dataset should have"
            )
    folder = (cache or cache_folder()) / "indices" / _key(predictor, dataset)
    found = _read(folder, dataset)
    if found is None:
        _make(folder, predictor, dataset, progress)
        found = _read(folder, dataset)
    if found is None:
        raise DatasetError(f"the index at {folder} cannot be read back; is the disk sound?")
    return found


def _key(predictor: Predictor, dataset: ReIDDataset) -> str:
    """Hash of everything that the index depends on."""
    samples = [*dataset.query, *dataset.gallery]
    return fingerprint(predictor.model, samples, FORMAT, THUMBNAIL_HEIGHT, len(dataset.query))


def _read(folder: Path, dataset: ReIDDataset) -> GalleryIndex | None:
    """The index in a folder, or None if there is none or it is damaged."""
    try:
        with safe_open(folder / "features.safetensors", framework="pt") as file:
            features = {split: file.get_tensor(split) for split in SPLITS}
            if (file.metadata() or {}).get("crc32") != _checksum(features):
                return None
        sets = {split: feature_set_of(features[split], getattr(dataset, split)) for split in SPLITS}
    except (OSError, SafetensorError, ValueError):
        return None
    if not _thumbnails_whole(folder / "thumbnails", features):
        return None
    return GalleryIndex(dataset, sets["query"], sets["gallery"], folder)


def _checksum(features: dict[str, torch.Tensor]) -> str:
    """CRC-32 of all numbers, against silent damage on disk."""
    value = 0
    for split in SPLITS:
        value = zlib.crc32(features[split].numpy().data.cast("B"), value)
    return f"{value:08x}"


def _thumbnails_whole(folder: Path, features: dict[str, torch.Tensor]) -> bool:
    """Whether there is a thumbnail for each row of the features, none of them empty (a lost write)."""
    try:
        with os.scandir(folder) as entries:
            present = {entry.name for entry in entries if entry.stat().st_size > 0}
    except OSError:
        return False
    return all(
        thumbnail_name(split, row) in present
        for split, rows in features.items()
        for row in range(len(rows))
    )


def _make(
    folder: Path, predictor: Predictor, dataset: ReIDDataset, progress: Progress | None
) -> None:
    """Build an index beside its place and move it there as a whole."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(folder.parent, ".index-*")
    work = Path(tempfile.mkdtemp(prefix=".index-", dir=folder.parent))
    try:
        (work / "thumbnails").mkdir()
        total = 2 * sum(len(getattr(dataset, split)) for split in SPLITS)
        done = 0
        features: dict[str, torch.Tensor] = {}
        for split in SPLITS:
            samples = getattr(dataset, split)
            report = _shifted(progress, done, total, f"thumbnails of {split} images")
            _write_thumbnails(work / "thumbnails", split, samples, report)
            done += len(samples)
            report = _shifted(progress, done, total, f"features of {split} images")
            features[split] = predictor.features(samples, progress=report).features.contiguous()
            done += len(samples)
        with atomic_path(work / "features.safetensors") as temporary:
            save_file(features, temporary, metadata={"crc32": _checksum(features)})
        _take_place(work, folder, dataset)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _take_place(work: Path, folder: Path, dataset: ReIDDataset) -> None:
    """Move a finished index to its place, unless another process has put an equal one there meanwhile."""
    if _read(folder, dataset) is not None:
        return
    if folder.is_dir():
        shutil.rmtree(folder)
    else:
        folder.unlink(missing_ok=True)
    try:
        os.replace(work, folder)
    except OSError:
        if _read(folder, dataset) is None:
            raise


def _shifted(
    progress: Progress | None, done: int, total: int, doing: str
) -> Callable[[int, int], None]:
    def report(images: int, _: int) -> None:
        if progress is not None:
            progress(done + images, total, doing)

    return report


def _write_thumbnails(
    folder: Path, split: str, samples: Sequence[Sample], report: Callable[[int, int], None]
) -> None:
    def write(row: int) -> None:
        image = open_image(samples[row].path)
        width = max(1, round(image.width * THUMBNAIL_HEIGHT / image.height))
        small = image.resize((width, THUMBNAIL_HEIGHT), Image.Resampling.BICUBIC)
        small.save(folder / thumbnail_name(split, row), quality=88)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for done, _ in enumerate(pool.map(write, range(len(samples))), start=1):
            report(done, len(samples))
