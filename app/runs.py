"""Run folders on disk as the page shows them: their journals, live while they train, and the tables of sweeps."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.images import Recent
from ccan.errors import CCANError
from ccan.experiments.ablations import ABLATIONS
from ccan.experiments.report import AblationTable, ablation_table
from ccan.experiments.sweep import SWEEP, read_sweep
from ccan.training.checkpoint import MODEL
from ccan.training.journal import RunFolder

JOURNAL = "metrics.jsonl"
LISTED, DEPTH, DRAWN = 60, 4, 8
"""Runs that are listed, newest first; folders below the given one that are searched; curves of a chart."""
LIVE_SECONDS = 15 * 60
"""A run without final weights whose journal was written to so recently is taken to be training."""


@dataclass(frozen=True)
class Run:
    """One run folder.

    Attributes:
        name: path below the folder of runs.
        lines: of its journal, one a finished epoch.
        epochs: that it is to have; 0 if its settings cannot be read.
        finished: whether its final weights are there.
        live: whether it seems to be training now.
    """

    name: str
    lines: tuple[dict[str, Any], ...]
    epochs: int
    finished: bool
    live: bool

    def curve(self, metric: str) -> list[tuple[int, float]]:
        """(epoch, value) of a metric where it was measured, finite values only."""
        pairs = [(line.get("epoch"), line.get(metric)) for line in self.lines]
        return [
            (int(epoch) + 1, float(value))
            for epoch, value in pairs
            if isinstance(epoch, int) and isinstance(value, int | float) and math.isfinite(value)
        ]


def drawn_runs(chosen: Sequence[str], runs: Sequence[Run]) -> list[Run]:
    """The runs whose curves are drawn: the chosen, or the newest that have any."""
    return [run for run in runs if (run.name in chosen if chosen else run.lines)][:DRAWN]


class Runs:
    """What is under a folder of runs, read anew when it changes.

    Args:
        folder: searched four folders deep; it need not exist.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._runs: Recent[Run] = Recent(4 * LISTED)
        self._tables: Recent[list[AblationTable]] = Recent(8)

    def _found(self, name: str) -> list[Path]:
        """Files of a name, newest first."""
        patterns = ("*/" * depth + name for depth in range(DEPTH + 1))
        paths = [path for pattern in patterns for path in self.folder.glob(pattern)]
        return sorted(paths, key=lambda path: (-_changed(path), str(path)))

    def all(self) -> list[Run]:
        """The runs, the one that was written to last first."""
        found = []
        for path in self._found(JOURNAL)[:LISTED]:
            finished = (path.parent / MODEL).is_file()
            changed = _changed(path)
            run = self._runs.get_or_make((path, changed, finished), lambda p=path: self._read(p))
            live = not run.finished and time.time() - changed < LIVE_SECONDS
            found.append(Run(run.name, run.lines, run.epochs, run.finished, live))
        return found

    def _read(self, path: Path) -> Run:
        folder = path.parent
        try:
            config = json.loads((folder / "config.json").read_text("utf-8"))
            epochs = int(config["recipe"]["train"]["epochs"])
        except (OSError, ValueError, KeyError, TypeError):
            epochs = 0
        lines = [line for line in RunFolder(folder, writes=False).read() if isinstance(line, dict)]
        name = folder.relative_to(self.folder).as_posix()
        return Run(name, tuple(lines), epochs, (folder / MODEL).is_file(), False)

    def tables(self) -> list[tuple[str, AblationTable]]:
        """Sweep's name and table of each ablation with at least two finished rows."""
        found = []
        for path in self._found(SWEEP):
            results = sorted(
                (str(one), _changed(one)) for one in path.parent.glob("*/seed-*/*.json")
            )
            name = path.parent.resolve().name
            tables = self._tables.get_or_make(
                (path, _changed(path), tuple(results)), lambda p=path: _tables_of(p.parent)
            )
            found += [(name, table) for table in tables]
        return found


def _tables_of(folder: Path) -> list[AblationTable]:
    try:
        sweep = read_sweep([folder])
        tables = [ablation_table(sweep, name) for name in ABLATIONS]
    except CCANError:  # not begun, half-made or damaged: other sweeps are shown all the same
        return []
    return [table for table in tables if table.finished >= 2]


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
