"""Sliders: distances from small Gram matrices are those of descriptors that are computed anew with the weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from ccan.errors import ShapeError
from ccan.explain.embedding import embedding_maps
from ccan.explain.trace import trace
from ccan.explain.weighting import QueryGrams, part_vectors, query_grams
from ccan.model.network import CCAN
from tests.explain.networks import CONFIGS, images, network


def grams_of(model: CCAN) -> QueryGrams:
    maps = embedding_maps(model)
    query, gallery = (part_vectors(maps, trace(model, one)) for one in (images()[:1], images()[1:]))
    return query_grams(query, gallery)


def anew(model: CCAN, weights: list[float], global_weight: float) -> np.ndarray:
    """Squared distances with pooled parts multiplied before FC1, by the network's own layers."""
    found = trace(model, images())
    squared = torch.zeros(len(images()) - 1, dtype=torch.float64)
    with torch.inference_mode():
        if model.global_branch is not None:
            direction = functional.normalize(model.global_branch.head(found.pooled["G"]).feature)
            squared += global_weight * (direction[1:] - direction[0]).square().sum(1)
        if model.local_branch is not None:
            parts = [found.pooled[f"P{s + 1}"] * weight for s, weight in enumerate(weights)]
            embedding = model.local_branch.head(torch.cat(parts, dim=1)).feature
            direction = functional.normalize(embedding)
            squared += (direction[1:] - direction[0]).square().sum(1)
    return squared.numpy()


@pytest.mark.parametrize("name", CONFIGS)
def test_weighted_distances_are_those_of_weighted_descriptors(name: str):
    model = network(CONFIGS[name])
    grams, count = grams_of(model), len(model.streams)
    generator = np.random.default_rng(0)
    for _ in range(20):
        weights = generator.uniform(0, 2, count).tolist()
        global_weight = float(generator.uniform(0, 2))
        found = grams.distances(weights if count else None, global_weight)
        assert found == pytest.approx(anew(model, weights, global_weight), abs=1e-10)


@pytest.mark.parametrize("name", CONFIGS)
def test_without_weights_it_is_the_plain_distance(name: str):
    model = network(CONFIGS[name])
    with torch.inference_mode():
        descriptor = model(images()).descriptor
    expected = (descriptor[1:] - descriptor[0]).square().sum(1).numpy()
    assert grams_of(model).distances() == pytest.approx(expected, abs=1e-10)


def test_a_part_that_counts_nothing_is_left_out():
    model = network()
    grams = grams_of(model)
    assert grams.gallery is not None and grams.gallery.shape == (3, 4, 4)
    found = grams.distances([1, 0, 1])
    with torch.no_grad():
        assert model.local_branch is not None
        width = model.local_branch.head.fc1.in_features // 3
        model.local_branch.head.fc1.weight[:, width : 2 * width] = 0
        descriptor = model(images()).descriptor
    expected = (descriptor[1:] - descriptor[0]).square().sum(1).numpy()
    assert found == pytest.approx(expected, abs=1e-10)


def test_wrong_weights_are_told():
    grams = grams_of(network())
    with pytest.raises(ShapeError, match="expected 3 weights, one for each part, got 2"):
        grams.distances([1, 1])
    with pytest.raises(ShapeError, match="at least 0"):
        grams.distances([1, -1, 1])
    model = network()
    vectors = part_vectors(embedding_maps(model), trace(model, images()))
    with pytest.raises(ShapeError, match="the vectors of one query"):
        query_grams(vectors, vectors)
