"""CMC, AP and INP against fractions worked out by hand, scikit-learn, and wrong rules planted on purpose."""

from __future__ import annotations

from fractions import Fraction as F

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from ccan.errors import ConfigError
from ccan.evaluation.metrics import (
    MatchPositions,
    average_precision,
    cumulative_matching,
    first_match,
    inverse_negative_penalty,
)


def positions(*lists: list[int]) -> MatchPositions:
    """Matches of several queries, from a list of positions for each."""
    owner = [query for query, places in enumerate(lists) for _ in places]
    places = [place for places in lists for place in places]
    return MatchPositions(np.array(owner, np.int64), np.array(places, np.int64), len(lists))


HAND = [
    # positions, rank-sum AP, trapezoid AP, INP
    ([1], F(1), F(1), F(1)),
    ([2], F(1, 2), F(1, 4), F(1, 2)),
    ([1, 2, 3], F(1), F(1), F(1)),
    # ½·(0/1 + 1/2) and ½·(1/4 + 2/5)
    ([2, 5], (F(1, 2) + F(2, 5)) / 2, (F(1, 4) + F(13, 40)) / 2, F(2, 5)),
    # ½·(1 + 1), ½·(1/2 + 2/3), ½·(2/6 + 3/7)
    ([1, 3, 7], (1 + F(2, 3) + F(3, 7)) / 3, (1 + F(7, 12) + F(8, 21)) / 3, F(3, 7)),
]


@pytest.mark.parametrize(("places", "rank_sum", "trapezoid", "inp"), HAND)
def test_hand_worked_values(places: list[int], rank_sum: F, trapezoid: F, inp: F):
    matches = positions(places)
    assert average_precision(matches)[0] == pytest.approx(float(rank_sum), abs=1e-15)
    assert average_precision(matches, "trapezoid")[0] == pytest.approx(float(trapezoid), abs=1e-15)
    assert inverse_negative_penalty(matches)[0] == pytest.approx(float(inp), abs=1e-15)
    assert first_match(matches)[0] == places[0]


def test_queries_do_not_mix_and_keep_their_places():
    lists = [case[0] for case in HAND]
    matches = positions(lists[0], [], lists[3], lists[4], [])
    expected = [1.0, np.nan, float(HAND[3][1]), float(HAND[4][1]), np.nan]
    np.testing.assert_allclose(average_precision(matches), expected, atol=1e-15)
    np.testing.assert_allclose(
        inverse_negative_penalty(matches), [1, np.nan, 2 / 5, 3 / 7, np.nan], atol=1e-15
    )
    assert first_match(matches).tolist() == [1, -1, 2, 1, -1]
    assert matches.counts.tolist() == [1, 0, 2, 3, 0]
    assert matches.ordinals.tolist() == [1, 1, 2, 1, 2, 3]


def test_cmc_counts_first_matches_at_or_before_k():
    first = np.array([1, 3, -1, 3, 7])
    expected = [F(1, 4), F(1, 4), F(3, 4), F(3, 4), F(3, 4), F(3, 4), F(1), F(1)]
    np.testing.assert_array_equal(cumulative_matching(first, 8, queries=4), expected)
    np.testing.assert_array_equal(
        cumulative_matching(first, 8, queries=5), [float(value) * 4 / 5 for value in expected]
    )


def test_rank_sum_rule_is_sklearns_without_ties():
    generator = np.random.default_rng(11)
    for _ in range(50):
        images = int(generator.integers(2, 60))
        right = generator.random(images) < 0.3
        right[generator.integers(images)] = True
        places = (np.flatnonzero(right) + 1).tolist()
        expected = average_precision_score(right, -np.arange(images))
        assert average_precision(positions(places))[0] == pytest.approx(expected, abs=1e-12)


def test_the_trapezoid_is_never_above_the_rank_sum():
    generator = np.random.default_rng(12)
    lists = [sorted(generator.permutation(97)[: 1 + n % 9] + 1) for n in range(200)]
    matches = positions(*lists)
    upper, lower = average_precision(matches), average_precision(matches, "trapezoid")
    assert (lower <= upper + 1e-15).all()
    assert (lower < upper).mean() > 0.9


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("position", lambda m: m.ordinals / (m.position + 1)),
        ("ordinal", lambda m: 1 / m.position),
        ("zero-based ordinal", lambda m: (m.ordinals - 1) / m.position),
    ],
)
def test_planted_ap_rules_are_told_apart(right: str, wrong):
    matches = positions([2, 5], [1, 3, 7])
    values = [wrong(matches)[matches.query == query].mean() for query in range(2)]
    assert not np.allclose(values, average_precision(matches)), right


@pytest.mark.parametrize("wrong", [np.mean, np.min, np.median])
def test_inp_is_not_about_another_match_than_the_last(wrong):
    places = [1, 3, 7]
    assert inverse_negative_penalty(positions(places))[0] != pytest.approx(3 / wrong(places))


def test_unknown_rule_is_an_error_with_the_known_ones():
    with pytest.raises(ConfigError, match="ap must be one of rank-sum, trapezoid, got 'matlab'"):
        average_precision(positions([1]), "matlab")  # type: ignore[arg-type]
