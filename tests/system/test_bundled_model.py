"""The bundled model: what its files say of it is true, and the road that made it still works."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from ccan.config import Recipe
from ccan.data import ReIDDataset, load_dataset
from ccan.data.synthetic import WorldConfig, write_world
from ccan.evaluation import evaluate_features, extract_features
from ccan.experiments.recipes import demo
from ccan.explain import record_attention, silent_slots, slot_names
from ccan.model import CCAN, build_ccan
from ccan.training import fit, load_model, resolve_checkpoint
from tests.system.commands import ROOT

FOLDER = resolve_checkpoint("demo").parent


def mean_average_precision(model: CCAN, world: ReIDDataset) -> float:
    query, gallery = (
        extract_features(model, samples, workers=0) for samples in (world.query, world.gallery)
    )
    return evaluate_features(query, gallery).mAP


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> ReIDDataset:
    """A small world of a seed that nothing was trained or tuned on."""
    config = WorldConfig(identities=40, cameras=4, images_per_camera=3, seed=11)
    folder = tmp_path_factory.mktemp("world") / "w"
    return load_dataset("synthetic", write_world(config, folder, progress=False))


def test_the_files_beside_the_model_belong_to_it() -> None:
    model, info = load_model("demo")
    config = json.loads((FOLDER / "config.json").read_text(encoding="utf-8"))
    assert Recipe.from_dict(config["recipe"]) == info.recipe == demo()
    assert config["data_fingerprint"] == info.data_fingerprint
    lines = (FOLDER / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(lines) == info.epoch == info.recipe.train.epochs
    last = json.loads(lines[-1])
    assert {name: last[name] for name in info.metrics} == dict(info.metrics)
    assert len(info.identities) >= 300 and not model.training


def test_the_twin_is_the_same_recipe_without_attention() -> None:
    model, info = load_model("demo-plain")
    _, whole = load_model("demo")
    plain = dataclasses.replace(whole.recipe.model, ssa=False, cca=False)
    assert info.recipe == dataclasses.replace(whole.recipe, model=plain)
    assert slot_names(model.config) == [] and info.epoch == whole.epoch
    assert (info.data_fingerprint, info.identities) == (whole.data_fingerprint, whole.identities)
    folder = resolve_checkpoint("demo-plain").parent
    measured = json.loads((folder / "evaluation.json").read_text(encoding="utf-8"))
    card = (ROOT / "MODEL_CARD.md").read_text(encoding="utf-8")
    for name, figures in measured.items():
        assert f"| {name} | {figures['mAP']:.1%} | {figures['rank1']:.1%} |" in card
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(lines) == info.epoch and resolve_checkpoint("demo-plain").stat().st_size < 8 * 2**20


def test_it_is_small_and_in_half_precision() -> None:
    path = resolve_checkpoint("demo")
    assert path.stat().st_size <= 8 * 2**20
    weights = [value for value in load_file(path).values() if value.dim() > 1]
    assert {value.dtype for value in weights} == {torch.float16}


def test_the_model_card_says_what_was_measured() -> None:
    card = (ROOT / "MODEL_CARD.md").read_text(encoding="utf-8")
    measured = json.loads((FOLDER / "evaluation.json").read_text(encoding="utf-8"))
    assert len(measured) >= 2
    for name, figures in measured.items():
        assert f"| {name} | {figures['mAP']:.1%} | {figures['rank1']:.1%} |" in card


def test_the_model_card_names_the_attentions_that_add_nothing() -> None:
    model, _ = load_model("demo")
    card = (ROOT / "MODEL_CARD.md").read_text(encoding="utf-8")
    silent = silent_slots(model)
    assert [slot for slot in slot_names(model.config) if f"`{slot}`" in card] == list(silent)
    record = record_attention(model, torch.rand(1, 3, 128, 64))[0]
    for slot, maps in record.slots.items():
        assert (np.abs(maps.residual).max() == 0) == (slot in silent), slot


@pytest.mark.slow
def test_it_knows_people_it_has_never_seen(world: ReIDDataset) -> None:
    from benchmarks.histogram import histogram_features

    histogram = evaluate_features(
        histogram_features(world.query), histogram_features(world.gallery)
    )
    bundled = mean_average_precision(load_model("demo")[0], world)
    assert histogram.mAP + 0.2 < bundled < 1.0


@pytest.mark.slow
def test_its_recipe_still_trains(world: ReIDDataset, tmp_path: Path) -> None:
    """Sixteen epochs on twenty people rank twenty others far better than the random start does."""
    recipe = demo()
    short = dataclasses.replace(
        recipe,
        train=dataclasses.replace(recipe.train, epochs=16),
        optim=dataclasses.replace(recipe.optim, warmup_epochs=0),
    )
    torch.manual_seed(0)
    untrained = build_ccan(recipe.model, 20).eval()
    fit(short, world, tmp_path / "run", progress=False, say=lambda _: None)
    trained, info = load_model(tmp_path / "run")
    assert info.epoch == 16
    before = mean_average_precision(untrained, world)
    assert mean_average_precision(trained, world) > before + 0.2
