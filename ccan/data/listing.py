"""Folders and lists of files as loaders read them: sorted, images only, and a word about everything left out."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

from ccan.data.records import SkippedFile

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"})
"""What an image file is called, in lower case."""

_VISIBLE = re.compile(r"[^.].*", re.DOTALL)

NOT_THERE = "listed, but not there"
LEADS_OUT = "listed, but leads out of its folder"


def entries(folder: Path) -> list[tuple[str, bool]]:
    """Name and is-a-file of everything in a folder, in the order of names; nothing if there is no such folder."""
    if not folder.is_dir():
        return []
    with os.scandir(folder) as found:
        return sorted((entry.name, _is_file(entry)) for entry in found)


def _is_file(entry: os.DirEntry[str] | Path) -> bool:
    """Whether it is a file; what cannot be looked at, such as a link to itself or too long a name, is none."""
    try:
        return entry.is_file()
    except OSError:
        return False


def subfolders(folder: Path) -> list[Path]:
    """The visible folders in a folder, in the order of their names."""
    return [
        folder / name
        for name, is_file in entries(folder)
        if not is_file and not name.startswith(".") and (folder / name).is_dir()
    ]


def list_images(
    folder: Path, names: re.Pattern[str] = _VISIBLE, otherwise: str = "hidden"
) -> tuple[list[Path], list[SkippedFile]]:
    """Images that lie in a folder itself, in the order of their names, and everything else with the reason.

    Args:
        folder: where to look; folders inside it are not entered.
        names: what the whole name of an image must match.
        otherwise: the reason that is given for an image with another name.
    """
    images: list[Path] = []
    skipped: list[SkippedFile] = []
    for name, is_file in entries(folder):
        path = folder / name
        if not is_file:
            skipped.append(SkippedFile(path, "not a file"))
        elif path.suffix.lower() not in IMAGE_SUFFIXES:
            skipped.append(SkippedFile(path, "not an image"))
        elif not names.fullmatch(name):
            skipped.append(SkippedFile(path, otherwise))
        else:
            images.append(path)
    return images, skipped


def locate(base: Path, listed: str, *, within: bool = True) -> tuple[Path, str | None]:
    """The file that a list names below `base`, and why it cannot be read as an image, None if it can.

    With `within` a name that leads out of `base` is such a reason; without, the list is trusted.
    """
    relative = PurePosixPath(listed.replace("\\", "/"))  # lists made on Windows
    path = base / relative
    if within and (relative.is_absolute() or ".." in relative.parts):
        return path, LEADS_OUT
    if relative.suffix.lower() not in IMAGE_SUFFIXES:
        return path, "not an image"
    return path, None if _is_file(path) else NOT_THERE


def some(words: Iterable[object], most: int = 5) -> str:
    """The first few of a list for an error message, `nothing` for none."""
    every: Sequence[str] = [str(word) for word in words]
    return (", ".join(every[:most]) + (", …" if len(every) > most else "")) or "nothing"


def contents(folder: Path) -> str:
    """What lies in a folder, in a few words."""
    return some(name for name, _ in entries(folder))
