"""The network with folded batch norms and joined convolutions gives the same output, in every part of it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from ccan.config import ModelConfig
from ccan.explain.attention import record_attention
from ccan.model import CCAN
from ccan.model.fast import FastInception, FoldedConv, fast_for_inference
from tests.explain import networks
from tests.explain.networks import SMALL

CONFIGS = networks.CONFIGS | {
    "neck and stride": replace(SMALL, neck="batch_norm", last_stride=1),
    "rescaled input": replace(SMALL, input_affine="googlenet"),
}


def trained_looking(config: ModelConfig) -> CCAN:
    """A float32 network in training whose batch norms have statistics and scales of their own."""
    model = networks.network(config, dtype=torch.float32).train()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d | torch.nn.BatchNorm1d):
            module.momentum = 0.1
            with torch.no_grad():
                module.weight.uniform_(0.5, 1.5)
    return model


def images() -> torch.Tensor:
    return networks.images(3, torch.float32)


@pytest.mark.parametrize("name", CONFIGS)
def test_the_output_is_the_same(name: str):
    for dtype, tolerance in ((torch.float64, 1e-10), (torch.float32, 1e-5)):
        model = trained_looking(CONFIGS[name]).to(dtype)
        fast = fast_for_inference(model)
        with torch.inference_mode():
            expected, found = model.eval()(images().to(dtype)), fast(images().to(dtype))
        for one, other in zip(expected, found, strict=True):
            assert (one is None) == (other is None)
            if one is not None:
                assert other.dtype == dtype
                assert (one - other).norm() < tolerance * one.norm()


def test_the_model_itself_is_left_alone_and_the_copy_follows_its_weights():
    model = trained_looking(SMALL)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    first = fast_for_inference(model)
    assert model.training and not first.training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(value.requires_grad for value in model.parameters())
    with torch.no_grad():
        model.get_parameter("global_branch.i3.inception5b.branch1.bn.bias").add_(5)
    with torch.inference_mode():
        second = fast_for_inference(model)(images()).descriptor
        assert torch.allclose(second, model.eval()(images()).descriptor, atol=1e-4)
        assert not torch.allclose(second, first(images()).descriptor, atol=1e-2)


def test_there_are_fewer_convolutions_and_no_batch_norms():
    model = trained_looking(SMALL)
    fast = fast_for_inference(model)

    def count(network: CCAN, kind: type) -> int:
        return sum(isinstance(module, kind) for module in network.modules())

    # Nine Inception blocks in branch G, seven in each of three streams; I1 begins with three convolutions.
    assert count(fast, FastInception) == 9 + 3 * 7
    assert count(fast, FoldedConv) == 3
    assert count(fast, torch.nn.BatchNorm2d) == 0
    assert count(fast, torch.nn.Conv2d) == count(model, torch.nn.Conv2d) - 2 * 30


def test_attention_is_read_from_it_alike():
    model = trained_looking(SMALL)
    for one, other in zip(
        record_attention(model, images()),
        record_attention(fast_for_inference(model), images()),
        strict=True,
    ):
        assert one.slots.keys() == other.slots.keys()
        for slot in one.slots:
            largest = abs(one.slots[slot].attention).max()
            assert abs(one.slots[slot].attention - other.slots[slot].attention).max() < 1e-5 * max(
                1, largest
            )
