"""An indexed dataset: all that a ranking needs of its query and gallery images, made once and kept on disk.

An index belongs to one checkpoint and one list of images. Its folder is named by a hash of both, so another checkpoint
or a changed image never meets an old index; a damaged index is made again, never trusted. Its numbers are mapped from
the file, not read into memory. Features that any other model made can be looked at in the same way (`index_features`).

A gallery that is only searched, of any size, exactly in this process or by an engine behind one and the same interface,
is a `SearchIndex` (`build_index`, `open_index`; `ccan.search`).
"""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from numpy.typing import ArrayLike
from PIL import Image
from torch import Tensor, nn

from ccan.data.loading import open_image
from ccan.data.records import ReIDDataset, Sample
from ccan.errors import DatasetError, SearchError
from ccan.evaluation.extraction import fingerprint
from ccan.evaluation.feature_set import FeatureSet
from ccan.evaluation.features import describe, extract_features, feature_set_of, mirror_average
from ccan.evaluation.files import load_features
from ccan.explain.embedding import LOCAL, embedding_maps
from ccan.explain.trace import GLOBAL, trace
from ccan.explain.weighting import PartVectors
from ccan.files import cache_folder, inside, work_folder
from ccan.model.fast import fast_for_inference
from ccan.model.network import CCAN
from ccan.predictor import Predictor
from ccan.search import SearchIndex as SearchIndex
from ccan.search import Where as Where
from ccan.search import build_index as build_index
from ccan.search import exact_index as exact_index
from ccan.search import open_index as open_index
from ccan.search.numbers import read_numbers, write_numbers

FORMAT = 2
THUMBNAIL_HEIGHT = 192
"""Pixels; wide images are scaled by their height too."""
SPLITS = ("query", "gallery")

Progress = Callable[[int, int, str], None]
"""Called with (steps done, steps in all, what is being done); an image is two steps, its thumbnail and its features.

It may raise to cancel the work: what was begun is removed, and the exception goes on to the caller.
"""


@dataclass(frozen=True)
class GalleryIndex:
    """A dataset as one model sees it; D numbers of a descriptor, d of a branch.

    Attributes:
        dataset: what was indexed.
        query, gallery: descriptors, aligned with ``dataset.query`` and ``dataset.gallery``.
        folder: the index on disk; None where there is none (features without images).
        branches: the branches that a descriptor joins, of ``G`` and ``L``; empty for features of another model.
        parts: split → B_s p_s of each image and part, (N, kp, d); empty without a local branch.
        bias: b of the local branch, (d,).
        mirrored: split → descriptors averaged with those of the mirrored images; empty for another model's features.
    """

    dataset: ReIDDataset
    query: FeatureSet
    gallery: FeatureSet
    folder: Path | None
    branches: tuple[str, ...] = ()
    parts: Mapping[str, Tensor] = field(default_factory=dict)
    bias: Tensor | None = None
    mirrored: Mapping[str, FeatureSet] = field(default_factory=dict)

    def features(self, split: str) -> FeatureSet:
        """The descriptors of a split, ``query`` or ``gallery``."""
        return self.query if split == "query" else self.gallery

    def samples(self, split: str) -> tuple[Sample, ...]:
        """The records of a split."""
        return self.dataset.query if split == "query" else self.dataset.gallery

    def thumbnail(self, split: str, row: int) -> Path | None:
        """Thumbnail of one image, by its split and its row there; None where there is no image."""
        if self.folder is None:
            return None
        path = self.folder / "thumbnails" / thumbnail_name(split, row)
        return path if path.is_file() else None

    def vectors(self, split: str, rows: ArrayLike | None = None) -> PartVectors:
        """What weights act on and distances are accounted by, in float64; of all images if ``rows`` is None."""
        chosen = slice(None) if rows is None else torch.as_tensor(np.asarray(rows, dtype=np.int64))
        parts = direction = None
        if self.bias is not None and split in self.parts:
            shares = self.parts[split][chosen]
            bias = self.bias.expand(len(shares), 1, -1)
            parts = torch.cat([shares, bias], dim=1).double().numpy()
        if GLOBAL in self.branches:
            width = self.features(split).features.shape[1] // len(self.branches)
            direction = self.features(split).features[chosen, :width].double().numpy()
        return PartVectors(parts, direction)


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
    folder = index_folder(predictor, dataset, cache)
    samples = [*dataset.query, *dataset.gallery]

    def make(work: Path) -> None:
        report = _Steps(progress, 2 * len(samples))
        _write_thumbnails(work, {split: getattr(dataset, split) for split in SPLITS}, report)
        save_numbers(work, numbers_of(predictor, dataset, report))

    found = _read_or_make(folder, lambda: _read(folder, predictor, dataset), make)
    if found is None:
        raise DatasetError(f"the index at {folder} cannot be read back; is the disk sound?")
    return found


