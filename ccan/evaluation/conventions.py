"""The rules of an evaluation in words, as reports print them, and why no query may have a match."""

from __future__ import annotations

import numpy as np

from ccan.data.records import JUNK, UNKNOWN_CAMERA
from ccan.evaluation.feature_set import FeatureSet
from ccan.evaluation.metrics import APRule
from ccan.evaluation.ranking import Distance
from ccan.evaluation.rerank import ReRanking


def conventions_of(
    query: FeatureSet,
    gallery: FeatureSet,
    distance: Distance,
    ap: APRule,
    rerank: ReRanking | None,
) -> dict[str, str]:
    """The rules in words, by name, as reports print them."""
    conventions: dict[str, str] = {
        "distance": distance,
        "ap": ap,
        "ignored": ignored_in_words(query, gallery),
        "invalid queries": "count as 0" if ap == "trapezoid" else "count in no average",
        "ties": "gallery order",
    }
    if rerank is not None:
        conventions["distance"] = "squared_euclidean (fixed by the re-ranking)"
        conventions["re-ranking"] = (
            f"k-reciprocal (Zhong et al. 2017), k1 = {rerank.k1}, k2 = {rerank.k2}, λ = {rerank.weight:g}"
        )
    return conventions


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
