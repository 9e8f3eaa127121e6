"""Networks of timm as backbone: cut where their own feature maps end, at their own values, with weights from a file."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from ccan.config import DataConfig, ModelConfig, OptimConfig, Recipe, TrainConfig
from ccan.errors import CheckpointError, ConfigError
from ccan.losses import CCANLoss
from ccan.model import build_ccan
from ccan.model.attention import CrossCorrelatedAttention, NonLocalAttention
from ccan.model.backbone import GoogLeNetInput, StageName
from ccan.model.pretrained import expecting_imagenet_weights, load_pretrained
from ccan.model.timm_backbone import TimmBackbone
from ccan.training import fit
from ccan.training.checkpoint import CheckpointInfo, load_model, save_checkpoint
from tests.training.people import tiny_dataset

SIZE = (64, 32)
STAGES: tuple[StageName, ...] = get_args(StageName)
TINY = "lcnet_050"


def settings(name: str = TINY, **changes: Any) -> ModelConfig:
    values = dict(
        backbone=f"timm:{name}", image_height=64, image_width=32, embedding_dim=11, parts=2
    )
    return ModelConfig(**(values | changes))  # type: ignore[arg-type]


def images(batch: int = 2, seed: int = 0) -> Tensor:
    return torch.randn(batch, 3, *SIZE, generator=torch.Generator().manual_seed(seed))


# Modules in a row, a Sequential of blocks, names two deep, a map before its norm.
FAMILIES = ["resnet18", TINY, "mobilenetv3_small_050", "convnext_atto", "densenet121"]


@pytest.mark.parametrize("name", FAMILIES)
def test_stages_are_cut_where_timm_s_features_end(name: str) -> None:
    backbone = TimmBackbone(name, 2, SIZE)
    torch.manual_seed(3)
    maps = images()
    stages = backbone.build(*STAGES)
    torch.manual_seed(3)
    whole: Any = timm.create_model(name, features_only=True)
    theirs = dict(zip(whole.feature_info.reduction(), whole(maps), strict=True))
    for stage, strip, stride in zip(stages, STAGES, (8, 16, 32), strict=True):
        maps = stage(maps)
        assert torch.equal(maps, theirs[stride])
        assert maps.shape == (2, backbone.channels(strip), 64 // stride, 32 // stride)


def test_last_stride_1_keeps_the_map_and_the_weights_shapes() -> None:
    halving, keeping = (TimmBackbone("resnet18", stride, SIZE) for stride in (2, 1))
    (i3,) = keeping.build("I3")
    assert i3(torch.randn(2, 256, 4, 2)).shape == (2, 512, 4, 2)
    (usual,) = halving.build("I3")
    assert {k: v.shape for k, v in i3.state_dict().items()} == {
        k: v.shape for k, v in usual.state_dict().items()
    }


def test_a_network_of_timm_s_becomes_ccan_and_every_parameter_learns() -> None:
    torch.manual_seed(0)
    model = build_ccan(
        settings(), 3
    ).train()  # (timm's ResNets begin with residual branches that are shut)
    assert isinstance(model.ss1, CrossCorrelatedAttention)
    assert (model.ss1.channels, model.ss1.positions) == (64, 32)
    assert [s.cc2.channels for s in model.streams if s.cc2] == [128, 128]
    assert len(model.backbone_stages()) == 3 + 2 * 2
    pointers = [p.data_ptr() for p in model.parameters()]
    assert len(set(pointers)) == len(pointers)  # every stream has its own
    output = model(images(4))
    loss = CCANLoss()(output, torch.tensor([0, 0, 1, 1])).loss
    loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, name


def test_building_a_backbone_leaves_the_random_numbers_alone() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    TimmBackbone(TINY, 2, SIZE)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_same_seed_gives_the_same_network_and_streams_differ() -> None:
    def state(seed: int) -> dict[str, Tensor]:
        torch.manual_seed(seed)
        return build_ccan(settings(), 3).state_dict()

    once, again, other = state(1), state(1), state(2)
    assert all(torch.equal(once[key], again[key]) for key in once)
    key = "streams.0.i2.blocks_3.0.conv_dw.weight"
    one, two = (once[f"local_branch.{key.replace('0', s, 1)}"] for s in "01")
    assert not torch.equal(one, two) and not torch.equal(one, other[f"local_branch.{key}"])


def test_maps_that_others_read_too_are_not_changed_in_place() -> None:
    """A stage that begins with an activation in place would change Z1 before its strips are cut."""

    class Begins(TimmBackbone):
        def _network(self, **_settings: Any) -> Any:
            whole: Any = timm.create_model("resnet18", features_only=True)
            layers = dict(whole.items())
            whole.clear()
            for name, layer in layers.items():
                if name == "layer3":
                    whole["before"] = nn.ReLU(inplace=True)
                whole[name] = layer
            return whole

    (i2,) = Begins("resnet18", 2, SIZE).build("I2")
    z1 = torch.randn(2, 128, 8, 4)
    before = z1.clone()
    i2(z1)
    assert torch.equal(z1, before)


def test_a_checkpoint_goes_round(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = build_ccan(settings(last_stride=1, neck="batch_norm"), 3)
    model.train()(images(4))  # running statistics
    file = tmp_path / "model.safetensors"
    save_checkpoint(file, model, CheckpointInfo(Recipe(model=model.config), (2, 4, 6)))
    again, info = load_model(file)
    assert info.recipe.model == model.config
    with torch.no_grad():
        assert torch.equal(again(images()).descriptor, model.eval()(images()).descriptor)


# --- pretrained weights ----------------------------------------------------------------------------------------------


@pytest.fixture
def weights(tmp_path: Path) -> tuple[Path, dict[str, Tensor]]:
    """A whole classifier's weights as timm publishes them, with values of our own."""
    torch.manual_seed(8)
    state = timm.create_model(TINY).state_dict()
    file = tmp_path / "model.safetensors"
    save_file(state, file)
    return file, state


