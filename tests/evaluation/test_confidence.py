"""Intervals: by hand, by loops on the same draws, with planted errors, and how often they hold the truth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from ccan.errors import ConfigError, ProtocolError
from ccan.evaluation import confidence
from ccan.evaluation.confidence import Confidence, bootstrap
from ccan.evaluation.report import EvaluationReport
from tests.evaluation.reports import evaluation, random_report, report_of
from tests.reference import confidence as twin

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


def test_table_for_people():
    lines = bootstrap(TWO, samples=4000, level=0.6).summary().splitlines()
    assert lines[0] == "60 % intervals (4000 resamples of 2 identities)"
    assert lines[1].split() == ["mAP", "75.00", "0.00", "to", "100.00"]


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


def test_draws_depend_on_the_seed_alone():
    report = random_report(np.random.default_rng(6), 97, 23)
    assert bootstrap(report, seed=3) == bootstrap(report, seed=3)
    assert bootstrap(report, seed=3) != bootstrap(report, seed=4)


def test_what_is_refused():
    with pytest.raises(ProtocolError, match="at least two identities that count, got 1"):
        bootstrap(evaluation([2, 2, 7]))
    report = evaluation([1, 2, 3])
    bad: list[dict[str, Any]] = [{"samples": 0}, {"seed": -1}]
    for settings in bad:
        with pytest.raises(
            ConfigError, match="samples must be at least 1 and seed at least 0, got"
        ):
            bootstrap(report, **settings)
    for level in (0.0, 1.0):
        with pytest.raises(ConfigError, match="level must be a share between 0 and 1"):
            bootstrap(report, level=level)
