"""How sure a figure is: resampling of identities, never of single queries.

Queries of one person succeed and fail together, so that intervals over single queries are too narrow. Letters: Q
queries, I identities, S resamples.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ccan.errors import ConfigError, ProtocolError
from ccan.evaluation.report import EvaluationReport

Values = NDArray[np.float64]

CHUNK = 256
"""Resamples that exist at a time."""


@dataclass(frozen=True)
class Interval:
    """A figure and the bounds between which it lies in a share `level` of the resamples."""

    value: float
    low: float
    high: float
    level: float


@dataclass(frozen=True)
class Confidence:
    """Intervals of the averages of one report; shares of 1.

    Attributes:
        mAP, mINP, rank1: of the report.
        identities: I, what is resampled; samples: S; seed: of the draws.
    """

    mAP: Interval
    mINP: Interval
    rank1: Interval
    identities: int
    samples: int
    seed: int

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)

    def summary(self) -> str:
        """A small table for people, in per cent."""
        lines = [
            f"{name:<6}{100 * one.value:>8.2f}  {100 * one.low:>6.2f} to {100 * one.high:.2f}"
            for name, one in (("mAP", self.mAP), ("mINP", self.mINP), ("rank1", self.rank1))
        ]
        resampled = f"{self.samples} resamples of {self.identities} identities"
        return "\n".join([f"{100 * self.mAP.level:g} % intervals ({resampled})", *lines])


def bootstrap(
    report: EvaluationReport, samples: int = 1000, seed: int = 0, level: float = 0.95
) -> Confidence:
    """Percentile intervals of mAP, mINP and rank 1 over resampled identities.

    Each resample draws I identities with replacement, each with all its queries, and averages anew. Identities without
    a query that counts are not drawn.

    Args:
        report: of one evaluation.
        samples: S.
        seed: of the draws.
        level: share of the resamples between the bounds.

    Raises: ConfigError for numbers out of range; ProtocolError if fewer than two identities count.
    """
    check_settings(samples, seed, level)
    rows = counted_rows(report)
    sums, sizes = sums_by_identity(report, rows)  # (I, 3), (I,)
    drawn = np.concatenate(
        [times @ sums / (times @ sizes)[:, None] for times in resamples(len(sizes), samples, seed)]
    )  # (S, 3)
    whole = sums.sum(axis=0) / sizes.sum()
    mAP, mINP, rank1 = (
        percentile_interval(float(whole[column]), drawn[:, column], level) for column in range(3)
    )
    return Confidence(mAP, mINP, rank1, len(sizes), samples, seed)


def check_settings(samples: int, seed: int, level: float) -> None:
    """Raises: ConfigError for numbers out of range."""
    if samples < 1 or seed < 0:
        raise ConfigError(
            f"samples must be at least 1 and seed at least 0, got {samples} and {seed}"
        )
    if not 0 < level < 1:
        raise ConfigError(f"level must be a share between 0 and 1, got {level}")


def counted_rows(report: EvaluationReport) -> NDArray[np.int64]:
    """Rows of the queries that averages divide by."""
    all_count = report.counted_queries == len(report.ap)
    return np.arange(len(report.ap)) if all_count else np.flatnonzero(report.valid)


def sums_by_identity(report: EvaluationReport, rows: NDArray[np.int64]) -> tuple[Values, Values]:
    """Sums of AP, INP and rank-1 hits over each identity's queries (I, 3), and their number (I,)."""
    identities, person = np.unique(report.identities[rows], return_inverse=True)
    if len(identities) < 2:
        raise ProtocolError(
            f"resampling needs queries of at least two identities that count, got {len(identities)}"
        )
    scores = np.stack([report.ap, report.inp, report.first_match == 1], axis=1)[rows]
    sums = np.zeros((len(identities), 3))
    np.add.at(sums, person, np.nan_to_num(scores))  # invalid queries count as 0 where they count
    return sums, np.bincount(person).astype(np.float64)


def resamples(identities: int, samples: int, seed: int) -> Iterator[Values]:
    """How often each identity is drawn, (≤ CHUNK, I) at a time, S rows in all."""
    generator = np.random.default_rng(seed)
    shares = np.full(identities, 1 / identities)
    for start in range(0, samples, CHUNK):
        count = min(CHUNK, samples - start)
        yield generator.multinomial(identities, shares, size=count).astype(np.float64)


def percentile_interval(value: float, drawn: Values, level: float) -> Interval:
    """The bounds of the middle share `level` of the resampled values (S,)."""
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(value), float(low), float(high), level)