def test_weights_of_a_file_reach_every_stage(weights: tuple[Path, dict[str, Tensor]]) -> None:
    file, state = weights
    torch.manual_seed(1)
    model = build_ccan(settings(parts=3), 3)
    load_pretrained(model, file)
    assert torch.equal(model.i1.get_submodule("conv_stem").weight, state["conv_stem.weight"])  # type: ignore[arg-type]
    assert model.global_branch is not None
    for branch in (model.global_branch, *model.streams):
        for stage, block in (("i2", 4), ("i3", 5)):
            name = "0.conv_dw.weight"
            found = getattr(branch, stage).state_dict()[f"blocks_{block}.{name}"]
            assert torch.equal(found, state[f"blocks.{block}.{name}"])
    attention = [m for m in model.modules() if isinstance(m, NonLocalAttention)]
    assert len(attention) == 1 + 3  # and the loading left them alone
    pointers = [p.data_ptr() for p in model.parameters()]
    assert len(set(pointers)) == len(pointers)


def test_a_run_begins_with_the_weights_and_remembers_their_scaling(tmp_path: Path) -> None:
    name = "tf_mobilenetv3_small_minimal_100"
    torch.manual_seed(8)
    state = timm.create_model(name).state_dict()
    save_file(state, tmp_path / "model.safetensors")
    recipe = Recipe(
        model=settings(name),
        data=DataConfig(identities_per_batch=2, images_per_identity=2, workers=0),
        optim=OptimConfig(learning_rate=1e-9),
        train=TrainConfig(
            epochs=1, device="cpu", imagenet_file=str(tmp_path / "model.safetensors")
        ),
    )
    people = tiny_dataset(tmp_path, 2, 4)
    fit(recipe, people, tmp_path / "run", progress=False, say=lambda _text: None)
    model, info = load_model(tmp_path / "run" / "last.safetensors")
    assert info.recipe.model.input_affine == "googlenet"
    assert isinstance(model.input_affine, GoogLeNetInput)
    found = model.i1.state_dict()["conv_stem.weight"]
    torch.testing.assert_close(found, state["conv_stem.weight"], rtol=0, atol=1e-6)


