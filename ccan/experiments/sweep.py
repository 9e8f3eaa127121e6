"""The folder of a sweep: what its cells start from, and what they reached.

sweep.json                 the recipe that every variant changes, and the dataset
NAME/seed-K/result.json    a finished cell (`ccan.experiments.cell`)
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ccan.config import Recipe, changed_settings
from ccan.errors import CCANError, ConfigError
from ccan.evaluation import EvaluationReport
from ccan.experiments.ablations import Variant, anywhere, cell_of
from ccan.experiments.cell import PER_QUERY, RESULT, read_result
from ccan.files import write_json

SWEEP = "sweep.json"


@dataclass(frozen=True)
class Sweep:
    """Finished cells of one recipe on one dataset.

    Attributes:
        base: the recipe that every variant changes; its seed is the first one.
        dataset: name of the dataset.
        results: (cell's name, seed) → result; folders: the same keys → the cell's folder.
    """

    base: Recipe
    dataset: str
    results: dict[tuple[str, int], dict[str, Any]]
    folders: dict[tuple[str, int], Path]

    def seeds_of(self, variant: Variant) -> list[int]:
        """The seeds with which a row is finished; none where the recipe's sizes do not allow the row."""
        try:
            name = self.cell_name(variant)
        except ConfigError:
            return []
        return sorted(seed for cell, seed in self.results if cell == name)

    def cell_name(self, variant: Variant) -> str:
        """Name of a row's cell."""
        return cell_of(self.base, variant, 0).name

    def result(self, variant: Variant, seed: int) -> dict[str, Any]:
        """What a row reached with a seed."""
        return self.results[self.cell_name(variant), seed]

    def per_query(self, variant: Variant, seeds: Sequence[int]) -> EvaluationReport:
        """The queries of a row with these seeds, one seed after the other."""
        name = self.cell_name(variant)
        rule = self.results[name, seeds[0]]["figures"]["conventions"]
        found = [_load_arrays(self.folders[name, seed] / PER_QUERY) for seed in seeds]
        arrays: dict[str, Any] = {
            key: np.concatenate([one[key] for one in found]) for key in found[0]
        }
        return EvaluationReport(**arrays, names=None, max_rank=1, conventions=rule)


def begin_sweep(folder: Path, base: Recipe, dataset: str) -> None:
    """Note what the cells of a folder start from. Raises: ConfigError if it has been begun with other settings."""
    path = Path(folder) / SWEEP
    base = anywhere(base)
    settings = {"recipe": base.to_dict(), "dataset": dataset}
    if not path.exists():
        write_json(path, settings)
        return
    before, known = _read_sweep(path)
    changes = changed_settings(before.to_dict(), base.to_dict())
    if known != dataset:
        changes["dataset"] = (known, dataset)
    if changes:
        listed = "; ".join(f"{name}: {old!r} → {new!r}" for name, (old, new) in changes.items())
        raise ConfigError(
            f"{folder} is a sweep with other settings, got: {listed}. Repeat the old ones, or choose another --out"
        )


def read_sweep(folders: Sequence[Path]) -> Sweep:
    """The finished cells of one folder, or of several that were begun alike (on several machines, say).

    Raises: ConfigError if there is none, or if the folders differ in settings, dataset or images.
    """
    if not folders:
        raise ConfigError("expected at least one sweep's folder, got none")
    started = {folder: _read_sweep(Path(folder) / SWEEP) for folder in folders}
    base, dataset = started[folders[0]]
    for folder, (other, name) in started.items():
        changes = changed_settings(base.to_dict(), other.to_dict())
        if changes or name != dataset:
            what = ", ".join(changes) or "dataset"
            raise ConfigError(f"{folders[0]} and {folder} are different sweeps: {what}")
    results: dict[tuple[str, int], dict[str, Any]] = {}
    places: dict[tuple[str, int], Path] = {}
    for folder in folders:
        for path in sorted(Path(folder).glob(f"*/seed-*/{RESULT}")):
            result = read_result(path)
            key = (str(result["cell"]), int(result["seed"]))
            results.setdefault(key, result)
            places.setdefault(key, path.parent)
    if not results:
        raise ConfigError(f"{folders[0]} has no finished cell yet; run `ccan ablate` to its end")
    images = {(result["train"], result["test"]) for result in results.values()}
    if len(images) > 1:
        raise ConfigError(
            "the cells were trained or judged on different images, so they cannot be compared; "
            "use one --out for each dataset"
        )
    return Sweep(base, dataset, results, places)


def _read_sweep(path: Path) -> tuple[Recipe, str]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        return Recipe.from_dict(values["recipe"]), str(values["dataset"])
    except (OSError, ValueError, KeyError, TypeError, CCANError) as error:
        raise ConfigError(
            f"{path}: expected the settings of a sweep, as `ccan ablate` writes them, got {error!r}"
        ) from error


def _load_arrays(path: Path) -> dict[str, Any]:
    """The per-query arrays that `EvaluationReport.save_per_query` wrote."""
    keys = ("ap", "inp", "first_match", "matches", "kept", "identities", "cameras")
    try:
        with np.load(path, allow_pickle=False) as file:
            return {key: file[key] for key in keys}
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(f"{path}: expected a cell's per-query results, got {error!r}") from error
