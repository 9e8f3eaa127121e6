"""Intervals and comparisons: by hand, by loops on the same draws, with planted errors, and how often they are right."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from ccan.errors import ConfigError, ProtocolError
from ccan.evaluation import EvaluationReport, FeatureSet, confidence, evaluate_features
from ccan.evaluation.confidence import Confidence, bootstrap, compare, mcnemar_p
from ccan.evaluation.metrics import APRule
from tests.reference import confidence as twin


def report_of(
    ap: np.ndarray, identities: np.ndarray, first: np.ndarray | None = None, rule: str = "rank-sum"
) -> EvaluationReport:
    """A report with these values; NaN = invalid."""
    valid = ~np.isnan(ap)
    places = np.where(valid, 1, -1) if first is None else np.where(valid, first, -1)
    count = len(ap)
    return EvaluationReport(
        ap=ap,
        inp=ap / 2,
        first_match=places,
        matches=valid.astype(np.int64),
        kept=np.full(count, 9),
        identities=identities,
        cameras=np.ones(count, np.int64),
        names=None,
        max_rank=5,
        conventions={"ap": rule},
    )


# Two identities: person 1 with three queries of AP 1, person 2 with one of AP 0. Resamples draw (1, 1), (2, 2) or
# one of each: means 1, 0, ¾ with chances ¼, ¼, ½. Over single queries the mean would take five values.
TWO = report_of(np.array([1.0, 1.0, np.nan, 1.0, 0.0]), np.array([1, 1, 1, 1, 2]))
Bootstrap = Callable[..., Confidence]


def check_hand_case(bootstrap: Bootstrap = bootstrap) -> None:
    found = bootstrap(TWO, samples=4000, level=0.4)
    assert found.mAP.value == 0.75 and found.mINP.value == 0.375
    assert (found.mAP.low, found.mAP.high) == (0.75, 0.75)  # the middle half and more
    wide = bootstrap(TWO, samples=4000, level=0.6)
    assert (wide.mAP.low, wide.mAP.high) == (0, 1) and (wide.mINP.low, wide.mINP.high) == (0, 0.5)
    assert found.identities == 2 and wide.rank1.value == 1
    invalid = bootstrap(replace(TWO, conventions={"ap": "trapezoid"}), samples=4000, level=0.6)
    assert invalid.mAP.value == 0.6
    assert (invalid.mAP.low, invalid.mAP.high) == (0, 0.75)  # the query without a match counts as 0


def test_hand_case():
    check_hand_case()


def test_tables_for_people():
    lines = bootstrap(TWO, samples=4000, level=0.6).summary().splitlines()
    assert lines[0] == "60 % intervals (4000 resamples of 2 identities)"
    assert lines[1].split() == ["mAP", "75.00", "0.00", "–", "100.00"]
    lines = compare(TWO, replace(TWO, ap=TWO.ap / 2)).summary().splitlines()
    assert lines[1].split() == ["mAP", "75.00", "37.50", "-37.50", "-50.00", "–", "0.00", "1.0000"]
    assert lines[3].startswith("rank 1: 0 queries fixed, 0 broken (McNemar p = 1.0000); 4 queries")


def over_single_queries(report: EvaluationReport, **settings) -> Confidence:
    return bootstrap(replace(report, identities=np.arange(len(report.ap))), **settings)


def mean_of_identity_means(report: EvaluationReport, **settings) -> Confidence:
    people = np.unique(report.identities)
    means = np.array([np.nanmean(report.ap[report.identities == who]) for who in people])
    return bootstrap(report_of(means, people, rule=report.conventions["ap"]), **settings)


def invalid_as_zero(report: EvaluationReport, **settings) -> Confidence:
    return bootstrap(replace(report, conventions={"ap": "trapezoid"}), **settings)


@pytest.mark.parametrize("mistake", [over_single_queries, mean_of_identity_means, invalid_as_zero])
def test_the_hand_case_rejects_a_planted_error(mistake: Bootstrap):
    with pytest.raises(AssertionError):
        check_hand_case(mistake)


def random_report(generator: np.random.Generator, queries: int, people: int) -> EvaluationReport:
    ap = generator.integers(0, 5, queries) / 4
    ap[generator.random(queries) < 0.2] = np.nan
    ap[:2] = 0.5
    identities = generator.integers(0, people, queries) * 3
    identities[:2] = 0, 3
    return report_of(ap, identities, generator.integers(1, 4, queries))


@pytest.mark.parametrize("rule", ["rank-sum", "trapezoid"])
def test_equal_to_the_loop_twin_on_the_same_draws(rule: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(confidence, "CHUNK", 3)
    generator = np.random.default_rng(1)
    for seed in range(50):
        report = random_report(generator, int(generator.integers(3, 25)), 5)
        report = replace(report, conventions={"ap": rule})
        rows = report.valid if rule == "rank-sum" else np.ones(len(report.ap), bool)
        values, owners = np.nan_to_num(report.ap[rows]).tolist(), report.identities[rows].tolist()
        people = sorted(set(owners))
        draws = np.random.default_rng(seed)
        times = np.concatenate(
            [
                draws.multinomial(len(people), [1 / len(people)] * len(people), size=n)
                for n in (3, 3, 1)
            ]
        )
        means = [
            twin.resampled_mean(values, owners, np.repeat(people, row).tolist()) for row in times
        ]
        found = bootstrap(report, samples=7, seed=seed, level=0.5).mAP
        assert found.value == pytest.approx(report.mAP, abs=1e-12)
        np.testing.assert_allclose(
            (found.low, found.high), np.quantile(means, [0.25, 0.75]), atol=1e-12
        )


def test_an_interval_holds_the_truth_about_as_often_as_it_says():
    """300 worlds of 60 people, whose queries agree with each other: intervals over queries are far too narrow."""
    generator = np.random.default_rng(0)
    held = {"identities": 0, "queries": 0}
    for world in range(300):
        ability = generator.random(60)
        identities = np.repeat(np.arange(60), 8)
        report = report_of(
            np.clip(ability[identities] + generator.normal(0, 0.05, 480), -9, 9), identities
        )
        for unit, part in (
            ("identities", report),
            ("queries", replace(report, identities=np.arange(480))),
        ):
            interval = bootstrap(part, samples=200, seed=world, level=0.9).mAP
            held[unit] += interval.low <= 0.5 <= interval.high
    assert 250 <= held["identities"] <= 288
    assert held["queries"] < 200


def test_comparison_by_hand():
    """Three people: b is better by 0.4 + 0.2 for person 1, by 0.3 for person 2, by 0 for person 3."""
    identities = np.array([1, 1, 2, 3])
    a = report_of(np.array([0.1, 0.2, 0.3, 0.5]), identities, np.array([2, 2, 2, 1]))
    b = report_of(np.array([0.5, 0.4, 0.6, 0.5]), identities, np.array([1, 1, 2, 2]))
    found = compare(a, b, samples=1000)
    assert (found.mAP.a, found.mAP.b) == (pytest.approx(0.275), pytest.approx(0.5))
    assert found.mAP.difference.value == pytest.approx(0.225)
    # Of 8 flips, ±0.6 ±0.3 ±0 is as large as 0.9 in 4.
    assert found.mAP.p == 0.5
    assert found.mAP.difference.low == 0 and found.mAP.difference.high == pytest.approx(0.3)
    # Rank 1: +2, 0, -1 of 4; flips |±2 ±1| ≥ 1: all.
    assert found.rank1.difference.value == 0.25 and found.rank1.p == 1
    assert (found.fixed, found.broken) == (2, 1) and found.mcnemar == 1
    assert (found.queries, found.identities) == (4, 3)
    back = compare(b, a, samples=1000)
    assert back.mAP.difference.value == pytest.approx(-0.225) and back.mAP.p == 0.5
    assert (back.fixed, back.broken) == (1, 2)
    assert json.loads(json.dumps(found.to_dict()))["mAP"]["difference"]["level"] == 0.95


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


def test_draws_depend_on_the_seed_alone():
    report = random_report(np.random.default_rng(6), 97, 23)
    assert bootstrap(report, seed=3) == bootstrap(report, seed=3)
    assert bootstrap(report, seed=3) != bootstrap(report, seed=4)


def evaluation(
    people: list[int], rule: APRule = "rank-sum", gallery: list[int] | None = None
) -> EvaluationReport:
    shown = gallery or [1, 2, 3]
    query = FeatureSet([[float(who)] for who in people], people, [1] * len(people))
    return evaluate_features(
        query, FeatureSet([[float(who)] for who in shown], shown, [2] * len(shown)), ap=rule
    )


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
    with pytest.raises(ProtocolError, match="at least two identities that count, got 1"):
        bootstrap(evaluation([2, 2, 7]))
    for settings in ({"samples": 0}, {"seed": -1}):
        with pytest.raises(
            ConfigError, match="samples must be at least 1 and seed at least 0, got"
        ):
            bootstrap(report, **settings)
    for level in (0.0, 1.0):
        with pytest.raises(ConfigError, match="level must be a share between 0 and 1"):
            compare(report, report, level=level)
