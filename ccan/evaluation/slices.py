"""Where a model is good and where it is not: the averages by camera, by metadata, and by pairs of cameras.

Letters: Q queries, Cq cameras of queries, Cg cameras of the gallery.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ccan.data.records import JUNK
from ccan.errors import ConfigError
from ccan.evaluation.feature_set import FeatureSet
from ccan.evaluation.protocol import judge
from ccan.evaluation.report import EvaluationReport

CAMERA = "camera"
MISSING = "missing"
"""Value of the slice of queries whose metadata is not known."""

MOST_VALUES = 12
"""A numeric column with more distinct values is cut at its quartiles."""


@dataclass(frozen=True)
class Slice:
    """The averages over the queries that share one value; shares of 1, NaN where nothing is counted.

    Attributes:
        name: column; value: what they share, or the range of a quartile, or `missing`.
        queries: how many there are; valid: how many of them have a match.
        mAP, mINP, rank1: as in `EvaluationReport`, by its rule.
    """

    name: str
    value: str
    queries: int
    valid: int
    mAP: float
    mINP: float
    rank1: float

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, null for NaN."""
        return {key: None if value != value else value for key, value in vars(self).items()}


def slice_report(report: EvaluationReport, column: str) -> tuple[Slice, ...]:
    """The averages by query camera (`"camera"`) or by a column of the queries' metadata.

    Every query is in exactly one slice, so that the slices' averages, weighted by their counted queries, give the
    report's. A numeric column of more than 12 distinct values is cut at its quartiles, the upper bound of each
    included. Order: ascending, what is missing last.

    Raises: ConfigError for a column that is not there.
    """
    groups = slice_groups(report, column)
    return tuple(_slice(report.select(rows), column, value) for value, rows in groups)


Groups = list[tuple[str, NDArray[np.bool_]]]


def slice_groups(report: EvaluationReport, column: str) -> Groups:
    """Value → (Q,) which queries have it, as `slice_report` cuts them. Raises: ConfigError for an unknown column."""
    if column == CAMERA:
        return _by_value(report.cameras)
    if column in report.metadata:
        return _by_metadata(report.metadata[column])
    raise ConfigError(
        f"there is no column {column!r} to slice by; there is {', '.join([CAMERA, *report.metadata])}"
    )


def _slice(part: EvaluationReport, column: str, value: str) -> Slice:
    first = float(part.cmc[0])
    return Slice(column, value, len(part.ap), part.valid_queries, part.mAP, part.mINP, first)


def _by_value(values: NDArray[Any]) -> Groups:
    """One group for each distinct value, ascending."""
    text = values.dtype.kind == "U"
    return [(str(v) if text else f"{v:.15g}", values == v) for v in np.unique(values)]


def _by_metadata(values: NDArray[Any]) -> Groups:
    missing = values == "" if values.dtype.kind == "U" else ~np.isfinite(values)
    known = values[~missing]
    cut = (
        _by_quartile
        if known.dtype.kind == "f" and len(np.unique(known)) > MOST_VALUES
        else _by_value
    )
    groups: Groups = []
    for value, within in cut(known):
        rows = np.zeros(len(values), dtype=np.bool_)
        rows[~missing] = within
        groups.append((value, rows))
    return [*groups, (MISSING, missing)] if missing.any() else groups


def _by_quartile(values: NDArray[np.float64]) -> Groups:
    """At most four groups; fewer where many values are equal."""
    bounds = np.unique(np.quantile(values, [0, 0.25, 0.5, 0.75, 1]))
    place = np.searchsorted(bounds[1:-1], values)
    return [
        (f"{bounds[k]:.15g} – {bounds[k + 1]:.15g}", place == k)
        for k in range(len(bounds) - 1)
        if np.any(place == k)
    ]


@dataclass(frozen=True, eq=False)
class CameraPairs:
    """How well people are found again from one camera in another.

    Attributes:
        query_cameras: (Cq,) cameras of the queries, ascending.
        gallery_cameras: (Cg,) cameras of the gallery, ascending.
        queries: (Cq, Cg) queries of the row's camera that have a match in the column's.
        mAP, rank1: (Cq, Cg) averages over exactly those, whatever the rule of AP; NaN where there are none.
    """

    query_cameras: NDArray[np.int64]
    gallery_cameras: NDArray[np.int64]
    queries: NDArray[np.int64]
    mAP: NDArray[np.float64]
    rank1: NDArray[np.float64]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, one list a row, null where there are no queries."""
        shares = {"mAP": self.mAP, "rank1": self.rank1}
        return {
            "query_cameras": self.query_cameras.tolist(),
            "gallery_cameras": self.gallery_cameras.tolist(),
            "queries": self.queries.tolist(),
            **{
                name: [[None if v != v else v for v in row] for row in values.tolist()]
                for name, values in shares.items()
            },
        }

    def summary(self) -> str:
        """A table of mAP for people, in per cent, with the queries behind each."""
        head = "".join(f"{f'to {camera}':>15}" for camera in self.gallery_cameras)
        lines = [f"mAP (queries){head}"]
        for camera, shares, counts in zip(self.query_cameras, self.mAP, self.queries, strict=True):
            cells = "".join(
                f"{f'{100 * share:.2f} ({count})' if count else '–':>15}"
                for share, count in zip(shares, counts, strict=True)
            )
            lines.append(f"{f'from {camera}':<13}{cells}")
        return "\n".join(lines)


def camera_pairs(query: FeatureSet, gallery: FeatureSet, **settings: Any) -> CameraPairs:
    """Rank every query against the images of one gallery camera at a time.

    A smaller gallery is an easier one: compare cells with each other, not with the whole evaluation. A camera with
    itself has no match by the protocol, so that the diagonal is empty wherever cameras are known.

    Args:
        query, gallery: as in `evaluate_features`.
        settings: of `evaluate_features`.

    Raises: as `evaluate_features`, but no cell need have a match.
    """
    asked = np.unique(query.cameras)
    offered = np.unique(gallery.cameras[gallery.identities != JUNK])
    shape = (len(asked), len(offered))
    queries = np.zeros(shape, dtype=np.int64)
    mAP, rank1 = np.full(shape, np.nan), np.full(shape, np.nan)
    for column, camera in enumerate(offered):
        report = judge(query, gallery.select(gallery.cameras == camera), **settings)
        for row, own in enumerate(asked):
            rows = report.valid & (report.cameras == own)
            queries[row, column] = rows.sum()
            if rows.any():
                mAP[row, column] = report.ap[rows].mean()
                rank1[row, column] = (report.first_match[rows] == 1).mean()
    return CameraPairs(asked, offered, queries, mAP, rank1)
