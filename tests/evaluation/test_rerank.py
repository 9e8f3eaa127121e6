"""k-reciprocal re-ranking: one case by hand, the dense loop twin, wrong rules planted on purpose, ties and extremes."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch

from ccan.errors import ConfigError, ProtocolError, ShapeError
from ccan.evaluation import FeatureSet, rerank
from ccan.evaluation.blocks import rank_in_blocks
from ccan.evaluation.metrics import average_precision
from ccan.evaluation.ranking import DistanceTo
from ccan.evaluation.rerank import ReRanking, reranked_distances
from tests.reference import rerank as twin


def nameless(features: torch.Tensor) -> FeatureSet:
    return FeatureSet(features, [1] * len(features), [1] * len(features))


def fast(
    query: torch.Tensor, gallery: torch.Tensor, settings: ReRanking, block: int = 3
) -> torch.Tensor:
    """The whole matrix, from blocks of a few queries."""
    distances = reranked_distances(nameless(query), nameless(gallery), settings)
    starts = range(0, len(query), block)
    return torch.cat([distances(start, min(start + block, len(query))) for start in starts])


def slow(query: torch.Tensor, gallery: torch.Tensor, settings: ReRanking) -> np.ndarray:
    rows, columns = query.double().tolist(), gallery.double().tolist()
    return np.array(twin.rerank(rows, columns, settings.k1, settings.k2, settings.weight))


def random_case(seed: int) -> tuple[torch.Tensor, torch.Tensor, ReRanking]:
    """Up to 23 images in float64, some near each other, and settings that may ask for more than there are."""
    generator = np.random.default_rng(seed)
    queries, size, width = generator.integers(1, [8, 17, 6])
    centres = generator.normal(size=(3, width))
    features = [
        torch.tensor(centres[generator.integers(0, 3, n)] + generator.normal(size=(n, width)))
        for n in (queries, size)
    ]
    k1, k2 = (int(k) for k in generator.integers(1, [12, 7]))
    return features[0], features[1], ReRanking(k1, k2, float(generator.random()))


def test_hand_case():
    """0 | 1 5 6 on a line: 0 and 1 are each other's nearest, 5 and 6 as well."""
    query, gallery = torch.tensor([[0.0]]), torch.tensor([[1.0], [5.0], [6.0]])
    found = fast(query.double(), gallery.double(), ReRanking(k1=1, k2=1, weight=0.3))
    from_query, from_match = math.exp(-1 / 36), math.exp(-1 / 25)  # the farthest are 6 and 5 away
    shared = from_match / (1 + from_match) + from_query / (1 + from_query)
    jaccard = 1 - shared / (2 - shared)
    expected = [0.7 * jaccard + 0.3 / 36, 0.7 + 0.3 * 25 / 36, 1.0]
    np.testing.assert_allclose(found, [expected], atol=1e-14)


def test_equal_to_the_loop_twin_in_float64():
    for seed in range(150):
        query, gallery, settings = random_case(seed)
        found = fast(query, gallery, settings)
        assert found.dtype == torch.float64
        np.testing.assert_allclose(found, slow(query, gallery, settings), atol=1e-12)


def test_equal_to_the_loop_twin_in_float32():
    for seed in range(1000, 1060):
        query, gallery, settings = random_case(seed)
        query, gallery = query.float(), gallery.float()
        found = fast(query, gallery, settings)
        assert found.dtype == torch.float32
        np.testing.assert_allclose(found, slow(query, gallery, settings), atol=1e-6)


