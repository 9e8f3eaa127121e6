"""Single shot: the gallery holds one random image of each person (CUHK03's classic protocol; CMC only).

Letters: R repeats, Q queries, B of them in a block, G gallery images, I gallery identities, D numbers of a descriptor.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ccan.data.records import JUNK, UNKNOWN_CAMERA
from ccan.errors import ConfigError, ProtocolError
from ccan.evaluation.conventions import cause_of_no_match
from ccan.evaluation.feature_set import FeatureSet
from ccan.evaluation.metrics import cumulative_matching
from ccan.evaluation.protocol import check_both_sides
from ccan.evaluation.ranking import Distance, DistanceTo
from ccan.evaluation.report import REPORTED_RANKS

Rule = Literal["classic", "toolkit"]

BLOCK = 1024
"""Queries whose distances exist at a time."""

_RULES: dict[Rule, str] = {
    "classic": "every gallery image of the query's camera is removed",
    "toolkit": "gallery images of the query's identity and camera are removed",
}


@dataclass(frozen=True, eq=False)
class SingleShotReport:
    """CMC over random galleries of one image a person.

    Attributes:
        first_match: (R, Q) position of the one match; -1 for a query that never has one, which no average counts.
        max_rank: length of `cmc`.
        conventions: the rules that the figures depend on, by name.
    """

    first_match: NDArray[np.int64]
    max_rank: int
    conventions: dict[str, str]

    @property
    def valid_queries(self) -> int:
        """Number of queries that have a match (the same in every repeat)."""
        return int((self.first_match[0] > 0).sum())

    @property
    def cmc_of_repeats(self) -> NDArray[np.float64]:
        """(R, max_rank) CMC of each repeat."""
        return np.stack(
            [
                cumulative_matching(row, self.max_rank, self.valid_queries)
                for row in self.first_match
            ]
        )

    @property
    def cmc(self) -> NDArray[np.float64]:
        """(max_rank,) mean over the repeats."""
        return self.cmc_of_repeats.mean(axis=0)

    @property
    def cmc_spread(self) -> NDArray[np.float64]:
        """(max_rank,) standard deviation over the repeats (divisor R - 1); NaN for a single one."""
        if len(self.first_match) < 2:
            return np.full(self.max_rank, np.nan)
        return self.cmc_of_repeats.std(axis=0, ddof=1)

    def rank(self, k: int) -> float:
        """Mean CMC at rank k, a share of 1; any k ≥ 1."""
        if k < 1:
            raise ConfigError(f"rank k must be at least 1, got {k}")
        found = (self.first_match > 0) & (self.first_match <= k)
        return float(found.sum()) / (len(self.first_match) * self.valid_queries)

    def to_dict(self) -> dict[str, Any]:
        """Mean and spread as plain JSON values; shares of 1, null for an unknown spread."""
        spread = self.cmc_spread
        known = {k: float(spread[k - 1]) for k in REPORTED_RANKS if k <= self.max_rank}
        return {
            **{f"rank{k}": self.rank(k) for k in REPORTED_RANKS},
            **{f"rank{k}_spread": None if math.isnan(v) else v for k, v in known.items()},
            "repeats": len(self.first_match),
            "valid_queries": self.valid_queries,
            "conventions": dict(self.conventions),
        }

    def summary(self) -> str:
        """A small table for people, in per cent."""
        shown = [k for k in REPORTED_RANKS if k <= self.max_rank] or [1]
        mean, spread = self.cmc, self.cmc_spread
        lines = [
            "".join(f"{f'rank{k}':>8}" for k in shown),
            "".join(f"{100 * mean[k - 1]:>8.2f}" for k in shown),
        ]
        if len(self.first_match) > 1:
            spreads = "".join(f"{100 * spread[k - 1]:>8.2f}" for k in shown)
            lines.append(f"{spreads}  standard deviation over {len(self.first_match)} repeats")
        lines.append(f"{self.valid_queries} of {self.first_match.shape[1]} queries have a match")
        return "\n".join(lines + [f"{name}: {rule}" for name, rule in self.conventions.items()])


def evaluate_single_shot(
    query: FeatureSet,
    gallery: FeatureSet,
    *,
    rule: Rule = "classic",
    repeats: int = 10,
    seed: int = 0,
    distance: Distance = "euclidean",
    max_rank: int = 50,
) -> SingleShotReport:
    """Draw one gallery image of each person, rank, and do so again; junk is left out.

    `classic`: no gallery image of the query's camera takes part, so that people are looked for in other views only
    (the protocol of CUHK03's 20 splits). `toolkit`: only images of the query's identity *and* camera are taken out, as
    in the multi-shot protocol; other people are then drawn from all cameras.

    A repeat gives every gallery image a random priority; of the images of a person that are allowed to a query, it
    meets the first. So one draw serves all queries of a camera, and the rules differ by what they allow only.
    Distractors (identity 0) are drawn like one person. Equal distances rank in gallery order.

    Args:
        query: Q images.
        gallery: G images.
        rule: see above; on one and the same distances they differ by several points.
        repeats: R random galleries.
        seed: of the draws.
        distance: as in `evaluate_features`.
        max_rank: length of the CMC curve.

    Raises: ProtocolError if a camera is unknown, a set is empty, or no query has a match; ConfigError for another rule
    or numbers out of range; otherwise as `evaluate_features`.
    """
    if rule not in _RULES:
        raise ConfigError(f"rule must be one of {', '.join(_RULES)}, got {rule!r}")
    numbers = (("repeats", repeats, 1), ("max_rank", max_rank, 1), ("seed", seed, 0))
    for name, value, least in numbers:
        if value < least:
            raise ConfigError(f"{name} must be at least {least}, got {value}")
    check_both_sides(query, gallery)
    _check_cameras(query, gallery)
    first = _first_matches(
        query, gallery.select(gallery.identities != JUNK), rule, repeats, seed, distance
    )
    if not (first > 0).any():
        raise ProtocolError(
            f"no query has a match in the gallery: {cause_of_no_match(query, gallery)}"
        )
    conventions = {
        "protocol": f"single shot, {rule}: {_RULES[rule]}",
        "distance": distance,
        "draws": f"{repeats} of one gallery image a person, seed {seed}",
        "ignored": f"junk (identity {JUNK})",
        "invalid queries": "count in no average",
        "ties": "gallery order",
    }
    return SingleShotReport(first, max_rank, conventions)


def _check_cameras(query: FeatureSet, gallery: FeatureSet) -> None:
    for side, part in (("query", query), ("gallery", gallery)):
        unknown = int((part.cameras == UNKNOWN_CAMERA).sum())
        if unknown:
            raise ProtocolError(
                f"single shot needs the camera of every image, but {unknown} {side} images have none "
                f"({UNKNOWN_CAMERA}); use the ordinary protocol"
            )


def _first_matches(
    query: FeatureSet, gallery: FeatureSet, rule: Rule, repeats: int, seed: int, distance: Distance
) -> NDArray[np.int64]:
    """(R, Q) position of each query's match in each repeat, -1 without one."""
    first = np.full((repeats, len(query)), -1, dtype=np.int64)
    if not len(gallery):
        return first
    generator = np.random.default_rng(seed)
    priorities = [generator.permutation(len(gallery)) for _ in range(repeats)]
    distance_to = DistanceTo(gallery.features, distance, query.features.dtype)
    for camera in np.unique(query.cameras):
        rows = np.flatnonzero(query.cameras == camera)
        draws = [_draw(gallery, int(camera), rule, priority) for priority in priorities]
        for start in range(0, len(rows), BLOCK):
            block = rows[start : start + BLOCK]
            part = query.select(block)
            values = distance_to(part.features).cpu().numpy()  # (B, G)
            for repeat, draw in enumerate(draws):
                first[repeat, block] = _positions(values, part.identities, draw)
    return first


@dataclass(frozen=True)
class _Draw:
    """One repeat's gallery for the queries of one camera.

    Attributes:
        identities: (I,) of the gallery, ascending.
        own: (I,) row of each person's image where it is the one looked for; -1 if only the camera itself has any.
        others: (I,) row of each person's image where it is somebody else; -1 if none is allowed.
    """

    identities: NDArray[np.int64]
    own: NDArray[np.int64]
    others: NDArray[np.int64]


def _draw(gallery: FeatureSet, camera: int, rule: Rule, priority: NDArray[np.int64]) -> _Draw:
    identities, person = np.unique(gallery.identities, return_inverse=True)

    def first_allowed(allowed: NDArray[np.bool_]) -> NDArray[np.int64]:
        rows = np.flatnonzero(allowed)
        drawn = np.full(len(identities), -1, dtype=np.int64)
        # Written from the last priority to the first: the first one stays.
        last_to_first = rows[np.argsort(-priority[rows])]
        drawn[person[last_to_first]] = last_to_first
        return drawn

    elsewhere = first_allowed(gallery.cameras != camera)
    everywhere = np.ones(len(gallery), dtype=np.bool_)
    return _Draw(
        identities, elsewhere, elsewhere if rule == "classic" else first_allowed(everywhere)
    )


def _positions(
    values: NDArray[np.floating[Any]], identities: NDArray[np.int64], draw: _Draw
) -> NDArray[np.int64]:
    """1-based position of each query's own image among everybody's, distances (B, G) → (B,); -1 without one."""
    place = np.searchsorted(draw.identities, identities).clip(max=len(draw.identities) - 1)
    own = np.where(draw.identities[place] == identities, draw.own[place], -1)  # (B,)
    drawn = draw.others >= 0
    columns = draw.others[drawn]  # (≤ I,)
    # (B, 1); what stands in rows without a match is dropped below.
    wanted = values[np.arange(len(values)), own][:, None]
    offered = values[:, columns]
    before = (offered < wanted) | ((offered == wanted) & (columns < own[:, None]))
    before &= draw.identities[drawn] != identities[:, None]
    return np.where(own >= 0, 1 + before.sum(axis=1), -1)
