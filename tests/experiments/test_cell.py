"""A cell is trained, judged and written down once; what was begun goes on, what differs is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ccan.config import ModelConfig
from ccan.data.records import ReIDDataset
from ccan.errors import ConfigError
from ccan.evaluation import evaluate_features, extract_features
from ccan.experiments.ablations import ABLATIONS, Cell, cell_of
from ccan.experiments.cell import RESULT, cost_of, read_result, run_cell
from ccan.training import load_model
from tests.training.people import tiny_dataset, tiny_recipe

CELL = cell_of(tiny_recipe(epochs=2, device="auto"), ABLATIONS["attention"].variant("none"), seed=3)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> ReIDDataset:
    return tiny_dataset(tmp_path_factory.mktemp("people"))


@pytest.fixture(scope="module")
def done(dataset: ReIDDataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_quietly(CELL, dataset, tmp_path_factory.mktemp("sweep"))


def run_quietly(cell: Cell, dataset: ReIDDataset, out: Path) -> Path:
    return run_cell(cell, dataset, out, progress=False, say=lambda _: None)


def test_the_result_is_what_the_final_weights_reach(done: Path, dataset: ReIDDataset):
    model, info = load_model(done.parent / "model.safetensors")
    query, gallery = (
        extract_features(model, samples, workers=0) for samples in (dataset.query, dataset.gallery)
    )
    expected = evaluate_features(query, gallery)
    result = read_result(done)
    assert result["figures"]["mAP"] == pytest.approx(expected.mAP, abs=1e-9)
    assert (result["cell"], result["seed"]) == ("cca=False+ssa=False", 3)
    assert result["epochs"] == info.epoch == 2
    assert done.parent.parent.name == result["cell"]
    assert result["parameters"] == sum(p.numel() for p in model.parameters())
    with np.load(done.parent / "per_query.npz", allow_pickle=False) as saved:
        assert np.array_equal(saved["ap"], expected.ap, equal_nan=True)


def test_only_the_weights_stay_of_a_finished_training(done: Path):
    assert (done.parent / "model.safetensors").exists()
    assert not (done.parent / "last.safetensors").exists()


def test_a_finished_cell_is_not_touched_again(done: Path, dataset: ReIDDataset):
    before, said = done.read_bytes(), list[str]()
    assert run_cell(CELL, dataset, done.parents[2], say=said.append) == done
    assert said == ["cca=False+ssa=False/seed-3: done before"]
    assert done.read_bytes() == before


def test_a_cell_whose_result_is_missing_is_judged_without_training_again(
    dataset: ReIDDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def full_disk(*_: object) -> None:
        raise OSError("no space left on device")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="no space"):
        patch.setattr("ccan.experiments.cell.write_json", full_disk)
        run_quietly(CELL, dataset, tmp_path)
    weights = (tmp_path / CELL.folder / "model.safetensors").read_bytes()
    assert not (tmp_path / CELL.folder / RESULT).exists()
    said: list[str] = []
    run_cell(CELL, dataset, tmp_path, progress=False, say=said.append)
    assert "is finished" in said[0]
    assert (tmp_path / CELL.folder / "model.safetensors").read_bytes() == weights


def test_other_settings_or_images_are_refused(done: Path, dataset: ReIDDataset):
    longer = replace(CELL.recipe, train=replace(CELL.recipe.train, epochs=3))
    with pytest.raises(ConfigError, match="is of other settings; choose another --out"):
        run_quietly(replace(CELL, recipe=longer), dataset, done.parents[2])
    fewer = replace(dataset, train=dataset.train[:-1])
    with pytest.raises(ConfigError, match="is of another dataset"):
        run_quietly(CELL, fewer, done.parents[2])


def test_the_device_may_differ_from_cell_to_cell(done: Path, dataset: ReIDDataset):
    elsewhere = replace(CELL.recipe, train=replace(CELL.recipe.train, device="cpu"))
    assert run_quietly(replace(CELL, recipe=elsewhere), dataset, done.parents[2]) == done


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "delete the file"), (json.dumps({"format": 0}), "another version"), ("[]", "format 1")],
)
def test_a_damaged_result_is_named(tmp_path: Path, text: str, message: str):
    (tmp_path / RESULT).write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_result(tmp_path / RESULT)


def test_costs_are_counted_without_computing():
    """Section 3.3's size check: 34,455,678 parameters and 6.406 GFLOP with 751 identities."""
    found = cost_of(ModelConfig(), 751)
    assert found.parameters == 34_455_678
    assert found.gflop == pytest.approx(6.406, abs=5e-4)
