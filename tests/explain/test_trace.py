"""A trace is the forward that makes the embedding: every value follows from the ones before it."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest
import torch
from torch.nn import functional

from ccan.config import ModelConfig
from ccan.errors import ShapeError
from ccan.explain.trace import stream_names, stream_stages, trace
from ccan.model.attention import CrossCorrelatedAttention
from ccan.model.network import CCAN, build_ccan
from ccan.model.strips import resized_strips

SMALL = ModelConfig(
    width_multiplier=0.125, embedding_dim=7, image_height=96, image_width=32, parts=3
)


def build(config: ModelConfig) -> CCAN:
    torch.manual_seed(3)
    return build_ccan(config, num_identities=5).double()


def images(count: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(5)
    return torch.randn(count, 3, 96, 32, generator=generator, dtype=torch.float64)


def test_every_value_follows_from_the_ones_before():
    model = build(SMALL).eval()
    found = trace(model, images())
    with torch.inference_mode():
        expected = model(images())
        assert torch.equal(found.output.descriptor, expected.descriptor)
        assert found.z2 is not None
        for part, (z1_strip, z2_strip) in enumerate(
            zip(resized_strips(found.z1, 3), resized_strips(found.z2, 3), strict=True)
        ):
            name, stream = f"P{part + 1}", model.streams[part]
            assert isinstance(stream.cc2, CrossCorrelatedAttention)
            assert torch.equal(found.z1_strips[name], z1_strip)
            assert torch.equal(found.z2_strips[name], z2_strip)
            assert torch.equal(found.u[name], stream.i2(z1_strip))
            assert torch.equal(found.t[name], stream.cc2(found.u[name], z2_strip))
            slot = found.slots[f"CC2_{part + 1}"]
            added = (found.t[name] - found.u[name]).flatten(2).transpose(1, 2)
            assert torch.allclose(slot.residual, added, atol=1e-12)
            assert torch.equal(slot.attention, stream.cc2.attend(slot.correlation))
        assert model.global_branch is not None and model.local_branch is not None
        joined = torch.cat([found.pooled[f"P{part}"] for part in (1, 2, 3)], dim=1)
        assert torch.allclose(
            functional.linear(found.pooled["G"], *fc1(model.global_branch)),
            expected.global_embedding,
        )
        assert torch.allclose(
            functional.linear(joined, *fc1(model.local_branch)), expected.local_embedding
        )
    assert found.last["P2"].mean(dim=(2, 3)).equal(found.pooled["P2"])
    assert found.t["G"].equal(found.z2)


def fc1(branch: object) -> tuple[torch.Tensor, torch.Tensor]:
    linear = branch.head.fc1  # type: ignore[attr-defined]
    return linear.weight, linear.bias


def test_swapped_roles_are_told_apart():
    swapped = replace(SMALL, cca_target="global")
    found = trace(build(swapped), images())
    assert found.z2 is not None
    for name, strip in zip(("P1", "P2", "P3"), resized_strips(found.z2, 3), strict=True):
        assert torch.equal(found.z2_strips[name], strip)
        assert not torch.equal(found.u[name], strip)


@pytest.mark.parametrize(
    ("changes", "streams", "has_z2"),
    [
        ({"local_branch": False, "cca": False}, ["G"], True),
        ({"global_branch": False, "ssa": False, "cca": False}, ["P1", "P2", "P3"], False),
        ({"ssa": False, "cca": False}, ["G", "P1", "P2", "P3"], True),
        ({"attention": "non_local"}, ["G", "P1", "P2", "P3"], True),
    ],
)
def test_what_a_network_does_not_have_is_missing(
    changes: dict[str, object], streams: list[str], has_z2: bool
):
    model = build(replace(SMALL, **changes))  # type: ignore[arg-type]
    found = trace(model, images())
    assert list(found.last) == stream_names(model) == streams
    assert (found.z2 is not None) is has_z2
    assert list(found.u) == [one for one in streams if one != "G"]


def test_the_model_is_left_as_it_was_even_after_an_error():
    model = build(SMALL).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    trace(model, images())
    with pytest.raises(ShapeError):
        trace(model, images()[:, :, :64])
    assert model.training
    assert not any(module._forward_hooks for module in model.modules())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_forwards_of_another_thread_are_not_heard():
    model = build(SMALL).eval()
    ended = []

    class Meanwhile(torch.nn.Module):
        """Another thread's forward in the middle of ours."""

        def forward(self, values: torch.Tensor) -> torch.Tensor:
            if threading.current_thread() is threading.main_thread() and not ended:
                ended.append(True)
                other = threading.Thread(target=lambda: model(torch.zeros_like(images(3))))
                other.start()
                other.join()
            return values

    alone = trace(model, images())
    i2, _ = stream_stages(model, "P2")
    model.streams[1].i2 = torch.nn.Sequential(Meanwhile(), i2)
    heard = trace(model, images())
    assert ended
    assert heard.z1.equal(alone.z1)
    assert all(heard.last[name].equal(alone.last[name]) for name in alone.last)


def test_a_stream_that_is_not_there_is_named():
    with pytest.raises(ShapeError, match="expected one of the streams G, P1, P2, P3, got 'P4'"):
        stream_stages(build(SMALL), "P4")
