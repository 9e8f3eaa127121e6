"""The ledger of two images adds up to their inner product; across images it is A′ that corresponds."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from ccan.errors import ShapeError
from ccan.explain.embedding import embedding_maps
from ccan.explain.similarity import Ledger, cross_image_attention, ledger
from ccan.explain.trace import trace
from ccan.model.attention import to_positions
from ccan.model.network import CCAN
from tests.explain.networks import CONFIGS, images, network


def of_two(model: CCAN, dtype: torch.dtype = torch.float64) -> Ledger:
    pair = images(2, dtype)
    return ledger(model, embedding_maps(model), trace(model, pair[:1]), trace(model, pair[1:]))


@pytest.mark.parametrize("name", CONFIGS)
def test_it_adds_up_to_the_inner_product_in_float64(name: str):
    model = network(CONFIGS[name])
    with torch.inference_mode():
        one, two = model(images(2)).descriptor
    found = of_two(model)
    assert found.total == pytest.approx(float(one @ two), abs=1e-10)
    for branch in found.branches.values():
        assert branch.pairs.shape[0] == len(branch.streams) == len(branch.geometry)


@pytest.mark.parametrize("name", ["whole", "neck"])
def test_it_adds_up_in_float32_relative_to_its_terms(name: str):
    model = network(CONFIGS[name], dtype=torch.float32)
    with torch.inference_mode():
        one, two = model(images(2, torch.float32)).descriptor.double()
    found = of_two(model, torch.float32)
    size = sum(
        np.abs(b.pairs).sum()
        + np.abs(b.query_bias).sum()
        + np.abs(b.gallery_bias).sum()
        + abs(b.bias)
        for b in found.branches.values()
    )
    assert abs(found.total - float(one @ two)) <= 1e-5 * size


def test_every_pair_is_the_inner_product_of_its_two_positions():
    model = network()
    maps, pair = embedding_maps(model), images(2)
    query, gallery = trace(model, pair[:1]), trace(model, pair[1:])
    found = ledger(model, maps, query, gallery)
    bias = maps.biases["L"]
    lengths = [float(maps.embedding(side, "L").norm()) for side in (query, gallery)]
    over = 1 / (lengths[0] * lengths[1])
    branch = found.branches["L"]
    streams = ("P1", "P2", "P3")
    assert branch.streams == streams

    def vector(side: object, stream: str, position: int) -> torch.Tensor:
        x = side.last[stream][0].flatten(1)  # type: ignore[attr-defined]
        return maps.weights[stream] @ x[:, position] / x.shape[1]

    positions = branch.pairs.shape[1]
    for s, r, t, u in itertools.product(range(3), range(positions), range(3), range(positions)):
        value = vector(query, streams[s], r) @ vector(gallery, streams[t], u) * over
        assert branch.pairs[s, r, t, u] == pytest.approx(float(value), abs=1e-12)
    assert branch.query_bias[1, 2] == pytest.approx(
        float(vector(query, "P2", 2) @ bias * over), abs=1e-12
    )
    assert branch.gallery_bias[2, 1] == pytest.approx(
        float(vector(gallery, "P3", 1) @ bias * over), abs=1e-12
    )
    assert branch.bias == pytest.approx(float(bias @ bias * over), abs=1e-12)


def test_a_clicked_position_and_the_whole_maps():
    found = of_two(network())
    branch = found.branches["L"]
    clicked = found.of_query_position("P2", 1)
    assert list(clicked) == ["P1", "P2", "P3"]
    rows, columns = branch.geometry[0].rows, branch.geometry[0].columns
    assert clicked["P3"].shape == (rows, columns)
    assert clicked["P3"].ravel() == pytest.approx(branch.pairs[1, 1, 2])
    back = found.of_gallery_position("P3", 2)
    assert back["P2"].ravel()[1] == pytest.approx(clicked["P3"].ravel()[2])
    parts = sum(found.query_map(stream).sum() for stream in branch.streams)
    assert parts + branch.gallery_bias.sum() + branch.bias == pytest.approx(branch.total)
    parts = sum(found.gallery_map(stream).sum() for stream in branch.streams)
    assert parts + branch.query_bias.sum() + branch.bias == pytest.approx(branch.total)
    assert list(found.of_query_position("G", 0)) == ["G"]


def test_the_ledgers_errors():
    model = network()
    found = of_two(model)
    with pytest.raises(ShapeError, match="expected one of the streams G, P1, P2, P3, got 'P4'"):
        found.query_map("P4")
    with pytest.raises(ShapeError, match=r"position must lie in 0…2, got 3"):
        found.of_query_position("P1", 3)
    with pytest.raises(ShapeError, match="traces of one image each, got 2 and 1"):
        ledger(model, embedding_maps(model), trace(model, images(2)), trace(model, images(1)))


@pytest.mark.parametrize("name", ["whole", "roles swapped", "values of the source"])
def test_across_images_it_is_the_correlation(name: str):
    model, pair = network(CONFIGS[name]), images(2)
    query, gallery = trace(model, pair[:1]), trace(model, pair[1:])
    found = cross_image_attention(model, query, gallery)
    assert list(found) == ["CC2_1", "CC2_2", "CC2_3"]
    for part, (slot, cross) in enumerate(found.items()):
        stream, cc2 = f"P{part + 1}", model.streams[part].cc2
        assert cc2 is not None
        u, v = to_positions(query.u[stream])[0], to_positions(gallery.z2_strips[stream])[0]
        target, source = (v, u) if name == "roles swapped" else (u, v)
        with torch.no_grad():
            expected = torch.relu(target @ cc2.g.weight.T) @ torch.relu(source @ cc2.f.weight.T).T
        assert cross.correlation == pytest.approx(expected.numpy(), abs=1e-12)
        line = expected[:, 2] if name == "roles swapped" else expected[2]
        assert cross.from_query(2).ravel() == pytest.approx(line.numpy())
        line = expected[3] if name == "roles swapped" else expected[:, 3]
        assert cross.from_gallery(3).ravel() == pytest.approx(line.numpy())
        assert cross.slot == slot


def test_an_image_with_itself_is_its_own_attention():
    model = network()
    alone = trace(model, images(1))
    for slot, cross in cross_image_attention(model, alone, alone).items():
        assert cross.correlation == pytest.approx(alone.slots[slot].correlation[0].numpy())


@pytest.mark.parametrize("name", ["no attention", "non-local", "global only", "local only"])
def test_streams_that_see_one_map_have_no_correspondence(name: str):
    model = network(CONFIGS[name])
    alone = trace(model, images(1))
    with pytest.raises(ShapeError, match="whose streams see one map only"):
        cross_image_attention(model, alone, alone)
    found = cross_image_attention(network(), *(trace(network(), images(1)),) * 2)
    with pytest.raises(ShapeError, match=r"position must lie in 0…\d+, got -1"):
        found["CC2_1"].from_query(-1)
