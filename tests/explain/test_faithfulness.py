"""Faithfulness: the margin and the curves by definition, and a planted truth that the score must find."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

from ccan.errors import ConfigError, ProtocolError, ShapeError
from ccan.evaluation import FeatureSet, rank_gallery
from ccan.explain.faithfulness import (
    CENTRE,
    RANDOM,
    Curves,
    RetrievalMargin,
    cell_values,
    centre_prior,
    faithfulness_curves,
    importance_order,
    impute,
    join_faithfulness,
)
from ccan.model.network import CCANOutput
from tests.explain.networks import images, network


def some_gallery(seed: int = 0) -> tuple[FeatureSet, FeatureSet]:
    rows = torch.randn(12, 7, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    query = FeatureSet(rows[:1], [3], [1])
    return query, FeatureSet(
        rows[1:], [3, 3, 4, 5, -1, 0, 3, 4, 5, 6, 6], [2, 1, 1, 2, 2, 1, 3, 2, 1, 3, 3]
    )


@pytest.mark.parametrize("seed", range(5))
def test_the_margin_is_that_of_the_ranking(seed: int):
    query, gallery = some_gallery(seed)
    margin = RetrievalMargin(query, gallery)
    ranking = rank_gallery(query, gallery, include_ignored=False)
    first = {mark: ranking.marks.index(mark) for mark in ("right", "wrong")}
    right, wrong = (ranking.distances[first[mark]] for mark in ("right", "wrong"))
    assert margin(query.features)[0] == pytest.approx(wrong - right, abs=1e-10)
    assert margin.right == ranking.order[first["right"]]
    assert margin.wrong == ranking.order[first["wrong"]]
    assert (margin(query.features)[0] > 0) == (ranking.marks[0] == "right")


def test_a_query_without_a_right_or_a_wrong_image_has_no_margin():
    query, gallery = some_gallery()
    alone = gallery.select(gallery.identities != 3)
    with pytest.raises(ProtocolError, match="a right and a wrong image that count, got 0 and 7"):
        RetrievalMargin(query, alone)
    with pytest.raises(ShapeError, match="expected one query, got 11"):
        RetrievalMargin(gallery, gallery)


def test_what_is_kept_stays_and_what_is_gone_comes_from_around_it():
    image = torch.zeros(3, 16, 24)
    image[:, :, 12:] = 2.0
    keep = np.ones((16, 24), bool)
    keep[4:12, 2:6] = False
    found = impute(image, keep, seed=3)
    assert torch.equal(found[:, keep], image[:, keep])
    assert float(found[:, ~keep].abs().max()) < 0.1, (
        "in the middle of zeros it is zero, but for noise"
    )
    assert float(found[:, ~keep].std()) > 0.001
    assert torch.equal(found, impute(image, keep, seed=3))
    assert not torch.equal(found, impute(image, keep, seed=4))
    state = torch.get_rng_state()
    impute(image, keep)
    assert torch.equal(state, torch.get_rng_state()), "the caller's generator was used"
    assert torch.equal(impute(image, np.ones((16, 24), bool)), image)
    with pytest.raises(ShapeError, match=r"expected a mask \(16, 24\) that keeps some pixels"):
        impute(image, np.zeros((16, 24), bool))


def test_cells_are_means_and_unreached_ones_come_last():
    picture = np.full((24, 16), np.nan, np.float32)
    picture[8:24] = 1.0
    picture[8:12, :8] = 3.0
    assert cell_values(picture).tolist() == [[-1.0, -1.0], [2.0, 1.0], [1.0, 1.0]]
    order = importance_order(cell_values(picture))
    assert order[0] == 2 and set(order[1:4]) == {3, 4, 5} and set(order[4:]) == {0, 1}
    orders = {tuple(importance_order(np.zeros((2, 2)), seed)) for seed in range(20)}
    assert len(orders) > 5, "ties are not broken by chance"
    assert importance_order(cell_values(-centre_prior(48, 24)))[0] in (0, 2, 15, 17)
    assert importance_order(cell_values(centre_prior(24, 24)))[0] == 4


class Looker(torch.nn.Module):
    """A network that looks at one cell only: its descriptor turns with that cell's brightness."""

    def __init__(self, row: int, column: int) -> None:
        super().__init__()
        self.at = (slice(8 * row, 8 * row + 8), slice(8 * column, 8 * column + 8))
        self.nothing = torch.nn.Parameter(torch.zeros(1))

    def forward(self, images: torch.Tensor) -> CCANOutput:
        seen = images[:, :, self.at[0], self.at[1]].mean(dim=(1, 2, 3)).clamp(0, 1)
        descriptor = torch.stack([seen, 1 - seen], dim=1)
        return CCANOutput(None, None, None, None, descriptor)


