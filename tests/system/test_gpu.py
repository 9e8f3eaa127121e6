"""The whole road on a CUDA device: it trains, goes on, and what it leaves is read by any machine.

Every test runs on the CPU too, so that its own code is known to work where there is no GPU. On CUDA float32
convolutions may be rounded (TF32) and sums come in any order: figures agree within tolerances, not bit for bit.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from ccan.cli import main
from ccan.config import Recipe
from ccan.data import ReIDDataset, load_dataset
from ccan.data.loading import TrainingImages
from ccan.data.records import Sample
from ccan.data.synthetic import WorldConfig, write_world
from ccan.evaluation import extract_features
from ccan.experiments.recipes import smoke
from ccan.losses import CCANLoss
from ccan.model import CCAN, build_ccan
from ccan.predictor import Predictor
from ccan.training import fit, load_model, loop, training_step
from ccan.training.checkpoint import LAST, MODEL
from ccan.training.step import build_optimizer, learning_rate_at

CUDA = pytest.param("cuda", marks=pytest.mark.gpu)
WORLD = WorldConfig(identities=16, cameras=2, images_per_camera=4, height=64, width=32)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> ReIDDataset:
    """Eight people to train on and eight to test on, two cameras."""
    folder = tmp_path_factory.mktemp("world") / "w"
    return load_dataset("synthetic", write_world(WORLD, folder, workers=1, progress=False))


@pytest.fixture(scope="module", params=["cpu", CUDA])
def device(request: pytest.FixtureRequest) -> str:
    """Where a test runs."""
    return request.param


def short(device: str, epochs: int = 2, precision: str = "auto") -> Recipe:
    """The smoke recipe, erasing from its second epoch on."""
    recipe = smoke()
    train: Any = {"epochs": epochs, "device": device, "precision": precision}
    return replace(
        recipe,
        data=replace(recipe.data, erasing_from_epoch=1),
        train=replace(recipe.train, **train),
    )


def quiet_fit(recipe: Recipe, world: ReIDDataset, out: Path, resume: bool = False) -> None:
    fit(recipe, world, out, resume=resume, progress=False, say=lambda _: None)


def journal(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def run(world: ReIDDataset, device: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of two epochs, trained on the device."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    quiet_fit(short(device), world, folder)
    return folder


def test_two_epochs_train(run: Path, device: str) -> None:
    lines = journal(run)
    assert [line["epoch"] for line in lines] == [0, 1]
    assert all(np.isfinite(list(line.values())).all() for line in lines)
    assert lines[1]["loss"] < lines[0]["loss"]
    environment = json.loads((run / "environment.json").read_text())
    assert environment["device"] == device
    if device == "cuda":
        assert environment["device_name"] == torch.cuda.get_device_name()


def test_pixels_kept_here_are_augmented_as_on_the_cpu(world: ReIDDataset, device: str) -> None:
    """Crops, flips and erasing are the same to the pixel; colours and scales up to rounding."""
    recipe = short(device)
    data = replace(recipe.data, jitter_probability=0.5)
    labels = [world.train_identities.index(sample.identity) for sample in world.train]
    here, there = (
        TrainingImages(world.train, labels, recipe.model, data, device=where)
        for where in (device, "cpu")
    )
    assert here.pixels is not None and here.pixels.device.type == device
    pairs = list(zip(here.batches(data, 3, 1), there.batches(data, 3, 1), strict=True))
    assert pairs
    for found, expected in pairs:
        assert found.images.device.type == found.labels.device.type == device
        assert torch.equal(found.indices, expected.indices)
        assert torch.equal(found.labels.cpu(), expected.labels)
        assert torch.allclose(found.images.cpu(), expected.images, atol=1e-5)


def descriptors(model: CCAN, samples: Sequence[Sample], **options: Any) -> torch.Tensor:
    return extract_features(model, samples, workers=0, **options).features


def error(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Largest distance of a descriptor from where it should be, in units of their spread over the images."""
    spread = (expected - expected.mean(0)).norm(dim=1).mean()
    return float((found - expected).norm(dim=1).max() / spread)


def test_what_was_trained_here_is_the_same_network_on_the_cpu(
    run: Path, world: ReIDDataset, device: str
) -> None:
    """In float64, which no device rounds: so short a training leaves descriptors that hardly differ."""
    for name in (LAST, MODEL):
        here, _ = load_model(run / name, device)
        there, info = load_model(run / name, "cpu")
        assert info.recipe == short(device)
        for one, other in zip(here.parameters(), there.parameters(), strict=True):
            assert one.device.type == device and torch.equal(one.cpu(), other)
        found, expected = (descriptors(model.double(), world.query) for model in (here, there))
        assert found.device.type == "cpu" and found.dtype == torch.float64
        assert error(found, expected) < 1e-6


def test_descriptors_of_the_bundled_model(world: ReIDDataset, device: str) -> None:
    """float32, perhaps rounded to TF32, within a hundredth of how images differ, bfloat16 within a tenth."""
    here, there = (load_model("demo", where)[0] for where in (device, "cpu"))
    expected = descriptors(there, world.query)
    found = descriptors(here, world.query)
    assert found.dtype == torch.float32 and found.device.type == "cpu"
    assert error(found, expected) < 1e-2
    mixed = descriptors(here, world.query, autocast=torch.bfloat16)
    assert mixed.dtype == torch.float32 and mixed.device.type == "cpu"
    assert 1e-3 < error(mixed, expected) < 0.1
    exact = descriptors(here.double(), world.query)
    torch.testing.assert_close(exact.float(), expected, rtol=0, atol=1e-4)


