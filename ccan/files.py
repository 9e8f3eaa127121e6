"""Files that are either whole or not there: written beside their place, then moved into it. And where caches live."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """A temporary path beside ``path`` that takes its place when the block ends well, and vanishes when it does not.

    The contents reach the disk before the move, so that a crash leaves the old file or the new one, never a part.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.touch()
        permissions = temporary.stat().st_mode
        yield temporary
        with open(temporary, "rb+") as written:
            os.fsync(written.fileno())
        temporary.chmod(permissions)  # some writers make files for their owner alone
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Write a text file as a whole (UTF-8)."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: Any) -> None:
    """Write plain JSON values as an indented file, as a whole."""
    write_text(path, json.dumps(value, indent=2) + "\n")


LEFTOVER_SECONDS = 24 * 3600
"""A work folder that nothing was written to for so long belongs to a process that was killed."""


def remove_leftovers(folder: Path, pattern: str) -> None:
    """Delete the work folders of killed processes: those of this name pattern, untouched for a day."""
    for work in folder.glob(pattern):
        try:
            newest = max(path.stat().st_mtime for path in (work, *work.iterdir()))
        except OSError:  # it is being moved or removed at this moment
            continue
        if time.time() - newest > LEFTOVER_SECONDS:
            shutil.rmtree(work, ignore_errors=True)


@contextmanager
def work_folder(parent: str | Path, mode: int = 0o700) -> Iterator[Path]:
    """A folder to build an index in, beside its place; what is still there when the block ends is removed."""
    parent = Path(parent)
    parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(parent, ".index-*")
    work = parent / f".index-{uuid.uuid4().hex}"
    work.mkdir(mode)
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


def inside(root: Path, name: str) -> Path:
    """The file of a name: a path within the folder, or the file of that name in it; never one outside."""
    path = Path(os.path.normpath(root / name))
    if path.is_relative_to(root) and path.is_file():
        return path
    return root / (Path(name).name or "unnamed")


def data_folder() -> Path:
    """Where people's own work is kept that belongs to no run: ``$CCAN_DATA``, else the system's folder for it."""
    if os.environ.get("CCAN_DATA"):
        return Path(os.environ["CCAN_DATA"]).expanduser()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local")) / "ccan-data"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "ccan"
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "ccan"


def cache_folder() -> Path:
    """Where indices and rendered worlds are kept: ``$CCAN_CACHE``, else the system's cache folder for this user."""
    if os.environ.get("CCAN_CACHE"):
        return Path(os.environ["CCAN_CACHE"]).expanduser()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local")) / "ccan"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "ccan"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ccan"
