"""One cell of an ablation: train, judge, write down what it reached and what it cost.

NAME/seed-K/result.json says that the cell is done; it is written last. Until then the cell goes on where it stopped.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from ccan.config import ModelConfig, Recipe
from ccan.data.records import ReIDDataset
from ccan.device import choose_device
from ccan.errors import CCANError, ConfigError
from ccan.evaluation import EvaluationReport, evaluate_features, extract_features
from ccan.experiments.ablations import Cell, anywhere
from ccan.files import write_json
from ccan.model.network import build_ccan
from ccan.training.checkpoint import LAST, MODEL, load_model
from ccan.training.journal import RunFolder
from ccan.training.loop import Say, fingerprint, fit

RESULT, PER_QUERY = "result.json", "per_query.npz"
FORMAT = 1


@dataclass(frozen=True)
class Cost:
    """What a network costs.

    Attributes:
        parameters: their number.
        gflop: 10⁹ operations of one image's forward pass, multiplications and additions both counted.
    """

    parameters: int
    gflop: float


def cost_of(config: ModelConfig, num_identities: int) -> Cost:
    """Count parameters and operations without computing anything (on torch's meta device)."""
    with torch.device("meta"):
        model = build_ccan(config, num_identities).eval()
        images = torch.empty(1, 3, config.image_height, config.image_width)
    with FlopCounterMode(display=False) as counter:
        model(images)
    return Cost(sum(p.numel() for p in model.parameters()), counter.get_total_flops() / 1e9)


def run_cell(
    cell: Cell, dataset: ReIDDataset, out: Path, *, progress: bool = True, say: Say = print
) -> Path:
    """Train a cell (or go on with it), judge it on the dataset's query and gallery, write its result.

    Args:
        cell: what is trained.
        dataset: with train, query and gallery.
        out: the sweep's folder; the cell has a run folder of its own below it.

    Returns: the file of the result. A cell that is done is left as it is. Raises: what `fit` raises, and ConfigError
    if a finished cell has other settings or another dataset.
    """
    folder = Path(out) / cell.folder
    result = folder / RESULT
    if result.exists():
        _check_same(read_result(result), cell, dataset, result)
        say(f"{cell.folder}: done before")
        return result
    fit(cell.recipe, dataset, folder, resume=True, progress=progress, say=say)
    device = choose_device(cell.recipe.train.device)
    report = _judge(folder, cell.recipe, dataset, device)
    report.save_per_query(folder / PER_QUERY)
    journal = RunFolder(folder).read()
    identities = len(dataset.train_identities)
    cost = cost_of(cell.recipe.model, identities)
    write_json(
        result,
        {
            "format": FORMAT,
            "cell": cell.name,
            "seed": cell.recipe.train.seed,
            "recipe": anywhere(cell.recipe).to_dict(),
            "dataset": dataset.name,
            "train": fingerprint(dataset.train),
            "test": fingerprint([*dataset.query, *dataset.gallery]),
            "figures": report.to_dict(),
            "parameters": cost.parameters,
            "gflop": cost.gflop,
            "epochs": len(journal),
            "images_per_second": float(np.median([line["images_per_second"] for line in journal])),
            "train_seconds": sum(line["seconds"] for line in journal),
            "environment": json.loads((folder / "environment.json").read_text(encoding="utf-8")),
        },
    )
    (folder / LAST).unlink(missing_ok=True)  # Adam's state is of no use any more; the weights stay
    say(f"{cell.folder}: mAP {report.mAP:.1%}, R1 {report.rank(1):.1%}")
    return result


def read_result(path: Path) -> dict[str, Any]:
    """A cell's result. Raises: ConfigError if it is damaged or of another version."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{path}: expected a cell's result, got {error}; delete the file to have the cell judged again"
        ) from error
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        raise ConfigError(
            f"{path}: expected a cell's result of format {FORMAT}; it was written by another version of "
            "ccan: choose another --out"
        )
    return values


def _judge(
    folder: Path, recipe: Recipe, dataset: ReIDDataset, device: torch.device
) -> EvaluationReport:
    """The figures of the run's final weights."""
    model, _ = load_model(folder / MODEL, device)
    query, gallery = (
        extract_features(
            model,
            samples,
            batch_size=recipe.eval.batch_size,
            workers=recipe.eval.workers,
            device=device,
            flip=recipe.eval.flip,
        )
        for samples in (dataset.query, dataset.gallery)
    )
    return evaluate_features(query, gallery, distance=recipe.eval.distance, ap=recipe.eval.ap)


def _check_same(found: Mapping[str, Any], cell: Cell, dataset: ReIDDataset, path: Path) -> None:
    try:
        same_recipe = anywhere(Recipe.from_dict(found["recipe"])) == anywhere(cell.recipe)
    except (CCANError, KeyError):
        same_recipe = False
    same_data = found.get("train") == fingerprint(dataset.train)
    if not (same_recipe and same_data):
        what = "another dataset" if same_recipe else "other settings"
        raise ConfigError(f"{path} is of {what}; choose another --out, or delete the cell's folder")
