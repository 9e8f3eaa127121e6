"""CUHK03's single-shot protocol: both rules by hand, by the loop twin, by exact probability, and not swapped."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from ccan.errors import ConfigError, ProtocolError
from ccan.evaluation import FeatureSet
from ccan.evaluation import single_shot as module
from ccan.evaluation.single_shot import Rule, SingleShotReport, evaluate_single_shot
from tests.reference import single_shot as twin
from tests.reference.evaluation import Image

# One image of a person in each camera, so that every draw is forced for a query of camera 1.
#            junk      own view   person 2   person 3   person 1   person 4
GALLERY = FeatureSet(
    [[0.1], [0.5], [1.0], [3.0], [5.0], [5.0]], [-1, 1, 2, 3, 1, 4], [2, 1, 1, 2, 2, 2]
)
QUERY = FeatureSet([[0.0], [5.5], [0.0]], [1, 4, 9], [1, 1, 1])
# Person 1 from 0, classic: 3 (3.0), 1 (5.0), 4 (5.0, later in the gallery) → 2. toolkit: 2 comes before → 3.
# Person 4 from 5.5, classic: 1 and 4 both at 0.5, 1 first → 2. toolkit: 1 by either image; 2 is far → 2 or 1.

Evaluate = Callable[..., SingleShotReport]


def check_hand_case(evaluate: Evaluate = evaluate_single_shot) -> None:
    classic = evaluate(QUERY, GALLERY, rule="classic", repeats=3)
    assert classic.first_match.tolist() == [[2, 2, -1]] * 3
    assert classic.valid_queries == 2
    assert classic.cmc[:3].tolist() == [0, 1, 1] and not classic.cmc_spread.any()
    toolkit = evaluate(QUERY, GALLERY, rule="toolkit", repeats=40)
    assert toolkit.first_match[:, 0].tolist() == [3] * 40
    assert set(toolkit.first_match[:, 1]) == {1, 2}  # person 1 is drawn from both cameras
    assert (toolkit.first_match[:, 2] == -1).all()
    share = (toolkit.first_match[:, 1] == 1).mean()
    assert toolkit.rank(1) == toolkit.cmc[0] == share / 2
    assert toolkit.cmc_spread[0] == pytest.approx((share * (1 - share) / 4 * 40 / 39) ** 0.5)


def test_hand_case():
    check_hand_case()


def rules_swapped(query: FeatureSet, gallery: FeatureSet, rule: Rule, **settings):
    other: Rule = "toolkit" if rule == "classic" else "classic"
    return evaluate_single_shot(query, gallery, rule=other, **settings)


def junk_kept(query: FeatureSet, gallery: FeatureSet, **settings):
    identities = np.where(gallery.identities == -1, 77, gallery.identities)
    return evaluate_single_shot(
        query, FeatureSet(gallery.features, identities, gallery.cameras), **settings
    )


def own_camera_kept(query: FeatureSet, gallery: FeatureSet, **settings):
    cameras = np.where(gallery.cameras == 1, 3, gallery.cameras)
    return evaluate_single_shot(
        query, FeatureSet(gallery.features, gallery.identities, cameras), **settings
    )


def one_draw_for_all(query: FeatureSet, gallery: FeatureSet, repeats: int, **settings):
    found = evaluate_single_shot(query, gallery, repeats=1, **settings)
    return SingleShotReport(
        found.first_match.repeat(repeats, axis=0), found.max_rank, found.conventions
    )


def ties_to_the_last(query: FeatureSet, gallery: FeatureSet, **settings):
    return evaluate_single_shot(query, gallery.select(np.arange(len(gallery))[::-1]), **settings)


@pytest.mark.parametrize(
    "mistake", [rules_swapped, junk_kept, own_camera_kept, one_draw_for_all, ties_to_the_last]
)
def test_the_hand_case_rejects_a_planted_error(mistake: Evaluate):
    with pytest.raises(AssertionError):
        check_hand_case(mistake)


def random_images(generator: np.random.Generator, count: int, people: list[int]) -> list[Image]:
    return [
        Image(
            generator.integers(-2, 3, 2).tolist(),
            int(generator.choice(people)),
            int(generator.choice([1, 2, 5])),
        )
        for _ in range(count)
    ]


def as_set(images: list[Image]) -> FeatureSet:
    return FeatureSet(
        np.array([image.feature for image in images], float),
        [image.identity for image in images],
        [image.camera for image in images],
    )


@pytest.mark.parametrize("rule", ["classic", "toolkit"])
def test_equal_to_the_loop_twin(rule: Rule, monkeypatch: pytest.MonkeyPatch):
    """2,000 draws in all: ties, junk, distractors, people of one camera only, galleries of one image."""
    monkeypatch.setattr(module, "BLOCK", 2)
    generator = np.random.default_rng(len(rule))
    refused = 0
    for _ in range(250):
        query = random_images(generator, int(generator.integers(1, 6)), [1, 2, 3])
        gallery = random_images(generator, int(generator.integers(1, 20)), [-1, 0, 1, 2, 3, 4])
        kept = [image for image in gallery if image.identity != -1]
        seed = int(generator.integers(1000))
        draws = np.random.default_rng(seed)
        expected = []
        for _ in range(4):
            priority = draws.permutation(len(kept)).tolist()
            expected.append([twin.position(image, kept, rule, priority) for image in query])
        settings = {"rule": rule, "repeats": 4, "seed": seed}
        if max(expected[0]) < 0:
            refused += 1
            with pytest.raises(ProtocolError, match="no query has a match"):
                evaluate_single_shot(as_set(query), as_set(gallery), **settings)
            continue
        report = evaluate_single_shot(as_set(query), as_set(gallery), **settings)
        assert report.first_match.tolist() == expected
        valid = [number for row in expected for number in row if number > 0]
        for k in (1, 2, 3):
            share = sum(number <= k for number in valid) / len(valid)
            assert report.rank(k) == pytest.approx(share) == report.cmc[k - 1]
    assert refused < 100


@pytest.mark.parametrize("rule", ["classic", "toolkit"])
def test_draws_are_uniform(rule: Rule):
    """Rank-1 over very many draws against its exact probability: the twin knows nothing of priorities."""
    generator = np.random.default_rng(11)
    query, gallery = (
        random_images(generator, 13, [1, 2, 3]),
        random_images(generator, 43, [0, 1, 2, 3]),
    )
    for images in (query, gallery):
        images[:] = [
            Image(generator.normal(size=2).tolist(), image.identity, image.camera)
            for image in images
        ]
    report = evaluate_single_shot(as_set(query), as_set(gallery), rule=rule, repeats=6000)
    found = (report.first_match == 1).mean(axis=0)
    expected = [twin.chance_of_rank_one(image, gallery, rule) for image in query]
    np.testing.assert_allclose(
        found, np.array(expected, float), atol=0.025
    )  # 4 standard errors at most
    other = ["toolkit", "classic"][rule == "toolkit"]
    swapped = [twin.chance_of_rank_one(image, gallery, other) for image in query]
    assert np.abs(found - np.array(swapped, float)).max() > 0.1


def test_seed_and_report():
    generator = np.random.default_rng(5)
    query, gallery = (as_set(random_images(generator, n, [1, 2, 3, 4, 5, 6, 7])) for n in (41, 97))
    one, again, other = (
        evaluate_single_shot(query, gallery, seed=seed, max_rank=7) for seed in (3, 3, 4)
    )
    np.testing.assert_array_equal(one.first_match, again.first_match)
    assert not np.array_equal(one.first_match, other.first_match)
    values = one.to_dict()
    assert values["rank1"] == one.rank(1) and values["rank1_spread"] == one.cmc_spread[0]
    assert "rank20" in values and "rank10_spread" not in values
    assert "classic" in values["conventions"]["protocol"] and values["repeats"] == 10
    assert "seed 3" in values["conventions"]["draws"]
    single = evaluate_single_shot(query, gallery, repeats=1)
    assert single.to_dict()["rank1_spread"] is None and np.isnan(single.cmc_spread).all()
    assert json.loads(json.dumps(values)) == values
    lines = one.summary().splitlines()
    assert lines[0].split() == ["rank1", "rank5"]  # the curve ends at 7
    assert lines[1].split() == [f"{100 * one.rank(k):.2f}" for k in (1, 5)]
    assert lines[2].endswith("standard deviation over 10 repeats")
    assert "standard" not in single.summary() and "ties: gallery order" in lines


def test_what_is_refused():
    with pytest.raises(ConfigError, match="rule must be one of classic, toolkit, got 'new'"):
        evaluate_single_shot(QUERY, GALLERY, rule="new")  # type: ignore[arg-type]
    for name, message in (("repeats", "1, got 0"), ("max_rank", "1, got 0"), ("seed", "0, got -1")):
        bad: dict[str, Any] = {name: -1 if name == "seed" else 0}
        with pytest.raises(ConfigError, match=f"{name} must be at least {message}"):
            evaluate_single_shot(QUERY, GALLERY, **bad)
    with pytest.raises(ConfigError, match="rank k must be at least 1"):
        evaluate_single_shot(QUERY, GALLERY).rank(0)
    blind = FeatureSet(GALLERY.features, GALLERY.identities, [-1] * 6)
    with pytest.raises(
        ProtocolError, match="camera of every image, but 6 gallery images have none"
    ):
        evaluate_single_shot(QUERY, blind)
    with pytest.raises(ProtocolError, match="images on both sides, got 0 queries"):
        evaluate_single_shot(QUERY.select([]), GALLERY)
    for junk in ([True] + [False] * 5, [False, True] + [False] * 4):  # only junk; only the own view
        with pytest.raises(ProtocolError, match="no query has a match in the gallery: "):
            evaluate_single_shot(QUERY, GALLERY.select(junk))
