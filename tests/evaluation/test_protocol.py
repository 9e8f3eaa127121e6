"""The whole evaluation: one case by hand, the loop twin on random cases, planted errors, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction as F

import numpy as np
import pytest
import torch

from ccan.errors import ConfigError, ProtocolError, ShapeError
from ccan.evaluation import EvaluationReport, FeatureSet, blocks, evaluate_features, protocol
from ccan.evaluation.metrics import APRule, MatchPositions
from ccan.evaluation.ranking import DISTANCES, Distance
from ccan.evaluation.rerank import ReRanking, reranked_distances
from tests.reference import evaluation as twin

# Images on a line, so that distances can be read off.
# gallery place            a   b   c   d   e   f   g   h
HAND_GALLERY = FeatureSet(
    np.array([[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 6.0, 7.0]]).T,
    identities=[1, -1, 0, 1, 2, 2, 1, 2],
    cameras=[1, 2, 2, 2, 1, 3, 3, 2],
)
# From 0, as person 1 in camera 1: a is ignored (same camera), b is junk; c d e f g h remain, matches d = 2, g = 5.
# From 10, as person 2 in camera 2: h is ignored, b is junk; f g e d c a remain, matches f = 1, e = 3.
# Person 3 is not in the gallery.
HAND_QUERY = FeatureSet([[0.0], [10.0], [5.0]], identities=[1, 2, 3], cameras=[1, 2, 1])


def check_hand_case(evaluate: Callable[..., EvaluationReport] = evaluate_features) -> None:
    """The values that the comments above give, as fractions."""
    report = evaluate(HAND_QUERY, HAND_GALLERY)
    ap = [(F(1, 2) + F(2, 5)) / 2, (1 + F(2, 3)) / 2]
    np.testing.assert_allclose(report.ap, [*map(float, ap), np.nan], atol=1e-15)
    np.testing.assert_allclose(report.inp, [2 / 5, 2 / 3, np.nan], atol=1e-15)
    assert report.first_match.tolist() == [2, 1, -1]
    assert report.kept.tolist() == [6, 6, 7]
    assert report.matches.tolist() == [2, 2, 0]
    assert report.valid.tolist() == [True, True, False]
    assert report.valid_queries == 2
    assert report.mAP == pytest.approx(77 / 120, abs=1e-15)
    assert report.mINP == pytest.approx(8 / 15, abs=1e-15)
    np.testing.assert_array_equal(report.cmc, [1 / 2, *[1.0] * 49])
    assert [report.rank(k) for k in (1, 2, 5)] == [1 / 2, 1, 1]


def test_hand_case():
    check_hand_case()


def test_hand_case_by_the_trapezoid_rule_counts_the_invalid_query_as_zero():
    report = evaluate_features(HAND_QUERY, HAND_GALLERY, ap="trapezoid", max_rank=6)
    np.testing.assert_allclose(report.ap, [23 / 80, 19 / 24, np.nan], atol=1e-15)
    assert report.mAP == pytest.approx(259 / 720, abs=1e-15)
    assert report.mINP == pytest.approx(16 / 45, abs=1e-15)
    np.testing.assert_allclose(report.cmc, [1 / 3, 2 / 3, 2 / 3, 2 / 3, 2 / 3, 2 / 3], atol=1e-15)
    assert report.conventions["ap"] == "trapezoid"
    assert report.conventions["invalid queries"] == "count as 0"


# Each plant is a mistake that toolkits or hurried people make; the hand case must notice every one of them.


def no_camera_filter(query: FeatureSet, gallery: FeatureSet, row, column):
    return gallery.identities[column] == -1


def everything_of_the_identity_ignored(query: FeatureSet, gallery: FeatureSet, row, column):
    return query.identities[row] == gallery.identities[column]


def ties_in_reverse_order(distances: torch.Tensor, row, column):
    order = torch.argsort(distances.flip(1), dim=1, stable=True)
    places = torch.argsort(order, dim=1).flip(1)
    return places[torch.as_tensor(row), torch.as_tensor(column)].numpy() + 1


def positions_from_zero(distances: torch.Tensor, row, column):
    places = torch.argsort(torch.argsort(distances, dim=1, stable=True), dim=1)
    return np.maximum(1, places[torch.as_tensor(row), torch.as_tensor(column)].numpy())


def without_distractors(query: FeatureSet, gallery: FeatureSet, **settings) -> EvaluationReport:
    return evaluate_features(query, gallery.select(gallery.identities != 0), **settings)


def junk_as_negatives(query: FeatureSet, gallery: FeatureSet, **settings) -> EvaluationReport:
    identities = np.where(gallery.identities == -1, 999, gallery.identities)
    gallery = FeatureSet(gallery.features, identities, gallery.cameras)
    return evaluate_features(query, gallery, **settings)


def whole_camera_ignored(query: FeatureSet, gallery: FeatureSet, **settings) -> EvaluationReport:
    reports = [
        protocol.judge(query.select([n]), gallery.select(gallery.cameras != camera), **settings)
        for n, camera in enumerate(query.cameras)
    ]
    names = ("ap", "inp", "first_match", "matches", "kept", "identities", "cameras")
    arrays = {name: np.concatenate([getattr(one, name) for one in reports]) for name in names}
    return replace(reports[0], **arrays)


def invalid_as_zero(matches: MatchPositions, rule: APRule) -> np.ndarray:
    return np.nan_to_num(protocol_average_precision(matches, rule))


def precision_at_last_match(matches: MatchPositions, rule: APRule) -> np.ndarray:
    return protocol.inverse_negative_penalty(matches)


def mean_position_for_inp(matches: MatchPositions) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        means = np.bincount(matches.query, matches.position) / matches.counts[:2]
    return np.append(matches.counts[:2] / means, np.nan)


def last_instead_of_first(matches: MatchPositions) -> np.ndarray:
    last = np.full(matches.queries, -1)
    last[matches.query] = matches.position
    return last


protocol_average_precision = protocol.average_precision

PLANTS: list[tuple[str, Callable[..., object]]] = [
    ("ignored_pairs", no_camera_filter),
    ("ignored_pairs", everything_of_the_identity_ignored),
    ("match_positions", ties_in_reverse_order),
    ("match_positions", positions_from_zero),
    ("average_precision", invalid_as_zero),
    ("average_precision", precision_at_last_match),
    ("inverse_negative_penalty", mean_position_for_inp),
    ("first_match", last_instead_of_first),
]


@pytest.mark.parametrize(
    ("place", "mistake"), PLANTS, ids=lambda value: getattr(value, "__name__", "")
)
def test_the_hand_case_rejects_a_planted_error(
    monkeypatch: pytest.MonkeyPatch, place: str, mistake: Callable[..., object]
):
    home = blocks if place in ("ignored_pairs", "match_positions") else protocol
    monkeypatch.setattr(home, place, mistake)
    with pytest.raises((AssertionError, ProtocolError)):
        check_hand_case()


@pytest.mark.parametrize("mistake", [without_distractors, junk_as_negatives, whole_camera_ignored])
def test_the_hand_case_rejects_a_planted_gallery(mistake: Callable[..., EvaluationReport]):
    with pytest.raises(AssertionError):
        check_hand_case(mistake)


def images(
    generator: np.random.Generator, count: int, identities: list[int], cameras: list[int]
) -> list[twin.Image]:
    """Random images on a small integer grid, so that ties are many and every distance is exact."""
    return [
        twin.Image(
            generator.integers(-2, 3, 3).tolist(),
            int(generator.choice(identities)),
            int(generator.choice(cameras)),
            f"image{generator.integers(12)}",
        )
        for _ in range(count)
    ]


def as_set(sample: list[twin.Image], dtype: torch.dtype, named: bool = True) -> FeatureSet:
    return FeatureSet(
        torch.tensor([image.feature for image in sample], dtype=dtype),
        [image.identity for image in sample],
        [image.camera for image in sample],
        [str(image.name) for image in sample] if named else None,
    )


def check_against_twin(
    query: list[twin.Image], gallery: list[twin.Image], report: EvaluationReport, kind: str
) -> None:
    scores = [twin.score(image, gallery, kind) for image in query]
    trapezoid = report.conventions["ap"] == "trapezoid"
    ap = [score.trapezoid_ap if trapezoid else score.ap for score in scores]
    inp = [score.inp for score in scores]
    for found, expected in ((report.ap, ap), (report.inp, inp)):
        np.testing.assert_allclose(found, np.array(expected, float), atol=1e-12)
    assert report.first_match.tolist() == [s.positions[0] if s.positions else -1 for s in scores]
    assert report.matches.tolist() == [len(s.positions) for s in scores]
    assert report.kept.tolist() == [s.kept for s in scores]
    assert report.mAP == pytest.approx(twin.mean(ap, trapezoid), abs=1e-12)
    assert report.mINP == pytest.approx(twin.mean(inp, trapezoid), abs=1e-12)
    expected_cmc = [twin.cmc(scores, k, trapezoid) for k in range(1, report.max_rank + 1)]
    np.testing.assert_allclose(report.cmc, expected_cmc, atol=1e-12)


@pytest.mark.parametrize("batch", range(10))
@pytest.mark.parametrize("ap", ["rank-sum", "trapezoid"])
def test_equal_to_the_loop_twin_on_random_cases(ap, batch: int):
    """2,000 cases in all: ties, junk, distractors, unknown cameras, no match, galleries of one image and more."""
    generator = np.random.default_rng([batch, len(ap)])
    refused = 0
    for case in range(100):
        cameras = [[1, 2, 3], [1, 2, 3, -1], [-1], [7, 15]][case % 4]
        people = [1, 2, 3, 4][: 1 + case % 5]
        query = images(generator, int(generator.integers(1, 9)), people, cameras)
        gallery = images(generator, int(generator.integers(1, 30)), [-1, 0, 1, 2, 3], cameras)
        dtype = (torch.float32, torch.float64)[case % 2]
        kind: Distance = ("euclidean", "squared_euclidean")[case // 2 % 2]
        settings = {"ap": ap, "distance": kind, "block": int(generator.integers(1, 10))}
        if not any(twin.score(image, gallery).positions for image in query):
            refused += 1
            with pytest.raises(ProtocolError, match="no query has a match"):
                evaluate_features(as_set(query, dtype), as_set(gallery, dtype), **settings)
            continue
        report = evaluate_features(as_set(query, dtype), as_set(gallery, dtype), **settings)
        check_against_twin(query, gallery, report, kind)
    assert refused < 50


@pytest.mark.parametrize("kind", DISTANCES)
def test_equal_to_the_loop_twin_without_ties(kind: Distance):
    generator = np.random.default_rng(7)
    for _ in range(20):
        query = images(generator, 7, [1, 2, 3], [1, 2, 3])
        gallery = images(generator, 41, [-1, 0, 1, 2, 3], [1, 2, 3])
        for sample in (query, gallery):
            sample[:] = [
                replace(image, feature=generator.normal(size=5).tolist()) for image in sample
            ]
        report = evaluate_features(
            as_set(query, torch.float64), as_set(gallery, torch.float64), distance=kind
        )
        check_against_twin(query, gallery, report, kind)


def world(seed: int, queries: int = 23, size: int = 211, width: int = 17) -> list[FeatureSet]:
    """Query and gallery with real-valued features near their identity's centre."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(7, width, generator=generator)
    sets: list[FeatureSet] = []
    for count in (queries, size):
        identities = torch.randint(1, 7, (count,), generator=generator)
        features = centres[identities] + 1.5 * torch.randn(count, width, generator=generator)
        cameras = torch.randint(1, 6, (count,), generator=generator)
        sets.append(FeatureSet(features, identities, cameras))
    return sets


