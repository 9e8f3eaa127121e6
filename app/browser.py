"""A Chromium on this machine, for screenshots, measurements and tests of the page."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
PLACES = (
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
)
FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync"),
    *("--disable-component-update", "--no-first-run", "--disable-quic"),
]
"""Command-line switches: works as root and in containers, and asks nothing of other machines."""


def find_chromium() -> str | None:
    """The browser named by $CHROMIUM, else the first on PATH or among the usual places; None if there is none."""
    named = os.environ.get("CHROMIUM")
    found = [named] if named else [shutil.which(name) for name in NAMES]
    candidates = [path for path in (*found, *PLACES) if path and Path(path).is_file()]
    return candidates[0] if candidates else None
