"""CMC, average precision and inverse negative penalty, from the places of the matches in each ranking.

Nothing here knows of distances or cameras. A *position* is the 1-based place of a match among the kept gallery images
of its query. Letters: Q queries, P matches of all queries together.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ccan.errors import ConfigError

APRule = Literal["rank-sum", "trapezoid"]
AP_RULES: tuple[APRule, ...] = ("rank-sum", "trapezoid")


@dataclass(frozen=True, eq=False)
class MatchPositions:
    """Where the matches of Q queries stand.

    Attributes:
        query: (P,) which query (0 … Q-1) a match belongs to, ascending.
        position: (P,) its 1-based place, ascending within a query.
        queries: Q.
    """

    query: NDArray[np.int64]
    position: NDArray[np.int64]
    queries: int

    @property
    def counts(self) -> NDArray[np.int64]:
        """(Q,) number of matches of each query; 0 = the query is invalid."""
        return np.bincount(self.query, minlength=self.queries).astype(np.int64)

    @property
    def ordinals(self) -> NDArray[np.int64]:
        """(P,) 1 for the first match of a query, 2 for its second, and so on."""
        counts = self.counts
        starts = np.cumsum(counts) - counts
        return np.arange(len(self.query)) - starts[self.query] + 1


def average_precision(matches: MatchPositions, rule: APRule = "rank-sum") -> NDArray[np.float64]:
    """AP of each query (Decision D14), (Q,); NaN where a query has no match.

    `rank-sum`: the mean of k / position of the k-th match, as in the common Python toolkits and scikit-learn.
    `trapezoid`: the mean of ½·[(k-1)/r + k/(r+1)], r = position - 1 and the first term 1 at r = 0, as in the Matlab
    code of Market-1501; never above the other on one ranking.

    Raises: ConfigError for another rule.
    """
    check_ap_rule(rule)
    nth, position = matches.ordinals, matches.position
    share = nth / position
    if rule == "trapezoid":
        before = np.divide(nth - 1, position - 1, out=np.ones(len(nth)), where=position > 1)
        share = (before + share) / 2
    total = np.zeros(matches.queries)
    np.add.at(total, matches.query, share)
    counts = matches.counts
    return np.divide(total, counts, out=np.full(len(total), np.nan), where=counts > 0)


def check_ap_rule(rule: str) -> None:
    """Raises: ConfigError if there is no such rule of average precision."""
    if rule not in AP_RULES:
        raise ConfigError(f"ap must be one of {', '.join(AP_RULES)}, got {rule!r}")


def inverse_negative_penalty(matches: MatchPositions) -> NDArray[np.float64]:
    """INP of each query: matches / position of the last match, (Q,); NaN where a query has no match."""
    last = np.zeros(matches.queries, dtype=np.int64)
    last[matches.query] = matches.position  # positions ascend, so the last one written stays
    valid = last > 0
    return np.divide(matches.counts, last, out=np.full(len(last), np.nan), where=valid)


def first_match(matches: MatchPositions) -> NDArray[np.int64]:
    """Position of the first match of each query, (Q,); -1 where a query has no match."""
    first = np.full(matches.queries, -1, dtype=np.int64)
    leading = matches.ordinals == 1
    first[matches.query[leading]] = matches.position[leading]
    return first


def cumulative_matching(
    first: NDArray[np.int64], max_rank: int, queries: int
) -> NDArray[np.float64]:
    """CMC for k = 1 … max_rank, (max_rank,): share of `queries` whose first match stands at a position ≤ k."""
    found = np.sort(first[first > 0])
    return np.searchsorted(found, np.arange(1, max_rank + 1), side="right") / queries