def test_permuting_the_gallery_changes_nothing_without_ties():
    query, gallery = world(1)
    expected = evaluate_features(query, gallery)
    for seed in range(5):
        shuffled = gallery.select(
            torch.randperm(len(gallery), generator=torch.Generator().manual_seed(seed))
        )
        report = evaluate_features(query, shuffled)
        np.testing.assert_allclose(report.ap, expected.ap, atol=1e-12)
        np.testing.assert_array_equal(report.cmc, expected.cmc)
        assert report.mINP == pytest.approx(expected.mINP, abs=1e-12)


def test_permuting_the_queries_permutes_their_results():
    query, gallery = world(2)
    order = np.random.default_rng(0).permutation(len(query))
    straight, permuted = (
        evaluate_features(probes, gallery) for probes in (query, query.select(order))
    )
    for name in ("ap", "inp", "first_match", "matches", "kept", "identities", "cameras"):
        np.testing.assert_array_equal(getattr(permuted, name), getattr(straight, name)[order])


@pytest.mark.parametrize("block", [1, 2, 22, 23, 1000])
def test_the_size_of_a_block_does_not_matter(block: int):
    query, gallery = (replace_features(part, part.features.double()) for part in world(3))
    expected, report = (
        evaluate_features(query, gallery),
        evaluate_features(query, gallery, block=block),
    )
    np.testing.assert_array_equal(report.ap, expected.ap)
    np.testing.assert_array_equal(report.first_match, expected.first_match)
    np.testing.assert_array_equal(report.kept, expected.kept)


