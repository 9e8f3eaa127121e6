"""What only the image files themselves tell: sizes, damage, and pictures that are there twice."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from tqdm import tqdm

from ccan.errors import DatasetError

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class ImageFile:
    """One file as it was read.

    Attributes:
        width, height: pixels of the upright image, 0 where it cannot be decoded.
        problem: why it cannot be decoded, empty if it can.
    """

    width: int
    height: int
    problem: str = ""


def read_files(paths: Iterable[Path], *, progress: bool = False) -> dict[Path, ImageFile]:
    """Decode every file once, over threads."""
    from ccan.data.loading import open_image

    def read(path: Path) -> ImageFile:
        try:
            return ImageFile(*open_image(path).size)
        except DatasetError as error:
            return ImageFile(0, 0, str(error))

    wanted = list(dict.fromkeys(paths))
    return dict(zip(wanted, _over_threads(read, wanted, "decoding", progress), strict=True))


def same_contents(paths: Iterable[Path], *, progress: bool = False) -> list[list[Path]]:
    """Groups of different files with the same bytes, each in the order of `paths`.

    Only files of one length are read, and compared by SHA-256.
    """
    lengths = _groups({path: _length(path) for path in paths})
    doubtful = [path for group in lengths for path in group]
    digests = _over_threads(_digest, doubtful, "comparing", progress)
    return _groups(dict(zip(doubtful, digests, strict=True)))


def _groups(keys: Mapping[Path, object]) -> list[list[Path]]:
    """Paths that share a key, two or more; those without a key (None) are nobody's copy."""
    found: dict[object, list[Path]] = {}
    for path, key in keys.items():
        if key is not None:
            found.setdefault(key, []).append(path)
    return [group for group in found.values() if len(group) > 1]


def _length(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None


def _digest(path: Path) -> bytes | None:
    try:
        return hashlib.sha256(path.read_bytes()).digest()
    except OSError:
        return None


def _over_threads(
    function: Callable[[Path], Value], paths: Sequence[Path], what: str, progress: bool
) -> list[Value]:
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        done = pool.map(function, paths)
        return list(tqdm(done, what, len(paths), disable=not progress, unit="img"))
