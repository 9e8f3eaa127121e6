"""GoogLeNet's stages: sizes, torchvision's names, and its ImageNet weights in every stage (Decision D2)."""

from __future__ import annotations

import hashlib
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torchvision.models import GoogLeNet, GoogLeNet_Weights, googlenet

from ccan.config import ModelConfig
from ccan.errors import CheckpointError
from ccan.model import backbone, build_ccan
from ccan.model.backbone import (
    GoogLeNetInput,
    StageName,
    build_stage,
    imagenet_state,
    load_imagenet,
    scaled,
    stage_channels,
)

WEIGHTS_FILE = "googlenet-1378be20.pth"
TROUBLESHOOTING = Path(__file__).parents[2] / "docs" / "troubleshooting.md"
STAGES: tuple[StageName, ...] = ("I1", "I2", "I3")


def test_channel_counts_of_the_paper_and_of_narrow_networks() -> None:
    assert [stage_channels(stage) for stage in STAGES] == [480, 832, 1024]
    assert [scaled(c, 0.25) for c in (3, 16, 64, 96, 112, 208)] == [8, 8, 16, 24, 32, 48]
    # 128, 192, 96, 64 → 32, 48, 24, 16; 256, 320, 128, 128 → 64, 80, 32, 32; 384, 384, 128, 128 → 96, 96, 32, 32
    assert [stage_channels(stage, 0.25) for stage in STAGES] == [120, 208, 256]


@pytest.mark.parametrize("size", [(256, 128), (192, 96), (128, 64), (96, 32)])
@pytest.mark.parametrize("width", [0.0625, 0.3])
def test_stage_shapes(size: tuple[int, int], width: float) -> None:
    maps = torch.rand(1, 3, *size)
    for stage, stride in zip(STAGES, (8, 16, 32), strict=True):
        maps = build_stage(stage, width)(maps)
        assert maps.shape == (
            1,
            stage_channels(stage, width),
            size[0] // stride,
            size[1] // stride,
        )


def test_full_width_shapes_of_fig_3() -> None:
    with torch.device("meta"):
        maps = torch.empty(2, 3, 256, 128)
        expected = [(2, 480, 32, 16), (2, 832, 16, 8), (2, 1024, 8, 4)]
        for stage, shape in zip(STAGES, expected, strict=True):
            maps = build_stage(stage)(maps)
            assert maps.shape == shape


def test_stages_together_are_torchvision_without_its_heads() -> None:
    with torch.device("meta"):
        theirs = googlenet(init_weights=False, aux_logits=True).state_dict()
        ours = {k: v for stage in STAGES for k, v in build_stage(stage).state_dict().items()}
    wanted = {k: tuple(v.shape) for k, v in theirs.items() if not k.startswith(("aux", "fc."))}
    assert {key: tuple(value.shape) for key, value in ours.items()} == wanted


