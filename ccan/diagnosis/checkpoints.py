"""Two checkpoints on the same queries: what one mended, what it broke."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ccan.evaluation.comparison import PairedComparison, compare
from ccan.evaluation.report import EvaluationReport
from ccan.tables import Table

Outcome = Literal["fixed", "broken", "both right", "both wrong"]
OUTCOMES: tuple[Outcome, ...] = ("fixed", "broken", "both right", "both wrong")


@dataclass(frozen=True)
class CheckpointComparison:
    """Checkpoint b against a, query by query.

    Attributes:
        rows: (n,) queries that have a match.
        outcomes: (n,) of `OUTCOMES`, by rank 1.
        ap_a, ap_b: (n,) average precision; first_a, first_b: (n,) place of the first match.
        paired: differences with intervals, and McNemar's p.
    """

    rows: NDArray[np.int64]
    outcomes: NDArray[np.str_]
    ap_a: NDArray[np.float64]
    ap_b: NDArray[np.float64]
    first_a: NDArray[np.int64]
    first_b: NDArray[np.int64]
    names: tuple[str, ...]
    paired: PairedComparison

    def counts(self) -> dict[Outcome, int]:
        """How many queries have each outcome."""
        return {outcome: int((self.outcomes == outcome).sum()) for outcome in OUTCOMES}

    def table(self) -> Table:
        """Every query, largest change of AP first."""
        change = self.ap_b - self.ap_a
        order = np.argsort(-np.abs(change), kind="stable")
        columns = {
            "query": [self.names[k] for k in order],
            "row": self.rows[order],
            "outcome": self.outcomes[order],
            "AP a": self.ap_a[order],
            "AP b": self.ap_b[order],
            "change": change[order],
            "first match a": self.first_a[order],
            "first match b": self.first_b[order],
        }
        counts = ", ".join(f"{count} {outcome}" for outcome, count in self.counts().items())
        found = self.paired.mAP.difference
        note = (
            f"{counts}; McNemar p = {self.paired.mcnemar:.4f}. mAP b − a: {100 * found.value:.2f} points "
            f"({100 * found.low:.2f} to {100 * found.high:.2f})."
        )
        return Table("checkpoints", columns, note)


def compare_checkpoints(
    report_a: EvaluationReport, report_b: EvaluationReport
) -> CheckpointComparison:
    """Compare two evaluations of the same queries and gallery. Raises: ProtocolError as `evaluation.compare`."""
    paired = compare(report_a, report_b)
    rows = np.flatnonzero(report_a.valid)
    right_a, right_b = (one.first_match[rows] == 1 for one in (report_a, report_b))
    outcomes = np.select(
        [right_b & ~right_a, right_a & ~right_b, right_a & right_b],
        ["fixed", "broken", "both right"],
        "both wrong",
    )
    names = report_a.names or tuple(f"row {row}" for row in range(len(report_a.ap)))
    return CheckpointComparison(
        rows,
        outcomes,
        report_a.ap[rows],
        report_b.ap[rows],
        report_a.first_match[rows],
        report_b.first_match[rows],
        tuple(names[int(row)].rsplit("/", 1)[-1] for row in rows),
        paired,
    )
