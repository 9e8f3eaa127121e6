"""CUHK03's two kinds of .mat files: the images in `cuhk-03.mat` (HDF5) and the lists of the new protocol (MAT v5).

    cuhk-03.mat     detected, labeled: 5 cells (camera pairs) of N×10 cells (people; columns 1–5 view 1, 6–10 view 2)
                    testsets: 20 cells of 100×2 numbers (camera pair, person), from 1
    cuhk03_new_protocol_config_{detected,labeled}.mat
                    labels, camId, filelist (N×1 each), train_idx, query_idx, gallery_idx (from 1)

MATLAB stores columns first, so every array of the HDF5 file appears transposed: an H×W×3 image as (3, W, H).
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ccan.errors import DatasetError
from ccan.files import cache_folder, remove_leftovers

LIST_NAMES = ("labels", "camId", "filelist", "train_idx", "query_idx", "gallery_idx")
IMAGES_A_VIEW = 5
MOST_PEOPLE = 100_000
MAX_PIXELS = 4_000_000
"""More than any crop of a person has; a larger array is refused before it is read."""
FORMAT = 1
"""Part of the cache's key: rises when the same file would be extracted differently."""

_INSTALL = 'install it with: pip install "ccan[datasets]"'


@dataclass(frozen=True)
class Lists:
    """The lists of the new protocol.

    Attributes:
        identities: (N,) identity of each image.
        cameras: (N,) view of each image, 1 or 2.
        files: N file names such as `1_001_1_01.png`: camera pair, person, view, image.
        train, query, gallery: places among the N, from 0.
    """

    identities: NDArray[np.int64]
    cameras: NDArray[np.int64]
    files: tuple[str, ...]
    train: NDArray[np.int64]
    query: NDArray[np.int64]
    gallery: NDArray[np.int64]


def read_lists(path: Path) -> Lists:
    """The new protocol's lists of one setting. Raises: DatasetError if the file is not what it should be."""
    try:
        from scipy.io import loadmat
    except ImportError as error:
        raise DatasetError(f"reading {path.name} needs SciPy; {_INSTALL}") from error
    _survive_reading(path)
    try:
        found = loadmat(path, variable_names=LIST_NAMES)
    except Exception as error:  # damaged bytes make its reader raise errors of many kinds
        raise DatasetError(
            f"{path}: expected a MAT file of version 5, got {type(error).__name__}: {error}; "
            "take it from the authors of the new protocol again"
        ) from error
    missing = [name for name in LIST_NAMES if name not in found]
    if missing:
        raise DatasetError(f"{path}: expected {', '.join(LIST_NAMES)}, got no {', '.join(missing)}")
    identities = _whole_numbers(path, "labels", found["labels"])
    count = len(identities)
    cameras = _whole_numbers(path, "camId", found["camId"])
    files = _texts(path, found["filelist"])
    if not count == len(cameras) == len(files):
        raise DatasetError(
            f"{path}: expected labels, camId and filelist of one length, got {count}, {len(cameras)}, {len(files)}"
        )
    places = [_whole_numbers(path, name, found[name], count) - 1 for name in LIST_NAMES[3:]]
    return Lists(identities, cameras, files, *places)


TRIAL_SECONDS = 120

_TRIAL = (
    "import sys; from scipy.io import loadmat; loadmat(sys.argv[1], variable_names=sys.argv[2:])"
)
"""A first reading, in a process of its own: damaged bytes can end SciPy's reader without any exception."""


def _survive_reading(path: Path) -> None:
    """Raises: DatasetError for a file that ends the process that reads it; what Python can catch passes."""
    # -P: what lies in the current folder is no module of ours.
    command = [sys.executable, "-P", "-c", _TRIAL, str(path), *LIST_NAMES]
    try:
        status = subprocess.run(command, capture_output=True, timeout=TRIAL_SECONDS).returncode
    except subprocess.TimeoutExpired:
        status = None
    if status not in (0, 1):
        ended = "do not let it end" if status is None else f"end it (exit status {status})"
        raise DatasetError(
            f"{path}: expected a MAT file of version 5, got bytes that, read by a program, {ended}; "
            "take it from the authors of the new protocol again"
        )


def _whole_numbers(path: Path, name: str, value: Any, most: int = 2**31) -> NDArray[np.int64]:
    """A list of numbers 1 … most, in whatever type MATLAB has written it."""
    numbers = np.asarray(value).ravel()
    if numbers.dtype.kind in "iuf" and numbers.size:
        low, high = numbers.min(), numbers.max()
        if low >= 1 and high <= most and np.all(numbers == np.floor(numbers)):
            return numbers.astype(np.int64)
        got = f"{low} … {high}"
    else:
        got = f"{numbers.size} values of type {numbers.dtype}"
    raise DatasetError(f"{path}: {name} must hold whole numbers from 1 to {most}, got {got}")


def _texts(path: Path, value: Any) -> tuple[str, ...]:
    """A cell array of texts: an object array of arrays of one text each."""
    texts = [np.asarray(cell).ravel() for cell in np.asarray(value).ravel()]
    wrong = [text for text in texts if text.dtype.kind != "U" or text.size != 1]
    if wrong:
        raise DatasetError(f"{path}: filelist must hold file names, got {wrong[0]!r}")
    return tuple(str(text[0]) for text in texts)