def replace_features(part: FeatureSet, features: torch.Tensor) -> FeatureSet:
    return FeatureSet(features, part.identities, part.cameras, part.names)


def test_float64_is_kept():
    """Two gallery images closer together than float32 can tell: rounding would swap them into a tie."""
    probe = FeatureSet(torch.tensor([[0.0]], dtype=torch.float64), [1], [1])
    near, nearer = 1.0 + 1e-12, 1.0
    features = torch.tensor([[near], [nearer]], dtype=torch.float64)
    gallery = FeatureSet(features, [2, 1], [2, 2])
    assert evaluate_features(probe, gallery).first_match.tolist() == [1]
    narrow = replace_features(gallery, features.float())
    assert evaluate_features(
        replace_features(probe, probe.features.float()), narrow
    ).first_match.tolist() == [2]


def test_features_are_never_renormalised():
    query = FeatureSet([[1.0, 0.0]], [1], [1])
    gallery = FeatureSet([[9.0, 0.0], [1.0, 1.0]], [1, 2], [2, 2])
    assert evaluate_features(query, gallery).first_match.tolist() == [2]
    assert evaluate_features(query, gallery, distance="cosine").first_match.tolist() == [1]


def test_extremes_all_features_alike_and_everything_a_match():
    gallery = FeatureSet(torch.zeros(97, 3), [1] * 97, [2] * 97)
    report = evaluate_features(FeatureSet(torch.zeros(5, 3), [1] * 5, [1] * 5), gallery, block=2)
    assert report.mAP == report.mINP == report.rank(1) == 1
    assert report.matches.tolist() == [97] * 5


