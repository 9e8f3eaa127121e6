"""Which queries fail, how badly, and by which rule that can be read: failure kinds are definitions, not opinions.

Several kinds may hold for one query. A kind whose facts are not known is not judged, and the report says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ccan.diagnosis.rankings import NOBODY, TopRankings, facts_of, names_of
from ccan.errors import ShapeError
from ccan.evaluation.feature_set import FeatureSet
from ccan.evaluation.ranking import IdentityIndex, ignored_pairs
from ccan.evaluation.report import EvaluationReport
from ccan.evaluation.slices import CameraPairs
from ccan.tables import Table

Flags = NDArray[np.bool_]
VIEW, OCCLUSION, BOX_SCALE = "view", "occlusion", "box_scale"
"""Columns of metadata that rules look at, where they are known."""
UNEXPLAINED = "unexplained"


@dataclass(frozen=True)
class FailureRules:
    """The numbers in the rules."""

    occlusion: float = 0.2
    """Share of the person that is hidden, from which on an image counts as occluded."""
    box_low: float = 0.88
    """Height of the box against a careful hand's: a smaller one cuts the person."""
    box_high: float = 1.15
    """A larger one is a bad crop too."""
    far_quantile: float = 0.95
    """A nearest match that is farther than this share of all nearest matches is no near match."""
    pair_gap: float = 0.1
    """How far below the mean of all camera pairs a pair's rank 1 must lie."""
    pair_queries: int = 10
    """Queries that a camera pair must have to be judged."""


@dataclass(frozen=True)
class FailureKind:
    """One kind of failure and the failed queries that it holds for.

    Attributes:
        name, rule: what it is called, and its definition with its numbers.
        judged: False where the facts that it needs are not known.
        holds: (Q,) for each query; False wherever the query did not fail.
        evidence: (Q,) the number that the rule looks at; NaN where there is none.
    """

    name: str
    rule: str
    judged: bool
    holds: Flags
    evidence: NDArray[np.float64]


@dataclass(frozen=True)
class Failures:
    """The failed queries by kind.

    Attributes:
        kinds: in the order of the rules, `unexplained` last.
        failed: (Q,) queries with a match whose rank 1 is wrong.
    """

    kinds: tuple[FailureKind, ...]
    failed: Flags

    def of(self, query: int) -> list[str]:
        """Names of the kinds that hold for a query."""
        return [kind.name for kind in self.kinds if kind.holds[query]]

    def table(self) -> Table:
        """Every kind with its count and its rule."""
        rows = [
            [kind.name, int(kind.holds.sum()) if kind.judged else "not judged", kind.rule]
            for kind in self.kinds
        ]
        note = f"{int(self.failed.sum())} queries failed (rank 1 is wrong); several kinds may hold for one of them."
        return Table.of_rows("failure_kinds", ["kind", "queries", "rule"], rows, note)


def failure_kinds(
    query: FeatureSet,
    gallery: FeatureSet,
    tops: TopRankings,
    *,
    pairs: CameraPairs | None = None,
    shift: NDArray[np.integer] | None = None,
    rules: FailureRules | None = None,
) -> Failures:
    """Sort the failed queries by rules.

    Args:
        query, gallery: with whatever metadata is known.
        tops: of these.
        pairs: rank 1 by camera pair; without it that rule is not judged.
        shift: (Q,) by how many strips each query lies lower than its nearest match (`explain.parts.align_parts`).
        rules: the numbers.

    Raises: ShapeError for a shift of another length.
    """
    rules = rules or FailureRules()
    if shift is not None and shift.shape != (len(query),):
        raise ShapeError(f"expected a shift for each of {len(query)} queries, got {shift.shape}")
    facts = _Facts(query, gallery, tops)
    judged = [
        _no_similar_view(facts),
        _no_near_match(facts, rules),
        _look_alike(facts),
        _occlusion(facts, rules),
        _bad_crop(facts, rules, shift),
        _camera_pair(facts, rules, pairs),
    ]
    failed = tops.failed
    kinds = [
        FailureKind(
            one.name,
            one.rule,
            one.holds is not None,
            np.zeros(len(query), bool) if one.holds is None else one.holds & failed,
            np.full(len(query), np.nan) if one.evidence is None else one.evidence,
        )
        for one in judged
    ]
    explained = np.any([kind.holds for kind in kinds], axis=0)
    kinds.append(
        FailureKind(
            UNEXPLAINED,
            "no other kind holds",
            True,
            failed & ~explained,
            np.full(len(query), np.nan),
        )
    )
    return Failures(tuple(kinds), failed)


