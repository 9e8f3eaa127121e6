"""Paired comparison: by hand, by a loop over every flip, and what reports cannot be compared."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from ccan.errors import ConfigError, ProtocolError
from ccan.evaluation import EvaluationReport
from ccan.evaluation.comparison import PairedComparison, compare, mcnemar_p
from tests.evaluation.reports import evaluation, random_report, report_of
from tests.reference import confidence as twin

# Three people: b is better by 0.4 + 0.2 for person 1, by 0.3 for person 2, by 0 for person 3.
PEOPLE = np.array([1, 1, 2, 3])
A = report_of(np.array([0.1, 0.2, 0.3, 0.5]), PEOPLE, np.array([2, 2, 2, 1]))
B = report_of(np.array([0.5, 0.4, 0.6, 0.5]), PEOPLE, np.array([1, 1, 2, 2]))
Compare = Callable[..., PairedComparison]


def check_hand_case(compare: Compare = compare) -> None:
    found = compare(A, B, samples=1000)
    assert (found.mAP.a, found.mAP.b) == (pytest.approx(0.275), pytest.approx(0.5))
    assert found.mAP.difference.value == pytest.approx(0.225)
    # Of 8 flips, ±0.6 ±0.3 ±0 is as large as 0.9 in 4.
    assert found.mAP.p == 0.5
    assert found.mAP.difference.low == 0 and found.mAP.difference.high == pytest.approx(0.3)
    # Rank 1: +2, 0, -1 of 4; flips |±2 ±1| ≥ 1: all.
    assert found.rank1.difference.value == 0.25 and found.rank1.p == 1
    assert (found.fixed, found.broken) == (2, 1) and found.mcnemar == 1
    assert (found.queries, found.identities) == (4, 3)


def test_hand_case():
    check_hand_case()
    back = compare(B, A, samples=1000)
    assert back.mAP.difference.value == pytest.approx(-0.225) and back.mAP.p == 0.5
    assert (back.fixed, back.broken) == (1, 2)
    found = compare(A, B)
    assert json.loads(json.dumps(found.to_dict()))["mAP"]["difference"]["level"] == 0.95


def flips_of_single_queries(a: EvaluationReport, b: EvaluationReport, **settings):
    one, other = (replace(report, identities=np.arange(4)) for report in (a, b))
    return replace(compare(one, other, **settings), identities=3)


def models_swapped(a: EvaluationReport, b: EvaluationReport, **settings):
    return compare(b, a, **settings)


def unpaired(a: EvaluationReport, b: EvaluationReport, **settings):
    return compare(a, b.select([3, 2, 1, 0]), **settings)


@pytest.mark.parametrize("mistake", [flips_of_single_queries, models_swapped, unpaired])
def test_the_hand_case_rejects_a_planted_error(mistake: Compare):
    with pytest.raises((AssertionError, ProtocolError)):
        check_hand_case(mistake)


def test_table_for_people():
    lines = compare(A, B).summary().splitlines()
    assert lines[0].split() == ["a", "b", "b", "-", "a", "interval", "p"]
    assert lines[1].split() == ["mAP", "27.50", "50.00", "22.50", "0.00", "to", "30.00", "0.5000"]
    assert lines[3] == (
        "rank 1: 2 queries fixed, 1 broken (McNemar p = 1.0000); 4 queries of 3 identities"
    )


def test_p_values_equal_the_loop_over_every_flip():
    generator = np.random.default_rng(3)
    for _ in range(60):
        a = random_report(generator, 17, int(generator.integers(2, 8)))
        values = np.where(a.valid, generator.integers(0, 5, 17) / 4, np.nan)
        b = replace(a, ap=values, first_match=np.where(a.valid, generator.integers(1, 4, 17), -1))
        found = compare(a, b, samples=128)
        rows = a.valid
        for name, one, other in (
            ("mAP", a.ap, b.ap),
            ("rank1", (a.first_match == 1) * 1.0, (b.first_match == 1) * 1.0),
        ):
            expected = twin.every_flip(
                one[rows].tolist(), other[rows].tolist(), a.identities[rows].tolist()
            )
            assert getattr(found, name).p == pytest.approx(expected, abs=1e-12)
        assert found.mcnemar == pytest.approx(
            twin.binomial_two_sided(found.fixed, found.broken), abs=1e-12
        )


def test_random_flips_come_close_to_all_of_them():
    generator = np.random.default_rng(4)
    identities = np.arange(12).repeat(3)
    a = report_of(generator.random(36), identities)
    b = report_of(a.ap + generator.normal(0.03, 0.1, 36), identities)
    exact, drawn = compare(a, b, samples=4096), compare(a, b, samples=4095)
    assert 0.01 < exact.mAP.p < 0.6
    assert drawn.mAP.p == pytest.approx(exact.mAP.p, abs=0.03) and drawn.mAP.p != exact.mAP.p


def test_equal_models_do_not_differ_and_better_ones_do():
    generator = np.random.default_rng(5)
    identities = np.arange(101).repeat(3)
    a = report_of(generator.random(303) * 0.8, identities, np.full(303, 2))
    same = compare(a, a)
    assert same.mAP.p == same.rank1.p == same.mcnemar == 1
    assert same.mAP.difference.low == same.mAP.difference.high == 0
    better = compare(a, report_of(a.ap + 0.1, identities, np.ones(303, np.int64)))
    assert better.mAP.p == better.rank1.p == pytest.approx(1 / 1001)
    assert better.mAP.difference.low == pytest.approx(0.1) and better.fixed == 303


def test_mcnemar():
    assert mcnemar_p(0, 0) == mcnemar_p(1, 0) == mcnemar_p(5, 5) == 1
    assert mcnemar_p(0, 5) == mcnemar_p(5, 0) == 2 / 32
    assert mcnemar_p(9, 2) == pytest.approx(2 * (1 + 11 + 55) / 2048)
    assert 0 < mcnemar_p(2000, 1500) < 1e-15


def test_what_is_refused():
    report = evaluation([1, 2, 3])
    for other, message in (
        (evaluation([1, 2]), "the reports are of 3 and 2 queries; evaluate both"),
        (evaluation([1, 3, 2]), "of other queries: identities differ; evaluate"),
        (evaluation([1, 2, 3], gallery=[1, 2, 3, 3]), "other galleries: .* number of matches"),
        (
            evaluation([1, 2, 3], gallery=[1, 2, 3, 9]),
            "other galleries: .* number of ranked images",
        ),
        (evaluation([1, 2, 3], "trapezoid"), "other rules of AP: rank-sum and trapezoid"),
        (replace(report, cameras=np.array([1, 1, 5])), "other queries: cameras differ"),
    ):
        with pytest.raises(ProtocolError, match=message):
            compare(report, other)
    named, others = replace(report, names=("a", "b", "c")), replace(report, names=("a", "c", "b"))
    with pytest.raises(ProtocolError, match="other queries: names differ"):
        compare(named, others)
    assert compare(named, report).mAP.p == 1
    with pytest.raises(ConfigError, match="level must be a share between 0 and 1"):
        compare(report, report, level=1.0)