def test_input_scaling_is_what_the_weights_expect() -> None:
    def affine(name: str) -> str:
        return expecting_imagenet_weights(settings(name)).input_affine

    assert affine("resnet18") == "none"
    assert affine("mobilenetv3_small_050.lamb_in1k") == "none"
    assert affine("tf_mobilenetv3_small_minimal_100") == "googlenet"  # ½ and ½
    with pytest.raises(
        ConfigError, match=r"of timm:resnet50_clip want \(0\.48.* Choose other weights"
    ):
        affine("resnet50_clip")
    assert expecting_imagenet_weights(ModelConfig()) == ModelConfig(input_affine="googlenet")


def test_without_a_network_the_error_says_where_to_put_the_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from timm.models import _builder

    def unreachable(*_args: Any, **_kwargs: Any) -> None:
        raise OSError("Name or service not known")

    for name in ("load_state_dict_from_hf", "load_state_dict_from_url"):
        monkeypatch.setattr(_builder, name, unreachable)
    model = build_ccan(settings(), 3)
    with pytest.raises(
        CheckpointError,
        match=r"weights of timm:lcnet_050 at Hugging Face's cache or by download, got: Name or service.*"
        r"--train\.imagenet-file FILE; --train\.initial-weights none",
    ):
        load_pretrained(model)
    with pytest.raises(CheckpointError, match=r"missing\.safetensors, got: FileNotFoundError"):
        load_pretrained(model, tmp_path / "missing.safetensors")
    with pytest.raises(CheckpointError, match=r"as a \.safetensors file, got weights\.pth"):
        load_pretrained(model, "weights.pth")
    other = tmp_path / "other.safetensors"
    save_file({"conv_stem.weight": torch.zeros(2)}, other)
    with pytest.raises(
        CheckpointError, match=r"expected ImageNet weights of timm:lcnet_050 at .*other"
    ):
        load_pretrained(model, other)


# --- what cannot be had ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "last_stride", "text"),
    [
        ("resnet_18", 2, r"timm has no network 'resnet_18'; near it: resnet18"),
        ("hf-hub:someone/thing", 2, "timm has no network 'hf-hub:someone/thing'"),
        ("vit_tiny_patch16_224", 2, r"strides 8, 16 and 32, got .* has them at \[16, 16, 16\]"),
        ("ghostnet_100", 1, "cannot be cut .* 64×32 with last_stride=1: only output_stride==32"),
        ("vgg11_bn", 1, "cannot be cut .* with last_stride=1: AssertionError; try timm:resnet50"),
        ("hrnet_w18_small", 2, "cannot be cut into three stages"),
        ("swin_tiny_patch4_window7_224", 2, r"cannot be cut .* doesn't match model \(224\)"),
    ],
)
def test_networks_that_do_not_fit(name: str, last_stride: Any, text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        build_ccan(settings(name, last_stride=last_stride), 3)


def test_padding_that_moves_the_grid_is_found() -> None:
    config = settings("inception_v3", image_height=256, image_width=128)
    with pytest.raises(ConfigError, match=r"map \(2, 288, 32, 16\), got \(2, 288, 29, 13\)"):
        build_ccan(config, 3)


def test_stages_that_do_not_do_what_the_network_does_are_found() -> None:
    class Skips(TimmBackbone):
        def _cut(self, network: Any) -> dict[StageName, nn.Sequential]:
            stages = super()._cut(network)
            stages["I2"][0] = nn.Conv2d(128, 256, 1, stride=2)
            return stages

    with pytest.raises(ConfigError, match="expected I2 of timm's resnet18 to give its own feature"):
        Skips("resnet18", 2, SIZE)


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_timm_is_loaded_only_for_its_own_backbones() -> None:
    build = "import sys; from ccan import ModelConfig; from ccan.model import build_ccan; "
    small = "image_height=64, image_width=32, parts=2, embedding_dim=3"
    paper = (
        f"build_ccan(ModelConfig(width_multiplier=0.05, {small}), 2); print('timm' in sys.modules)"
    )
    found = run_python(build + "import ccan.training; " + paper)
    assert found.stdout.strip() == "False", found.stderr
    found = run_python(
        build
        + "from ccan.errors import ConfigError; sys.modules['timm'] = None\n"
        + f"try: build_ccan(ModelConfig(backbone='timm:resnet18', {small}), 2)\n"
        + "except ConfigError as error: print(error)"
    )
    assert "backbones of timm need the library: pip install timm" in found.stdout, found.stderr