@dataclass(frozen=True)
class _Judged:
    """A rule's outcome; None where it cannot be judged."""

    name: str
    rule: str
    holds: Flags | None = None
    evidence: NDArray[np.float64] | None = None


@dataclass
class _Facts:
    """What the rules look at; `owner` and `image` are the pairs of a query and each of its counted matches."""

    query: FeatureSet
    gallery: FeatureSet
    tops: TopRankings
    owner: NDArray[np.int64] = field(init=False)
    image: NDArray[np.int64] = field(init=False)

    def __post_init__(self) -> None:
        row, column = IdentityIndex(self.gallery).pairs(self.query.identities)
        counts = ~ignored_pairs(self.query, self.gallery, row, column)
        self.owner, self.image = row[counts], column[counts]

    def column(self, name: str) -> tuple[NDArray, NDArray] | None:
        """A column of both sides' metadata, if both know it."""
        if name not in self.query.metadata or name not in self.gallery.metadata:
            return None
        return self.query.metadata[name], self.gallery.metadata[name]

    def of_matches(self, holds: Flags) -> NDArray[np.float64]:
        """Share of each query's matches that a flag of the pairs holds for, (Q,); NaN without a match."""
        count = np.bincount(self.owner, minlength=len(self.query))
        sums = np.bincount(self.owner, weights=holds, minlength=len(self.query))
        return np.divide(sums, count, out=np.full(len(count), np.nan), where=count > 0)


def _no_similar_view(facts: _Facts) -> _Judged:
    name = "no similar view"
    rule = f"none of the query's true matches has its `{VIEW}`; evidence: share of them that do"
    columns = facts.column(VIEW)
    if columns is None:
        return _Judged(name, rule)
    share = facts.of_matches(columns[0][facts.owner] == columns[1][facts.image])
    return _Judged(name, rule, share == 0, share)


def _no_near_match(facts: _Facts, rules: FailureRules) -> _Judged:
    distances = facts.tops.right_distance
    known = distances[np.isfinite(distances)]
    bound = np.quantile(known, rules.far_quantile) if len(known) else np.inf
    rule = (
        f"the nearest true match is farther ({bound:.3f}) than {100 * rules.far_quantile:g} % of all queries' "
        "nearest true matches; evidence: its distance"
    )
    return _Judged("no near match", rule, distances > bound, _finite(distances))


def _look_alike(facts: _Facts) -> _Judged:
    distances = facts.tops.right_distance
    known = distances[np.isfinite(distances)]
    bound = np.median(known) if len(known) else -np.inf
    rule = (
        f"the wrong image at rank 1 is nearer ({bound:.3f}) than half of all queries' nearest true matches; "
        "evidence: its distance"
    )
    wrong = facts.tops.wrong_distance
    return _Judged("look-alike", rule, wrong < bound, _finite(wrong))


def _occlusion(facts: _Facts, rules: FailureRules) -> _Judged:
    name = "occlusion"
    rule = f"`{OCCLUSION}` of the query, or of all true matches, is at least {rules.occlusion:g}; evidence: the query's"
    columns = facts.column(OCCLUSION)
    if columns is None:
        return _Judged(name, rule)
    all_hidden = facts.of_matches(columns[1][facts.image] >= rules.occlusion) == 1
    return _Judged(name, rule, (columns[0] >= rules.occlusion) | all_hidden, columns[0])


