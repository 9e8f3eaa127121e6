"""What can go wrong with a training loses nothing: it is killed, the disk is full, images vanish, memory runs out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from ccan.data.records import ReIDDataset
from ccan.errors import CCANError, DatasetError, TrainingError
from ccan.training import checkpoint, fit, loop
from tests.training import killed
from tests.training.people import tiny_dataset, tiny_recipe

ROOT = Path(__file__).parents[2]


@pytest.fixture
def dataset(tmp_path: Path) -> ReIDDataset:
    (tmp_path / "people").mkdir()
    return tiny_dataset(tmp_path / "people")


def train(dataset: ReIDDataset, out: Path, resume: bool = False, **changes: Any) -> None:
    recipe = tiny_recipe(**changes)
    fit(recipe, dataset, out, resume=resume, progress=False, say=lambda _: None)


def same_files(one: Path, other: Path) -> bool:
    first, second = load_file(one), load_file(other)
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


@pytest.mark.slow
def test_a_training_that_is_killed_twenty_times_ends_as_if_it_never_was(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "tests.training.killed", str(tmp_path)],
        cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, timeout=280,
    )  # fmt: skip
    assert ended.returncode == 0
    told = json.loads((tmp_path / "told.json").read_text())
    assert [kill["ended"] for kill in told["kills"]] == [-9] * killed.KILLS
    assert {kill["moment"] for kill in told["kills"]} == set(killed.MOMENTS)
    assert all(kill["whole"] for kill in told["kills"])
    assert told["finished"] == [0, 0]
    for name in ("last", "best", "model"):
        pair = [tmp_path / run / f"{name}.safetensors" for run in ("killed", "undisturbed")]
        assert same_files(*pair), name
    lines = [
        [json.loads(line) for line in (tmp_path / run / "metrics.jsonl").read_text().splitlines()]
        for run in ("killed", "undisturbed")
    ]
    timed = ("seconds", "images_per_second", "waiting")
    for one, other in zip(*lines, strict=True):
        assert {k: v for k, v in one.items() if k not in timed} == {
            k: v for k, v in other.items() if k not in timed
        }
    assert not [path for path in (tmp_path / "killed").glob("best*") if path.suffix == ".tmp"]


class FullDisk:
    """Takes so many bytes of checkpoints, then there is no room left."""

    def __init__(self, room: int) -> None:
        self.room, self.real = room, checkpoint.save_file

    def __call__(self, tensors: object, path: Path, *rest: object) -> None:
        self.real(tensors, path, *rest)  # type: ignore[arg-type]
        size = path.stat().st_size
        if size > self.room:
            os.truncate(path, self.room)
            raise OSError(28, "No space left on device")
        self.room -= size


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.0, 0.37, 1.2, 2.9])
def test_a_disk_that_fills_at_any_byte_leaves_the_last_whole_checkpoint(
    dataset: ReIDDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, share: float
) -> None:
    train(dataset, tmp_path / "whole")
    size = (tmp_path / "whole" / "last.safetensors").stat().st_size
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save_file", FullDisk(int(share * size)))
        with pytest.raises(CCANError, match=r"No space left on device.*Free some space"):
            train(dataset, tmp_path / "run")
    last = tmp_path / "run" / "last.safetensors"
    assert last.exists() == (share >= 1)
    if last.exists():
        assert checkpoint.read_info(last).epoch == int(share)
    assert not list((tmp_path / "run").glob(".*tmp"))
    train(dataset, tmp_path / "run", resume=True)
    assert same_files(tmp_path / "whole" / "last.safetensors", last)


def test_a_place_where_nothing_can_be_written_is_told_before_training(
    dataset: ReIDDataset, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match="file"):
        train(dataset, tmp_path / "file" / "run")
    assert (tmp_path / "file").read_text() == "in the way"


def test_an_image_that_vanishes_in_mid_epoch_is_named_and_nothing_is_lost(
    dataset: ReIDDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tiny_recipe()
    recipe = replace(recipe, data=replace(recipe.data, keep_decoded=False))
    victim = dataset.train[7].path
    content = victim.read_bytes()
    real, steps = loop.training_step, 0

    def vanishing(*arguments: Any, **options: Any) -> Any:
        nonlocal steps
        steps += 1
        if steps == 5:  # the second epoch, whose next batches are not decoded yet
            victim.unlink()
        return real(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "training_step", vanishing)
        with pytest.raises(DatasetError, match=f"{victim.name}: .*no such image file"):
            fit(recipe, dataset, tmp_path / "run", progress=False, say=lambda _: None)
    assert checkpoint.read_info(tmp_path / "run" / "last.safetensors").epoch >= 1
    victim.write_bytes(content)
    fit(recipe, dataset, tmp_path / "run", resume=True, progress=False, say=lambda _: None)
    fit(recipe, dataset, tmp_path / "whole", progress=False, say=lambda _: None)
    assert same_files(*(tmp_path / run / "last.safetensors" for run in ("run", "whole")))


def test_a_full_device_says_what_to_lower(
    dataset: ReIDDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = loop.training_step, 0

    def large(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 6:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9.00 GiB")
        return real(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "training_step", large)
        with pytest.raises(TrainingError) as caught:
            train(dataset, tmp_path / "run")
    for word in ("epoch 2", "--data.identities-per-batch", "bfloat16", "intact", "9.00 GiB"):
        assert word in str(caught.value)
    assert checkpoint.read_info(tmp_path / "run" / "last.safetensors").epoch == 1


def test_a_failed_training_leaves_no_thread(
    dataset: ReIDDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import gc
    import threading

    def broken(*_: object, **__: object) -> Iterator[None]:
        raise TrainingError("stop")

    monkeypatch.setattr(loop, "training_step", broken)
    with pytest.raises(TrainingError, match="stop"):
        train(dataset, tmp_path / "run")
    gc.collect()
    assert not [one for one in threading.enumerate() if one.name == "ccan-prefetch"]


def test_settings_of_an_older_version_stand_at_their_defaults(
    dataset: ReIDDataset, tmp_path: Path
) -> None:
    train(dataset, tmp_path / "run")
    path = tmp_path / "run" / "config.json"
    config = json.loads(path.read_text())
    del config["processes"], config["recipe"]["train"]["ema_decay"]
    path.write_text(json.dumps(config))
    train(dataset, tmp_path / "run", resume=True)
    config["recipe"]["train"]["no_such_setting"] = 1
    path.write_text(json.dumps(config))
    with pytest.raises(CCANError, match=r"no readable config\.json"):
        train(dataset, tmp_path / "run", resume=True)


def test_waiting_is_a_share_of_the_epoch(dataset: ReIDDataset, tmp_path: Path) -> None:
    train(dataset, tmp_path / "run")
    lines = [json.loads(x) for x in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert all(0 <= line["waiting"] < 1 for line in lines)
    assert np.isfinite([line["loss"] for line in lines]).all()
