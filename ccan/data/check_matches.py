"""Which queries can be answered at all, and why others cannot: the question asked most of every toolkit.

The rule of the protocol: a gallery image of the query's identity under the query's camera is ignored; where either
camera is unknown, only the query image itself is. Junk is ignored always.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ccan.data.listing import some
from ccan.data.problems import Problem, Severity, first_few
from ccan.data.records import DISTRACTOR, JUNK, UNKNOWN_CAMERA, ReIDDataset, Sample

CLASSIC = "what other toolkits call “All query identities do not appear in the gallery”"

_NAMES = (
    "identity and camera are read from file names such as 0002_c1s1_000451_03.jpg, from the folder's name, or from a "
    "table, as the layout says"
)
_NO_CAMERAS = (
    "if the cameras are not known, make them unknown: --options cameras=false for folders of people, otherwise list "
    "the images in a table with an empty camera (--dataset csv); then only the query image itself is ignored"
)


def problems_of_matches(dataset: ReIDDataset) -> Iterator[Problem]:
    """Queries to which the protocol leaves no match, by cause."""
    if not dataset.query or not dataset.gallery:
        return
    lost, hidden = unmatched_queries(dataset.query, dataset.gallery)
    count = len(dataset.query)
    severity: Severity = "error" if len(lost) + len(hidden) == count else "warning"
    fate = "no query is left" if severity == "error" else "such queries count in no average"
    if lost:
        offered = sorted({s.identity for s in dataset.gallery} - {JUNK})
        yield _missing(lost, offered, count, severity, fate)
    cameras = {
        s.camera for s in (*dataset.query, *dataset.gallery) if s.identity not in (JUNK, DISTRACTOR)
    }
    if hidden and len(cameras) == 1 and UNKNOWN_CAMERA not in cameras:
        yield _single_camera(cameras.pop())
    elif hidden:
        yield _hidden(hidden, count, severity, fate)
    if cameras == {UNKNOWN_CAMERA}:
        yield Problem(
            "note",
            "the cameras are not known",
            "only the query image itself is ignored, which is easier than the usual protocol; say so with results",
        )


def unmatched_queries(
    query: Sequence[Sample], gallery: Sequence[Sample]
) -> tuple[list[Sample], list[Sample]]:
    """Queries whose identity the gallery lacks, and queries that the protocol leaves no image of theirs."""
    offered: dict[int, list[Sample]] = {}
    for sample in gallery:
        if sample.identity != JUNK:
            offered.setdefault(sample.identity, []).append(sample)
    lost = [sample for sample in query if sample.identity not in offered]
    hidden = [
        sample
        for sample in query
        if sample.identity in offered
        and not any(is_match(sample, other) for other in offered[sample.identity])
    ]
    return lost, hidden


def is_match(query: Sample, other: Sample) -> bool:
    """Whether a gallery image of the query's identity counts as a match."""
    if UNKNOWN_CAMERA in (query.camera, other.camera):
        return query.path != other.path
    return query.camera != other.camera


def _missing(
    lost: Sequence[Sample],
    offered: Sequence[int],
    count: int,
    severity: Severity,
    fate: str,
) -> Problem:
    missing = sorted({sample.identity for sample in lost})
    return Problem(
        severity,
        f"{len(missing):,} query identities do not appear in the gallery, which leaves {len(lost):,} of {count:,} "
        f"queries without a match: {fate}; this is {CLASSIC}",
        _why_missing(missing, offered),
        first_few(f"identity {identity}" for identity in missing),
    )


def _why_missing(missing: Sequence[int], offered: Sequence[int]) -> str:
    apart = f"the query has {some(missing, 3)}, the gallery {some(offered, 3)}"
    if len(missing) == 1 or len(offered) == 1:
        return f"{apart}: if that is not so, the names were read otherwise than you think; {_NAMES}"
    return (
        f"{apart}: split the images of each person into query and gallery, not the people; or check the "
        f"names: {_NAMES}"
    )


def _single_camera(camera: int) -> Problem:
    return Problem(
        "error",
        f"single camera: every test image has camera {camera}, so every match is ignored; this is {CLASSIC}",
        f"{_NO_CAMERAS}; if they are, check how they were read: {_NAMES}",
    )


def _hidden(hidden: Sequence[Sample], count: int, severity: Severity, fate: str) -> Problem:
    return Problem(
        severity,
        f"{len(hidden):,} of {count:,} queries have no valid match: the gallery shows their identity only under the "
        f"query's own camera, or in the query image alone, which is ignored: {fate}; this is {CLASSIC}",
        f"add images of other cameras to the gallery; {_NO_CAMERAS}",
        first_few(sample.path.name for sample in hidden),
    )