@pytest.fixture(scope="module")
def teacher() -> GoogLeNet:
    """A full-width GoogLeNet with weights of its own and running statistics that fit them."""
    torch.manual_seed(4)
    network = googlenet(init_weights=False, aux_logits=True, transform_input=True)
    norms = [m for m in network.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None  # a cumulative mean: one pass is enough
        torch.nn.init.uniform_(norm.weight, 0.8, 1.2)
        torch.nn.init.uniform_(norm.bias, -0.1, 0.3)
    with torch.no_grad():
        network.train()(torch.randn(8, 3, 128, 64))
    return network.eval()


@pytest.fixture(scope="module")
def weights_file(teacher: GoogLeNet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("weights") / WEIGHTS_FILE
    torch.save(teacher.state_dict(), file)
    return file


def publish(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a file pass for torchvision's: the hash that is asked for is its own."""
    found = hashlib.sha256(file.read_bytes()).hexdigest()
    monkeypatch.setattr(backbone, "_PUBLISHED_HASH", found[:8])


def cache_of(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where torchvision's file lies in a cache of the test's own, without a network."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(folder / "hub"))
    monkeypatch.setattr(torch.hub, "download_url_to_file", _no_network)
    return folder / "hub" / "checkpoints" / WEIGHTS_FILE


def _no_network(*_args: Any, **_kwargs: Any) -> None:
    raise URLError("Name or service not known")


def features_of(teacher: GoogLeNet, images: Tensor) -> Tensor:
    """torchvision's own map before its pooling, by its own forward."""
    seen: list[Tensor] = []

    def keep(_module: torch.nn.Module, _inputs: Any, out: Tensor) -> None:
        seen.append(out)

    handle = teacher.inception5b.register_forward_hook(keep)
    with torch.no_grad():
        teacher(images)
    handle.remove()
    return seen[0]


def test_weights_reach_every_stage_and_give_torchvisions_features(
    teacher: GoogLeNet, weights_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(weights_file, monkeypatch)
    config = ModelConfig(
        ssa=False, cca=False, parts=2, embedding_dim=16, image_height=128, image_width=64,
        input_affine="googlenet",
    )  # fmt: skip
    model = build_ccan(config, 3).eval()
    stages = model.backbone_stages()
    assert len(stages) == 3 + 2 * 2
    load_imagenet(stages, imagenet_state(weights_file))

    theirs = teacher.state_dict()
    for stage in stages:
        for key, value in stage.state_dict().items():
            assert torch.equal(value, theirs[key]), key
    storages = {p.data_ptr() for stage in stages for p in stage.parameters()}
    assert len(storages) == sum(len(list(stage.parameters())) for stage in stages)  # none is shared

    images = torch.randn(2, 3, 128, 64, generator=torch.Generator().manual_seed(8))
    wanted = features_of(teacher, images)
    assert wanted.std() > 0.05
    assert model.global_branch is not None
    same_input = teacher._transform_input(images)
    with torch.no_grad():
        torch.testing.assert_close(model.input_affine(images), same_input, rtol=0, atol=1e-6)
        for branch in (model.global_branch, *model.streams):
            exact = branch.i3(branch.i2(model.i1(same_input)))
            torch.testing.assert_close(exact, wanted, rtol=0, atol=1e-6)
        z1 = model.i1(model.input_affine(images))
        found = model.global_branch.i3(model.global_branch.i2(z1))
        raw = model.global_branch.i3(model.global_branch.i2(model.i1(images)))
    error, without_affine = ((x - wanted).abs().max() for x in (found, raw))
    assert error < 1e-3 * wanted.max() < without_affine, (error, without_affine)


def test_affine_worked_by_hand() -> None:
    """A white pixel is (1 − 0.485)/0.229 = 2.24891 to the caller and (1 − ½)/½ = 1 to the weights; black is −1."""
    mean = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)
    rgb = torch.tensor([1.0, 0.0, 0.5]).view(3, 1, 1, 1).expand(3, 3, 2, 1)
    images = (rgb - mean) / std
    before = images.clone()
    found = GoogLeNetInput()(images)
    torch.testing.assert_close(found, 2 * rgb - 1, rtol=0, atol=1e-6)
    assert torch.equal(images, before)
    assert (
        GoogLeNetInput().state_dict() == {}
    )  # ModelConfig.input_affine records it, not the weights


def test_the_published_hash_is_the_one_in_torchvisions_file_name() -> None:
    assert backbone._PUBLISHED_HASH == "1378be20"
    assert GoogLeNet_Weights.IMAGENET1K_V1.url.endswith(
        f"/googlenet-{backbone._PUBLISHED_HASH}.pth"
    )


def test_weights_from_torchvisions_cache_need_no_network(
    weights_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cached = cache_of(tmp_path, monkeypatch)
    cached.parent.mkdir(parents=True)
    cached.symlink_to(weights_file)
    publish(weights_file, monkeypatch)
    state = imagenet_state()
    assert torch.equal(state["conv1.conv.weight"], torch.load(weights_file)["conv1.conv.weight"])


def test_a_damaged_file_in_the_cache_is_not_opened(
    weights_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(weights_file, monkeypatch)
    cached = cache_of(tmp_path, monkeypatch)
    cached.parent.mkdir(parents=True)
    content = bytearray(weights_file.read_bytes())
    content[len(content) // 2] ^= 1  # one bit of one weight: torch alone would read it
    cached.write_bytes(content)
    with pytest.raises(CheckpointError, match="delete it and fetch it again") as caught:
        imagenet_state()
    assert str(cached) in str(caught.value)


def test_a_download_is_checked_and_kept(
    weights_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(weights_file, monkeypatch)
    cached, asked = cache_of(tmp_path, monkeypatch), []

    def download(url: str, target: str, hash_prefix: str | None = None) -> None:
        asked.append((url, hash_prefix))
        Path(target).write_bytes(weights_file.read_bytes())

    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    first = imagenet_state()
    assert asked == [(GoogLeNet_Weights.IMAGENET1K_V1.url, backbone._PUBLISHED_HASH)]
    assert cached.is_file() and imagenet_state().keys() == first.keys()
    assert len(asked) == 1, "the second time it lies in the cache"


def test_safetensors_of_any_origin_are_read(teacher: GoogLeNet, tmp_path: Path) -> None:
    file = tmp_path / "mine.safetensors"
    save_file(teacher.state_dict(), file)
    state = imagenet_state(file)
    assert state.keys() == teacher.state_dict().keys()
    assert all(torch.equal(state[name], value) for name, value in teacher.state_dict().items())


def test_other_pickles_are_refused_and_the_printed_lines_convert_them(tmp_path: Path) -> None:
    weight = torch.arange(24.0).reshape(2, 3, 4)
    torch.save({"a.weight": weight.transpose(0, 2), "b.weight": weight}, tmp_path / "mine.pth")
    with pytest.raises(CheckpointError, match="must be converted to safetensors") as caught:
        imagenet_state(tmp_path / "mine.pth")
    text = TROUBLESHOOTING.read_text(encoding="utf-8")
    assert "“Weights without a network”" in str(caught.value)
    section = text.split("\n## Weights without a network\n")[1].split("\n## ")[0]
    program = section.split("```python\n")[1].split("```")[0]
    subprocess.run([sys.executable, "-W", "error", "-c", program], cwd=tmp_path, check=True)
    state = imagenet_state(tmp_path / "mine.safetensors")
    assert torch.equal(state["a.weight"], weight.transpose(0, 2))
    assert torch.equal(state["b.weight"], weight)


def test_offline_error_says_where_to_put_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cached = cache_of(tmp_path, monkeypatch)
    with pytest.raises(CheckpointError) as caught:
        imagenet_state()
    text = str(caught.value)
    assert str(cached) in text
    assert "Name or service not known" in text
    assert "--train.imagenet-file" in text and "--train.initial-weights none" in text


def _write_text(file: Path) -> None:
    file.write_text("not weights")


def _write_list(file: Path) -> None:
    torch.save([1, 2], file)


def _write_names(file: Path) -> None:
    torch.save({"conv1.conv.weight": "a word"}, file)


def _write_module(file: Path) -> None:
    torch.save(torch.nn.Linear(2, 2), file)


@pytest.mark.parametrize("write", [None, _write_text, _write_list, _write_names, _write_module])
@pytest.mark.parametrize("name", ["weights.pth", "weights.safetensors", WEIGHTS_FILE])
@pytest.mark.parametrize("published", [False, True])
def test_files_that_are_no_weights(
    write: Callable[[Path], None] | None,
    name: str,
    published: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Neither a right name nor, if it came to that, a right hash makes weights of anything else."""
    file = tmp_path / name
    if write is not None:
        write(file)
        if published:
            publish(file, monkeypatch)
    with pytest.raises(CheckpointError, match=name.replace(".", r"\.")):
        imagenet_state(file)


def test_weights_of_another_network_are_refused() -> None:
    narrow = build_stage("I3", 0.25)
    with torch.device("meta"):
        full = build_stage("I3").state_dict()
    full = {key: torch.zeros(value.shape) for key, value in full.items()}
    with pytest.raises(CheckpointError, match="use width_multiplier=1 and torchvision's"):
        load_imagenet([narrow], full)
    del full["inception5b.branch1.conv.weight"]
    with pytest.raises(CheckpointError, match=r"inception5b\.branch1\.conv\.weight"):
        load_imagenet([build_stage("I3")], full)


class _Payload:
    """Unpickling this writes a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.write_text, (self.target, "executed")


@pytest.mark.parametrize("published", [False, True])
def test_pickled_code_is_never_run(
    published: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, file = tmp_path / "executed", tmp_path / WEIGHTS_FILE
    for write in (
        lambda: torch.save({"conv1.conv.weight": _Payload(target)}, file),
        lambda: file.write_bytes(pickle.dumps(_Payload(target))),
    ):
        write()
        if published:
            publish(file, monkeypatch)
        with pytest.raises(CheckpointError):
            imagenet_state(file)
        assert not target.exists()
    pickle.loads(file.read_bytes())
    assert target.exists()  # the trap was armed


def test_a_file_of_another_hash_is_not_even_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unpack(*_args: Any, **_kwargs: Any) -> None:
        raise AssertionError("torch.load was called")

    file = tmp_path / WEIGHTS_FILE
    torch.save({"conv1.conv.weight": torch.ones(2)}, file)
    monkeypatch.setattr(torch, "load", unpack)
    with pytest.raises(
        CheckpointError, match=r"expected a \.safetensors file or torchvision's own"
    ):
        imagenet_state(file)
