"""The evaluation protocol: every query against the gallery, in blocks, to one report (protocol of Market-1501).

Letters: Q queries, B of them in a block, G gallery images, D numbers of a descriptor.
"""

from __future__ import annotations

import numpy as np

from ccan.data.records import JUNK, UNKNOWN_CAMERA
from ccan.errors import ConfigError, ProtocolError
from ccan.evaluation.blocks import rank_in_blocks
from ccan.evaluation.feature_set import FeatureSet
from ccan.evaluation.metrics import (
    APRule,
    average_precision,
    check_ap_rule,
    first_match,
    inverse_negative_penalty,
)
from ccan.evaluation.ranking import Distance, DistanceTo
from ccan.evaluation.report import EvaluationReport

CMC_LENGTH = 50
"""Ranks of the CMC curve unless `max_rank` says otherwise."""

BLOCK_BYTES = 64 * 2**20
"""Size of a block of distances unless `block` says otherwise; a sorted copy of it is in use at the same time."""


def evaluate_features(
    query: FeatureSet,
    gallery: FeatureSet,
    *,
    distance: Distance = "euclidean",
    ap: APRule = "rank-sum",
    max_rank: int | None = None,
    block: int | None = None,
) -> EvaluationReport:
    """Rank the gallery for every query and average (CMC, mAP, mINP).

    Junk (identity -1) and images of the query's identity and camera are ignored for that query; where cameras are
    unknown (-1), only the image of the query's own name is. Distractors (identity 0) are ordinary negatives. A query
    without a match is invalid: it counts in no average (rank-sum rule), or as 0 (trapezoid rule, as in Matlab). Equal
    distances rank in gallery order. Distances are made and used up in blocks of queries; the Q×G matrix never exists.

    Args:
        query: Q images.
        gallery: G images; their features set the device of the work.
        distance: `euclidean` (paper), `squared_euclidean` or `cosine`.
        ap: `rank-sum` or `trapezoid` (Decision D14).
        max_rank: length of the CMC curve, 50 by default; one that was asked for and is beyond the smallest ranked
            gallery is a UserWarning.
        block: queries in a block; by default as many as give 64 MiB of distances. Results do not depend on it, up to
            the rounding of a matrix product.

    Raises: ProtocolError if a set is empty or no query has a match (with the cause), and as `pairwise_distance`;
    ShapeError if the widths differ; ConfigError for another distance, rule, or a number below 1.
    """
    report = judge(query, gallery, distance=distance, ap=ap, max_rank=max_rank, block=block)
    if not report.valid_queries:
        raise ProtocolError(
            f"no query has a match in the gallery: {cause_of_no_match(query, gallery)}"
        )
    if max_rank is not None:
        report.warn_beyond_gallery(max_rank)
    return report


def judge(
    query: FeatureSet,
    gallery: FeatureSet,
    *,
    distance: Distance = "euclidean",
    ap: APRule = "rank-sum",
    max_rank: int | None = None,
    block: int | None = None,
) -> EvaluationReport:
    """`evaluate_features` where it may be that no query has a match: the averages are NaN then. No warning either."""
    check_ap_rule(ap)
    for setting, value in (("max_rank", max_rank), ("block", block)):
        if value is not None and value < 1:
            raise ConfigError(f"{setting} must be at least 1, got {value}")
    check_both_sides(query, gallery)
    distance_to = DistanceTo(gallery.features, distance, query.features.dtype)
    block = block or max(1, BLOCK_BYTES // (len(gallery) * distance_to.norms.itemsize))
    matches, kept = rank_in_blocks(
        query, gallery, lambda start, stop: distance_to(query.features[start:stop]), block
    )
    return EvaluationReport(
        ap=average_precision(matches, ap),
        inp=inverse_negative_penalty(matches),
        first_match=first_match(matches),
        matches=matches.counts,
        kept=kept,
        identities=query.identities,
        cameras=query.cameras,
        names=query.names,
        max_rank=max_rank or CMC_LENGTH,
        conventions=_conventions(query, gallery, distance, ap),
        metadata=query.metadata,
    )


def check_both_sides(query: FeatureSet, gallery: FeatureSet) -> None:
    """Raises: ProtocolError if either set is empty."""
    if not len(query) or not len(gallery):
        raise ProtocolError(
            f"there must be images on both sides, got {len(query)} queries and {len(gallery)} "
            "gallery images; check the folder or the lists that they were read from"
        )


def _conventions(
    query: FeatureSet, gallery: FeatureSet, distance: Distance, ap: APRule
) -> dict[str, str]:
    """The rules in words, by name, as reports print them."""
    return {
        "distance": distance,
        "ap": ap,
        "ignored": ignored_in_words(query, gallery),
        "invalid queries": "count as 0" if ap == "trapezoid" else "count in no average",
        "ties": "gallery order",
    }


def ignored_in_words(query: FeatureSet, gallery: FeatureSet) -> str:
    """What a query's ranking leaves out, as reports print it."""
    cameras = np.concatenate([query.cameras, gallery.cameras])
    rules = ["junk (identity -1)"]
    if np.any(cameras != UNKNOWN_CAMERA):
        rules.append("same identity and camera")
    if np.any(cameras == UNKNOWN_CAMERA):
        named = query.names is not None and gallery.names is not None
        rules.append(
            "camera unknown: the query image itself, by name"
            if named
            else "camera unknown and no names: not even the query image itself"
        )
    return "; ".join(rules)


def cause_of_no_match(query: FeatureSet, gallery: FeatureSet) -> str:
    """Which of the usual causes leaves every query without a match, and what to do."""
    asked, offered = set(query.identities.tolist()), set(gallery.identities.tolist())
    names = "identity and camera are read from file names such as 0002_c1s1_000451_03.jpg"
    for side, identities in (("query", asked), ("gallery", offered)):
        if identities == {JUNK}:
            return (
                f"wrong file names: every {side} image has identity -1 (junk); {names}, so check "
                "that the names begin with the identity"
            )
    shared = (asked & offered) - {JUNK}
    if not shared:
        return (
            f"disjoint identities: the query has {_some(asked)}, the gallery {_some(offered)}; "
            f"check that both come from one test split, and that the names were read right ({names})"
        )
    cameras = set(query.cameras.tolist()) | set(gallery.cameras.tolist())
    if cameras == {UNKNOWN_CAMERA}:
        return (
            "each query identity has one image only, the query itself; put further images of "
            "these identities into the gallery"
        )
    if len(cameras) == 1:
        return (
            f"one camera only: every image has camera {min(cameras)}, and images of the query's own "
            "camera are ignored; if the cameras are not known, give camera -1 to all images"
        )
    return (
        f"{len(shared)} identities are on both sides, but each only under the query's own camera, "
        f"which is ignored; check the cameras ({names}), or give camera -1 to all images if "
        "they are not known"
    )


def _some(identities: set[int]) -> str:
    """How many identities, and the first few of them."""
    first = ", ".join(map(str, sorted(identities)[:3]))
    return f"{len(identities)} ({first}{', …' if len(identities) > 3 else ''})"
