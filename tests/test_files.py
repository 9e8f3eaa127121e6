"""Leftovers of killed processes go, work in progress stays."""

from __future__ import annotations

import os
import time
from pathlib import Path

from ccan.files import LEFTOVER_SECONDS, remove_leftovers


def work_folder(path: Path, age: float, content_age: float) -> Path:
    """A folder with one file, last written to so many seconds ago."""
    path.mkdir()
    (path / "file").write_text("half done")
    for entry, seconds in ((path / "file", content_age), (path, age)):
        then = time.time() - seconds
        os.utime(entry, (then, then))
    return path


def test_only_old_work_folders_of_the_pattern_are_removed(tmp_path: Path) -> None:
    old = LEFTOVER_SECONDS + 60
    left = work_folder(tmp_path / ".index-killed", old, old)
    running = work_folder(tmp_path / ".index-running", old, 5)
    other = work_folder(tmp_path / "index", old, old)
    remove_leftovers(tmp_path, ".index-*")
    assert not left.exists() and running.exists() and other.exists()


def test_nothing_to_remove_is_no_error(tmp_path: Path) -> None:
    remove_leftovers(tmp_path / "missing", "*")