def test_equal_to_the_loop_twin_with_copies_and_ties():
    """Whole numbers, whose distances are exact: equal ones rank by place, and an image is before its copies."""
    for seed in range(60):
        generator = np.random.default_rng(seed)
        features = torch.tensor(generator.integers(0, 3, (int(generator.integers(3, 31)), 2)))
        features = features.to((torch.float32, torch.float64)[seed % 2])
        settings = ReRanking(int(generator.integers(1, 8)), int(generator.integers(1, 5)))
        query, gallery = features[: len(features) // 3], features[len(features) // 3 :]
        if (features == features[0]).all():
            continue
        np.testing.assert_allclose(
            fast(query, gallery, settings), slow(query, gallery, settings), atol=1e-6
        )


# Each plant changes one rule, of the twin or of the package; random cases must tell it apart.


def at_least_two_thirds(ranked: list[list[int]], image: int, k1: int) -> set[int]:
    core = twin.reciprocal(ranked, image, k1 + 1)
    halves = [twin.reciprocal(ranked, member, k1 // 2 + 1) for member in core]
    return core.union(*(half for half in halves if 3 * len(half & core) >= 2 * len(half)))


def not_expanded(ranked: list[list[int]], image: int, k1: int) -> set[int]:
    return twin.reciprocal(ranked, image, k1 + 1)


def fully_expanded(ranked: list[list[int]], image: int, k1: int) -> set[int]:
    core = twin.reciprocal(ranked, image, k1 + 1)
    return core.union(*(twin.reciprocal(ranked, member, k1 // 2 + 1) for member in core))


def half_rounded_up(ranked: list[list[int]], image: int, k1: int) -> set[int]:
    core = twin.reciprocal(ranked, image, k1 + 1)
    halves = [twin.reciprocal(ranked, member, (k1 + 1) // 2 + 1) for member in core]
    return core.union(*(half for half in halves if 3 * len(half & core) > 2 * len(half)))


def itself_counted(ranked: list[list[int]], image: int, k1: int) -> set[int]:
    return EXPANDED(ranked, image, k1 - 1)


def one_sided(ranked: list[list[int]], image: int, count: int) -> set[int]:
    return set(ranked[image][:count])


def plain_distance(a: twin.Vector, b: twin.Vector) -> float:
    return math.dist(a, b)


EXPANDED = twin.expanded
PLANTS: list[tuple[str, Callable[..., object]]] = [
    ("expanded", at_least_two_thirds),
    ("expanded", not_expanded),
    ("expanded", fully_expanded),
    ("expanded", half_rounded_up),
    ("expanded", itself_counted),
    ("reciprocal", one_sided),
    ("squared", plain_distance),
]


def cases_that_differ() -> int:
    different = 0
    for seed in range(60):
        query, gallery, settings = random_case(seed)
        settings = ReRanking(max(2, settings.k1), settings.k2, 0.3)
        expected = slow(query, gallery, settings)
        different += not np.allclose(fast(query, gallery, settings), expected, atol=1e-6)
    return different


@pytest.mark.parametrize(
    ("place", "mistake"), PLANTS, ids=lambda value: getattr(value, "__name__", "")
)
def test_random_cases_reject_a_planted_rule(
    monkeypatch: pytest.MonkeyPatch, place: str, mistake: Callable[..., object]
):
    assert cases_that_differ() == 0
    monkeypatch.setattr(twin, place, mistake)
    assert cases_that_differ() > 5


def no_query_expansion(encoding, nearest):
    return encoding


def normalised_by_the_other_image(images, count, neighbours=rerank._neighbours):
    nearest, farthest = neighbours(images, count)
    return nearest, farthest.roll(1)


@pytest.mark.parametrize(
    ("place", "mistake"),
    [("_averaged", no_query_expansion), ("_neighbours", normalised_by_the_other_image)],
)
def test_random_cases_reject_a_planted_error(
    monkeypatch: pytest.MonkeyPatch, place: str, mistake: Callable[..., object]
):
    monkeypatch.setattr(rerank, place, mistake)
    assert cases_that_differ() > 30


@pytest.mark.parametrize("at_once", [1, 7, 1000])
def test_pieces_of_any_size_give_the_same(monkeypatch: pytest.MonkeyPatch, at_once: int):
    query, gallery, settings = random_case(29)
    expected = slow(query, gallery, settings)
    monkeypatch.setattr(rerank, "AT_ONCE", at_once)
    monkeypatch.setattr(rerank, "BLOCK_BYTES", 100 * at_once)
    for block in (1, 2, 99):
        found = fast(query, gallery, settings, block)
        np.testing.assert_allclose(found, expected, atol=1e-12)


def test_more_neighbours_than_images_are_all_images():
    query, gallery, _ = random_case(3)
    everyone = len(query) + len(gallery)
    expected = fast(query, gallery, ReRanking(everyone * 2 - 2, everyone))
    for beyond in (0, 3, 100):
        found = fast(query, gallery, ReRanking(everyone * 2 - 2 + beyond, everyone + beyond))
        assert torch.equal(found, expected)


def test_weight_one_is_the_original_distance_over_each_querys_largest():
    query, gallery, _ = random_case(4)
    images = torch.cat([query, gallery])
    squared = torch.cdist(query, images) ** 2
    expected = (squared / squared.amax(1, keepdim=True))[:, len(query) :]
    found = fast(query, gallery, ReRanking(weight=1))
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)


def test_distances_are_within_0_and_1_and_the_callers_own():
    query, gallery, settings = random_case(5)
    distances = reranked_distances(nameless(query), nameless(gallery), settings)
    before = distances(0, len(query)).clone()
    assert (before >= 0).all() and (before <= 1).all()
    distances(0, len(query)).fill_(torch.nan)
    assert torch.equal(distances(0, len(query)), before)


def test_rotating_and_permuting():
    query, gallery, settings = random_case(6)
    expected = fast(query, gallery, settings)
    turn = torch.linalg.qr(torch.tensor(np.random.default_rng(0).normal(size=[query.shape[1]] * 2)))
    rotated = fast(query @ turn.Q, gallery @ turn.Q, settings)
    torch.testing.assert_close(rotated, expected, atol=1e-10, rtol=0)
    order = torch.tensor(np.random.default_rng(1).permutation(len(gallery)))
    permuted = fast(query, gallery[order], settings)
    torch.testing.assert_close(permuted, expected[:, order], atol=1e-12, rtol=0)


def test_identical_images_and_zero_vectors_are_finite():
    same = fast(torch.ones(3, 5), torch.ones(41, 5), ReRanking(k1=7))
    assert torch.isfinite(same).all()
    one = fast(torch.zeros(1, 2), torch.zeros(1, 2), ReRanking())
    assert one.tolist() == [[0]]


def test_inputs_are_untouched_and_dtypes_may_differ():
    query, gallery, settings = random_case(7)
    before = query.clone(), gallery.clone()
    mixed = fast(query.float(), gallery, settings)
    assert mixed.dtype == torch.float64
    torch.testing.assert_close(mixed, fast(query, gallery, settings), atol=1e-4, rtol=0)
    assert torch.equal(query, before[0]) and torch.equal(gallery, before[1])


@pytest.mark.parametrize("levels", [1, 2, 5, 1000])
def test_the_smallest_of_a_row_with_ties(levels: int):
    generator = np.random.default_rng(levels)
    for _ in range(30):
        rows, columns = generator.integers(1, [100, 41])
        count = int(generator.integers(1, columns + 1))
        values = generator.integers(0, levels, (rows, columns)).astype(np.float32)
        expected = np.argsort(values, axis=1, kind="stable")[:, :count]
        found = rerank._smallest(torch.tensor(values), count)
        np.testing.assert_array_equal(found, expected)


def mean_ap(query: FeatureSet, gallery: FeatureSet, distances: rerank.BlockDistances) -> float:
    matches, _ = rank_in_blocks(query, gallery, distances, 10)
    return float(np.nanmean(average_precision(matches)))


def test_it_helps_where_images_of_a_person_are_neighbours():
    generator = torch.Generator().manual_seed(2)
    identities = torch.arange(1, 24).repeat(13)
    centres = torch.randn(24, 31, generator=generator)
    features = centres[identities] + 1.4 * torch.randn(299, 31, generator=generator)
    everyone = FeatureSet(features, identities, torch.arange(299) % 5)
    query, gallery = everyone.select(np.arange(46)), everyone.select(np.arange(46, 299))
    to_gallery = DistanceTo(gallery.features, "euclidean", torch.float32)
    plain = mean_ap(query, gallery, lambda a, b: to_gallery(query.features[a:b]))
    better = mean_ap(query, gallery, reranked_distances(query, gallery, ReRanking()))
    assert 0.3 < plain < 0.7
    assert better > plain + 0.05


def test_errors():
    with pytest.raises(ConfigError, match="k1 of the re-ranking must be at least 1, got 0"):
        ReRanking(k1=0)
    with pytest.raises(ConfigError, match="k2 of the re-ranking must be at least 1, got -2"):
        ReRanking(k2=-2)
    for weight in (-0.1, 1.1, math.nan):
        with pytest.raises(ConfigError, match=f"must be within 0 … 1, got {weight}"):
            ReRanking(weight=weight)
    with pytest.raises(ShapeError, match="same width D, got 3 and 2; were they made by"):
        fast(torch.zeros(1, 3), torch.zeros(1, 2), ReRanking())
    with pytest.raises(ProtocolError, match="squared length of gallery row 0 overflows"):
        fast(torch.full((1, 2), 1e30), torch.zeros(1, 2), ReRanking())
