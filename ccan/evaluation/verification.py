"""Verification: is this pair one person? ROC, AUC, EER and thresholds over all pairs that the protocol counts.

A *genuine* pair shows one person, an *impostor* pair two; a threshold t accepts every pair with distance ≤ t. The
genuine pairs are few and are all kept, so that the impostors (a thousand times as many) need only be counted between
them: every figure is exact, and the Q×G matrix never exists.

Letters: Q queries, B of them in a block, G gallery images, P genuine and N impostor pairs, U distinct genuine
distances, V corners of the ROC curve.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ccan.errors import ConfigError, ProtocolError
from ccan.evaluation.conventions import cause_of_no_match, ignored_in_words
from ccan.evaluation.feature_set import FeatureSet
from ccan.evaluation.pairs import CountedPairs, Values
from ccan.evaluation.protocol import check_both_sides
from ccan.evaluation.ranking import Distance

Counts = NDArray[np.int64]

REPORTED_RATES = (1e-4, 1e-3, 1e-2, 1e-1)
"""False match rates that `to_dict` shows."""


@dataclass(frozen=True, eq=False)
class Roc:
    """Corners of the ROC curve, from (0, 0) to (1, 1); straight lines join them.

    Attributes:
        fpr: (V,) accepted impostors, a share of N, ascending.
        tpr: (V,) accepted genuine pairs, a share of P, ascending.
        thresholds: (V,) a threshold that accepts exactly so many; -inf at (0, 0).
    """

    fpr: NDArray[np.float64]
    tpr: NDArray[np.float64]
    thresholds: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class VerificationReport:
    """How well distances tell pairs of one person from pairs of two. It keeps the features, for `threshold_for`.

    Attributes:
        distances: (U,) distinct distances of genuine pairs, ascending.
        accepted: (U,) genuine pairs at most so far apart.
        below: (U,) impostors nearer than that.
        through: (U,) impostors at most so far apart.
        impostors: N.
        conventions: the rules that the figures depend on, by name.
    """

    distances: Values
    accepted: Counts
    below: Counts
    through: Counts
    impostors: int
    conventions: dict[str, str]
    nth_impostor: Callable[[int], np.floating[Any]] = field(repr=False)

    @property
    def genuine(self) -> int:
        """P, the number of genuine pairs."""
        return int(self.accepted[-1])

    @property
    def auc(self) -> float:
        """Chance that a genuine pair is nearer than an impostor pair, ties counting half; the area under the ROC."""
        pairs = np.diff(self.accepted, prepend=0)
        twice = int(np.sum(pairs * (2 * self.impostors - self.through - self.below)))
        return twice / (2 * self.genuine * self.impostors)

    @property
    def eer(self) -> float:
        """Equal error rate: where the ROC curve meets false match rate = false non-match rate."""
        false, true, _ = self._corners()
        surplus = false * self.genuine + true * self.impostors - self.genuine * self.impostors
        after = int(np.argmax(surplus >= 0))  # never the first corner, (0, 0)
        share = -surplus[after - 1] / (surplus[after] - surplus[after - 1])
        return float(false[after - 1] + share * (false[after] - false[after - 1])) / self.impostors

    def tpr_at(self, fpr: float) -> float:
        """Share of genuine pairs accepted by the best threshold whose false match rate is at most `fpr`."""
        if not 0 <= fpr <= 1:
            raise ConfigError(f"fpr must be a share between 0 and 1, got {fpr}")
        within = int((self.through / self.impostors <= fpr).sum())
        return int(self.accepted[within - 1]) / self.genuine if within else 0.0

    def threshold_for(self, false_match_rate: float) -> float:
        """The largest threshold that accepts at most this share of the impostors.

        It is the number just below an order statistic of the N impostor distances, found by counting digits in two
        further passes over the distances (four in float64). Negative if not even distance 0 may be accepted.

        Raises: ConfigError unless 0 ≤ false_match_rate < 1.
        """
        if not 0 <= false_match_rate < 1:
            raise ConfigError(
                f"false_match_rate must be at least 0 and below 1, got {false_match_rate}"
            )
        allowed = math.floor(false_match_rate * self.impostors)
        # The product is rounded: the quotient that people compare with decides.
        while (allowed + 1) / self.impostors <= false_match_rate:
            allowed += 1
        while allowed / self.impostors > false_match_rate:
            allowed -= 1
        first_refused = self.nth_impostor(allowed)
        return float(np.nextafter(first_refused, -np.inf, dtype=first_refused.dtype))

    def roc(self, points: int = 2000) -> Roc:
        """The ROC curve, thinned to so many corners; those that are kept are exact, the first and last among them.

        Half of them are spread evenly along the curve, half evenly over the logarithm of the false match rate.
        """
        if points < 2:
            raise ConfigError(f"points must be at least 2, got {points}")
        false, true, thresholds = self._corners()
        fpr, tpr = false / self.impostors, true / self.genuine
        if len(fpr) > points:
            along = max(2, points - points // 2)  # at least both ends
            smallest = 0.5 / self.impostors
            kept = np.union1d(
                _evenly(fpr + tpr, along),
                _evenly(np.log(np.maximum(fpr, smallest)), points - along),
            )
            fpr, tpr, thresholds = fpr[kept], tpr[kept], thresholds[kept]
        return Roc(fpr, tpr, thresholds)

    def _corners(self) -> tuple[Counts, Counts, NDArray[np.float64]]:
        """(V,) accepted impostors, accepted genuine pairs, thresholds: before and at each genuine distance."""
        steps = len(self.distances)
        false, true = np.zeros(2 * steps + 2, np.int64), np.zeros(2 * steps + 2, np.int64)
        thresholds = np.full(2 * steps + 2, -np.inf)
        false[1:-1:2], false[2:-1:2], false[-1] = self.below, self.through, self.impostors
        true[3:-1:2], true[2:-1:2], true[-1] = self.accepted[:-1], self.accepted, self.genuine
        thresholds[1:-1:2] = np.nextafter(self.distances, -np.inf, dtype=self.distances.dtype)
        thresholds[2:-1:2], thresholds[-1] = self.distances, np.inf
        new = np.flatnonzero(np.diff(false) + np.diff(true)) + 1  # corners that coincide are one
        rows = np.concatenate([[0], new])
        return false[rows], true[rows], thresholds[rows]

    def to_dict(self) -> dict[str, Any]:
        """The figures as plain JSON values; shares of 1."""
        return {
            "auc": self.auc,
            "eer": self.eer,
            "tpr_at": {f"{rate:g}": self.tpr_at(rate) for rate in REPORTED_RATES},
            "genuine": self.genuine,
            "impostors": self.impostors,
            "conventions": dict(self.conventions),
        }


def _evenly(values: NDArray[np.float64], count: int) -> NDArray[np.int64]:
    """Row numbers of ascending values that lie about evenly over their range; `count` at most."""
    wanted = np.linspace(float(values[0]), float(values[-1]), count)
    return np.unique(np.searchsorted(values, wanted).clip(max=len(values) - 1))


def verify(
    query: FeatureSet,
    gallery: FeatureSet,
    *,
    distance: Distance = "euclidean",
    block: int | None = None,
) -> VerificationReport:
    """Compare every query with every gallery image, and count.

    The pairs are those that the ranking protocol counts: junk takes no part on either side, and an image of the query's
    identity and camera (where cameras are unknown, of the query's name) is in no pair with it. Distractors are
    impostors.

    Memory: about six times a block of distances, and a few numbers for each genuine pair.

    Args:
        query, gallery: as in `evaluate_features`.
        distance: as in `evaluate_features`.
        block: queries in a block; by default as many as give 256 MiB of distances.

    Raises: ProtocolError if a set is empty, or there is no genuine pair (with the cause) or no impostor pair;
    ConfigError for a block below 1; otherwise as `pairwise_distance`.
    """
    if block is not None and block < 1:
        raise ConfigError(f"block must be at least 1, got {block}")
    check_both_sides(query, gallery)
    pairs = CountedPairs(query, gallery, distance, block)
    genuine = np.concatenate([pairs.empty, *(found for found, _ in pairs.blocks())])
    if not len(genuine):
        raise ProtocolError(
            f"no query has a match in the gallery: {cause_of_no_match(query, gallery)}"
        )
    distances, counts = np.unique(genuine, return_counts=True)
    below, through, impostors = np.zeros_like(counts), np.zeros_like(counts), 0
    for _, others in pairs.blocks():
        others.sort()
        below += np.searchsorted(others, distances, side="left")
        through += np.searchsorted(others, distances, side="right")
        impostors += len(others)
    if not impostors:
        raise ProtocolError(
            "there is no pair of two people: all counted images show one identity; add images of others"
        )
    conventions = {
        "pairs": "every query with every gallery image",
        "distance": distance,
        "ignored": ignored_in_words(query, gallery),
        "accepted": "distance ≤ threshold",
    }
    return VerificationReport(
        distances, np.cumsum(counts), below, through, impostors, conventions, pairs.nth_impostor
    )