def index_folder(predictor: Predictor, dataset: ReIDDataset, cache: Path | None = None) -> Path:
    """Where the index of a dataset under a checkpoint is kept: named by a hash of all that it depends on."""
    samples = [*dataset.query, *dataset.gallery]
    key = fingerprint(predictor.model, samples, FORMAT, THUMBNAIL_HEIGHT, len(dataset.query))
    return (cache or cache_folder()) / "indices" / key


def index_features(
    path: str | Path,
    images: Path | None = None,
    *,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> GalleryIndex:
    """Features that any model made, as an index without a model behind it.

    Args:
        path: as `ccan.evaluation.files.load_features` reads it.
        images: folder of the pictures, by the names in the file: paths within it, or file names in it. Without it, or
            for an image that is not there, the index has no thumbnail; nothing outside of the folder is read.
        cache, progress: as in `index_dataset`.

    Raises: as `load_features`; DatasetError if the folder holds none of the named images, or one cannot be read.
    """
    query, gallery = load_features(path)
    sides = {"query": query, "gallery": gallery}
    root = images.resolve() if images else Path(path).resolve().parent
    samples = {split: _named_samples(side, split, root) for split, side in sides.items()}
    name = Path(path).stem
    dataset = ReIDDataset(name, root, (), tuple(samples["query"]), tuple(samples["gallery"]))
    if images is None:
        return GalleryIndex(dataset, query, gallery, None)
    shown = [one for found in samples.values() for one in found if one.path.is_file()]
    total = len(query) + len(gallery)
    if not shown:
        known = next((name for side in sides.values() for name in side.names or ()), "no names")
        raise DatasetError(
            f"{images}: expected the images that {Path(path).name} names (for example {known}), found none of "
            f"{total}; pass the folder that these names are paths in"
        )
    if len(shown) < total:
        warnings.warn(f"{total - len(shown)} of {total} images are not in {images}", stacklevel=2)
    key = fingerprint(nn.Module(), shown, FORMAT, THUMBNAIL_HEIGHT, *(s.path for s in shown))
    folder = (cache or cache_folder()) / "indices" / key
    pictured = {
        split: [one if one.path.is_file() else None for one in found]
        for split, found in samples.items()
    }

    def read() -> GalleryIndex | None:
        whole = _thumbnails_whole(folder / "thumbnails", pictured)
        return GalleryIndex(dataset, query, gallery, folder) if whole else None

    def make(work: Path) -> None:
        _write_thumbnails(work, pictured, _Steps(progress, total))

    found = _read_or_make(folder, read, make)
    if found is None:
        raise DatasetError(f"the thumbnails at {folder} cannot be read back; is the disk sound?")
    return found


def _named_samples(side: FeatureSet, split: str, root: Path) -> list[Sample]:
    """A record for each row; an image whose name leads out of the folder, or nowhere, has a path that is no file."""
    names = side.names or tuple(f"{split}-{row}" for row in range(len(side)))
    return [
        Sample(inside(root, name), int(identity), int(camera))
        for name, identity, camera in zip(names, side.identities, side.cameras, strict=True)
    ]


def _read_or_make(
    folder: Path, read: Callable[[], GalleryIndex | None], make: Callable[[Path], None]
) -> GalleryIndex | None:
    """What stands in a folder; where that is nothing, or damaged, it is made beside its place and moved there whole."""
    found = read()
    if found is not None:
        return found
    with work_folder(folder.parent) as work:
        make(work)
        _take_place(work, folder, read)
    return read()


def _take_place(work: Path, folder: Path, read: Callable[[], GalleryIndex | None]) -> None:
    """Move a finished index to its place, unless another process has put an equal one there meanwhile."""
    if read() is not None:
        return
    if folder.is_dir():
        shutil.rmtree(folder)
    else:
        folder.unlink(missing_ok=True)
    try:
        os.replace(work, folder)
    except OSError:
        if read() is None:
            raise


# What the network says of every image


class _Everything(nn.Module):
    """A network whose descriptor is followed by what its parts say, and by the descriptor with the mirrored image."""

    def __init__(self, model: CCAN) -> None:
        super().__init__()
        self.model = fast_for_inference(model)
        self.maps = embedding_maps(self.model)
        self.branches = tuple(self.maps.biases)

    def forward(self, images: Tensor) -> SimpleNamespace:
        found = trace(self.model, images)
        descriptor = found.output.descriptor
        shares = self.maps.parts(found)
        parts = [value for name, value in shares.items() if name != GLOBAL]
        mirrored = describe(self.model, images.flip(-1))
        both = mirror_average(descriptor, mirrored, len(self.branches))
        return SimpleNamespace(descriptor=torch.cat([descriptor, both, *parts], dim=1).float())


def numbers_of(predictor: Predictor, dataset: ReIDDataset, report: _Steps) -> dict[str, Tensor]:
    """The numbers of an index by name: each split's descriptors, ``SPLIT.mirrored``, ``SPLIT.parts``; ``bias``."""
    everything, config = _Everything(predictor.model), predictor.config
    numbers: dict[str, Tensor] = {}
    width = config.embedding_dim * len(everything.branches)
    for split in SPLITS:
        samples = getattr(dataset, split)
        rows = extract_features(
            everything,
            samples,
            height=config.image_height,
            width=config.image_width,
            device=predictor.device,
            progress=report.begin(f"features of {split} images", len(samples)),
        ).features
        numbers[split] = rows[:, :width].contiguous()
        numbers[f"{split}.mirrored"] = rows[:, width : 2 * width].contiguous()
        if LOCAL in everything.branches:
            parts = rows[:, 2 * width :].reshape(len(rows), -1, config.embedding_dim)
            numbers[f"{split}.parts"] = parts.contiguous()
    if LOCAL in everything.branches:
        numbers["bias"] = everything.maps.biases[LOCAL].float().cpu().contiguous()
    return numbers


def save_numbers(folder: Path, numbers: Mapping[str, Tensor]) -> None:
    """Write the numbers of an index with their checksum, whole or not at all."""
    write_numbers(folder / "features.safetensors", numbers)


def _read(folder: Path, predictor: Predictor, dataset: ReIDDataset) -> GalleryIndex | None:
    """The index in a folder, or None if there is none or it is damaged."""
    try:
        numbers = read_numbers(folder / "features.safetensors")
        sides = {split: feature_set_of(numbers[split], getattr(dataset, split)) for split in SPLITS}
        mirrored = {
            split: side.with_features(numbers[f"{split}.mirrored"]) for split, side in sides.items()
        }
    except (SearchError, ValueError, KeyError):
        return None
    if not _thumbnails_whole(folder / "thumbnails", numbers):
        return None
    config = predictor.config
    branches = tuple(
        name
        for name, there in ((GLOBAL, config.global_branch), (LOCAL, config.local_branch))
        if there
    )
    parts = {split: numbers[f"{split}.parts"] for split in SPLITS if f"{split}.parts" in numbers}
    return GalleryIndex(
        dataset,
        sides["query"],
        sides["gallery"],
        folder,
        branches,
        parts,
        numbers.get("bias"),
        mirrored,
    )


# Thumbnails


def _thumbnails_whole(
    folder: Path, rows: Mapping[str, Tensor] | Mapping[str, Sequence[Sample | None]]
) -> bool:
    """Whether there is a thumbnail for each row that has a picture, none of them empty (a lost write)."""
    try:
        with os.scandir(folder) as entries:
            present = {entry.name for entry in entries if entry.stat().st_size > 0}
    except OSError:
        return False
    return all(
        thumbnail_name(split, row) in present
        for split in SPLITS
        for row, picture in enumerate(rows[split])
        if picture is not None
    )


def _write_thumbnails(
    folder: Path, samples: Mapping[str, Sequence[Sample | None]], report: _Steps
) -> None:
    (folder / "thumbnails").mkdir()
    pool = ThreadPoolExecutor(os.cpu_count())
    try:
        for split, found in samples.items():
            told = report.begin(f"thumbnails of {split} images", len(found))
            wanted = [(split, row, one) for row, one in enumerate(found) if one is not None]
            made = pool.map(lambda one: _write_thumbnail(folder / "thumbnails", *one), wanted)
            for done, _ in enumerate(made, start=1):
                told(done, len(wanted))
    finally:  # a cancelled pool does not first make the thousands that are left
        pool.shutdown(cancel_futures=True)


def _write_thumbnail(folder: Path, split: str, row: int, sample: Sample) -> None:
    image = open_image(sample.path)
    width = max(1, round(image.width * THUMBNAIL_HEIGHT / image.height))
    small = image.resize((width, THUMBNAIL_HEIGHT), Image.Resampling.BICUBIC)
    small.save(folder / thumbnail_name(split, row), quality=88)


class _Steps:
    """One count of steps over several loops."""

    def __init__(self, progress: Progress | None, total: int) -> None:
        self._progress, self._total, self._before = progress, total, 0

    def begin(self, doing: str, steps: int) -> Callable[[int, int], None]:
        """What a loop of so many steps calls with (done, of how many)."""
        before = self._before
        self._before += steps

        def report(done: int, _: int) -> None:
            if self._progress is not None:
                self._progress(before + done, self._total, doing)

        return report