def read_test_set(mat: Path, split: int) -> set[tuple[int, int]]:
    """Camera pair and person, from 1, of the people tested on in one of the classic splits (0 … 19)."""
    with _opened(mat) as file:
        splits = _cells(file, "testsets")
        if not 0 <= split < len(splits):
            raise DatasetError(f"{mat}: split must be from 0 to {len(splits) - 1}, got {split}")
        people = np.asarray(file[splits[split]][()]).T
        if people.ndim != 2 or people.shape[1] != 2:
            raise DatasetError(f"{mat}: expected N×2 numbers in testsets, got {people.shape}")
        return {(int(pair), int(person)) for pair, person in people}


def people_of_pairs(mat: Path, key: str) -> list[int]:
    """Number of people of each camera pair."""
    with _opened(mat) as file:
        return [int(_table(mat, file, pair).shape[1]) for pair in _cells(file, key)]


def extract_images(mat: Path, key: str, *, progress: bool) -> Path:
    """The folder of one setting's images as PNG files with the very same pixels; written on the first call.

    It lies in the cache folder, under a name made of the file's path, size and time, and appears there whole or not
    at all. File names are those of the new protocol's list: `1_001_1_01.png`.

    Raises: DatasetError if the file is not CUHK03's, or the cache folder cannot be written.
    """
    state = mat.stat()
    card = json.dumps([FORMAT, str(mat.resolve()), state.st_size, state.st_mtime_ns])
    name = f"{key}-{hashlib.sha256(card.encode()).hexdigest()[:12]}"
    folder = cache_folder() / "cuhk03" / name
    if folder.is_dir():
        return folder
    partial = folder.with_name(f".{name}.{uuid.uuid4().hex[:8]}.partial")
    try:
        partial.mkdir(parents=True)
        remove_leftovers(folder.parent, f".{key}-*.partial")
        _write_images(mat, key, partial, progress)
        try:
            os.rename(partial, folder)
        except OSError:
            if not folder.is_dir():  # otherwise another process was first, with the same images
                raise
    except OSError as error:
        raise DatasetError(
            f"cannot extract {mat} to {folder}: {error}; make room, or name another cache folder by CCAN_CACHE"
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def _write_images(mat: Path, key: str, out: Path, progress: bool) -> None:
    from PIL import Image
    from tqdm import tqdm

    with _opened(mat) as file:
        tables = [_table(mat, file, pair)[()] for pair in _cells(file, key)]
        total = sum(table.size for table in tables)
        with tqdm(total=total, desc=f"CUHK03 {key}", unit="cell", disable=not progress) as bar:
            for pair, table in enumerate(tables, start=1):
                for (image, person), reference in np.ndenumerate(table):
                    pixels = _pixels(mat, file, reference)
                    bar.update()
                    if pixels is not None:
                        view = 1 + image // IMAGES_A_VIEW
                        name = f"{pair}_{person + 1:03d}_{view}_{image + 1:02d}.png"
                        Image.fromarray(pixels).save(out / name)


def _pixels(mat: Path, file: Any, reference: Any) -> NDArray[np.uint8] | None:
    """An image (H, W, 3), or None for an empty cell, which MATLAB stores as its size: two zeros."""
    if not reference:
        return None
    stored = file[reference]
    if "MATLAB_empty" in stored.attrs or stored.ndim < 3:
        return None
    _refuse_foreign(mat, stored)
    channels, width, height = stored.shape if stored.ndim == 3 else (0, 0, 0)
    if channels != 3 or stored.dtype != np.uint8 or not 0 < width * height <= MAX_PIXELS:
        raise DatasetError(
            f"{mat}: expected images as 8-bit arrays (3, width, height), got {stored.dtype} "
            f"{stored.shape} in {stored.name}"
        )
    return np.ascontiguousarray(stored[()].T)


def _refuse_foreign(mat: Path, stored: Any) -> None:
    """HDF5 can fetch an array's values from other files; this one never does."""
    if stored.external or stored.is_virtual:
        raise DatasetError(
            f"{mat}: {stored.name} lies in another file; take the original of CUHK03"
        )


@contextmanager
def _opened(mat: Path) -> Iterator[Any]:
    try:
        import h5py
    except ImportError as error:
        raise DatasetError(f"reading {mat.name} needs h5py; {_INSTALL}") from error
    try:
        with h5py.File(mat, "r") as file:
            yield file
    except DatasetError:
        raise
    except Exception as error:  # damaged bytes make HDF5 raise errors of many kinds
        if isinstance(error, OSError) and error.errno:  # the disk's, not the file's
            raise
        raise DatasetError(
            f"{mat}: expected CUHK03's MAT file of version 7.3 (HDF5), got {type(error).__name__}: {error}; "
            "is it complete?"
        ) from error


def _table(mat: Path, file: Any, pair: Any) -> Any:
    """The images of one camera pair, not read yet. Raises: DatasetError unless it is a table of ten a person."""
    table = file[pair]
    shape = getattr(table, "shape", ())
    if len(shape) != 2 or shape[0] != 2 * IMAGES_A_VIEW or shape[1] > MOST_PEOPLE:
        raise DatasetError(
            f"{mat}: expected {2 * IMAGES_A_VIEW} images a person of at most {MOST_PEOPLE:,} people in each pair of "
            f"cameras, got a table of {shape}; take it from the authors again"
        )
    return table


def _cells(file: Any, key: str) -> list[Any]:
    """References to the cells of a cell array; MATLAB's column of n appears as (1, n)."""
    return list(np.ravel(file[key][()]))
