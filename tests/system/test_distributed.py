"""Two processes train and judge as one: on a processor, over gloo, started by torchrun."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ccan.config import EvalConfig
from ccan.errors import ConfigError
from ccan.evaluation import evaluate_features, extract_features
from ccan.training import fit, load_model
from ccan.training.engine import Engine
from tests.system import together

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]


def torchrun(*words: str, processes: int = 2) -> subprocess.CompletedProcess[str]:
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    # gloo must not look the machine's name up.
    environment = os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    return subprocess.run(
        [sys.executable, *launcher, *words],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=240,
    )  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("two")
    together.tiny_dataset_of(found)  # before two processes would write it at once
    ended = torchrun("-m", "tests.system.together", str(found))
    assert ended.returncode == 0, ended.stderr[-3000:]
    return found


def told(folder: Path, rank: int) -> dict[str, Any]:
    return json.loads((folder / f"told-{rank}.json").read_text())


def gradients_of(folder: Path, joined: bool, rank: int) -> dict[str, torch.Tensor]:
    return torch.load(folder / f"gradients-{joined}-{rank}.pt", weights_only=True)


def test_both_processes_end_with_the_mean_of_their_gradients(folder: Path) -> None:
    alone: list[dict[str, torch.Tensor]] = []
    for rank in (0, 1):

        class One(Engine):
            """A process of its own with one half of the batch."""

        engine = One("cpu")
        engine.rank, engine.processes = rank, 2
        engine.accelerator = Engine("cpu").accelerator
        alone.append(together.gradients(engine, joined=False))
    first, second = (gradients_of(folder, False, rank) for rank in (0, 1))
    assert first.keys() == alone[0].keys()
    for name, value in first.items():
        assert torch.equal(value, second[name]), name
        mean = (alone[0][name] + alone[1][name]) / 2
        assert torch.allclose(value, mean, rtol=1e-9, atol=1e-12), name


def test_joined_mining_is_that_of_one_process_with_the_whole_batch(folder: Path) -> None:
    whole = together.gradients(Engine("cpu"), joined=False)
    for rank in (0, 1):
        found = gradients_of(folder, True, rank)
        for name, value in found.items():
            assert torch.allclose(value, whole[name], rtol=1e-9, atol=1e-12), name
    apart = gradients_of(folder, False, 0)
    assert any(not torch.allclose(apart[name], whole[name]) for name in whole)


def test_the_first_process_alone_speaks_and_writes(folder: Path) -> None:
    first, second = told(folder, 0), told(folder, 1)
    assert first["processes"] == second["processes"] == 2
    assert any("2 processes" in line for line in first["said"])
    assert second["said"] == []
    config = json.loads((folder / "run" / "config.json").read_text())
    assert config["processes"] == 2
    lines = (folder / "run" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [0, 1]


def test_a_checkpoint_of_two_is_judged_alike_by_two_and_by_one(folder: Path) -> None:
    dataset = together.tiny_dataset_of(folder)
    model, info = load_model(folder / "run")
    model = model.double()
    query, gallery = (
        extract_features(model, samples, workers=0) for samples in (dataset.query, dataset.gallery)
    )
    report = evaluate_features(query, gallery)
    for rank in (0, 1):
        assert np.allclose(told(folder, rank)["ap"], report.ap, atol=1e-12)
    assert info.epoch == 2 or info.metrics["val_mAP"] >= 0
    settings = EvalConfig(workers=0)
    alone = together.evaluate_together(
        Engine("cpu"), model, dataset.query, dataset.gallery, settings
    )
    assert np.array_equal(alone.ap, report.ap)


def test_a_run_goes_on_only_with_as_many_processes(folder: Path) -> None:
    with pytest.raises(ConfigError, match="processes: 2 → 1"):
        fit(
            together.recipe_of_two(), together.tiny_dataset_of(folder), folder / "run",  # type: ignore[arg-type]
            resume=True, progress=False, say=lambda _: None,
        )  # fmt: skip


def test_the_command_line_evaluates_in_two_processes(folder: Path, tmp_path: Path) -> None:
    world = tmp_path / "people"
    for image in (folder / "people").glob("*.png"):
        split = "query" if image.name.endswith("_000000_00.png") else "bounding_box_test"
        for part in (split, "bounding_box_train"):
            (world / part).mkdir(parents=True, exist_ok=True)
            (world / part / image.name).write_bytes(image.read_bytes())
    words = ["--checkpoint", str(folder / "run"), "--dataset", "market-style", "--data"]
    figures = []
    for processes in (1, 2):
        out = tmp_path / f"{processes}.json"
        ended = torchrun(
            "-m", "ccan.cli", "evaluate", *words, str(world), "--workers", "0", "--batch-size", "1",
            "--json", str(out),  # batches of one: rounding must not differ
            processes=processes,
        )  # fmt: skip
        assert ended.returncode == 0, ended.stderr[-3000:]
        assert ended.stdout.count("queries have a match") == 1
        figures.append(json.loads(out.read_text()))
    assert figures[0] == figures[1]


@pytest.mark.parametrize("device", ["cuda:0", "mps"])
def test_a_process_takes_its_own_device(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="must be auto, cpu or cuda"):
        Engine(device)
