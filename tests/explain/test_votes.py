"""The votes behind A add up to it, the round trip and the summaries by hand."""

from __future__ import annotations

from enum import IntEnum

import numpy as np
import pytest
import torch

from ccan.errors import ShapeError
from ccan.explain.attention import SlotGeometry, SlotMaps, attention_slots, record_attention
from ccan.explain.trace import trace
from ccan.explain.votes import (
    AttentionSummary,
    VoteSplit,
    asymmetry,
    learned_weights,
    round_trip,
    split_votes,
    summarise,
)
from tests.explain.networks import CONFIGS, images, network


def maps_of(correlation: np.ndarray, rows: int, columns: int) -> SlotMaps:
    """A slot with this A′."""
    geometry = SlotGeometry(rows, columns, 8 * rows, 8 * columns, 0, 8 * rows)
    values = correlation.astype(np.float32)
    return SlotMaps(values, values, np.zeros((len(values), 1), np.float32), *[geometry] * 3)


@pytest.mark.parametrize("name", ["whole", "roles swapped", "values of the source", "one part"])
def test_the_votes_add_up_to_the_attention(name: str):
    model = network(CONFIGS[name])
    found = trace(model, images(2))
    for slot, attention in attention_slots(model).items():
        first, second = learned_weights(attention)
        for image in range(2):
            exact = found.slots[slot].correlation[image].numpy()
            votes = VoteSplit(exact @ first, exact.T @ second)
            expected = found.slots[slot].attention[image].numpy()
            assert np.abs(votes.attention() - expected).max() < 1e-10
        record = record_attention(model, images(2))[1].slots[slot]
        votes = split_votes(attention, record)
        assert votes.attention() == pytest.approx(record.attention, rel=1e-4, abs=1e-6)
        assert (votes.forward + votes.backward).min() < votes.attention().max()


def test_shares_of_the_transpose_by_hand():
    votes = VoteSplit(np.array([[1.0, -3.0], [0, 0]]), np.array([[2.0, -2.0], [0, 0]]))
    assert votes.backward_share().tolist() == [0.5, 0.0]
    assert votes.attention().tolist() == [[3, 0], [0, 0]]


def test_an_attention_without_alpha_has_no_votes():
    model = network(CONFIGS["non-local"])
    with pytest.raises(ShapeError, match="with W_α, got NonLocalAttention"):
        learned_weights(attention_slots(model)["SS1"])
    whole = network()
    record = record_attention(whole, images(1))[0]
    with pytest.raises(ShapeError, match="of another slot"):
        split_votes(attention_slots(whole)["SS1"], record.slots["CC2_1"])


def test_asymmetry_from_symmetric_to_antisymmetric():
    generator = np.random.default_rng(0)
    values = generator.random((5, 5))
    assert asymmetry(values + values.T) == pytest.approx(0)
    assert asymmetry(values - values.T) == pytest.approx(2)
    assert asymmetry(np.zeros((3, 3))) == 0
    assert asymmetry(np.array([[0, 1], [0, 0]])) == pytest.approx(2**0.5)


def test_a_round_trip_by_hand():
    """Position 0 fires with both of Q′ (1 and 3), position 1 with the second alone (1), position 2 with none."""
    correlation = np.array([[1.0, 3, 0], [0, 1, 0], [0, 0, 0]])
    found = round_trip(maps_of(correlation, 3, 1))
    # 0 → (¼, ¾); from Q′ 0 all goes back to 0, from Q′ 1 three quarters: ¼ + ¾·¾. 1 → Q′ 1, a quarter comes back.
    assert found.by_position[:, 0] == pytest.approx([0.25 + 0.75 * 0.75, 0.25, 0])
    assert found.share == pytest.approx((0.8125 + 0.25) / 3)
    assert round_trip(maps_of(np.eye(4), 2, 2)).share == pytest.approx(1)
    alike = round_trip(maps_of(np.ones((4, 4)), 2, 2))
    assert alike.share == pytest.approx(0.25), "where all fire with all, home is one of four"


class Region(IntEnum):
    LEFT = 0
    RIGHT = 1


def test_a_summary_by_hand():
    picture = np.array([[3.0, 1.0], [np.nan, np.nan]])
    labels = np.array([[0, 0, 1, 1]] * 4)  # twice as large
    found = summarise(picture, labels, Region)
    assert found.regions == {"left": 0.75, "right": 0.25}
    assert found.centroid == pytest.approx((0.75 * 0.5 + 0.25 * 1.5, 0.5))
    assert found.entropy == pytest.approx(-(0.75 * np.log(0.75) + 0.25 * np.log(0.25)))
    assert found.spread == pytest.approx(found.entropy / np.log(2))
    assert summarise(np.ones((3, 5))).spread == pytest.approx(1)
    nothing = summarise(np.zeros((2, 2)))
    assert isinstance(nothing, AttentionSummary) and np.isnan(nothing.entropy)
    with pytest.raises(ShapeError, match="values ≥ 0"):
        summarise(np.array([[1.0, -1.0]]))
    with pytest.raises(ShapeError, match=r"\(H, W\)"):
        summarise(np.ones(3))


def test_the_summary_of_a_real_map_counts_its_strip_only():
    model = network()
    record = record_attention(model, images(1))[0]
    picture = record.slots["CC2_2"].on_image("gathered_share")
    assert np.isnan(picture).any()
    found = summarise(picture)
    geometry = record.slots["CC2_2"].gathered_geometry
    assert geometry.top <= found.centroid[1] <= geometry.bottom
    assert 0 < found.spread <= 1
    assert torch.is_tensor(record.output.descriptor)