def test_a_k_beyond_the_gallery_is_a_warning_and_not_a_crash():
    with pytest.warns(UserWarning, match=r"rank 7 is beyond the smallest gallery .* \(6 images\)"):
        report = evaluate_features(HAND_QUERY, HAND_GALLERY, max_rank=7)
    np.testing.assert_array_equal(report.cmc, [1 / 2, *[1.0] * 6])
    with pytest.warns(UserWarning, match="rank 100 is beyond"):
        assert report.rank(100) == 1
    assert report.to_dict()["rank20"] == 1  # a table asks for ranks that nobody chose: no warning


class TestUnknownCameras:
    QUERY = FeatureSet([[0.0], [9.0]], [1, 2], [-1, -1], ["a.jpg", "d.jpg"])
    GALLERY = FeatureSet(
        [[0.0], [1.0], [2.0], [9.0], [8.0]],
        [1, 2, 1, 2, 1],
        [-1] * 5,
        ["a.jpg", "b.jpg", "c.jpg", "d.jpg", "e.jpg"],
    )

    def test_only_the_query_image_itself_is_ignored(self):
        report = evaluate_features(self.QUERY, self.GALLERY)
        assert report.kept.tolist() == [4, 4]
        assert report.first_match.tolist() == [2, 3]
        assert "the query image itself, by name" in report.conventions["ignored"]
        assert "same identity and camera" not in report.conventions["ignored"]

    def test_without_names_nothing_can_be_ignored_and_the_report_says_so(self):
        nameless = [
            FeatureSet(part.features, part.identities, part.cameras)
            for part in (self.QUERY, self.GALLERY)
        ]
        report = evaluate_features(*nameless)
        assert report.kept.tolist() == [5, 5]
        assert "not even the query image itself" in report.conventions["ignored"]


