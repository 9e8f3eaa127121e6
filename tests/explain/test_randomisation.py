"""Randomisation: stages lose what they learnt one after the other, the model stays, decoration is recognised."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from ccan.errors import ShapeError
from ccan.explain.maps import image_maps
from ccan.explain.randomisation import (
    Randomisation,
    randomisation_test,
    rank_correlation,
    settle,
    shuffle_weights,
    stages_of,
)
from tests.explain.networks import CONFIGS, images, network


@pytest.mark.parametrize("name", CONFIGS)
def test_the_stages_hold_every_parameter_once(name: str):
    model = network(CONFIGS[name])
    held = [p for modules in stages_of(model).values() for m in modules for p in m.parameters()]
    assert sorted(map(id, held)) == sorted(id(p) for p in model.parameters())
    expected = {
        "whole": ["heads", "I3", "CC2", "I2", "SS1", "I1"],
        "global only": ["heads", "I3", "I2", "SS1", "I1"],
        "no attention": ["heads", "I3", "I2", "I1"],
    }
    assert list(stages_of(model)) == expected.get(name, list(stages_of(model)))


def test_shuffled_weights_are_the_same_numbers_in_another_order():
    model = network()
    before = copy.deepcopy(model.i1)
    shuffle_weights(model.i1, torch.Generator().manual_seed(1))
    moved = 0
    for old, new in zip(before.parameters(), model.i1.parameters(), strict=True):
        assert torch.equal(old.flatten().sort().values, new.flatten().sort().values)
        moved += int((old != new).any())
    assert moved > 10


def test_settling_touches_the_norms_of_the_modules_alone():
    model = network()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert model.global_branch is not None
    i3 = model.global_branch.i3
    settle(model, [i3], images())
    changed = {name for name, v in model.state_dict().items() if not torch.equal(v, before[name])}
    assert changed and all(name.startswith("global_branch.i3") for name in changed)
    assert not model.training
    norm = next(m for m in i3.modules() if isinstance(m, torch.nn.BatchNorm2d))
    seen: list[torch.Tensor] = []
    handle = norm.register_forward_hook(lambda _m, inputs, _o: seen.append(inputs[0]))
    model(images())
    handle.remove()
    assert norm.running_mean is not None
    assert torch.allclose(norm.running_mean, seen[0].mean(dim=(0, 2, 3)))


def test_a_rank_correlation_is_spearmans():
    rng = np.random.default_rng(0)
    for _ in range(20):
        a, b = rng.integers(0, 5, 13).astype(float), rng.integers(0, 5, 13).astype(float)
        expected: Any = spearmanr(a, b)
        assert rank_correlation(a, b) == pytest.approx(expected.statistic)
    assert np.isnan(rank_correlation(np.ones(4), np.arange(4.0)))


def test_maps_lose_what_their_stage_and_all_behind_it_gave_them():
    model = network()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = randomisation_test(model, images(3), images(3).flip(0), image_maps)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    of = {name: one.correlation for name, one in found.items()}
    # SS1 stands before everything but I1: nothing behind it can change what it gathers.
    for stage in ("heads", "I3", "CC2", "I2"):
        assert of["SS1 gathered"][stage] == pytest.approx(1)
    assert of["SS1 gathered"]["SS1"] < 0.999
    assert of["CC2 added"]["I3"] == pytest.approx(1) and of["CC2 added"]["CC2"] < 0.999
    assert of["G energy"]["heads"] == pytest.approx(1) and of["G energy"]["I3"] < 0.999
    assert of["G gradcam"]["heads"] < 0.999


def test_a_map_that_shows_the_picture_is_decoration():
    model = network()

    def maps(
        _model: object, image: torch.Tensor, _reference: torch.Tensor
    ) -> dict[str, np.ndarray]:
        return {"edges": image[0].abs().mean(dim=0).float().numpy()}

    found = randomisation_test(model, images(2), images(2), maps)["edges"]
    assert found.left == pytest.approx(1) and found.survives
    assert not Randomisation({"heads": 1.0, "I1": 0.1}).survives
    with pytest.raises(
        ShapeError, match="two images at least and a reference for each, got 1 and 1"
    ):
        randomisation_test(model, images(1), images(1), maps)
