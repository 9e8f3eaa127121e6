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


CUHK_PEOPLE = (3, 2, 1, 2, 1)
"""People of each camera pair; in all 9."""
CUHK_TESTED = ((1, 2), (2, 1), (4, 2))
"""Camera pair and person, from 1, of the second classic split; the first tests (1, 1) alone."""


def cuhk_cell(key: str, pair: int, person: int, image: int) -> np.ndarray | None:
    """Pixels (H, W, 3) of a cell, everything from 1, or None: views of four images or three, and two missing views."""
    if (
        image in (5, 9, 10)
        or (person == 3 and image > 5)
        or (pair == 4 and person == 1 and image < 6)
    ):
        return None
    seed = [key == "labeled", pair, person, image]
    return np.random.default_rng(seed).integers(0, 256, (11 + image, 5 + pair, 3), np.uint8)


def cuhk_names(key: str) -> list[str]:
    """Names of all images, as the new protocol lists them."""
    return [
        f"{pair}_{person:03d}_{1 if image <= 5 else 2}_{image:02d}.png"
        for pair, people in enumerate(CUHK_PEOPLE, start=1)
        for person in range(1, people + 1)
        for image in range(1, 11)
        if cuhk_cell(key, pair, person, image) is not None
    ]


def cuhk03_mat(path: Path) -> Path:
    """`cuhk-03.mat` as MATLAB 7.3 writes it: cells are references, arrays transposed, empty ones hold their size."""
    import h5py

    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w", userblock_size=512) as file:

        def cell(values: Any, empty: bool = False) -> Any:
            stored = file.create_dataset(f"#refs#/{len(file.require_group('#refs#'))}", data=values)
            if empty:
                stored.attrs["MATLAB_empty"] = np.uint8(1)
            return stored.ref

        for key in ("detected", "labeled"):
            pairs = file.create_dataset(key, (1, len(CUHK_PEOPLE)), h5py.ref_dtype)
            for pair, people in enumerate(CUHK_PEOPLE, start=1):
                table = np.empty((10, people), h5py.ref_dtype)
                for image, person in np.ndindex(table.shape):
                    pixels = cuhk_cell(key, pair, person + 1, image + 1)
                    nothing = np.zeros(2, np.uint64)
                    stored = nothing if pixels is None else pixels.T
                    table[image, person] = cell(stored, empty=pixels is None)
                pairs[0, pair - 1] = cell(table)
        splits = file.create_dataset("testsets", (1, 20), h5py.ref_dtype)
        for split in range(20):
            people = np.array(CUHK_TESTED if split == 1 else ((1, 1),), np.float64)
            splits[0, split] = cell(people.T)
    return path


def cuhk03_lists(path: Path, key: str, **changes: Any) -> Path:
    """The new protocol's lists: camera pair 1 is trained on; of the others, image 6 is a query, the rest gallery."""
    from scipy.io import savemat

    path.parent.mkdir(parents=True, exist_ok=True)
    names = cuhk_names(key)
    people = sorted({name[:5] for name in names})
    train = [n for n, name in enumerate(names, start=1) if name[0] == "1"]
    query = [n for n, name in enumerate(names, start=1) if name[0] != "1" and name[8:10] == "06"]
    gallery = [n for n in range(1, len(names) + 1) if n not in train and n not in query]
    files = np.empty((len(names), 1), object)
    files[:, 0] = names

    def column(values: Sequence[int]) -> np.ndarray:
        return np.array(values, np.float64).reshape(-1, 1)

    values: dict[str, Any] = {
        "labels": column([people.index(name[:5]) + 1 for name in names]),
        "camId": column([int(name[6]) for name in names]).astype(np.uint8),
        "filelist": files,
        "train_idx": column(train),
        "query_idx": column(query),
        "gallery_idx": column(gallery),
    }
    savemat(path, {**values, **changes})
    return path


def cuhk03_raw(root: Path) -> Path:
    """The originals: the images' file in its folder, the lists beside that."""
    cuhk03_mat(root / "cuhk03_release" / "cuhk-03.mat")
    for key in ("detected", "labeled"):
        cuhk03_lists(root / f"cuhk03_new_protocol_config_{key}.mat", key)
    return root


def cuhk03_np(root: Path) -> Path:
    """The layout that most people have."""
    for key, gallery in (("detected", "0003_c2_7.png"), ("labeled", "0003_c2_8.png")):
        market_folders(
            root / "cuhk03-np" / key,
            ["0011_c2_2.png", "0001_c1_1.png"],
            ["0003_c1_1.png"],
            [gallery, "0005_c1_1.png"],
        )
    return root
