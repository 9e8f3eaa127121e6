"""Tiny copies of datasets on disk, with the names and the quirks of the real ones, and no picture of anybody."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from PIL import Image

from ccan.data.records import ReIDDataset, Sample

CLUTTER = ("Thumbs.db", ".DS_Store", "readme.txt")
"""What lies about in real copies."""


def write(folder: Path, names: Iterable[str]) -> None:
    """Empty files; loaders read names only."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def paint(path: Path, seed: int, size: tuple[int, int] = (5, 11)) -> Path:
    """A picture of noise, another for each seed, `size` = width and height."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def paint_all(folder: Path, names: Sequence[str], first_seed: int) -> None:
    for number, name in enumerate(names):
        paint(folder / name, first_seed + number)


def facts(samples: Iterable[Sample]) -> list[tuple[str, int, int]]:
    """Name, identity and camera of each sample."""
    return [(sample.path.name, sample.identity, sample.camera) for sample in samples]


def sizes(dataset: ReIDDataset) -> tuple[int, int, int]:
    return len(dataset.train), len(dataset.query), len(dataset.gallery)


def reasons(dataset: ReIDDataset) -> dict[str, str]:
    """Why each file was skipped, by its name."""
    return {skipped.path.name: skipped.reason for skipped in dataset.skipped}


@contextmanager
def folders_listed_backwards() -> Iterator[None]:
    """Directories list their entries in the reverse of the order that loaders should give."""
    scandir = os.scandir

    @contextmanager
    def reverse(path: Any) -> Iterator[Iterator[os.DirEntry[str]]]:
        with scandir(path) as entries:
            yield iter(sorted(entries, key=lambda entry: entry.name, reverse=True))

    with mock.patch.object(os, "scandir", reverse):
        yield


def market_folders(
    root: Path, train: Iterable[str], query: Iterable[str], gallery: Iterable[str]
) -> Path:
    write(root / "bounding_box_train", [*train, *CLUTTER])
    write(root / "query", query)
    write(root / "bounding_box_test", [*gallery, "Thumbs.db"])
    return root


def duke(root: Path) -> Path:
    """DukeMTMC-reID's names; identity 7 is one of the gallery's extra people."""
    return market_folders(
        root,
        ["0011_c8_f0000002.jpg", "0002_c1_f0046182.jpg", "0002_c2_f0000001.jpg"],
        ["0005_c2_f0046985.jpg", "0003_c5_f0000007.jpg"],
        ["0005_c1_f0044158.jpg", "0003_c6_f0044158.jpg", "0007_c7_f0044158.jpg"],
    )


MSMT_FOLDERS = {"V1": ("train", "test"), "V2": ("mask_train_v2", "mask_test_v2")}
MSMT_LISTS = {
    "train": [
        ("0002/0002_003_15_0302noon_0508_1.jpg", 2),
        ("0000/0000_000_01_0303morning_0008_0.jpg", 0),
    ],
    "val": [("0000/0000_001_14_1113afternoon_0009_0.jpg", 0)],
    "query": [
        ("0001/0001_000_02_0303morning_0031_1.jpg", 1),
        ("0000/0000_002_01_0303noon_1_2.jpg", 0),
    ],
    "gallery": [
        ("0001/0001_001_05_0303morning_0031_1.jpg", 1),
        ("0000/0000_003_12_0303noon_0001_2.jpg", 0),
        ("0003/0003_003_12_0303noon_0001_2.jpg", 3),
    ],
}
"""The identities of the test begin again at 0."""


def msmt17(root: Path, version: str = "V1") -> Path:
    """MSMT17 with lists of CRLF lines, blank ones among them; returns the version's folder."""
    base = root / f"MSMT17_{version}"
    train, test = MSMT_FOLDERS[version]
    for split, lines in MSMT_LISTS.items():
        folder = base / (train if split in ("train", "val") else test)
        write(folder, [path for path, _ in lines])
        text = "\r\n\r\n".join(f"{path} {identity}" for path, identity in lines) + "\r\n\r\n"
        (base / f"list_{split}.txt").write_bytes(text.encode())
    write(base / train / "0000", ["Thumbs.db", "0000_999_01_0303morning_0008_0.jpg"])  # in no list
    return base
