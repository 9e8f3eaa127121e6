"""Distances by definition, and one query's marked ranking."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from ccan.errors import ConfigError, ProtocolError, ShapeError
from ccan.evaluation import FeatureSet, evaluate_features, pairwise_distance, rank_gallery
from ccan.evaluation.ranking import DISTANCES, Distance, rank_distances
from tests.reference import evaluation as twin


def gaussian(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class TestDistances:
    @pytest.mark.parametrize("kind", DISTANCES)
    def test_equal_to_the_definition(self, kind: Distance):
        query, gallery = gaussian(1, 5, 7), gaussian(2, 11, 7)
        expected = [[twin.distance(q, g, kind) for g in gallery.tolist()] for q in query.tolist()]
        found = pairwise_distance(query, gallery, kind)
        assert found.dtype == torch.float64
        np.testing.assert_allclose(found, expected, atol=1e-12)

    def test_hand_values(self):
        query, gallery = torch.tensor([[3.0, 0.0]]), torch.tensor([[0.0, 4.0], [6.0, 0.0]])
        assert pairwise_distance(query, gallery).tolist() == [[5, 3]]
        assert pairwise_distance(query, gallery, "squared_euclidean").tolist() == [[25, 9]]
        assert pairwise_distance(query, gallery, "cosine").tolist() == [[1, 0]]

    @pytest.mark.parametrize("kind", DISTANCES)
    def test_never_negative_and_inputs_untouched(self, kind: Distance):
        features = gaussian(3, 13, 257).float() * 100
        before = features.clone()
        assert (pairwise_distance(features, features, kind) >= 0).all()
        assert torch.equal(features, before)

    def test_the_wider_dtype_is_computed_in(self):
        narrow, wide = gaussian(4, 3, 5).float(), gaussian(5, 2, 5)
        expected = pairwise_distance(narrow.double(), wide)
        assert torch.equal(pairwise_distance(narrow, wide), expected)
        torch.testing.assert_close(pairwise_distance(wide, narrow), expected.T, atol=1e-14, rtol=0)
        assert pairwise_distance(narrow.half(), narrow).dtype == torch.float32

    def test_a_zero_vector_has_cosine_distance_one(self):
        found = pairwise_distance(torch.zeros(1, 3), torch.eye(3), "cosine")
        assert found.tolist() == [[1, 1, 1]]

    def test_autocast_and_lowered_precision_do_not_reach_the_product(self):
        query, gallery = gaussian(6, 17, 64).float(), gaussian(7, 19, 64).float()
        expected = pairwise_distance(query, gallery)
        before = torch.get_float32_matmul_precision()
        try:
            torch.set_float32_matmul_precision("medium")
            with torch.autocast("cpu", torch.bfloat16):
                assert not torch.equal(
                    (query @ gallery.T).float(), query.double() @ gallery.T.double()
                )
                assert torch.equal(pairwise_distance(query, gallery), expected)
            assert torch.get_float32_matmul_precision() == "medium"
        finally:
            torch.set_float32_matmul_precision(before)

    def test_errors(self):
        with pytest.raises(
            ShapeError, match="same width D, got 3 and 2; were they made by the same"
        ):
            pairwise_distance(torch.zeros(1, 3), torch.zeros(1, 2))
        with pytest.raises(
            ConfigError, match="one of euclidean, squared_euclidean, cosine, got 'l1'"
        ):
            pairwise_distance(torch.zeros(1, 3), torch.zeros(1, 3), "l1")  # type: ignore[arg-type]
        huge = torch.tensor([[1.0, 0.0], [3e19, 0.0]])
        for query, gallery, side in ((huge, huge[:1], "query"), (huge[:1], huge, "gallery")):
            with pytest.raises(ProtocolError, match=f"squared length of {side} row 1 overflows"):
                pairwise_distance(query, gallery)
        assert torch.isfinite(pairwise_distance(huge.double(), huge)).all()

    def test_the_largest_norms_that_pass_give_finite_distances(self):
        edge = torch.tensor([[math.sqrt(3.4e38) / 2.01]])
        assert torch.isfinite(pairwise_distance(edge, -edge)).all()


# distance from the query 0…5:    same camera   junk  distractor  match  other  match, as far as `other`
LINE = FeatureSet(
    [[1.0], [2.0], [3.0], [4.0], [5.0], [5.0]],
    identities=[1, -1, 0, 1, 2, 1],
    cameras=[1, 2, 2, 2, 1, 3],
    names=list("abcdef"),
)
PROBE = FeatureSet([[0.0]], [1], [1], ["q"])


class TestRankGallery:
    def test_order_marks_positions_and_scores(self):
        ranking = rank_gallery(PROBE, LINE)
        assert ranking.order.tolist() == [0, 1, 2, 3, 4, 5]
        assert ranking.distances.tolist() == [1, 2, 3, 4, 5, 5]
        assert ranking.marks == ("ignored", "ignored", "wrong", "right", "wrong", "right")
        assert ranking.positions.tolist() == [-1, -1, 1, 2, 3, 4]
        assert (ranking.ap, ranking.inp) == (pytest.approx((1 / 2 + 2 / 4) / 2), 2 / 4)
        assert (ranking.first_match, ranking.matches, len(ranking)) == (2, 2, 6)
        assert rank_gallery(PROBE, LINE, ap="trapezoid").ap < ranking.ap

    def test_top_cuts_the_list_but_not_the_scores(self):
        whole, top = rank_gallery(PROBE, LINE), rank_gallery(PROBE, LINE, top=3)
        assert top.marks == whole.marks[:3]
        assert (top.ap, top.inp, top.matches) == (whole.ap, whole.inp, whole.matches)
        short = rank_gallery(PROBE, LINE, top=2, include_ignored=False)
        assert short.order.tolist() == [2, 3]
        assert short.positions.tolist() == [1, 2]
        assert len(rank_gallery(PROBE, LINE, top=99)) == 6

    def test_distances_are_plain_unless_asked_otherwise(self):
        squared = rank_gallery(PROBE, LINE, distance="squared_euclidean")
        assert squared.distances.tolist() == [1, 4, 9, 16, 25, 25]

    def test_an_unknown_identity_is_neither_right_nor_wrong(self):
        ranking = rank_gallery(torch.tensor([0.0]), LINE)
        assert ranking.marks == ("unknown", "ignored", *("unknown",) * 4)
        assert math.isnan(ranking.ap) and math.isnan(ranking.inp)
        assert (ranking.first_match, ranking.matches) == (-1, 0)
        assert rank_gallery(np.zeros((1, 1), np.float32), LINE).marks == ranking.marks

    def test_without_cameras_only_the_image_itself_is_ignored(self):
        gallery = FeatureSet([[1.0], [2.0], [3.0]], [1, 1, 2], [-1, 4, -1], ["q", "b", "c"])
        probe = FeatureSet([[0.0]], [1], [-1], ["q"])
        assert rank_gallery(probe, gallery).marks == ("ignored", "right", "wrong")
        named_differently = FeatureSet([[0.0]], [1], [-1], ["x"])
        assert rank_gallery(named_differently, gallery).marks == ("right", "right", "wrong")
        assert rank_gallery(FeatureSet([[0.0]], [1], [4], ["q"]), gallery).marks[:2] == (
            "ignored",
            "ignored",
        )

    def test_agrees_with_the_evaluation_of_all_queries(self):
        generator = np.random.default_rng(5)
        query = FeatureSet(
            generator.integers(-2, 3, (9, 3)).astype(float),
            generator.integers(1, 4, 9),
            generator.integers(1, 4, 9),
        )
        gallery = FeatureSet(
            generator.integers(-2, 3, (31, 3)).astype(float),
            generator.integers(-1, 4, 31),
            generator.integers(1, 4, 31),
        )
        report = evaluate_features(query, gallery)
        for row in range(len(query)):
            ranking = rank_gallery(query.select([row]), gallery)
            assert ranking.ap == pytest.approx(report.ap[row], abs=1e-15, nan_ok=True)
            assert ranking.inp == pytest.approx(report.inp[row], abs=1e-15, nan_ok=True)
            assert ranking.first_match == report.first_match[row]
            assert len(ranking.marks) - ranking.marks.count("ignored") == report.kept[row]

    def test_errors(self):
        with pytest.raises(ShapeError, match="ranks for one query at a time, got 6"):
            rank_gallery(LINE, LINE)
        with pytest.raises(ConfigError, match="top must be at least 1, got 0"):
            rank_gallery(PROBE, LINE, top=0)
        with pytest.raises(ProtocolError, match="NaN or infinity in 1 of 1 rows"):
            rank_gallery(torch.tensor([math.nan]), LINE)


@pytest.mark.parametrize("distance", ["euclidean", "squared_euclidean"])
@pytest.mark.parametrize("offset", [0.0, 30.0, 1e4])
def test_features_far_from_zero_keep_their_distances(distance: Distance, offset: float):
    """‖q‖² + ‖g‖² − 2⟨q, g⟩ alone would leave noise of the size of the distances."""
    generator = np.random.default_rng(2)
    query, gallery = (
        generator.normal(size=(n, 13)).astype(np.float32) + np.float32(offset) for n in (7, 31)
    )
    exact = np.linalg.norm(query.astype(np.float64)[:, None] - gallery, axis=2)
    wanted = exact if distance == "euclidean" else exact**2
    found = pairwise_distance(query, gallery, distance)
    np.testing.assert_allclose(found.numpy(), wanted, rtol=2e-3)


def test_given_distances_rank_as_their_own():
    gallery = FeatureSet(torch.zeros(3, 1), [7, 8, 7], [2, 2, 1])
    query = FeatureSet(torch.zeros(1, 1), [7], [1])
    found = rank_distances(query, gallery, np.array([0.5, 0.1, 0.2]))
    assert found.order.tolist() == [1, 2, 0]
    assert found.marks == ("wrong", "ignored", "right")
    assert found.ap == 0.5 and found.first_match == 2
    with pytest.raises(ShapeError, match=r"expected one query and 3 distances, got 1 and \(2,\)"):
        rank_distances(query, gallery, np.zeros(2))
