"""What an evaluation found: per-query results, their averages, and the conventions that they depend on."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ccan.errors import ConfigError
from ccan.evaluation.feature_set import METADATA_PREFIX, row_numbers
from ccan.evaluation.metrics import cumulative_matching
from ccan.files import atomic_path, write_json

if TYPE_CHECKING:
    from ccan.evaluation.slices import Slice

REPORTED_RANKS = (1, 5, 10, 20)
"""Ranks that tables and JSON show."""

_ARRAYS = ("ap", "inp", "first_match", "matches", "kept", "identities", "cameras")


@dataclass(frozen=True, eq=False)
class EvaluationReport:
    """What an evaluation found. Arrays have one entry for each query, in the order of the query set.

    Attributes:
        ap: (Q,) average precision; NaN where the query is invalid, that is, has no match left.
        inp: (Q,) inverse negative penalty; NaN where invalid.
        first_match: (Q,) 1-based position of the first match; -1 where invalid.
        matches: (Q,) number of matches.
        kept: (Q,) gallery images that were ranked, that is, not ignored.
        identities, cameras, names: of the queries.
        max_rank: length of `cmc`.
        conventions: the rules that the figures depend on, by name.
        metadata: column → (Q,) values of the queries, which `slices` can go by.

    Averages are NaN where nothing is counted.
    """

    ap: NDArray[np.float64]
    inp: NDArray[np.float64]
    first_match: NDArray[np.int64]
    matches: NDArray[np.int64]
    kept: NDArray[np.int64]
    identities: NDArray[np.int64]
    cameras: NDArray[np.int64]
    names: tuple[str, ...] | None
    max_rank: int
    conventions: dict[str, str]
    metadata: Mapping[str, NDArray[Any]] = field(default_factory=dict[str, NDArray[Any]])

    @property
    def valid(self) -> NDArray[np.bool_]:
        """(Q,) which queries have a match."""
        return self.first_match > 0

    @property
    def valid_queries(self) -> int:
        """Number of queries that have a match."""
        return int(self.valid.sum())

    @property
    def counted_queries(self) -> int:
        """What averages divide by: the valid queries, or all of them under the trapezoid (Matlab) rule."""
        return len(self.ap) if self.conventions["ap"] == "trapezoid" else self.valid_queries

    @property
    def mAP(self) -> float:
        """Mean of `ap`, a share of 1."""
        return self._mean(self.ap)

    @property
    def mINP(self) -> float:
        """Mean of `inp`, a share of 1."""
        return self._mean(self.inp)

    def _mean(self, values: NDArray[np.float64]) -> float:
        return float(np.nansum(values)) / self.counted_queries if self.counted_queries else math.nan

    @property
    def cmc(self) -> NDArray[np.float64]:
        """(max_rank,) entry k-1 is the share of queries whose first match stands at position k or before."""
        if not self.counted_queries:
            return np.full(self.max_rank, np.nan)
        return cumulative_matching(self.first_match, self.max_rank, self.counted_queries)

    def rank(self, k: int) -> float:
        """CMC at rank k, a share of 1; any k ≥ 1, whatever `max_rank`. A k beyond the gallery is a UserWarning."""
        if k < 1:
            raise ConfigError(f"rank k must be at least 1, got {k}")
        self.warn_beyond_gallery(k)
        return self._share_within(k)

    def _share_within(self, k: int) -> float:
        return self._mean(np.where(self.valid, self.first_match <= k, np.nan))

    def select(self, rows: ArrayLike) -> EvaluationReport:
        """The same of these queries only: row numbers or a boolean mask."""
        chosen = row_numbers(rows, len(self.ap))
        arrays = {name: getattr(self, name)[chosen] for name in _ARRAYS}
        names = None if self.names is None else tuple(self.names[int(row)] for row in chosen)
        metadata = {column: values[chosen] for column, values in self.metadata.items()}
        return replace(self, names=names, metadata=metadata, **arrays)

    def slices(self, column: str) -> tuple[Slice, ...]:
        """The averages by query camera (`"camera"`) or by a column of metadata: `slices.slice_report`."""
        from ccan.evaluation.slices import slice_report

        return slice_report(self, column)

    def warn_beyond_gallery(self, k: int) -> None:
        """UserWarning if some valid query is ranked against fewer than k images."""
        shortest = int(self.kept[self.valid].min(initial=np.iinfo(np.int64).max))
        if k > shortest:
            warnings.warn(
                f"rank {k} is beyond the smallest gallery that a query is ranked against "
                f"({shortest} images); CMC stays at its last value there",
                stacklevel=3,
            )

    def to_dict(self, slices: Iterable[str] = ()) -> dict[str, Any]:
        """The averages as plain JSON values; shares of 1, not per cent. With `slices`, those by these columns too."""
        by_column = {column: [one.to_dict() for one in self.slices(column)] for column in slices}
        return {
            "mAP": self.mAP,
            "mINP": self.mINP,
            **{f"rank{k}": self._share_within(k) for k in REPORTED_RANKS},
            "valid_queries": self.valid_queries,
            "conventions": dict(self.conventions),
            **({"slices": by_column} if by_column else {}),
        }

    def summary(self) -> str:
        """A small table for people, in per cent."""
        values = self.to_dict()
        keys = ["mAP", "mINP", *(f"rank{k}" for k in REPORTED_RANKS)]
        lines = [
            "".join(f"{key:>8}" for key in keys),
            "".join(f"{100 * values[key]:>8.2f}" for key in keys),
            f"{self.valid_queries} of {len(self.ap)} queries have a match; "
            f"{self.kept.max()} gallery images at most are ranked for one",
        ]
        return "\n".join(lines + [f"{name}: {rule}" for name, rule in self.conventions.items()])

    def save_per_query(self, path: str | Path) -> None:
        """Write the per-query arrays, whole or not at all: `.npz`, or `.json` with null for NaN.

        Raises: ConfigError for another suffix.
        """
        path = Path(path)
        arrays: dict[str, NDArray[Any]] = {name: getattr(self, name) for name in _ARRAYS}
        if self.names is not None:
            arrays["names"] = np.array(self.names, dtype=str)
        arrays |= {METADATA_PREFIX + column: values for column, values in self.metadata.items()}
        if path.suffix == ".npz":
            with atomic_path(path) as temporary, temporary.open("wb") as file:
                np.savez_compressed(file, allow_pickle=False, **arrays)
        elif path.suffix == ".json":
            write_json(path, {name: _json_list(values) for name, values in arrays.items()})
        else:
            raise ConfigError(f"per-query results are written as .npz or .json, got {path.name!r}")


def join_reports(reports: Sequence[EvaluationReport]) -> EvaluationReport:
    """The queries of several evaluations of one gallery by one set of rules, one after the other.

    Raises: ConfigError if there is none, or if their rules differ.
    """
    if not reports:
        raise ConfigError("expected at least one report to join, got none")
    first = reports[0]
    if any(one.conventions != first.conventions for one in reports):
        raise ConfigError("expected reports by the same rules, got different conventions")
    arrays = {name: np.concatenate([getattr(one, name) for one in reports]) for name in _ARRAYS}
    named = all(one.names is not None for one in reports)
    names = tuple(name for one in reports for name in one.names or ()) if named else None
    metadata = {
        column: np.concatenate([one.metadata[column] for one in reports])
        for column in first.metadata
    }
    return replace(first, names=names, metadata=metadata, **arrays)


def _json_list(values: NDArray[Any]) -> list[Any]:
    """Plain values; NaN, which JSON does not know, becomes None."""
    return [None if value != value else value for value in values.tolist()]