def one_camera() -> list[FeatureSet]:
    return [FeatureSet(torch.eye(2), [1, 2], [4, 4]), FeatureSet(torch.eye(2), [1, 2], [4, 4])]


CAUSES = {
    "one camera only: every image has camera 4, .* give camera -1": one_camera(),
    "wrong file names: every gallery image has identity -1": [
        FeatureSet(torch.eye(2), [1, 2], [1, 1]),
        FeatureSet(torch.eye(2), [-1, -1], [2, 2]),
    ],
    "wrong file names: every query image has identity -1": [
        FeatureSet(torch.eye(2), [-1, -1], [1, 1]),
        FeatureSet(torch.eye(2), [1, -1], [2, 2]),
    ],
    r"disjoint identities: the query has 4 \(1, 2, 3, …\), the gallery 2 \(0, 8\)": [
        FeatureSet(torch.eye(4), [1, 2, 3, 4], [1, 1, 1, 1]),
        FeatureSet(torch.eye(4), [8, 0, 8, 0], [2, 2, 2, 2]),
    ],
    "2 identities are on both sides, but each only under the query's own camera": [
        FeatureSet(torch.eye(2), [1, 2], [1, 2]),
        FeatureSet(torch.eye(2), [1, 2], [1, 2]),
    ],
    "one image only, the query itself; put further images": [
        FeatureSet(torch.eye(2), [1, 2], [-1, -1], ["a", "b"]),
        FeatureSet(torch.eye(2), [1, 2], [-1, -1], ["a", "b"]),
    ],
}


@pytest.mark.parametrize("cause", CAUSES)
def test_no_match_at_all_is_an_error_that_names_its_cause(cause: str):
    with pytest.raises(ProtocolError, match=f"no query has a match in the gallery: .*{cause}"):
        evaluate_features(*CAUSES[cause])


def test_what_is_refused():
    query, gallery = HAND_QUERY, HAND_GALLERY
    empty = FeatureSet(torch.zeros(0, 1), [], [])
    for sets, numbers in (
        ((empty, gallery), "0 queries and 8"),
        ((query, empty), "3 queries and 0"),
    ):
        with pytest.raises(
            ProtocolError, match=f"images on both sides, got {numbers} gallery images"
        ):
            evaluate_features(*sets)
    wide = FeatureSet(torch.zeros(8, 2), gallery.identities, gallery.cameras)
    with pytest.raises(ShapeError, match="same width D, got 1 and 2"):
        evaluate_features(query, wide)
    with pytest.raises(ConfigError, match="max_rank must be at least 1, got 0"):
        evaluate_features(query, gallery, max_rank=0)
    with pytest.raises(ConfigError, match="block must be at least 1, got -3"):
        evaluate_features(query, gallery, block=-3)
    with pytest.raises(ConfigError, match="ap must be one of"):
        evaluate_features(query, gallery, ap="matlab")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="distance must be one of"):
        evaluate_features(query, gallery, distance="l1")  # type: ignore[arg-type]


