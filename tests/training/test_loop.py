"""Training as a whole: it resumes exactly, stops clearly, and never looks at test images."""

import dataclasses
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from ccan.config import DataConfig, Recipe
from ccan.data.records import ReIDDataset
from ccan.errors import ConfigError, DatasetError, TrainingError
from ccan.model import CCAN
from ccan.training import fit, loop
from ccan.training.held_out import fingerprint, hold_out
from tests.training.people import tiny_dataset, tiny_recipe


def quiet_fit(recipe: Recipe, dataset: ReIDDataset, out: Path, resume: bool = False) -> list[str]:
    said: list[str] = []
    fit(recipe, dataset, out, resume=resume, progress=False, say=said.append)
    return said


def journal(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "last.safetensors")


def assert_same_weights(one: Path, other: Path) -> None:
    first, second = weights(one), weights(other)
    assert first.keys() == second.keys()
    assert any(name.startswith("optimizer.exp_avg.") for name in first)
    for name in first:
        assert torch.equal(first[name], second[name]), name


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> ReIDDataset:
    return tiny_dataset(tmp_path_factory.mktemp("people"))


@pytest.fixture(scope="module")
def whole_run(dataset: ReIDDataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "run"
    quiet_fit(tiny_recipe(), dataset, folder)
    return folder


def test_a_run_leaves_what_its_folder_promises(whole_run: Path, dataset: ReIDDataset) -> None:
    lines = journal(whole_run)
    assert [line["epoch"] for line in lines] == [0, 1, 2]
    for line in lines:
        terms = [
            line[f"{kind}_{branch}"]
            for kind in ("identity", "triplet")
            for branch in ("global", "local")
        ]
        assert line["loss"] == pytest.approx(sum(terms), rel=1e-5)
        assert line["images_per_second"] > 0
    config = json.loads((whole_run / "config.json").read_text())
    assert Recipe.from_dict(config["recipe"]) == tiny_recipe()
    assert config["data_fingerprint"] == fingerprint(dataset.train)
    assert json.loads((whole_run / "environment.json").read_text())["device"] == "cpu"
    assert list(whole_run.glob("events.*")), (
        "TensorBoard is installed here, so its file must be there"
    )
    assert (whole_run / "model.safetensors").stat().st_size < (
        whole_run / "last.safetensors"
    ).stat().st_size / 3
    assert not (whole_run / "best.safetensors").exists()  # nothing was held out to choose it by
    assert not list(whole_run.glob(".*tmp"))


def test_same_seed_same_weights_and_another_seed_others(
    whole_run: Path, dataset: ReIDDataset, tmp_path: Path
) -> None:
    quiet_fit(tiny_recipe(), dataset, tmp_path / "again")
    assert_same_weights(whole_run, tmp_path / "again")
    quiet_fit(tiny_recipe(seed=1), dataset, tmp_path / "other")
    name = "model.i1.conv1.conv.weight"
    assert not torch.equal(weights(whole_run)[name], weights(tmp_path / "other")[name])


def test_global_random_state_neither_matters_nor_changes(
    whole_run: Path, dataset: ReIDDataset, tmp_path: Path
) -> None:
    torch.manual_seed(99)
    before = torch.random.get_rng_state()
    quiet_fit(tiny_recipe(), dataset, tmp_path / "run")
    assert torch.equal(before, torch.random.get_rng_state())
    assert_same_weights(whole_run, tmp_path / "run")


class Killed(BaseException):
    """Stands for a kill at a chosen moment."""


@pytest.mark.parametrize("step", [1, 3, 4, 7, 8])
def test_interrupt_and_resume_equals_an_uninterrupted_run(
    step: int,
    whole_run: Path,
    dataset: ReIDDataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import ccan.training.loop as loop

    real, calls = loop.training_step, 0

    def killing(*arguments: object, **options: object) -> object:
        nonlocal calls
        calls += 1
        if calls == step:
            raise Killed
        return real(*arguments, **options)  # type: ignore[arg-type]

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(loop, "training_step", killing)
        quiet_fit(tiny_recipe(), dataset, tmp_path / "run")
    quiet_fit(tiny_recipe(), dataset, tmp_path / "run", resume=True)
    assert_same_weights(whole_run, tmp_path / "run")
    assert [line["epoch"] for line in journal(tmp_path / "run")] == [0, 1, 2]


@pytest.mark.slow
def test_kill_9_and_resume(whole_run: Path, dataset: ReIDDataset, tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from ccan.training import fit;"
        "from tests.training.people import tiny_dataset, tiny_recipe;"
        "out = Path(sys.argv[1]); (out / 'people').mkdir(parents=True, exist_ok=True);"
        "fit(tiny_recipe(), tiny_dataset(out / 'people'), out / 'run', resume=True, progress=False)"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    killed = 0
    for _ in range(6):
        process = subprocess.Popen(command, cwd=Path(__file__).parents[2])
        metrics = tmp_path / "run" / "metrics.jsonl"
        size = metrics.stat().st_size if metrics.exists() else 0
        deadline = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < deadline:
            if metrics.exists() and metrics.stat().st_size > size:
                time.sleep(0.05 * killed)  # another moment each time
                process.send_signal(signal.SIGKILL)
                killed += 1
                break
            time.sleep(0.005)
        if process.wait() == 0:
            break
    subprocess.run(command, cwd=Path(__file__).parents[2], check=True)
    assert killed >= 1
    assert_same_weights(whole_run, tmp_path / "run")


def test_resume_without_a_checkpoint_starts_anew(
    whole_run: Path, dataset: ReIDDataset, tmp_path: Path
) -> None:
    quiet_fit(tiny_recipe(), dataset, tmp_path / "run", resume=True)
    assert_same_weights(whole_run, tmp_path / "run")


def test_resume_of_a_finished_run_says_so(whole_run: Path, dataset: ReIDDataset) -> None:
    before = (whole_run / "last.safetensors").read_bytes()
    said = quiet_fit(tiny_recipe(), dataset, whole_run, resume=True)
    assert any("is finished: 3 of 3 epochs" in line for line in said)
    assert (whole_run / "last.safetensors").read_bytes() == before


def test_a_run_is_never_overwritten_by_accident(whole_run: Path, dataset: ReIDDataset) -> None:
    with pytest.raises(ConfigError, match="already holds a run; pass --resume"):
        quiet_fit(tiny_recipe(), dataset, whole_run)


def test_resume_with_other_settings_is_refused(whole_run: Path, dataset: ReIDDataset) -> None:
    changed = dataclasses.replace(
        tiny_recipe(), optim=dataclasses.replace(tiny_recipe().optim, learning_rate=0.5)
    )
    with pytest.raises(ConfigError, match=r"optim\.learning_rate: 0\.001 → 0\.5"):
        quiet_fit(changed, dataset, whole_run, resume=True)
    fewer = dataclasses.replace(dataset, train=dataset.train[4:])
    with pytest.raises(ConfigError, match="data_fingerprint"):
        quiet_fit(tiny_recipe(), fewer, whole_run, resume=True)


def test_settings_that_no_weight_depends_on_may_change(
    whole_run: Path, dataset: ReIDDataset
) -> None:
    recipe = tiny_recipe(checkpoint_every=2)
    recipe = dataclasses.replace(recipe, eval=dataclasses.replace(recipe.eval, batch_size=7))
    assert "finished" in quiet_fit(recipe, dataset, whole_run, resume=True)[0]


def test_a_loss_that_is_not_finite_stops_with_names_and_advice(
    dataset: ReIDDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ccan.training.loop as loop

    real, calls = loop.training_step, 0

    def poisoned(model: torch.nn.Module, *rest: object, **options: object) -> object:
        nonlocal calls
        calls += 1
        if calls == 6:  # the second epoch
            with torch.no_grad():
                next(model.parameters()).fill_(torch.nan)
        return real(model, *rest, **options)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(loop, "training_step", poisoned)
        with pytest.raises(TrainingError) as caught:
            quiet_fit(tiny_recipe(), dataset, tmp_path / "run")
    text = str(caught.value)
    assert "epoch 2, step 2" in text and "--optim.learning-rate" in text
    assert sum(sample.path.name in text for sample in dataset.train) == 6  # the batch's files
    assert all(torch.isfinite(value).all() for value in weights(tmp_path / "run").values())
    quiet_fit(tiny_recipe(), dataset, tmp_path / "run", resume=True)  # and it goes on from there


def test_fewer_identities_than_a_batch_takes(dataset: ReIDDataset, tmp_path: Path) -> None:
    two = dataclasses.replace(dataset, train=dataset.train[:8])
    with pytest.raises(
        DatasetError, match=r"takes 3 identities, but the training set has 2.*per-batch"
    ):
        quiet_fit(tiny_recipe(), two, tmp_path / "run")


def test_a_full_disk_leaves_the_last_checkpoint(
    dataset: ReIDDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ccan.training.checkpoint as checkpoint
    from ccan.errors import CheckpointError

    real, calls = checkpoint.save_file, 0

    def full(*arguments: object) -> None:
        nonlocal calls
        calls += 1
        real(*arguments)  # type: ignore[arg-type]
        if calls == 2:
            raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save_file", full)
        with pytest.raises(CheckpointError, match=r"No space left.*Free some space"):
            quiet_fit(tiny_recipe(), dataset, tmp_path / "run")
    assert checkpoint.read_info(tmp_path / "run/last.safetensors").epoch == 1
    assert not list((tmp_path / "run").glob(".*tmp"))


def test_broken_training_images_are_named_or_skipped(tmp_path: Path) -> None:
    (tmp_path / "people").mkdir()
    dataset = tiny_dataset(tmp_path / "people")
    victim = dataset.train[5].path
    victim.write_bytes(victim.read_bytes()[:60])
    with pytest.raises(DatasetError, match=victim.name):
        quiet_fit(tiny_recipe(), dataset, tmp_path / "stops")
    skipping = dataclasses.replace(
        tiny_recipe(epochs=1), data=dataclasses.replace(tiny_recipe().data, broken_images="skip")
    )
    said = quiet_fit(skipping, dataset, tmp_path / "goes-on")
    assert any(victim.name in line for line in said)


def test_hold_out_separates_identities(dataset: ReIDDataset) -> None:
    train, query, gallery = hold_out(dataset, 2, seed=0)
    held = {sample.identity for sample in query}
    assert len(held) == 2 and held == {sample.identity for sample in gallery}
    assert not held & {sample.identity for sample in train}
    assert len(train) + len(query) + len(gallery) == len(dataset.train)
    assert {(s.identity, s.camera) for s in query} == {(i, c) for i in held for c in (1, 2)}
    with pytest.raises(ConfigError, match="between 2 and 5"):
        hold_out(dataset, 6, seed=0)


def test_a_dataset_without_training_images(dataset: ReIDDataset, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="expected training images, got none"):
        quiet_fit(tiny_recipe(), dataclasses.replace(dataset, train=()), tmp_path / "run")


def test_held_out_people_whom_nothing_can_rank(dataset: ReIDDataset) -> None:
    one_camera = tuple(sample for sample in dataset.train if sample.camera == 1)
    with pytest.raises(ConfigError, match="nothing can be ranked"):
        hold_out(dataclasses.replace(dataset, train=one_camera), 2, seed=0)


def test_best_is_chosen_on_held_out_training_identities(
    dataset: ReIDDataset, tmp_path: Path
) -> None:
    recipe = tiny_recipe(validation_identities=2, evaluate_every=1)
    no_test = dataclasses.replace(dataset, query=(), gallery=())  # nothing to peek at
    quiet_fit(recipe, no_test, tmp_path / "run")
    lines = journal(tmp_path / "run")
    from ccan.training.checkpoint import read_info

    info = read_info(tmp_path / "run/best.safetensors")
    values = [line["val_mAP"] for line in lines]
    assert info.epoch == 1 + int(np.argmax(values))
    assert info.metrics["val_mAP"] == max(values)
    assert len(info.identities) == 4


def test_workers_do_not_change_the_weights(
    whole_run: Path, dataset: ReIDDataset, tmp_path: Path
) -> None:
    recipe = tiny_recipe()
    decoding = DataConfig(**{**recipe.data.to_dict(), "workers": 2, "keep_decoded": False})
    quiet_fit(dataclasses.replace(recipe, data=decoding), dataset, tmp_path / "run")
    assert_same_weights(whole_run, tmp_path / "run")


def test_attention_that_adds_nothing_is_named_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, dataset, said = tiny_recipe(epochs=1), tiny_dataset(tmp_path), list[str]()
    fit(recipe, dataset, tmp_path / "alive", progress=False, say=said.append)
    assert not [words for words in said if "adds nothing" in words]
    start = loop._initial_model

    def worn_down(*arguments: Any, **settings: Any) -> CCAN:
        model = start(*arguments, **settings)
        with torch.no_grad():
            attention = model.streams[1].cc2
            assert attention is not None
            attention.w.weight.fill_(-1)
        return model

    monkeypatch.setattr(loop, "_initial_model", worn_down)
    fit(recipe, dataset, tmp_path / "worn", progress=False, say=said.append)
    assert "attention that adds nothing any more: local_branch.streams.1.cc2;" in said[-1]
