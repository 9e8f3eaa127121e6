"""Do two models really differ? Paired resampling and permutation of identities on the same queries.

Letters: Q queries, I identities, S resamples.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ccan.errors import ProtocolError
from ccan.evaluation.confidence import (
    CHUNK,
    Interval,
    Values,
    check_settings,
    counted_rows,
    percentile_interval,
    resamples,
    sums_by_identity,
)
from ccan.evaluation.report import EvaluationReport


@dataclass(frozen=True)
class Difference:
    """An average of two models and how far apart they are; shares of 1.

    Attributes:
        a, b: the averages.
        difference: b - a, with its interval.
        p: two-sided permutation test: how often a difference as large comes from models that are exchangeable.
    """

    a: float
    b: float
    difference: Interval
    p: float


@dataclass(frozen=True)
class PairedComparison:
    """Model b against model a on the same queries.

    Attributes:
        mAP, rank1: their differences.
        fixed: queries that b has right at rank 1 and a has not; broken: the other way round.
        mcnemar: exact two-sided p of McNemar's test on these two counts; it takes queries for independent.
        queries: that count; identities: I; samples: S; seed: of the draws.
    """

    mAP: Difference
    rank1: Difference
    fixed: int
    broken: int
    mcnemar: float
    queries: int
    identities: int
    samples: int
    seed: int

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)

    def summary(self) -> str:
        """A small table for people, in per cent."""
        lines = [f"{'':<6}{'a':>8}{'b':>8}{'b - a':>8}{'interval':>19}{'p':>9}"]
        for name, one in (("mAP", self.mAP), ("rank1", self.rank1)):
            found = one.difference
            bounds = f"{100 * found.low:.2f} to {100 * found.high:.2f}"
            shares = "".join(f"{100 * value:>8.2f}" for value in (one.a, one.b, found.value))
            lines.append(f"{name:<6}{shares}{bounds:>19}{one.p:>9.4f}")
        return "\n".join(
            [
                *lines,
                f"rank 1: {self.fixed} queries fixed, {self.broken} broken (McNemar p = {self.mcnemar:.4f}); "
                f"{self.queries} queries of {self.identities} identities",
            ]
        )


def compare(
    report_a: EvaluationReport,
    report_b: EvaluationReport,
    samples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> PairedComparison:
    """Is b better than a, or is it chance? Both reports must be of the same queries and the same gallery.

    The interval of each difference comes from the same resampled identities for both. The p value flips, for whole
    identities at once, which of the two models is which; up to 2^I ≤ `samples` all flips are made, beyond that
    `samples` random ones, of which the observed one counts as one more.

    Raises: ProtocolError if the reports are not of the same queries, gallery and rule; otherwise as `bootstrap`.
    """
    check_settings(samples, seed, level)
    _check_same(report_a, report_b)
    rows = counted_rows(report_a)
    (of_a, sizes), (of_b, _) = (sums_by_identity(report, rows) for report in (report_a, report_b))
    change = (of_b - of_a)[:, _COMPARED]  # (I, 2)
    drawn = np.concatenate(
        [
            times @ change / (times @ sizes)[:, None]
            for times in resamples(len(sizes), samples, seed)
        ]
    )  # (S, 2)
    p = _sign_flip_p(change, samples, seed)

    def difference(k: int) -> Difference:
        a, b = (float(sums[:, _COMPARED[k]].sum() / sizes.sum()) for sums in (of_a, of_b))
        observed = float(change[:, k].sum() / sizes.sum())
        return Difference(a, b, percentile_interval(observed, drawn[:, k], level), float(p[k]))

    right_a, right_b = (report.first_match[rows] == 1 for report in (report_a, report_b))
    fixed, broken = int((right_b & ~right_a).sum()), int((right_a & ~right_b).sum())
    return PairedComparison(
        mAP=difference(0),
        rank1=difference(1),
        fixed=fixed,
        broken=broken,
        mcnemar=mcnemar_p(fixed, broken),
        queries=len(rows),
        identities=len(sizes),
        samples=samples,
        seed=seed,
    )


def mcnemar_p(fixed: int, broken: int) -> float:
    """Exact two-sided p: as uneven a split of fixed + broken fair coins, or more so; 1 where nothing changed."""
    flips = fixed + broken
    tail = sum(math.comb(flips, k) for k in range(min(fixed, broken) + 1))
    return min(1.0, 2 * tail / 2**flips)


_COMPARED = [0, 2]
"""Columns of `sums_by_identity` that models are compared by: AP and rank 1."""


def _check_same(a: EvaluationReport, b: EvaluationReport) -> None:
    """Raises: ProtocolError if the figures cannot be compared query by query."""
    advice = "evaluate both models on the same lists"
    if len(a.ap) != len(b.ap):
        raise ProtocolError(f"the reports are of {len(a.ap)} and {len(b.ap)} queries; {advice}")
    named = a.names is not None and b.names is not None
    facts = ["identities", "cameras", *(["names"] if named else [])]
    for fact in facts:
        if not np.array_equal(getattr(a, fact), getattr(b, fact)):
            raise ProtocolError(f"the reports are of other queries: {fact} differ; {advice}")
    for fact, meaning in (("matches", "matches"), ("kept", "ranked images")):
        if not np.array_equal(getattr(a, fact), getattr(b, fact)):
            raise ProtocolError(
                f"the reports are of other galleries: queries differ in their number of {meaning}; {advice}"
            )
    if a.conventions["ap"] != b.conventions["ap"]:
        raise ProtocolError(
            f"the reports follow other rules of AP: {a.conventions['ap']} and {b.conventions['ap']}; {advice}"
        )


def _sign_flip_p(change: Values, samples: int, seed: int) -> Values:
    """Share of sign flips of whole identities whose sum is as large as the observed one, (I, M) → (M,)."""
    count = len(change)
    observed = (
        np.abs(change.sum(axis=0)) - 1e-9
    )  # flips that restore the observed sum differ by rounding
    if 2**count <= samples:
        numbers = np.arange(2**count, dtype=np.int64)[:, None]
        flipped = (numbers >> np.arange(count, dtype=np.int64)) & 1
        signs: Values = np.where(flipped, -1.0, 1.0)
        return (np.abs(signs @ change) >= observed).mean(axis=0)
    generator = np.random.default_rng([seed, 1])  # not the draws of the interval
    reached = np.ones(change.shape[1])
    for start in range(0, samples, CHUNK):
        signs = generator.choice([-1.0, 1.0], (min(CHUNK, samples - start), count))
        reached += (np.abs(signs @ change) >= observed).sum(axis=0)
    return reached / (samples + 1)
