"""Everything that is known of a model's failures on one dataset, from its features alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ccan.diagnosis.confusers import Confusers, Hubs, confusers, hubs
from ccan.diagnosis.failures import FailureRules, Failures, failure_kinds, hardest_table
from ccan.diagnosis.rankings import TopRankings, rank_all
from ccan.diagnosis.suspects import Suspects, duplicates_table, halves, label_suspects
from ccan.diagnosis.thresholds import DistanceDistributions, distance_distributions
from ccan.errors import ConfigError
from ccan.evaluation import (
    CameraPairs,
    EvaluationReport,
    FeatureSet,
    camera_pairs,
    evaluate_features,
)
from ccan.evaluation.ranking import Distance
from ccan.evaluation.slices import CAMERA
from ccan.files import write_json
from ccan.tables import Table


@dataclass(frozen=True, eq=False)
class Diagnosis:
    """What was found; every part has its own table."""

    report: EvaluationReport
    tops: TopRankings
    hardest: Table
    failures: Failures
    pairs: CameraPairs
    confusers: Confusers
    hubs: Hubs
    suspects: Suspects
    duplicates: Table
    distances: DistanceDistributions
    slices: tuple[Table, ...]

    def tables(self) -> list[Table]:
        """All of it, in the order in which one reads it."""
        return [
            self.hardest,
            self.failures.table(),
            camera_pair_table(self.pairs),
            self.confusers.table(),
            self.hubs.table(),
            self.suspects.table(),
            self.duplicates,
            self.distances.table(),
            self.distances.histogram(),
            *self.slices,
        ]

    def save(self, folder: str | Path) -> None:
        """Write every table as CSV and JSON, and `summary.json`."""
        for table in self.tables():
            table.save(folder)
        write_json(Path(folder) / "summary.json", self.to_dict())

    def to_dict(self) -> dict[str, Any]:
        """The figures in short, as plain JSON values."""
        return {
            **self.report.to_dict(),
            "failed": int(self.failures.failed.sum()),
            "kinds": {
                kind.name: int(kind.holds.sum()) if kind.judged else None
                for kind in self.failures.kinds
            },
            "confused pairs": len(self.confusers.edges),
            "hubs": len(self.hubs.rows),
            "hubness": self.hubs.skewness,
            "label suspects of full strength": sum(s.strength == 3 for s in self.suspects.suspects),
            "duplicates": len(self.duplicates),
            "auc": self.distances.verification.auc,
            "eer": self.distances.verification.eer,
        }

    def summary(self) -> str:
        """For people, in a few lines."""
        found = self.to_dict()
        kinds = ", ".join(
            f"{name} {'not judged' if count is None else count}"
            for name, count in found["kinds"].items()
        )
        return "\n".join(
            [
                self.report.summary(),
                f"{found['failed']} of {self.report.valid_queries} queries fail at rank 1: {kinds}",
                f"{found['confused pairs']} confusions of identities; {found['hubs']} hubs (skewness "
                f"{found['hubness']:.2f}); {found['label suspects of full strength']} label suspects of full strength; "
                f"{found['duplicates']} duplicates",
                f"same person or not: AUC {100 * found['auc']:.2f} %, equal error rate {100 * found['eer']:.2f} %",
            ]
        )


def diagnose(
    query: FeatureSet,
    gallery: FeatureSet,
    *,
    branches: int = 1,
    streams: Mapping[str, tuple[Tensor, Tensor]] | None = None,
    shift: NDArray[np.integer] | None = None,
    by: Sequence[str] | None = None,
    top: int = 10,
    distance: Distance = "euclidean",
    rules: FailureRules | None = None,
) -> Diagnosis:
    """Diagnose a model by its features; no network is needed.

    Args:
        query, gallery: with whatever metadata is known of the images.
        branches: 2 = descriptors of two branches, whose halves are the streams of label suspects unless `streams` says
            more.
        streams: name → features of queries and gallery (`label_suspects`).
        shift: of the queries' parts (`failure_kinds`).
        by: columns of the queries' metadata to slice by; None = the camera and every column.
        top: length of the heads of rankings.
        rules: of the failure kinds.

    Raises: ConfigError for other branches; otherwise as `evaluate_features`.
    """
    if branches not in (1, 2):
        raise ConfigError(f"branches must be 1 or 2, got {branches}")
    report = evaluate_features(query, gallery, distance=distance)
    tops = rank_all(query, gallery, top=top, distance=distance)
    pairs = camera_pairs(query, gallery, distance=distance)
    failures = failure_kinds(query, gallery, tops, pairs=pairs, shift=shift, rules=rules)
    if streams is None and branches == 2:
        mine, theirs = halves(query.features), halves(gallery.features)
        streams = {name: (mine[name], theirs[name]) for name in mine}
    columns = [CAMERA, *query.metadata] if by is None else by
    return Diagnosis(
        report=report,
        tops=tops,
        hardest=hardest_table(query, gallery, report, tops, failures),
        failures=failures,
        pairs=pairs,
        confusers=confusers(query, gallery, tops),
        hubs=hubs(gallery, tops),
        suspects=label_suspects(query, gallery, streams=streams, distance=distance),
        duplicates=duplicates_table(query, gallery, distance=distance),
        distances=distance_distributions(query, gallery, distance=distance),
        slices=tuple(slice_table(report, column) for column in columns),
    )


def slice_table(report: EvaluationReport, column: str) -> Table:
    """The averages by one column. Raises: ConfigError for one that is not there."""
    rows = [
        [one.value, one.queries, one.valid, 100 * one.mAP, 100 * one.mINP, 100 * one.rank1]
        for one in report.slices(column)
    ]
    header = [column, "queries", "with a match", "mAP %", "mINP %", "rank-1 %"]
    return Table.of_rows(f"by_{column}", header, rows, f"Averages over the queries by {column}.")


def camera_pair_table(pairs: CameraPairs) -> Table:
    """One line a pair of cameras, hardest first."""
    rows = [
        [
            int(one),
            int(two),
            int(pairs.queries[a, b]),
            100 * pairs.rank1[a, b],
            100 * pairs.mAP[a, b],
        ]
        for a, one in enumerate(pairs.query_cameras)
        for b, two in enumerate(pairs.gallery_cameras)
        if pairs.queries[a, b]
    ]
    note = "Every query against the images of one camera at a time: compare lines with each other, not with the whole."
    header = ["from camera", "to camera", "queries", "rank-1 %", "mAP %"]
    return Table.of_rows("camera_pairs", header, sorted(rows, key=lambda row: row[3]), note)
