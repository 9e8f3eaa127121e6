"""Checkpoints: whole or not there, read without running code, clear about what is wrong."""

import json
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from ccan.config import ModelConfig, OptimConfig, Recipe
from ccan.errors import CheckpointError
from ccan.model import build_ccan
from ccan.training.checkpoint import (
    CheckpointInfo,
    load_model,
    load_weights,
    read_info,
    resolve_checkpoint,
    save_checkpoint,
)
from ccan.training.step import build_optimizer

SMALL = ModelConfig(
    embedding_dim=8, image_height=32, image_width=32, parts=2, width_multiplier=0.05
)
INFO = CheckpointInfo(Recipe(name="tiny", model=SMALL), (2, 5, 9), 4, "tiny", "abc", {"loss": 1.5})


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    save_checkpoint(tmp_path / "last.safetensors", build_ccan(SMALL, 3), INFO)
    return tmp_path / "last.safetensors"


def test_round_trip(saved: Path) -> None:
    assert read_info(saved) == INFO
    torch.manual_seed(0)
    original = build_ccan(SMALL, 3).eval()
    model, info = load_model(saved)
    assert info == INFO and not model.training
    images = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        assert torch.equal(model(images).descriptor, original(images).descriptor)


def test_half_precision_halves_the_file_and_keeps_the_descriptor(
    saved: Path, tmp_path: Path
) -> None:
    model, info = load_model(saved)
    save_checkpoint(tmp_path / "model.safetensors", model, info, half=True)
    assert (tmp_path / "model.safetensors").stat().st_size < 0.75 * saved.stat().st_size
    again, _ = load_model(tmp_path / "model.safetensors")
    assert {value.dtype for value in again.parameters()} == {torch.float32}
    images = torch.randn(4, 3, 32, 32)
    with torch.inference_mode():
        cosine = (again(images).descriptor * model(images).descriptor).sum(1) / 2
    assert cosine.min() > 0.9999


def test_adams_state_survives(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = build_ccan(SMALL, 3)
    optimizer = build_optimizer(model, OptimConfig())
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    save_checkpoint(tmp_path / "a.safetensors", model, INFO, optimizer)
    other = build_ccan(SMALL, 3)
    restored = build_optimizer(other, OptimConfig())
    load_weights(tmp_path / "a.safetensors", other, restored)
    for one, two in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(one, two)
        for key, value in optimizer.state[one].items():
            assert torch.equal(value, restored.state[two][key]), key


def test_names_that_mean_a_checkpoint(saved: Path, tmp_path: Path) -> None:
    assert resolve_checkpoint(saved) == saved
    assert resolve_checkpoint(tmp_path) == saved
    save_checkpoint(tmp_path / "best.safetensors", load_model(saved)[0], INFO)
    assert resolve_checkpoint(tmp_path).name == "best.safetensors"
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match="a folder that holds none"):
        resolve_checkpoint(tmp_path / "empty")
    with pytest.raises(CheckpointError, match="nothing there"):
        resolve_checkpoint(tmp_path / "no-such-file.safetensors")


@pytest.mark.parametrize("cut", [0, 7, 100, 5000])
def test_a_file_that_is_cut_off(saved: Path, cut: int) -> None:
    saved.write_bytes(saved.read_bytes()[:cut])
    with pytest.raises(CheckpointError, match=r"last\.safetensors"):
        load_model(saved)


def test_a_pickle_is_never_run(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return Path.touch, (tmp_path / "sprung",)  # type: ignore[return-value]

    for path in (tmp_path / "model.pth", tmp_path / "model.safetensors"):
        path.write_bytes(pickle.dumps(Trap()))
        with pytest.raises(CheckpointError, match="cannot be read"):
            load_model(path)
    assert not (tmp_path / "sprung").exists()


def test_other_safetensors_files_are_refused(saved: Path, tmp_path: Path) -> None:
    save_file({"a": torch.ones(2)}, tmp_path / "foreign.safetensors")
    with pytest.raises(CheckpointError, match="without its header"):
        load_model(tmp_path / "foreign.safetensors")
    header = INFO.to_dict()
    for change, text in (
        ({"format": 99}, "expected checkpoint format 1, got 99"),
        ({"recipe": {"model": {"partz": 4}}}, "no setting 'partz'"),
        ({"identities": None}, "incomplete"),
    ):
        path = tmp_path / "changed.safetensors"
        save_file(load_file(saved), path, {"ccan": json.dumps(header | change)})
        with pytest.raises(CheckpointError, match=text):
            load_model(path)


@pytest.mark.parametrize("header", ["[1]", "null", "5", "{"])
def test_a_header_that_is_no_object(saved: Path, header: str) -> None:
    save_file(load_file(saved), saved, {"ccan": header})
    with pytest.raises(CheckpointError, match=r"last\.safetensors"):
        load_model(saved)


def test_checkpoints_are_as_readable_as_other_files(saved: Path, tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    assert saved.stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_weights_of_another_network_are_refused(saved: Path) -> None:
    with pytest.raises(CheckpointError, match="do not fit this network"):
        load_weights(saved, build_ccan(SMALL, 4))


def test_loading_leaves_the_global_random_state_alone(saved: Path) -> None:
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    load_model(saved)
    assert torch.equal(before, torch.random.get_rng_state())
