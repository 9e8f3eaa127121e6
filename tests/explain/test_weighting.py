"""Sliders: distances from small Gram matrices are those of descriptors that are computed anew with the weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from ccan.errors import ShapeError
from ccan.evaluation import FeatureSet
from ccan.explain.embedding import embedding_maps
from ccan.explain.parts import knocked_out
from ccan.explain.trace import trace
from ccan.explain.weighting import (
    PartVectors,
    QueryGrams,
    part_vectors,
    query_grams,
    repairing_parts,
    without_each_part,
)
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


def test_without_a_part_the_whole_gallery_is_ranked_without_it():
    model = network()
    maps = embedding_maps(model)
    vectors = part_vectors(maps, trace(model, images(4)))
    grams = query_grams(_rows(vectors, [0]), _rows(vectors, [1, 2, 3]))
    facts = torch.zeros(3, 2)
    query = FeatureSet(facts[:1], [1], [1])
    gallery = FeatureSet(facts, [1, 2, 1], [2, 2, 3])
    found = without_each_part(grams, query, gallery)
    assert list(found) == ["unchanged", "G", "P1", "P2", "P3"]
    without = {"unchanged": trace(model, images(4)).output.descriptor}
    without |= knocked_out(maps, trace(model, images(4)))
    for name, ranking in found.items():
        rows = without[name].numpy()
        if name == "G":  # what is left of it is its bias, alike in all images
            rows = rows[:, 7:]
        d = np.linalg.norm(rows[1:] - rows[0], axis=1)
        assert ranking.order.tolist() == np.argsort(d).tolist()
        assert ranking.distances == pytest.approx(np.sort(d), abs=1e-7)
        right = np.isin(np.argsort(d), [0, 2])
        assert ranking.first_match == int(np.argmax(right)) + 1


def test_a_part_repairs_if_the_nearest_is_right_without_it():
    # One branch of two parts in the plane: part 2 of the query points to the wrong image's.
    parts = np.zeros((3, 3, 2))
    parts[0] = [[1, 0], [0, 2], [0, 0]]  # query: p1, p2, bias
    parts[1] = [[1, 0], [0, -1], [0, 0]]  # right
    parts[2] = [[-1, 0], [0, 2], [0, 0]]  # wrong
    vectors = PartVectors(parts, None)
    grams = query_grams(_rows(vectors, [0]), _rows(vectors, [1, 2]))
    query = FeatureSet(torch.zeros(1, 1), [5], [1])
    gallery = FeatureSet(torch.zeros(2, 1), [5, 6], [2, 2])
    found = without_each_part(grams, query, gallery)
    assert list(found) == ["unchanged", "P1", "P2"]
    assert [ranking.first_match for ranking in found.values()] == [2, 2, 1]
    assert repairing_parts(found) == ("P2",)
    assert repairing_parts(found | {"unchanged": found["P2"]}) == ()


def _rows(vectors: PartVectors, rows: list[int]) -> PartVectors:
    parts = None if vectors.parts is None else vectors.parts[rows]
    direction = None if vectors.direction is None else vectors.direction[rows]
    return PartVectors(parts, direction)
