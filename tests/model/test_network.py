"""The whole of Fig. 3: size, Table 6, every input size and number of parts, and equality with the plain twin."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models import googlenet

import ccan.model.network as network
from ccan.config import ModelConfig
from ccan.errors import ConfigError, ShapeError
from ccan.model import (
    CCAN,
    CCANOutput,
    CrossCorrelatedAttention,
    NonLocalAttention,
    SymmetricSelfAttention,
    build_ccan,
)
from ccan.model.network import join_descriptor
from ccan.model.strips import resized_strips, strip_bounds
from tests.reference import network as twin

IDENTITIES = 7
# Table 6: id → (global branch, local branch, SS1, CC2)
TABLE_6 = {
    1: (True, False, False, False),
    2: (False, True, False, False),
    3: (True, True, False, False),
    4: (True, False, True, False),
    5: (True, True, False, True),
    6: (True, True, True, True),
}


def row_of_table_6(row: int, **changes: Any) -> ModelConfig:
    global_branch, local_branch, ssa, cca = TABLE_6[row]
    return ModelConfig(
        global_branch=global_branch, local_branch=local_branch, ssa=ssa, cca=cca, **changes
    )


def tiny(**changes: Any) -> dict[str, Any]:
    """Settings of a network that a loop twin can follow: 96×64 pixels, Z1 12×8, Z2 6×4, eight channels a branch."""
    settings = dict(embedding_dim=11, image_height=96, image_width=64, width_multiplier=0.0625)
    return settings | changes


def images_for(config: ModelConfig, batch: int = 2, seed: int = 6) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, 3, config.image_height, config.image_width, generator=generator)


def seasoned(config: ModelConfig, seed: int = 0) -> CCAN:
    """A float64 network whose signal survives to the last layer: every norm and attention map has values of its own."""
    torch.manual_seed(seed)
    model = build_ccan(config, IDENTITIES).double()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
                module.momentum = None
                nn.init.uniform_(module.weight, 0.8, 1.2)
                if module.bias is not None:
                    nn.init.uniform_(module.bias, -0.1, 0.4)
            if isinstance(module, NonLocalAttention):
                for weight in module.parameters():
                    nn.init.normal_(weight, std=0.6 / weight.shape[1] ** 0.5)
                module.w.weight.mul_(3)
        model.train()(images_for(config, batch=4, seed=1).double())  # running statistics
    return model.eval()


# --- size ------------------------------------------------------------------------------------------------------------


def paper_model(config: ModelConfig, identities: int = 751) -> CCAN:
    """Built without memory: shapes only."""
    with torch.device("meta"):
        return build_ccan(config, identities)


def test_the_paper_s_network_has_exactly_the_paper_s_size() -> None:
    model = paper_model(ModelConfig()).eval()
    assert sum(p.numel() for p in model.parameters()) == 34_455_678
    with FlopCounterMode(display=False) as counter:
        model(torch.empty(1, 3, 256, 128, device="meta"))
    assert round(counter.get_total_flops() / 1e9, 3) == 6.406


def expected_parameters(config: ModelConfig, identities: int) -> int:
    """Counted from torchvision's network and the paper's formulas, not from ours."""
    with torch.device("meta"):
        backbone = googlenet(init_weights=False, aux_logits=False)

    def count(*prefixes: str) -> int:
        return sum(p.numel() for n, p in backbone.named_parameters() if n.startswith(prefixes))

    def attention(channels: int, positions: int) -> int:
        return 4 * channels * channels // 8 + 2 * positions**2

    i1, i2, i3 = count("conv", "inception3"), count("inception4"), count("inception5")
    d = config.embedding_dim
    total = i1 + config.ssa * attention(480, 32 * 16)
    for on, streams in ((config.global_branch, 1), (config.local_branch, config.parts)):
        if on:
            total += streams * (i2 + i3) + (streams * 1024 + 1) * d + (d + 1) * identities
    return total + config.cca * config.parts * attention(832, 16 * 8)


@pytest.mark.parametrize("row", TABLE_6)
def test_parameters_of_every_row_of_table_6(row: int) -> None:
    config = row_of_table_6(row)
    found = sum(p.numel() for p in paper_model(config).parameters())
    assert found == expected_parameters(config, 751)


def test_only_the_linear_heads_have_biases() -> None:
    names = [n for n, _ in paper_model(ModelConfig()).named_parameters() if n.endswith(".bias")]
    assert {n for n in names if ".bn." not in n} == {
        f"{branch}_branch.head.{layer}.bias"
        for branch in ("global", "local")
        for layer in ("fc1", "fc2")
    }


# --- Table 6 and the settings ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", TABLE_6)
def test_every_row_of_table_6_has_its_parts_and_no_others(row: int) -> None:
    global_branch, local_branch, ssa, cca = TABLE_6[row]
    config = row_of_table_6(row, **tiny(parts=3))
    model = build_ccan(config, IDENTITIES)
    names = {name for name, _ in model.named_parameters()}

    def has(prefix: str) -> bool:
        return any(name.startswith(prefix) for name in names)

    assert has("i1.")
    assert has("ss1.") == ssa and isinstance(model.ss1, SymmetricSelfAttention) == ssa
    for part in ("i2", "i3", "head.fc1", "head.fc2"):
        assert has(f"global_branch.{part}.") == global_branch
    assert has("local_branch.") == local_branch
    assert len(model.streams) == 3 * local_branch
    assert all(isinstance(s.cc2, CrossCorrelatedAttention) == cca for s in model.streams)

    output = model(images_for(config))
    assert isinstance(output, CCANOutput)
    for found, on, width in (
        (output.global_embedding, global_branch, 11),
        (output.global_logits, global_branch, IDENTITIES),
        (output.local_embedding, local_branch, 11),
        (output.local_logits, local_branch, IDENTITIES),
        (output.descriptor, True, config.descriptor_dim),
    ):
        assert (found is not None) == on
        assert found is None or found.shape == (2, width)
    assert config.descriptor_dim == 11 * (global_branch + local_branch)


@pytest.mark.parametrize("row", TABLE_6)
def test_every_parameter_of_every_row_gets_a_gradient(row: int) -> None:
    """From the embeddings and logits together, every tensor of the network learns (D6 at the network's own start)."""
    torch.manual_seed(0)
    config = row_of_table_6(row, **tiny(parts=2, width_multiplier=0.25))
    model = build_ccan(config, IDENTITIES).train()
    output = model(images_for(config, batch=4))
    outputs = [part for part in output[:4] if part is not None]
    generator = torch.Generator().manual_seed(2)
    sum((o * torch.randn(o.shape, generator=generator)).sum() for o in outputs).backward()  # type: ignore[union-attr]
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("size", [(256, 128), (192, 96), (128, 64)])
@pytest.mark.parametrize("parts", [1, 2, 4, 6, 8])
def test_every_number_of_parts_at_every_size(parts: int, size: tuple[int, int]) -> None:
    config = ModelConfig(
        parts=parts,
        image_height=size[0],
        image_width=size[1],
        width_multiplier=0.0625,
        embedding_dim=5,
    )
    model = build_ccan(config, IDENTITIES).eval()
    with torch.no_grad():
        output = model(images_for(config, batch=1))
    assert len(model.streams) == parts
    assert output.descriptor.shape == (1, 10)
    assert model.ss1 is not None and model.ss1.positions == size[0] * size[1] // 64
    assert all(s.cc2.positions == size[0] * size[1] // 256 for s in model.streams if s.cc2)  # type: ignore[union-attr]


@pytest.mark.slow
@pytest.mark.parametrize("row", TABLE_6)
def test_full_width_forward(row: int) -> None:
    config = row_of_table_6(row)
    model = build_ccan(config, 751).eval()
    with torch.no_grad():
        output = model(images_for(config))
    assert output.descriptor.shape == (2, config.descriptor_dim)
    assert torch.isfinite(output.descriptor).all()


def test_settings_reach_the_attention_slots() -> None:
    config = ModelConfig(
        **tiny(reduction=4, attention_values="source", attention_init="symmetric_full_w")
    )
    model = build_ccan(config, IDENTITIES)
    for slot in (model.ss1, *(stream.cc2 for stream in model.streams)):
        assert isinstance(slot, CrossCorrelatedAttention)
        assert slot.values == "source" and slot.f.out_features == slot.channels // 4

    baseline = build_ccan(ModelConfig(**tiny(attention="non_local")), IDENTITIES)
    slots = [baseline.ss1, *(stream.cc2 for stream in baseline.streams)]
    assert all(type(slot) is NonLocalAttention for slot in slots)
    assert not any("alpha" in name for name, _ in baseline.named_parameters())


def test_a_neck_takes_no_bias_and_the_triplet_sees_what_is_before_it() -> None:
    """Luo et al. 2019: f before, logits and descriptor after; neither the norm nor FC2 shifts."""
    model = seasoned(ModelConfig(**tiny(parts=2, neck="batch_norm")))
    names = {name for name, _ in model.named_parameters() if ".head." in name}
    assert names == {
        f"{branch}_branch.head.{layer}"
        for branch in ("global", "local")
        for layer in ("fc1.weight", "fc1.bias", "neck.weight", "fc2.weight")
    }
    assert model.global_branch is not None and model.local_branch is not None
    images = images_for(model.config).double()
    with torch.no_grad():
        before = model(images)
        model.global_branch.head.neck.weight.mul_(torch.linspace(0.2, 3, 11))  # type: ignore[operator]
        after = model(images)
    assert torch.equal(before.global_embedding, after.global_embedding)
    assert not torch.allclose(before.global_logits, after.global_logits)
    assert not torch.allclose(before.descriptor[:, :11], after.descriptor[:, :11])
    torch.testing.assert_close(before.descriptor[:, 11:], after.descriptor[:, 11:])
    assert model.config.descriptor_dim == before.descriptor.shape[1] == 22


@pytest.mark.parametrize("neck", ["none", "batch_norm"])
def test_last_stride_and_neck_change_no_weight_but_those_of_the_heads(neck: str) -> None:
    """ImageNet weights and old checkpoints fit whatever the last stride is."""
    usual = paper_model(ModelConfig(neck=neck)).state_dict()  # type: ignore[arg-type]
    finer = paper_model(ModelConfig(neck=neck, last_stride=1))  # type: ignore[arg-type]
    assert {k: v.shape for k, v in usual.items()} == {
        k: v.shape for k, v in finer.state_dict().items()
    }
    expected = 34_455_678 + (2 * 1024 - 2 * 751 if neck == "batch_norm" else 0)
    assert sum(p.numel() for p in finer.parameters()) == expected
    seen: list[tuple[int, ...]] = []

    def look(_module: nn.Module, _inputs: tuple[Tensor, ...], maps: Tensor) -> None:
        seen.append(tuple(maps.shape))

    for stage in (finer.global_branch, *finer.streams):
        assert stage is not None
        stage.i3.register_forward_hook(look)
    finer.eval()(torch.empty(2, 3, 256, 128, device="meta"))
    assert seen == [(2, 1024, 16, 8)] * 5  # the size of Z2


def test_no_weight_is_shared_between_streams() -> None:
    model = build_ccan(ModelConfig(**tiny()), IDENTITIES)
    pointers = [p.data_ptr() for p in model.parameters()]
    assert len(set(pointers)) == len(pointers)
    assert len(set(map(id, model.modules()))) == len(list(model.modules()))
    assert len(model.backbone_stages()) == 3 + 2 * 4


# --- equality with the twin ------------------------------------------------------------------------------------------


def boxes_of(model: CCAN) -> dict[str, dict[str, Tensor]]:
    """The network's weights under the names of Fig. 3's boxes."""
    state = {name: value.detach() for name, value in model.state_dict().items()}

    def box(prefix: str) -> dict[str, Tensor]:
        return {n[len(prefix) :]: v for n, v in state.items() if n.startswith(prefix)}

    def attention(prefix: str) -> dict[str, Tensor]:
        return {n.removesuffix(".weight"): v for n, v in box(prefix).items()}

    boxes = {"I1": box("i1."), "SS1": attention("ss1.")}
    for letter, branch in (("G", "global_branch"), ("L", "local_branch")):
        boxes |= {f"FC{i}_{letter}": box(f"{branch}.head.fc{i}.") for i in (1, 2)}
        boxes[f"NECK_{letter}"] = box(f"{branch}.head.neck.")
    boxes |= {name: box(f"global_branch.{name.lower()}.") for name in ("I2", "I3")}
    for s in range(len(model.streams)):
        stream = f"local_branch.streams.{s}"
        boxes |= {f"{name}_{s + 1}": box(f"{stream}.{name.lower()}.") for name in ("I2", "I3")}
        boxes[f"CC2_{s + 1}"] = attention(f"{stream}.cc2.")
    return {name: weights for name, weights in boxes.items() if weights}


def twin_settings(config: ModelConfig, training: bool = False) -> twin.TwinSettings:
    return twin.TwinSettings(
        parts=config.parts,
        attention=config.attention,
        cca_target=config.cca_target,
        values=config.attention_values,
        input_affine=config.input_affine,
        last_stride=config.last_stride,
        training=training,
    )


def assert_equals_twin(model: CCAN, images: Tensor, atol: float = 1e-8) -> None:
    expected = twin.forward(images, boxes_of(model), twin_settings(model.config, model.training))
    with torch.no_grad():
        found = model(images)
    for name, value in dataclasses.asdict(expected).items():
        result = getattr(found, name)
        assert (value is None) == (result is None), name
        if value is not None:
            assert value.std(dim=0).max() > 1e-3, (
                f"{name}: the images look alike, the case says nothing"
            )
            torch.testing.assert_close(result, value, rtol=0, atol=atol, msg=name)


TWIN_CASES: dict[str, dict[str, Any]] = {
    "CCAN": {},
    "6 rows in 4 strips": dict(parts=4),
    "one part": dict(parts=1),
    "D4 global is Q": dict(cca_target="global"),
    "D17 values of the source": dict(attention_values="source"),
    "D18 non-local": dict(attention="non_local"),
    "K = C/4": dict(reduction=4),
    "last stride 1": dict(last_stride=1),
    "neck": dict(neck="batch_norm"),
    "neck and last stride, no SS1": dict(neck="batch_norm", last_stride=1, ssa=False),
}


@pytest.mark.parametrize("case", TWIN_CASES)
def test_the_forward_equals_the_twin(case: str) -> None:
    config = ModelConfig(**tiny(**({"parts": 2, "image_width": 32} | TWIN_CASES[case])))
    model = seasoned(config)
    assert_equals_twin(model, images_for(config).double())


@pytest.mark.parametrize("row", [1, 2, 3, 4, 5])
def test_ablations_equal_the_twin(row: int) -> None:
    """Decisions D3 and D16, as far as the twin reads them from the paper."""
    config = row_of_table_6(row, **tiny(parts=3, image_width=32))
    model = seasoned(config)
    assert_equals_twin(model, images_for(config).double())


@pytest.mark.parametrize("neck", ["none", "batch_norm"])
def test_training_mode_equals_the_twin(neck: str) -> None:
    """Norms by the batch, not by running statistics."""
    config = ModelConfig(**tiny(parts=2, image_width=32, neck=neck))
    model = seasoned(config).train()
    assert_equals_twin(model, images_for(config, batch=3).double())


def test_input_affine_equals_the_twin() -> None:
    """D2; the affine map's constants are single precision, hence the tolerance."""
    config = ModelConfig(**tiny(parts=2, image_width=32, input_affine="googlenet"))
    model = seasoned(config)
    assert_equals_twin(model, images_for(config).double(), atol=1e-4)
    model.input_affine = nn.Identity()  # what the model would be without it
    with pytest.raises(AssertionError):
        assert_equals_twin(model, images_for(config).double(), atol=1e-4)


@pytest.mark.parametrize(
    ("changes", "reads_z2"),
    [({}, True), ({"cca": False}, False), ({"attention": "non_local"}, False)],
)
def test_z2_reaches_the_parts_only_through_cca(changes: dict[str, Any], reads_z2: bool) -> None:
    """Decisions D16 and D18: moving Z2 moves f_L with CC2, and nowhere else."""
    config = ModelConfig(**tiny(parts=2, image_width=32, **changes))
    model = seasoned(config)
    assert model.global_branch is not None
    images = images_for(config).double()
    with torch.no_grad():
        before = model(images)
        for name, parameter in model.global_branch.i2.named_parameters():
            if name.endswith("bn.bias"):
                parameter.add_(0.5)
        after = model(images)
    assert not torch.equal(before.global_embedding, after.global_embedding)
    assert torch.equal(before.local_embedding, after.local_embedding) != reads_z2


# --- descriptor, types, determinism, errors --------------------------------------------------------------------------


def test_descriptor_is_both_directions_side_by_side() -> None:
    """(3, 4) and (0, −2) give (3/5, 4/5, 0, −1); squared distances add over the branches."""
    f_g, f_l = torch.tensor([[3.0, 4.0], [6.0, 8.0]]), torch.tensor([[0.0, -2.0], [5.0, 0.0]])
    joined = join_descriptor(f_g, f_l)
    torch.testing.assert_close(joined[0], torch.tensor([0.6, 0.8, 0.0, -1.0]))
    squared = (joined[0] - joined[1]).square().sum()
    assert squared == pytest.approx(0 + 2, abs=1e-6)
    torch.testing.assert_close(join_descriptor(None, f_l), functional.normalize(f_l))
    torch.testing.assert_close(join_descriptor(f_g, None), functional.normalize(f_g))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_float_types_are_kept(dtype: torch.dtype) -> None:
    config = ModelConfig(**tiny(parts=2, input_affine="googlenet"))
    model = build_ccan(config, IDENTITIES).to(dtype).eval()
    output = model(images_for(config).to(dtype))
    assert {part.dtype for part in output if part is not None} == {dtype}


def test_autocast_stays_close() -> None:
    """Measured: 0.976 and 0.997, with attention maps far larger than any start gives them."""
    config = ModelConfig(**tiny(parts=2))
    model = seasoned(config).float()
    images = images_for(config)
    with torch.no_grad():
        exact = model(images).descriptor
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rough = model(images).descriptor
    cosine = functional.cosine_similarity(exact, rough.float())
    assert cosine.min() > 0.95 and not torch.equal(exact, rough.float())


def test_images_are_left_as_they_were() -> None:
    for affine in ("none", "googlenet"):
        config = ModelConfig(**tiny(input_affine=affine))
        images = images_for(config)
        before = images.clone()
        build_ccan(config, IDENTITIES)(images)
        assert torch.equal(images, before)


def test_evaluation_does_not_depend_on_the_neighbours_in_the_batch() -> None:
    config = ModelConfig(**tiny(parts=2))
    model = seasoned(config)
    images = images_for(config, batch=3).double()
    with torch.no_grad():
        together, alone = model(images).descriptor[1:2], model(images[1:2]).descriptor
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-12)


def test_same_seed_same_network_and_same_output() -> None:
    config = ModelConfig(**tiny(parts=2))

    def once(seed: int) -> Tensor:
        torch.manual_seed(seed)
        return build_ccan(config, IDENTITIES)(images_for(config)).descriptor

    assert torch.equal(once(3), once(3))
    assert not torch.equal(once(3), once(4))


def test_errors() -> None:
    config = ModelConfig(**tiny())
    model = build_ccan(config, IDENTITIES)
    for wrong in ((2, 3, 64, 96), (2, 1, 96, 64), (3, 96, 64)):
        shown = ", ".join(map(str, wrong))
        with pytest.raises(
            ShapeError, match=rf"expected images \(B, 3, 96, 64\), got \({shown}\); resize them"
        ):
            model(torch.zeros(wrong))
    with pytest.raises(ConfigError, match="num_identities must be at least 1, got 0"):
        build_ccan(config, 0)


# --- mistakes planted on purpose: each must be found -----------------------------------------------------------------


def aligned_strips(maps: Tensor, parts: int) -> list[Tensor]:
    size = (int(maps.shape[2]), int(maps.shape[3]))
    return [
        functional.interpolate(maps[:, :, a:b], size, mode="bilinear", align_corners=True)
        for a, b in strip_bounds(maps.shape[2], parts)
    ]


def strips_upside_down(maps: Tensor, parts: int) -> list[Tensor]:
    return resized_strips(maps, parts)[::-1]


def swapped_branches(f_g: Tensor, f_l: Tensor) -> Tensor:
    return join_descriptor(f_l, f_g)


def one_norm_for_both(f_g: Tensor, f_l: Tensor) -> Tensor:
    return functional.normalize(torch.cat([f_g, f_l], dim=1), dim=1)


@pytest.mark.parametrize(
    ("target", "mistake"),
    [
        ("join_descriptor", swapped_branches),
        ("join_descriptor", one_norm_for_both),
        ("resized_strips", aligned_strips),
        ("resized_strips", strips_upside_down),
    ],
)
def test_planted_mistakes_are_rejected(
    target: str, mistake: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = ModelConfig(**tiny(parts=2, image_width=32))
    model = seasoned(config)
    monkeypatch.setattr(network, target, mistake)
    with pytest.raises(AssertionError):
        assert_equals_twin(model, images_for(config).double())


@pytest.mark.parametrize(
    ("setting", "value"), [("cca_target", "global"), ("attention_values", "source")]
)
def test_the_wrong_roles_of_q_are_rejected(setting: str, value: str) -> None:
    config = ModelConfig(**tiny(parts=2, image_width=32))
    model = seasoned(dataclasses.replace(config, **{setting: value}))
    model.config = config  # what the twin is told: the paper's default
    with pytest.raises(AssertionError):
        assert_equals_twin(model, images_for(config).double())


class PartsBeforeAttention(CCAN):
    """Strips of I1's output instead of SS1's (against Decision D3)."""

    def forward(self, images: Tensor) -> CCANOutput:
        assert self.ss1 is not None and self.global_branch and self.local_branch
        raw = self.i1(images)
        z2, (f_g, _, logits_g) = self.global_branch(self.ss1(raw))
        (f_l, _, logits_l), _ = self.local_branch(raw, z2)
        return CCANOutput(f_g, f_l, logits_g, logits_l, join_descriptor(f_g, f_l))


def test_parts_cut_before_the_attention_are_rejected() -> None:
    config = ModelConfig(**tiny(parts=2, image_width=32))
    model = seasoned(config)
    model.__class__ = PartsBeforeAttention
    with pytest.raises(AssertionError):
        assert_equals_twin(model, images_for(config).double())