def test_a_predictor_here_sees_what_one_on_the_cpu_sees(world: ReIDDataset, device: str) -> None:
    path = world.query[0].path
    here, there = (Predictor.from_checkpoint("demo", where) for where in (device, "cpu"))
    assert here.device.type == device
    np.testing.assert_allclose(here.embed(path), there.embed(path), atol=1e-2)
    found, expected = here.attention(path), there.attention(path)
    assert found.slots.keys() == expected.slots.keys() and len(found.slots) == 5
    for name, slot in found.slots.items():
        for maps in ("correlation", "attention", "residual"):
            mine, theirs = getattr(slot, maps), getattr(expected.slots[name], maps)
            assert isinstance(mine, np.ndarray) and mine.dtype == np.float32
            assert np.linalg.norm(mine - theirs) <= 2e-2 * np.linalg.norm(theirs) + 1e-6, (
                name,
                maps,
            )
    summary = found.slots["SS1"].on_image("gathered_share")
    assert summary.shape == (128, 64) and np.isfinite(summary).all()


@pytest.mark.parametrize("precision", ["auto", "float32", "bfloat16"])
def test_bfloat16_is_the_default_on_cuda_and_only_there(precision: str, device: str) -> None:
    chosen = {"auto": {"cpu": "float32", "cuda": "bfloat16"}[device]}.get(precision, precision)
    torch.manual_seed(0)
    recipe = short(device)
    model = build_ccan(recipe.model, 4).to(device).train()
    seen: list[torch.dtype] = []

    def listen(_module: torch.nn.Module, _inputs: object, output: torch.Tensor) -> None:
        seen.append(output.dtype)

    model.i1.get_submodule("conv1.conv").register_forward_hook(listen)
    optimizer = build_optimizer(model, recipe.optim)
    images = torch.randn(8, 3, 128, 64, device=device)
    labels = torch.arange(4, device=device).repeat_interleave(2)
    report = training_step(model, CCANLoss(), optimizer, images, labels, precision)
    assert seen == [getattr(torch, chosen)]
    assert torch.isfinite(report.loss) and report.loss.dtype == torch.float32
    for name, weight in model.named_parameters():
        assert weight.dtype == torch.float32, name
        assert weight.grad is not None and weight.grad.dtype == torch.float32, name


class Killed(BaseException):
    """Stands for a kill at a chosen moment."""


@dataclass
class Seen:
    """A training step as it was asked for, and the loss that came of it."""

    rate: float
    images: torch.Tensor
    weights: dict[str, torch.Tensor]
    momenta: dict[str, torch.Tensor]
    loss: float


def listening(
    seen: list[Seen], monkeypatch: pytest.MonkeyPatch, stop: Callable[[], bool] = lambda: False
) -> None:
    """Write down every step of a run; kill the run before a step for which `stop` holds."""

    def step(model: Any, loss: Any, optimizer: Any, images: Any, *rest: Any, **options: Any) -> Any:
        if stop():
            raise Killed
        weights = {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}
        momenta = {
            name: optimizer.state[value]["exp_avg"].cpu().clone()
            for name, value in model.named_parameters()
            if value in optimizer.state
        }
        report = training_step(model, loss, optimizer, images, *rest, **options)
        rate, value = optimizer.param_groups[0]["lr"], float(report.loss.detach())
        seen.append(Seen(rate, images.cpu(), weights, momenta, value))
        return report

    monkeypatch.setattr(loop, "training_step", step)


def test_a_run_that_was_killed_goes_on(
    world: ReIDDataset, device: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second epoch is begun anew with the weights, momenta, images and rate that it was first begun with."""
    recipe, out = short(device, epochs=3), tmp_path / "run"
    rates = [learning_rate_at(recipe.optim, epoch, 3) for epoch in range(3)]
    first: list[Seen] = []
    again: list[Seen] = []
    listening(first, monkeypatch, stop=lambda: [s.rate for s in first].count(rates[1]) == 2)
    with pytest.raises(Killed):
        quiet_fit(recipe, world, out)
    saved = load_file(out / LAST)
    listening(again, monkeypatch)
    quiet_fit(recipe, world, out, resume=True)

    assert {step.rate for step in again} == {*rates[1:]}, "the finished epoch is not repeated"
    before, after = first[-2], again[0]
    assert after.rate == before.rate == rates[1]
    assert torch.equal(after.images, before.images)
    assert after.weights.keys() == before.weights.keys() and len(after.momenta) > 100
    for name, value in after.weights.items():
        assert torch.equal(value, before.weights[name]), name
        assert torch.equal(value, saved[f"model.{name}"]), name
    for name, value in after.momenta.items():
        assert value.abs().max() > 0 and torch.equal(value, before.momenta[name]), name
    assert after.loss == pytest.approx(before.loss, rel=1e-2)
    lines = journal(out)
    assert [line["epoch"] for line in lines] == [0, 1, 2]
    assert [line["learning_rate"] for line in lines] == rates
    assert load_model(out)[1].epoch == 3


def test_the_command_line_trains_and_evaluates_here(
    world: ReIDDataset, device: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, data = str(tmp_path / "run"), str(world.root)
    settings = ["--recipe", "smoke", "--train.epochs", "1", "--train.device", device]
    assert main(["train", "--dataset", "synthetic", "--data", data, "--out", out, *settings]) == 0
    assert f"device {device}" in capsys.readouterr().out
    assert json.loads((tmp_path / "run" / "environment.json").read_text())["device"] == device
    figures = []
    for where in (device, "cpu"):
        file = tmp_path / f"{where}.json"
        asked = ["--checkpoint", out, "--device", where, "--json", str(file), "--workers", "0"]
        assert main(["evaluate", "--dataset", "synthetic", "--data", data, *asked]) == 0
        assert f"device: {where}" in capsys.readouterr().out
        figures.append(json.loads(file.read_text())["mAP"])
    assert figures[0] == pytest.approx(figures[1], abs=0.02)
