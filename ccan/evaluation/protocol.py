"""The evaluation protocol: every query against the gallery, in blocks, to one report (protocol of Market-1501).

Letters: Q queries, B of them in a block, G gallery images, D numbers of a descriptor.
"""

from __future__ import annotations

import torch

from ccan.data.records import JUNK
from ccan.errors import ConfigError, ProtocolError
from ccan.evaluation.blocks import BLOCK_BYTES, BlockDistances, rank_in_blocks
from ccan.evaluation.conventions import cause_of_no_match, conventions_of
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
from ccan.evaluation.rerank import ReRanking, reranked_distances

CMC_LENGTH = 50
"""Ranks of the CMC curve unless `max_rank` says otherwise."""


def evaluate_features(
    query: FeatureSet,
    gallery: FeatureSet,
    *,
    distance: Distance = "euclidean",
    ap: APRule = "rank-sum",
    max_rank: int | None = None,
    rerank: ReRanking | None = None,
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
        rerank: re-rank by k-reciprocal neighbours first, with these settings; which squared Euclidean distances go
            into. Junk takes no part in the neighbourhoods.
        block: queries in a block; by default as many as give 256 MiB of distances. Results do not depend on it, up to
            the rounding of a matrix product.

    Raises: ProtocolError if a set is empty or no query has a match (with the cause), and as `pairwise_distance`;
    ShapeError if the widths differ; ConfigError for another distance, rule, or a number below 1, and for the cosine
    distance with re-ranking.
    """
    report = judge(
        query,
        gallery,
        distance=distance,
        ap=ap,
        max_rank=max_rank,
        rerank=rerank,
        block=block,
    )
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
    rerank: ReRanking | None = None,
    block: int | None = None,
) -> EvaluationReport:
    """`evaluate_features` where it may be that no query has a match: the averages are NaN then. No warning either."""
    check_ap_rule(ap)
    for setting, value in (("max_rank", max_rank), ("block", block)):
        if value is not None and value < 1:
            raise ConfigError(f"{setting} must be at least 1, got {value}")
    check_both_sides(query, gallery)
    if rerank is not None:
        gallery = _rerankable(gallery, distance)
    itemsize = torch.promote_types(query.features.dtype, gallery.features.dtype).itemsize
    block = block or max(1, BLOCK_BYTES // (len(gallery) * itemsize))
    distances = _block_distances(query, gallery, distance, rerank)
    matches, kept = rank_in_blocks(query, gallery, distances, block)
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
        conventions=conventions_of(query, gallery, distance, ap, rerank),
        metadata=query.metadata,
    )


def _rerankable(gallery: FeatureSet, distance: Distance) -> FeatureSet:
    """The gallery whose images may be neighbours. Raises: ConfigError for a distance that re-ranking does not use."""
    if distance not in ("euclidean", "squared_euclidean"):
        raise ConfigError(
            f"re-ranking uses squared Euclidean distances, got distance={distance!r}; leave it at euclidean, or "
            "normalise the features first, which gives the cosine's order"
        )
    counted = gallery.identities != JUNK
    return gallery.select(counted) if counted.any() else gallery


def _block_distances(
    query: FeatureSet, gallery: FeatureSet, distance: Distance, rerank: ReRanking | None
) -> BlockDistances:
    if rerank is not None:
        return reranked_distances(query, gallery, rerank)
    distance_to = DistanceTo(gallery.features, distance, query.features.dtype)
    return lambda start, stop: distance_to(query.features[start:stop])


def check_both_sides(query: FeatureSet, gallery: FeatureSet) -> None:
    """Raises: ProtocolError if either set is empty."""
    if not len(query) or not len(gallery):
        raise ProtocolError(
            f"there must be images on both sides, got {len(query)} queries and {len(gallery)} "
            "gallery images; check the folder or the lists that they were read from"
        )
