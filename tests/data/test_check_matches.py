"""Queries without a match: the causes, each told apart, and agreement with the evaluation itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ccan.data.check_matches import CLASSIC, is_match, problems_of_matches, unmatched_queries
from ccan.data.problems import Problem
from ccan.data.records import ReIDDataset, Sample
from ccan.evaluation import FeatureSet, evaluate_features


def samples(*rows: tuple[int, int], prefix: str) -> tuple[Sample, ...]:
    """Identity and camera of each."""
    return tuple(Sample(Path(f"{prefix}{n}.jpg"), *row) for n, row in enumerate(rows))


def dataset(query: list[tuple[int, int]], gallery: list[tuple[int, int]]) -> ReIDDataset:
    return ReIDDataset(
        "tiny", Path(), (), samples(*query, prefix="q"), samples(*gallery, prefix="g")
    )


def found(query: list[tuple[int, int]], gallery: list[tuple[int, int]]) -> list[Problem]:
    return list(problems_of_matches(dataset(query, gallery)))


def test_nothing_is_wrong():
    assert found([(1, 1), (2, 2)], [(1, 2), (2, 1), (0, 1), (-1, 1)]) == []


def test_some_identities_are_missing():
    (problem,) = found([(1, 1), (7, 1), (7, 2), (9, 1)], [(1, 2), (2, 1), (3, 1)])
    assert problem.severity == "warning"
    assert problem.what.startswith(
        "2 query identities do not appear in the gallery, which leaves 3 of 4 queries without a match: such"
    )
    assert CLASSIC in problem.what
    assert "All query identities do not appear in the gallery" in CLASSIC
    assert problem.examples == ("identity 7", "identity 9")
    assert (
        "the query has 7, 9, the gallery 1, 2, 3: split the images of each person" in problem.advice
    )


def test_all_identities_are_missing():
    (problem,) = found([(7, 1), (9, 1)], [(1, 2), (2, 1), (0, 2)])
    assert problem.severity == "error"
    assert "no query is left" in problem.what


def test_junk_in_the_gallery_is_no_match():
    (problem,) = found([(-1, 1)], [(-1, 2), (2, 1)])
    assert "1 query identities do not appear" in problem.what


def test_one_identity_on_a_side_means_names_read_wrongly():
    (problem,) = found([(7, 1), (9, 1)], [(2024, 1), (2024, 2)])
    assert "the names were read otherwise than you think" in problem.advice


def test_one_camera_only():
    (problem,) = found([(1, 3), (2, 3)], [(1, 3), (2, 3), (0, 5), (-1, 4)])
    assert problem.severity == "error"
    assert problem.what.startswith("single camera: every test image has camera 3")
    assert CLASSIC in problem.what
    assert "cameras=false" in problem.advice


def test_one_camera_and_other_people():
    problems = found([(1, 3), (7, 3)], [(1, 3), (2, 3)])
    assert [p.severity for p in problems] == ["error", "error"]
    assert "1 query identities do not appear" in problems[0].what
    assert "single camera" in problems[1].what


def test_the_querys_own_camera_alone():
    (problem,) = found([(1, 3), (2, 3), (2, 1)], [(1, 3), (2, 3), (4, 1)])
    assert problem.severity == "warning"
    assert problem.what.startswith("2 of 3 queries have no valid match")
    assert problem.examples == ("q0.jpg", "q1.jpg")
    (problem,) = found([(1, 3), (2, 1)], [(1, 3), (2, 1), (2, 1)])
    assert (problem.severity, "no query is left" in problem.what) == ("error", True)


def test_unknown_cameras_are_a_note():
    (problem,) = found([(1, -1)], [(1, -1), (2, -1)])
    assert problem.severity == "note"
    assert problem.what == "the cameras are not known"


def test_the_query_image_itself_is_no_match():
    here = samples((1, -1), (2, -1), (2, -1), prefix="x")
    lost, hidden = unmatched_queries(here, here)
    assert (lost, hidden) == ([], [here[0]])
    assert not is_match(Sample(Path("a"), 1, 2), Sample(Path("a"), 1, -1))


@pytest.mark.parametrize(
    ("query", "other", "expected"),
    [
        ((1, 2), (1, 2), False),
        ((1, 2), (1, 3), True),
        ((1, -1), (1, 2), True),
        ((1, 2), (1, -1), True),
    ],
)
def test_what_counts_as_a_match(query: tuple[int, int], other: tuple[int, int], expected: bool):
    assert is_match(Sample(Path("a"), *query), Sample(Path("b"), *other)) == expected
    assert not is_match(Sample(Path("a"), *query), Sample(Path("a"), query[0], query[1]))


def test_an_empty_side_is_not_this_ones_business():
    assert found([], [(1, 1)]) == found([(1, 1)], []) == []


@pytest.mark.parametrize("seed", range(7))
def test_it_agrees_with_the_evaluation(seed: int):
    """The queries found here are those whose average precision the evaluation cannot give."""
    generator = np.random.default_rng(seed)

    def draw(count: int, prefix: str) -> tuple[Sample, ...]:
        people = generator.integers(-1, 13, count).tolist()
        cameras = generator.integers(-1 if seed % 2 else 1, 3, count).tolist()
        return samples(*zip(people, cameras, strict=True), prefix=prefix)

    gallery = draw(23, "g")
    query = tuple(s for s in (*draw(29, "q"), *gallery[:5]) if s.identity != -1)
    lost, hidden = unmatched_queries(query, gallery)

    def features(part: tuple[Sample, ...]) -> FeatureSet:
        return FeatureSet(
            generator.normal(size=(len(part), 3)),
            [s.identity for s in part],
            [s.camera for s in part],
            [str(s.path) for s in part],
        )

    ap = evaluate_features(features(query), features(gallery)).ap
    invalid = {s.path for s, value in zip(query, ap, strict=True) if np.isnan(value)}
    assert invalid == {s.path for s in (*lost, *hidden)}
    assert 0 < len(invalid) < len(query)
