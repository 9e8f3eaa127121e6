"""Streams one by one: their last maps in the image, the descriptor without one of them, and parts that lie shifted."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional

from ccan.config import ModelConfig
from ccan.errors import ShapeError
from ccan.explain.embedding import embedding_maps
from ccan.explain.parts import (
    _alignment,
    align_parts,
    knocked_out,
    stream_activations,
    stream_geometry,
)
from ccan.explain.trace import trace
from tests.explain.networks import CONFIGS, SMALL, images, network


@pytest.mark.parametrize("name", CONFIGS)
def test_activations_are_the_last_maps(name: str):
    model = network(CONFIGS[name])
    found = trace(model, images())
    activations = stream_activations(model.config, found, image=2, top=4)
    assert list(activations) == list(found.last)
    for stream, one in activations.items():
        x = found.last[stream][2].numpy()
        assert one.energy == pytest.approx(np.sqrt((x**2).sum(axis=0)), rel=1e-6)
        means = x.mean(axis=(1, 2))
        assert means[one.channels].tolist() == sorted(means, reverse=True)[:4]
        assert one.channel_maps == pytest.approx(x[one.channels], rel=1e-6)
        assert one.geometry.to_image(one.energy).shape == (96, 32)


@pytest.mark.parametrize("parts", [1, 2, 4, 6, 8])
def test_a_parts_map_lies_on_its_strip(parts: int):
    """A marked pixel is found in the strips that Decision D5 gives it, and in no other."""
    config = replace(ModelConfig(), parts=parts)
    for y in (0, 63, 64, 127, 200, 255):
        owners = []
        for part in range(parts):
            geometry = stream_geometry(config, f"P{part + 1}", 8, 4)
            if geometry.position_at(17, y) is not None:
                owners.append(part)
        rows = 32  # of Z1, of eight pixels each
        expected = [
            s for s in range(parts) if s * rows // parts <= y // 8 < -(-(s + 1) * rows // parts)
        ]
        assert owners == expected and owners
    assert stream_geometry(config, "G", 8, 4).position_at(127, 255) == 31


@pytest.mark.parametrize("name", CONFIGS)
def test_knocked_out_is_the_network_without_that_parts_columns(name: str):
    model = network(CONFIGS[name])
    found = trace(model, images())
    descriptors = knocked_out(embedding_maps(model), found)
    assert list(descriptors) == list(found.last)
    for stream, without in descriptors.items():
        pooled = {key: value.clone() for key, value in found.pooled.items()}
        pooled[stream].zero_()
        expected = []
        with torch.inference_mode():
            if model.global_branch is not None:
                expected.append(model.global_branch.head(pooled["G"]).feature)
            if model.local_branch is not None:
                parts = [pooled[f"P{s + 1}"] for s in range(len(model.streams))]
                expected.append(model.local_branch.head(torch.cat(parts, dim=1)).feature)
            joined = torch.cat([functional.normalize(one, dim=1) for one in expected], dim=1)
        assert torch.allclose(without, joined, atol=1e-12)
        assert not torch.allclose(without, found.output.descriptor, atol=1e-6)


def striped(order: list[int]) -> torch.Tensor:
    """An image of three bands of strong patterns, in this order from the top."""
    generator = torch.Generator().manual_seed(2)
    bands = 3 * torch.randn(3, 3, 8, 8, generator=generator, dtype=torch.float64)
    large = functional.interpolate(bands, (32, 32), mode="nearest")
    return torch.cat([large[band] for band in order], dim=1)[None]


def test_parts_that_lie_one_strip_lower_are_recognised():
    model = network(CONFIGS["no attention"])
    maps = embedding_maps(model)
    right, lower = (trace(model, striped(order)) for order in ([0, 1, 2], [2, 0, 1]))
    alike = align_parts(model, maps, right, right)
    assert alike.shift == 0 and alike.reading() == "the parts lie alike"
    assert np.diag(alike.similarity) == pytest.approx(np.ones(3))
    assert alike.assignment.tolist() == [0, 1, 2]
    found = align_parts(model, maps, lower, right)
    assert found.shift == 1
    assert found.reading() == "the query's parts lie one strip lower: a bad crop?"
    assert found.similarity[1, 0] > found.similarity[0, 0]
    assert align_parts(model, maps, right, lower).shift == -1


def test_assignment_and_shift_by_hand():
    similarity = np.array([[0.1, 0.2, 0.9], [0.8, 0.1, 0.0], [0.3, 0.7, 0.2]])
    found = _alignment(similarity)
    assert found.assignment.tolist() == [2, 0, 1]
    assert found.shift == 1
    assert found.shift_similarity[1] == pytest.approx((0.8 + 0.7) / 2)
    assert found.shift_similarity[0] == pytest.approx(0.4 / 3)
    assert set(found.shift_similarity) == {0, 1, -1}, "one strip of three is too few to compare"
    assert set(_alignment(np.eye(4)).shift_similarity) == {0, 1, -1, 2, -2}
    assert _alignment(np.zeros((3, 3))).shift == 0
    assert _alignment(np.ones((1, 1))).assignment.tolist() == [0]


def test_the_network_is_left_as_it_was():
    model = network().train()
    found = trace(model, images(1))
    align_parts(model, embedding_maps(model), found, found)
    assert all(module.training for module in model.modules())


def test_what_cannot_be_compared_is_told():
    model = network(CONFIGS["global only"])
    found = trace(model, images(1))
    with pytest.raises(ShapeError, match="got one without a local branch"):
        align_parts(model, embedding_maps(model), found, found)
    whole = network()
    with pytest.raises(ShapeError, match="traces of one image each, got 4 and 1"):
        align_parts(whole, embedding_maps(whole), trace(whole, images()), trace(whole, images(1)))
    with pytest.raises(ShapeError, match="top must be at least 1"):
        stream_activations(SMALL, found, top=0)
