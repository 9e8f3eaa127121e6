"""Reports made of given or random values, for tests of what is done with reports."""

from __future__ import annotations

import numpy as np

from ccan.evaluation import EvaluationReport, FeatureSet, evaluate_features
from ccan.evaluation.metrics import APRule


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


def random_report(generator: np.random.Generator, queries: int, people: int) -> EvaluationReport:
    ap = generator.integers(0, 5, queries) / 4
    ap[generator.random(queries) < 0.2] = np.nan
    ap[:2] = 0.5
    identities = generator.integers(0, people, queries) * 3
    identities[:2] = 0, 3
    return report_of(ap, identities, generator.integers(1, 4, queries))


def evaluation(
    people: list[int], rule: APRule = "rank-sum", gallery: list[int] | None = None
) -> EvaluationReport:
    shown = gallery or [1, 2, 3]
    query = FeatureSet([[float(who)] for who in people], people, [1] * len(people))
    return evaluate_features(
        query, FeatureSet([[float(who)] for who in shown], shown, [2] * len(shown)), ap=rule
    )
