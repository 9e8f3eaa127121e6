"""How far apart one person's images lie, and two people's, and what a threshold between them would do."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ccan.errors import ConfigError
from ccan.evaluation.feature_set import FeatureSet
from ccan.evaluation.pairs import CountedPairs
from ccan.evaluation.ranking import Distance
from ccan.evaluation.verification import VerificationReport, verify
from ccan.tables import Table

RATES = (1e-3, 1e-2, 1e-1)
"""False-match rates that thresholds are given for."""
BINS = 60


@dataclass(frozen=True, eq=False)
class DistanceDistributions:
    """Distances of all pairs that the protocol counts, in bins.

    Attributes:
        edges: (bins + 1,) in units of the distance.
        genuine, impostor: (bins,) pairs of one person, of two.
        verification: ROC, AUC, EER.
        eer_threshold: where false-match and false-non-match rate are nearest to each other.
    """

    edges: NDArray[np.float64]
    genuine: NDArray[np.int64]
    impostor: NDArray[np.int64]
    verification: VerificationReport
    eer_threshold: float
    pairs: CountedPairs = field(repr=False)

    def at(self, threshold: float) -> tuple[float, float]:
        """Shares of the genuine and of the impostor pairs that a threshold accepts (distance ≤ threshold), exactly."""
        accepted, counts = np.zeros(2, np.int64), np.zeros(2, np.int64)
        for sides in self.pairs.blocks():
            for k, values in enumerate(sides):
                accepted[k] += int((values <= threshold).sum())
                counts[k] += len(values)
        return float(accepted[0] / counts[0]), float(accepted[1] / counts[1])

    def table(self) -> Table:
        """Thresholds for usual false-match rates, and at the equal error rate."""
        chosen = {
            f"false-match rate {rate:g}": self.verification.threshold_for(rate) for rate in RATES
        }
        chosen["equal error rate"] = self.eer_threshold
        rows = [[name, threshold, *self.at(threshold)] for name, threshold in chosen.items()]
        note = (
            "Pairs accepted as one person where distance ≤ threshold; "
            f"{self.verification.genuine:,} pairs of one person, {self.verification.impostors:,} of two; AUC "
            f"{100 * self.verification.auc:.2f} %, equal error rate {100 * self.verification.eer:.2f} %. A threshold "
            "chosen on these images is optimistic on them."
        )
        header = ["chosen for", "threshold", "true pairs accepted", "false pairs accepted"]
        return Table.of_rows("thresholds", header, rows, note)

    def histogram(self) -> Table:
        """The bins."""
        columns = {
            "from": self.edges[:-1],
            "to": self.edges[1:],
            "one person": self.genuine,
            "two people": self.impostor,
        }
        return Table("distances", columns, "Pairs that the protocol counts, by distance.")


def distance_distributions(
    query: FeatureSet, gallery: FeatureSet, *, distance: Distance = "euclidean", bins: int = BINS
) -> DistanceDistributions:
    """Count all pairs. Raises: ConfigError for fewer than 2 bins; otherwise as `evaluation.verify`."""
    if bins < 2:
        raise ConfigError(f"bins must be at least 2, got {bins}")
    verification = verify(query, gallery, distance=distance)
    pairs = CountedPairs(query, gallery, distance, None)
    blocks = pairs.blocks
    high = max(float(values.max(initial=0)) for sides in blocks() for values in sides)
    edges = np.linspace(0, high or 1.0, bins + 1)
    counts = np.zeros((2, bins), np.int64)
    for sides in blocks():
        for k, values in enumerate(sides):
            counts[k] += np.histogram(values, edges)[0]
    roc = verification.roc()
    gap = np.abs(roc.fpr - (1 - roc.tpr))
    inner = np.isfinite(roc.thresholds)
    eer = float(roc.thresholds[inner][gap[inner].argmin()])
    return DistanceDistributions(edges, counts[0], counts[1], verification, eer, pairs)
