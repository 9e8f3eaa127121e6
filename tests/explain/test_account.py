"""The account of a distance adds up, in every kind of network, and says the same as leaving things out by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ccan.errors import ShapeError
from ccan.explain.account import (
    CAPTION,
    DistanceAccount,
    distance_accounts,
    stream_terms,
    waterfall,
)
from ccan.explain.embedding import embedding_maps
from ccan.explain.trace import trace
from ccan.explain.weighting import part_vectors
from tests.explain.networks import CONFIGS, images, network


def squared_distances(
    model: torch.nn.Module, query: torch.Tensor, gallery: torch.Tensor
) -> np.ndarray:
    with torch.inference_mode():
        difference = model(query).descriptor.double() - model(gallery).descriptor.double()
    return difference.square().sum(dim=1).numpy()


@pytest.mark.parametrize("name", CONFIGS)
def test_the_embeddings_are_put_together_again(name: str):
    model = network(CONFIGS[name])
    maps, found = embedding_maps(model), trace(model, images())
    directions = []
    for branch in maps.biases:
        whole = maps.embedding(found, branch)
        directions.append(torch.nn.functional.normalize(whole, dim=1))
    assert torch.allclose(torch.cat(directions, dim=1), found.output.descriptor, atol=1e-12)


@pytest.mark.parametrize("name", CONFIGS)
def test_the_terms_add_up_exactly(name: str):
    model = network(CONFIGS[name])
    query, gallery = images()[:1], images()[1:]
    accounts = distance_accounts(model, query, gallery)
    expected = squared_distances(model, query, gallery)
    assert expected.min() > 1e-6
    for account, squared in zip(accounts, expected, strict=True):
        assert account.squared_distance == pytest.approx(squared, abs=1e-10)
        assert sum(account.terms.values()) == pytest.approx(squared, abs=1e-10)
        for stream, values in account.query_map.items():
            both = values.sum() + account.gallery_map[stream].sum()
            assert both == pytest.approx(account.terms[stream], abs=1e-10)
            assert values.shape == (3, 1), "the last map of a 96×32 image"
    dims = [values for values in accounts[0].branches().values()]
    assert sum(dims) == pytest.approx(expected[0], abs=1e-10)
    assert min(dims) > 0


@pytest.mark.parametrize("name", ["whole", "neck"])
def test_in_float32_they_add_up_to_a_hundred_thousandth_of_what_is_added(name: str):
    model = network(CONFIGS[name], dtype=torch.float32)
    query, gallery = images(dtype=torch.float32)[:1], images(dtype=torch.float32)[1:]
    expected = squared_distances(model, query, gallery)
    for account, squared in zip(distance_accounts(model, query, gallery), expected, strict=True):
        added = sum(map(abs, account.terms.values()))
        assert abs(sum(account.terms.values()) - squared) <= 1e-5 * added


@pytest.mark.parametrize("name", CONFIGS)
def test_terms_without_positions_are_those_of_the_accounts(name: str):
    model, query, gallery = network(CONFIGS[name]), images()[:1], images()[1:]
    maps = embedding_maps(model)
    vectors = [part_vectors(maps, trace(model, one)) for one in (query, gallery)]
    found = stream_terms(*vectors)
    accounts = distance_accounts(model, query, gallery)
    for place, account in enumerate(accounts):
        whole = {name: values[place] for name, values in found.items()}
        assert sum(whole.values()) == pytest.approx(account.squared_distance, abs=1e-10)
        expected = {name: term for name, term in account.terms.items() if "G" not in name}
        if "G" in account.terms:
            expected["G"] = account.branches()["G"]
        assert whole == pytest.approx(expected, abs=1e-10)
    with pytest.raises(ShapeError, match="the vectors of one query"):
        stream_terms(vectors[1], vectors[1])


def test_a_term_by_hand():
    """One part: δ = B p^q/n^q − B p^g/n^g, and its term is ⟨δ, Δ⟩."""
    model = network(CONFIGS["one part"])
    account = distance_accounts(model, images()[:1], images()[1:2])[0]
    found = [trace(model, one) for one in (images()[:1], images()[1:2])]
    assert model.local_branch is not None
    weight, bias = model.local_branch.head.fc1.weight, model.local_branch.head.fc1.bias
    with torch.inference_mode():
        scaled = []
        for one in found:
            part = one.pooled["P1"][0] @ weight.T
            length = (part + bias).norm()
            scaled.append((part / length, bias / length))
        part, shift = (scaled[0][k] - scaled[1][k] for k in (0, 1))
        delta = part + shift
    assert account.terms["P1"] == pytest.approx(float(part @ delta), abs=1e-12)
    assert account.terms["bias L"] == pytest.approx(float(shift @ delta), abs=1e-12)


def test_the_account_of_an_image_with_itself_is_empty():
    model = network()
    account = distance_accounts(model, images()[:1], images()[:1])[0]
    assert account.squared_distance == pytest.approx(0, abs=1e-20)
    assert all(abs(value) < 1e-12 for value in account.terms.values())


def test_a_waterfall_is_the_difference_of_two_accounts():
    model = network()
    first, second = distance_accounts(model, images()[:1], images()[1:3])
    steps = waterfall(first, second)
    assert sum(steps.values()) == pytest.approx(
        second.squared_distance - first.squared_distance, abs=1e-12
    )
    assert list(steps) == ["G", "bias G", "P1", "P2", "P3", "bias L"]
    assert waterfall(second, first) == pytest.approx({k: -v for k, v in steps.items()})
    alone = distance_accounts(network(CONFIGS["global only"]), images()[:1], images()[1:2])[0]
    with pytest.raises(ShapeError, match="accounts with the same terms"):
        waterfall(first, alone)
    with pytest.raises(ShapeError, match=r"expected one query image .* got \(2, 3, 96, 32\)"):
        distance_accounts(model, images()[:2], images())


def test_the_caption_says_what_the_terms_are_not():
    for words in ("add up", "may be negative", "belongs to no part", "knock-out"):
        assert words in CAPTION
    assert DistanceAccount(1.0, {"G": 0.75, "bias G": 0.25}, {}, {}).branches() == {"G": 1.0}