class TestReRanking:
    SETTINGS = ReRanking(k1=7, k2=3, weight=0.3)

    def test_ranks_are_those_of_the_reranked_distances_under_the_same_rule(self):
        """Junk, own views and invalid queries as ever: a loop over the dense matrix of re-ranked distances."""
        query, gallery = world(4)
        junk = np.where(np.arange(len(gallery)) % 7 == 3, -1, gallery.identities)
        gallery = FeatureSet(gallery.features, junk, gallery.cameras)
        query = FeatureSet(query.features, [99, *query.identities[1:]], query.cameras)
        report = evaluate_features(query, gallery, rerank=self.SETTINGS, block=5)
        kept = gallery.select(gallery.identities != -1)
        matrix = reranked_distances(query, kept, self.SETTINGS)(0, len(query)).numpy()
        for row in range(len(query)):
            same = kept.identities == query.identities[row]
            counted = ~(same & (kept.cameras == query.cameras[row]))
            order = np.argsort(matrix[row][counted], kind="stable")
            places = np.flatnonzero(same[counted][order]) + 1
            assert report.matches[row] == len(places)
            assert report.first_match[row] == (places[0] if len(places) else -1)
            if len(places):
                expected = np.mean(np.arange(1, len(places) + 1) / places)
                assert report.ap[row] == pytest.approx(expected, abs=1e-12)
        assert report.kept.tolist() == evaluate_features(query, gallery).kept.tolist()
        assert not np.allclose(report.ap[1:], evaluate_features(query, gallery).ap[1:])

    def test_junk_is_in_nobodys_neighbourhood(self):
        query, gallery = world(5)
        junk = FeatureSet(gallery.features[:50] + 0.01, [-1] * 50, [1] * 50)
        both = FeatureSet(
            torch.cat([junk.features, gallery.features]),
            np.concatenate([junk.identities, gallery.identities]),
            np.concatenate([junk.cameras, gallery.cameras]),
        )
        expected, report = (
            evaluate_features(query, part, rerank=self.SETTINGS) for part in (gallery, both)
        )
        np.testing.assert_array_equal(report.first_match, expected.first_match)
        np.testing.assert_array_equal(report.ap, expected.ap)
        with pytest.raises(ProtocolError, match="every gallery image has identity -1"):
            evaluate_features(query, junk, rerank=self.SETTINGS)

    def test_the_weight_of_one_keeps_the_ranking(self):
        query, gallery = (replace_features(part, part.features.double()) for part in world(6))
        report = evaluate_features(query, gallery, rerank=ReRanking(weight=1.0))
        np.testing.assert_allclose(report.ap, evaluate_features(query, gallery).ap, atol=1e-12)

    def test_the_report_names_variant_and_numbers(self):
        query, gallery = world(7)
        report = evaluate_features(query, gallery, rerank=self.SETTINGS)
        assert report.conventions["distance"] == "squared_euclidean (fixed by the re-ranking)"
        assert report.conventions["re-ranking"] == (
            "k-reciprocal (Zhong et al. 2017), k1 = 7, k2 = 3, λ = 0.3"
        )
        assert "re-ranking" not in evaluate_features(query, gallery).conventions
        with pytest.raises(
            ConfigError, match="uses squared Euclidean distances, got distance='cos"
        ):
            evaluate_features(query, gallery, rerank=self.SETTINGS, distance="cosine")


def test_another_dataset_is_just_another_gallery():
    """Cross-domain: identities and cameras of a dataset mean what they mean there, whatever the model has learnt."""
    query, gallery = world(8)
    shifted = [
        FeatureSet(part.features, part.identities + 5000, part.cameras + 20)
        for part in (query, gallery)
    ]
    np.testing.assert_array_equal(
        evaluate_features(*shifted).ap, evaluate_features(query, gallery).ap
    )
    with pytest.raises(ProtocolError, match="disjoint identities: the query has 6"):
        evaluate_features(query, shifted[1])


@pytest.mark.gpu
def test_on_a_gpu_the_same_path_gives_the_same_figures():
    query, gallery = world(9, queries=61, size=1009)
    expected = evaluate_features(query, gallery)
    report = evaluate_features(query.to("cuda"), gallery.to("cuda"))
    assert report.to_dict()["mAP"] == pytest.approx(expected.mAP, abs=1e-5)
    np.testing.assert_allclose(report.cmc, expected.cmc, atol=1e-5)
    np.testing.assert_array_equal(report.kept, expected.kept)