def test_a_map_that_points_at_the_cell_is_told_from_one_that_does_not():
    model = Looker(2, 1)
    image = torch.zeros(3, 48, 24)
    image[:, 16:24, 8:16] = 1.0  # all else is dark: without this cell the descriptor turns round
    gallery = FeatureSet(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), [1, 2], [2, 2])
    margin = RetrievalMargin(FeatureSet(torch.tensor([[1.0, 0.0]]), [1], [1]), gallery)
    right, wrong = np.zeros((48, 24), np.float32), np.zeros((48, 24), np.float32)
    right[16:24, 8:16] = 1
    wrong[16:24, 8:16] = -1
    found = faithfulness_curves(model, image, {"right": right, "wrong": wrong}, margin)  # type: ignore[arg-type]
    assert set(found) == {"right", "wrong", CENTRE, RANDOM}
    assert found["right"].shares.tolist() == [0, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9]
    assert found["right"].deletion[0] == pytest.approx(2**0.5)
    assert (found["right"].deletion[1:] < 0).all() and (found["right"].insertion > 1.4).all()
    assert (found["wrong"].deletion > 1.4).all() and (found["wrong"].insertion[1:] < 0).all()
    assert found["right"].score > 1 and found["wrong"].score == pytest.approx(
        -found["right"].score, abs=0.05
    )
    assert -1 < found[RANDOM].score < 1


def test_the_score_is_half_the_area_between_the_curves():
    curves = Curves(np.array([0, 0.5, 1.0]), np.array([1.0, 0, 0]), np.array([1.0, 1, 0.5]))
    assert curves.score == pytest.approx(((1 + 1) / 4 + (1 + 0.5) / 4 - (1 + 0) / 4 - 0) / 2)


def test_intervals_draw_identities_and_verdicts_follow_them():
    def curves(score: float) -> Curves:
        return Curves(np.array([0.0, 1.0]), np.zeros(2), np.full(2, 2 * score))

    rng = np.random.default_rng(0)
    made = [
        {
            "good": curves(1 + 0.1 * rng.normal()),
            "middling": curves(0.25 + 0.02 * rng.normal()),
            "bad": curves(-0.4 + 0.02 * rng.normal()),
            "vague": curves(rng.normal()),
            RANDOM: curves(0.02 * rng.normal()),
            CENTRE: curves(0.3 + 0.02 * rng.normal()),
        }
        for _ in range(20)
    ]
    found = join_faithfulness(made, [k // 2 for k in range(20)])
    assert found["good"].verdict == "faithful"
    assert found["middling"].verdict == "better than random, not than the centre"
    assert found["bad"].verdict == "misleading: worse than random"
    assert found["vague"].verdict == "not shown"
    gain = np.mean([one["good"].score - one[RANDOM].score for one in made])
    assert found["good"].over_random.value == pytest.approx(gain)
    assert found["good"].over_random.low < gain < found["good"].over_random.high
    # Queries of one identity that agree tell less than independent ones.
    clustered = [made[k // 10 * 10] for k in range(20)]
    few = join_faithfulness(clustered, [k // 10 for k in range(20)])["vague"].over_random
    many = join_faithfulness(clustered, list(range(20)))["vague"].over_random
    assert few.high - few.low > 1.5 * (many.high - many.low)
    with pytest.raises(ShapeError, match="an identity for each of 20 queries, got 1"):
        join_faithfulness(made, [1])
    with pytest.raises(ProtocolError, match="queries of two identities at least, got 1"):
        join_faithfulness(made, [1] * 20)


def test_what_cannot_be_tested_is_told(monkeypatch: pytest.MonkeyPatch):
    model = network(dtype=torch.float32)
    query = FeatureSet(torch.zeros(1, 14), [1], [1])
    gallery = FeatureSet(torch.eye(14)[:2], [1, 2], [2, 2])
    margin = RetrievalMargin(query, gallery)
    image = images(1, torch.float32)[0]
    picture = np.zeros((96, 32), np.float32)
    for shares in ((), (0.5, 0.2), (0.0, 0.5), (0.5, 1.0)):
        with pytest.raises(ConfigError, match="shares must ascend between 0 and 1"):
            faithfulness_curves(model, image, {"a": picture}, margin, shares=shares)
    with pytest.raises(ShapeError, match=r"expected maps \(96, 32\), got 'a' \(32, 96\)"):
        faithfulness_curves(model, image, {"a": picture.T}, margin)
    monkeypatch.setitem(sys.modules, "pytorch_grad_cam.metrics.road", None)
    with pytest.raises(ConfigError, match=r'pip install "ccan\[explain\]"'):
        impute(image, np.ones((96, 32), bool))