def _bad_crop(facts: _Facts, rules: FailureRules, shift: NDArray[np.integer] | None) -> _Judged:
    name = "bad crop"
    rule = (
        f"`{BOX_SCALE}` of the query lies outside {rules.box_low:g} … {rules.box_high:g}, or its parts lie strips "
        "higher or lower than those of its nearest true match; evidence: the scale, else the shift"
    )
    scale = facts.query.metadata.get(BOX_SCALE)
    holds = np.zeros(len(facts.query), bool)
    evidence: NDArray[np.float64] | None = None
    if shift is not None:
        holds, evidence = shift != 0, shift.astype(np.float64)
    if scale is not None:
        holds = holds | (scale < rules.box_low) | (scale > rules.box_high)
        evidence = scale
    return _Judged(name, rule) if evidence is None else _Judged(name, rule, holds, evidence)


def _camera_pair(facts: _Facts, rules: FailureRules, pairs: CameraPairs | None) -> _Judged:
    name = "camera pair"
    if pairs is None or not (pairs.queries >= rules.pair_queries).any():
        return _Judged(
            name,
            f"rank 1 from the query's camera to its matches' cameras is {100 * rules.pair_gap:g} points below the "
            f"mean of all pairs ({rules.pair_queries} queries at least)",
        )
    counted = pairs.queries >= rules.pair_queries
    mean = float(np.average(pairs.rank1[counted], weights=pairs.queries[counted]))
    rule = (
        f"rank 1 from the query's camera to its matches' cameras, mean over the matches, is at least "
        f"{100 * rules.pair_gap:g} points below the mean of all pairs ({100 * mean:.1f} %), of pairs with "
        f"{rules.pair_queries} queries at least; evidence: that mean"
    )
    row = np.searchsorted(pairs.query_cameras, facts.query.cameras[facts.owner])
    column = np.searchsorted(pairs.gallery_cameras, facts.gallery.cameras[facts.image])
    owner = facts.owner[counted[row, column]]
    rank1 = pairs.rank1[row, column][counted[row, column]]
    count = np.bincount(owner, minlength=len(facts.query))
    sums = np.bincount(owner, weights=rank1, minlength=len(facts.query))
    own = np.divide(sums, count, out=np.full(len(count), np.nan), where=count > 0)
    return _Judged(name, rule, own <= mean - rules.pair_gap, own)


def _finite(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(np.isfinite(values), values, np.nan)


def hardest_first(report: EvaluationReport) -> NDArray[np.int64]:
    """Rows of the queries that have a match: lowest AP first, then the one whose first match comes last."""
    rows = np.flatnonzero(report.valid)
    return rows[np.lexsort((-report.first_match[rows], report.ap[rows]))]


def hardest_table(
    query: FeatureSet,
    gallery: FeatureSet,
    report: EvaluationReport,
    tops: TopRankings,
    failures: Failures | None = None,
) -> Table:
    """Every query that has a match, hardest first (`hardest_first`)."""
    order = hardest_first(report)
    share = np.empty(len(report.ap))
    share[order] = np.arange(len(order)) / max(1, len(order) - 1)
    wrong, right = tops.nearest_wrong[order], tops.nearest_right[order]
    columns: Mapping[str, object] = {
        "query": names_of(query, order),
        "row": order,
        "identity": query.identities[order],
        "camera": query.cameras[order],
        "AP": report.ap[order],
        "percentile": 100 * share[order],
        "first match": report.first_match[order],
        "matches": report.matches[order],
        "margin": tops.margin[order],
        "nearest wrong": names_of(gallery, wrong),
        "wrong identity": facts_of(gallery.identities, wrong, NOBODY),
        "wrong distance": _finite(tops.wrong_distance[order]),
        "nearest right": names_of(gallery, right),
        "right distance": tops.right_distance[order],
        "kinds": [", ".join(failures.of(int(q))) if failures else "" for q in order],
    }
    note = (
        "margin = distance of the nearest wrong image − distance of the nearest right one: negative where rank 1 is "
        "wrong. percentile: share of the queries that are harder."
    )
    return Table("hardest_queries", columns, note)  # type: ignore[arg-type]
