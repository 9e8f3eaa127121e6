"""Places of matches: exact with ties on both paths, the same in blocks of any size, and only from what is kept."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from ccan.evaluation import FeatureSet
from ccan.evaluation.blocks import match_positions, places_by_stable_sort, rank_in_blocks

Places = Callable[[torch.Tensor, np.ndarray, np.ndarray], np.ndarray]
PATHS: list[Places] = [match_positions, places_by_stable_sort]


def positions_by_sorting(distances: np.ndarray, row: np.ndarray, column: np.ndarray) -> list[int]:
    """Place of each match: one more than the images that are nearer, or as near and before it."""
    places = []
    for r, c in zip(row, column, strict=True):
        nearer = [d < distances[r, c] for d in distances[r]]
        equal_before = [d == distances[r, c] for d in distances[r, :c]]
        places.append(1 + sum(nearer) + sum(equal_before))
    return places


def random_case(generator: np.random.Generator, levels: int) -> tuple[np.ndarray, ...]:
    """Distances of so many different values, some infinite, and finite matches among them."""
    distances = generator.integers(0, levels, generator.integers(1, [8, 60])).astype(float)
    row, column = np.nonzero(generator.random(distances.shape) < 0.3)
    distances[generator.random(distances.shape) < 0.1] = np.inf
    kept = np.isfinite(distances[row, column])
    return distances, row[kept], column[kept]


@pytest.mark.parametrize("places", PATHS)
class TestMatchPositions:
    @pytest.mark.parametrize("levels", [1, 2, 5, 1000])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_exact_with_any_number_of_ties(self, places: Places, levels: int, dtype: torch.dtype):
        generator = np.random.default_rng(levels)
        for _ in range(20):
            distances, row, column = random_case(generator, levels)
            found = places(torch.tensor(distances, dtype=dtype), row, column)
            assert found.dtype == np.int64
            assert found.tolist() == positions_by_sorting(distances, row, column)

    def test_hand_values(self, places: Places):
        #                          4th  1st  2nd  3rd  out
        distances = torch.tensor([[3.0, 1.0, 2.0, 2.0, torch.inf], [0.0, 0.0, 0.0, 0.0, 0.0]])
        row, column = np.array([0, 0, 0, 1]), np.array([3, 0, 1, 4])
        assert places(distances, row, column).tolist() == [3, 4, 1, 5]

    def test_distances_are_left_as_they_were(self, places: Places):
        distances = torch.tensor([[3.0, 1.0, 2.0]])
        assert places(distances, np.array([0]), np.array([2])).tolist() == [2]
        assert distances.tolist() == [[3, 1, 2]]

    def test_no_match_at_all(self, places: Places):
        empty = np.empty(0, np.int64)
        assert places(torch.zeros(2, 3), empty, empty).tolist() == []


@pytest.mark.parametrize("wrong", ["reversed ties", "unstable ties", "from zero"])
def test_planted_orders_are_told_apart(wrong: str):
    generator = np.random.default_rng(3)
    told_apart = 0
    for _ in range(20):
        distances, row, column = random_case(generator, 5)
        order = np.argsort(distances, axis=1, kind="stable")
        if wrong == "reversed ties":
            order = np.argsort(-distances, axis=1, kind="stable")[:, ::-1]
        if wrong == "unstable ties":
            order = np.lexsort((generator.random(distances.shape), distances))
        place = np.argsort(order, axis=1) + (wrong != "from zero")
        told_apart += place[row, column].tolist() != positions_by_sorting(distances, row, column)
    assert told_apart > 15


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_any_number_of_threads_gives_the_same(threads: int):
    distances, row, column = random_case(np.random.default_rng(5), 7)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        found = match_positions(torch.tensor(distances), row, column)
    finally:
        torch.set_num_threads(before)
    assert found.tolist() == positions_by_sorting(distances, row, column)


# gallery place         a  b   c  d  e  f  g
GALLERY = FeatureSet(
    torch.zeros(7, 1),
    identities=[1, -1, 0, 1, 2, 1, 2],
    cameras=[1, 2, 2, 2, 1, 3, 2],
)
QUERY = FeatureSet(torch.zeros(5, 1), [1, 2, 3, 2, 1], [1, 1, 1, 2, 9])
DISTANCES = torch.tensor(
    [
        [0.0, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0],  # a ignored, b junk; c d e f g remain: d is 2nd, f 4th
        [9.0, 0.0, 8.0, 7.0, 0.0, 7.0, 7.0],  # e ignored; d f g c a remain, d f g as near: g is 3rd
        [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0],  # no match; six remain
        [5.0, 0.0, 4.0, 3.0, 2.0, 1.0, 0.0],  # g ignored; f e d c a remain: e is 2nd
        [5.0, 0.0, 4.0, 3.0, 2.0, 1.0, 0.0],  # g f e d c a: f is 2nd, d 4th, a 6th
    ]
)


@pytest.mark.parametrize("block", range(1, 7))
def test_hand_case_in_blocks_of_any_size(block: int):
    asked = []

    def distances(start: int, stop: int) -> torch.Tensor:
        asked.append((start, stop))
        return DISTANCES[start:stop].clone()

    matches, kept = rank_in_blocks(QUERY, GALLERY, distances, block)
    assert matches.query.tolist() == [0, 0, 1, 3, 4, 4, 4]
    assert matches.position.tolist() == [2, 4, 3, 2, 2, 4, 6]
    assert matches.queries == 5
    assert kept.tolist() == [5, 5, 6, 5, 6]
    assert [start for start, _ in asked] == list(range(0, 5, block))
    assert all(0 < stop - start <= block for start, stop in asked) and asked[-1][1] == 5


def test_unknown_cameras_go_by_the_names_of_the_right_queries():
    gallery = FeatureSet(torch.zeros(3, 1), [1, 1, 1], [-1, -1, -1], ["x", "y", "z"])
    query = FeatureSet(torch.zeros(3, 1), [1, 1, 1], [-1, -1, -1], ["z", "none", "x"])
    distances = torch.arange(9.0).reshape(3, 3)
    for block in (1, 2, 3):
        matches, kept = rank_in_blocks(query, gallery, lambda a, b: distances[a:b].clone(), block)
        assert matches.query.tolist() == [0, 0, 1, 1, 1, 2, 2]
        assert matches.position.tolist() == [1, 2, 1, 2, 3, 1, 2]
        assert kept.tolist() == [2, 3, 2]
