"""`ccan ablate`: train and judge every cell of an ablation; goes on where it was interrupted."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from queue import SimpleQueue
from typing import Annotated, Any

from tyro.conf import Positional, arg

from ccan.cli.output import folder_only
from ccan.config import Recipe, changed_settings
from ccan.errors import ConfigError, TrainingError
from ccan.experiments.ablations import ABLATIONS, AblationName, Cell, cells_of


@dataclass(frozen=True)
class Ablate:
    """Answer a question of the paper's ablation study: every variant trained and judged, with several seeds."""

    name: Positional[AblationName]
    """Which question: Table 6, Fig. 4a, Fig. 4b, Fig. 2, or our own decisions."""
    data: Path
    """Folder of the dataset; it needs train, query and gallery."""
    out: Path
    """Folder of the sweep; ablations of the same recipe and data share it, and their common cells."""
    dataset: str = "market1501"
    """Name of the dataset's layout; `auto` = recognise it."""
    options: tuple[str, ...] = ()
    """Options of the dataset's loader as name=value."""
    recipe: str = "paper"
    """Where the settings start from."""
    seeds: int = 3
    """Trainings of each variant, with seeds from the recipe's own upwards."""
    epochs: int | None = None
    """Length of each training; short for --train.epochs."""
    jobs: int = 1
    """Cells at a time on a CPU, which share its cores; with --devices cells at a time on each device."""
    devices: tuple[str, ...] = ()
    """Devices that take cells, for example cuda:0 cuda:1; by default the one of the recipe."""
    cell: str | None = None
    """Run this one cell only (with --seed), as a job of a cluster does; --list shows them."""
    seed: int | None = None
    """The seed of --cell."""
    list: bool = False
    """Print each cell's command and stop."""
    settings: Annotated[Recipe, arg(name="")] = field(default_factory=Recipe)
    """The settings themselves."""

    def run(self) -> None:
        """Run the cells that are not done yet, or the one that was asked for."""
        from ccan.experiments.sweep import begin_sweep

        folder_only(self.out, "a sweep")
        base = self.settings
        if self.epochs is not None:
            base = replace(base, train=replace(base.train, epochs=self.epochs))
        if (self.cell is None) != (self.seed is None):
            raise ConfigError("--cell and --seed go together; --list shows every cell's command")
        if self.jobs < 1:
            raise ConfigError(f"--jobs must be at least 1, got {self.jobs}")
        cells = cells_of(self.name, base, self.seeds)
        if not self.list:
            begin_sweep(self.out, base, self.dataset)
        if self.cell is not None:
            self._run_one(self._asked(base))
        elif self.list:
            for cell in cells:
                print(shlex.join(["ccan", *self._words(base, cell)]))
        else:
            print(f"{ABLATIONS[self.name].asks} ({ABLATIONS[self.name].source})")
            self._run_all(base, cells)
            print(f"next:\n  ccan report {shlex.quote(str(self.out))} --ablation {self.name}")

    def _asked(self, base: Recipe) -> Cell:
        """The cell that --cell and --seed name."""
        seed = 0 if self.seed is None else self.seed
        seeded = replace(base, train=replace(base.train, seed=seed))
        known = {cell.name: cell for cell in cells_of(self.name, seeded, 1)}
        if self.cell not in known:
            raise ConfigError(
                f"--cell must be one of {', '.join(known)} for {self.name}, got {self.cell!r}"
            )
        return known[self.cell]

    def _run_one(self, cell: Cell) -> None:
        from ccan.data import load_dataset, read_options
        from ccan.experiments.cell import run_cell

        options = read_options(self.dataset, self.options)
        run_cell(cell, load_dataset(self.dataset, self.data, **options), self.out)

    def _words(self, base: Recipe, cell: Cell) -> list[str]:
        """The command of one cell, from which nothing is left out."""
        from ccan.experiments.recipes import recipe

        words = ["ablate", self.name, "--data", str(self.data), "--out", str(self.out)]
        words += ["--dataset", self.dataset, "--recipe", self.recipe]
        if self.options:
            words += ["--options", *self.options]
        start = recipe(self.recipe, self.dataset).to_dict()
        words += setting_words(changed_settings(start, base.to_dict()))
        return [*words, "--cell", cell.name, "--seed", str(cell.recipe.train.seed)]

    def _run_all(self, base: Recipe, cells: list[Cell]) -> None:
        """Cells in processes of their own, some at a time. Raises: TrainingError that names the failed ones."""
        from ccan.experiments.cell import RESULT

        places: SimpleQueue[str | None] = SimpleQueue()
        for device in self.devices or (None,):
            for _ in range(self.jobs):
                places.put(device)
        at_once = self.jobs * max(1, len(self.devices))
        threads = str(max(1, (os.cpu_count() or 1) // at_once))

        def run(cell: Cell) -> str | None:
            if (self.out / cell.folder / RESULT).exists():
                print(f"{cell.folder}: done before", flush=True)
                return None
            device = places.get()
            words = self._words(base, cell)
            words += [] if device is None else ["--train.device", device]
            try:
                ended = subprocess.run(
                    [sys.executable, "-m", "ccan.cli", *words],
                    env={"OMP_NUM_THREADS": threads, **os.environ},
                    stderr=None if at_once == 1 else subprocess.PIPE,
                    text=True,
                )
            finally:
                places.put(device)
            if ended.returncode:
                reason = (ended.stderr or "see above").strip().splitlines()[-1]
                print(f"{cell.folder}: failed: {reason}", file=sys.stderr, flush=True)
                return cell.folder
            return None

        with ThreadPoolExecutor(at_once) as pool:
            failed = [name for name in pool.map(run, cells) if name is not None]
        if failed:
            raise TrainingError(
                f"{len(failed)} of {len(cells)} cells failed: {', '.join(failed)}. The others are kept; "
                "the same command tries the failed ones again"
            )


def setting_words(changes: Mapping[str, tuple[Any, Any]]) -> list[str]:
    """Settings by dotted name → the words of the command line that set them."""
    words: list[str] = []
    for name, (_, value) in changes.items():
        group, _, field_name = name.rpartition(".")
        option = field_name.replace("_", "-")
        prefix = f"--{group}." if group else "--"
        if isinstance(value, bool):
            words.append(f"{prefix}{option}" if value else f"{prefix}no-{option}")
        else:
            values = value if isinstance(value, list | tuple) else [value]
            words += [f"{prefix}{option}", *map(str, values)]
    return words
