"""Verification: by hand, by the loop twin with exact fractions, with planted errors, and in bounded memory."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch

from ccan.errors import ConfigError, ProtocolError
from ccan.evaluation import FeatureSet, pairs
from ccan.evaluation.pairs import CountedPairs
from ccan.evaluation.verification import VerificationReport, verify
from tests.reference import verification as twin
from tests.reference.evaluation import Image

# Distances from 0: junk 0.5, own view 1, then genuine 1, impostors 2 2, genuine 2, distractor 3, genuine 4.
GALLERY = FeatureSet(
    [[0.5], [1.0], [1.0], [2.0], [2.0], [2.0], [3.0], [4.0]],
    [-1, 1, 1, 2, 3, 1, 0, 1],
    [2, 1, 2, 1, 2, 3, 2, 2],
)
QUERY = FeatureSet([[0.0]], [1], [1])
Verify = Callable[..., VerificationReport]


def check_hand_case(verify: Verify = verify) -> None:
    """Genuine 1 2 4, impostors 2 2 3: pairs won 3 + (½ + ½ + 1) + 0 = 5 of 9."""
    report = verify(QUERY, GALLERY)
    assert (report.genuine, report.impostors) == (3, 3)
    assert report.auc == pytest.approx(5 / 9, abs=1e-15)
    # The curve: (0, 0) (0, ⅓) (⅔, ⅔) (1, ⅔) (1, 1). Between the second and third, x = 1 − ⅓ − x/2.
    assert report.eer == pytest.approx(4 / 9, abs=1e-15)
    roc = report.roc()
    np.testing.assert_allclose(roc.fpr, [0, 0, 2 / 3, 1, 1])
    np.testing.assert_allclose(roc.tpr, [0, 1 / 3, 2 / 3, 2 / 3, 1])
    assert roc.thresholds[0] == -np.inf and roc.thresholds[[1, 2, 4]].tolist() == [1, 2, 4]
    assert 3 <= roc.thresholds[3] < 4
    rates = [0, 0.6, 2 / 3, 1]
    assert [report.tpr_at(r) for r in rates] == pytest.approx([1 / 3, 1 / 3, 2 / 3, 1])
    assert 1 < report.threshold_for(0.6) < 2 <= report.threshold_for(2 / 3) < 3
    assert report.threshold_for(0) == report.threshold_for(0.6) == np.nextafter(np.float32(2), 0)


def test_hand_case():
    check_hand_case()


def changed(identities=None, cameras=None, rows=None) -> Verify:
    def mistaken(query: FeatureSet, gallery: FeatureSet) -> VerificationReport:
        gallery = FeatureSet(
            gallery.features,
            gallery.identities if identities is None else identities,
            gallery.cameras if cameras is None else cameras,
        )
        return verify(query, gallery if rows is None else gallery.select(rows))

    return mistaken


PLANTS: dict[str, Verify] = {
    "junk as impostors": changed(identities=[9, 1, 1, 2, 3, 1, 0, 1]),
    "same camera kept": changed(cameras=[2] * 8),
    "every image of the camera dropped": changed(rows=[0, 2, 4, 5, 6, 7]),
    "distractors dropped": changed(rows=[0, 1, 2, 3, 4, 5, 7]),
}


@pytest.mark.parametrize("mistake", PLANTS)
def test_the_hand_case_rejects_other_pairs(mistake: str):
    with pytest.raises(AssertionError):
        check_hand_case(PLANTS[mistake])


def ties_won(query: FeatureSet, gallery: FeatureSet) -> VerificationReport:
    report = verify(query, gallery)
    return replace(report, through=report.below)


def ties_lost(query: FeatureSet, gallery: FeatureSet) -> VerificationReport:
    report = verify(query, gallery)
    return replace(report, below=report.through)


def threshold_that_reaches_the_first_refused(query: FeatureSet, gallery: FeatureSet):
    report = verify(query, gallery)
    return replace(report, nth_impostor=lambda n: np.nextafter(report.nth_impostor(n), np.inf))


@pytest.mark.parametrize("mistake", [ties_won, ties_lost, threshold_that_reaches_the_first_refused])
def test_the_hand_case_rejects_other_counts(mistake: Verify):
    with pytest.raises(AssertionError):
        check_hand_case(mistake)


def random_case(generator: np.random.Generator) -> list[list[Image]]:
    return [
        [
            Image(
                generator.integers(-2, 3, 3).tolist(),
                int(generator.choice([-1, 0, 1, 2, 3])),
                int(generator.choice([1, 2, -1])),
                f"image{generator.integers(5)}",
            )
            for _ in range(int(generator.integers(low, high)))
        ]
        for low, high in ((1, 7), (1, 19))
    ]


def as_set(images: list[Image], dtype: torch.dtype = torch.float64) -> FeatureSet:
    return FeatureSet(
        torch.tensor([image.feature for image in images], dtype=dtype),
        [image.identity for image in images],
        [image.camera for image in images],
        [str(image.name) for image in images],
    )


def test_equal_to_the_loop_twin():
    """1,000 cases: ties, junk on both sides, distractors, unknown cameras, one genuine pair, one impostor."""
    generator = np.random.default_rng(0)
    compared = 0
    for case in range(1000):
        query, gallery = random_case(generator)
        genuine, impostors = twin.pairs(query, gallery, "squared_euclidean")
        dtype = (torch.float32, torch.float64)[case % 2]
        sets = as_set(query, dtype), as_set(gallery, dtype)
        settings = {"distance": "squared_euclidean", "block": int(generator.integers(1, 5))}
        if not genuine or not impostors:
            with pytest.raises(ProtocolError, match=r"no query has a match|no pair of two people"):
                verify(*sets, **settings)
            continue
        compared += 1
        report = verify(*sets, **settings)
        assert (report.genuine, report.impostors) == (len(genuine), len(impostors))
        assert report.auc == pytest.approx(float(twin.auc(genuine, impostors)), abs=1e-14)
        expected = float(twin.equal_error_rate(genuine, impostors))
        assert report.eer == pytest.approx(expected, abs=1e-14)
        for numerator in (0, int(generator.integers(1, len(impostors) + 1)), len(impostors)):
            rate = Fraction(numerator, len(impostors))
            expected = float(twin.tpr_at(genuine, impostors, rate))
            assert report.tpr_at(float(rate)) == pytest.approx(expected, abs=1e-15)
            if rate < 1 and case % 10 == 0:
                refused = np.array(twin.first_refused(impostors, rate), report.distances.dtype)
                assert report.threshold_for(float(rate)) == np.nextafter(refused, -np.inf)
        corners = {(float(x), float(y)) for x, y, _ in twin.curve(genuine, impostors)}
        roc = report.roc()
        assert {*zip(roc.fpr.tolist(), roc.tpr.tolist(), strict=True)} <= corners
        assert np.trapezoid(roc.tpr, roc.fpr) == pytest.approx(report.auc, abs=1e-12)
    assert compared > 600


def world(dtype: torch.dtype, queries: int = 61, images: int = 307) -> list[FeatureSet]:
    generator = torch.Generator().manual_seed(2)
    centres = torch.randn(23, 17, generator=generator, dtype=torch.float64)
    sets: list[FeatureSet] = []
    for count, camera in ((queries, 1), (images, 2)):
        people = torch.randint(0, 23, (count,), generator=generator)
        noise = torch.randn(count, 17, generator=generator, dtype=torch.float64)
        sets.append(FeatureSet((centres[people] + noise).to(dtype), people + 1, [camera] * count))
    return sets


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("distance", ["euclidean", "cosine"])
def test_thresholds_are_exact_order_statistics(dtype: torch.dtype, distance):
    query, gallery = world(dtype)
    report = verify(query, gallery, distance=distance, block=7)
    counted = CountedPairs(query, gallery, distance, 7)
    impostors = np.sort(np.concatenate([others for _, others in counted.blocks()]))
    assert len(impostors) == report.impostors > 10_000
    for n in (0, 1, 1234, len(impostors) - 1):
        assert report.nth_impostor(n) == impostors[n]
    for rate in (1e-4, 1e-3, 0.0123, 0.29, 0.5, 0.999):
        threshold = report.threshold_for(rate)
        accepted = (impostors <= threshold).sum()
        assert accepted / len(impostors) <= rate
        first_refused = impostors[accepted]
        assert (impostors <= first_refused).sum() / len(impostors) > rate
        assert np.nextafter(impostors.dtype.type(threshold), np.inf) == first_refused


def test_a_rate_is_the_quotient_that_people_compute():
    """29 of 100 is 0.29 although 0.29 · 100 is less than 29 in floating point."""
    gallery = FeatureSet(np.arange(101.0)[:, None], [1, *range(2, 102)], [2] * 101)
    report = verify(QUERY.with_features([[0.0]]), gallery)
    for accepted in range(100):
        assert accepted < report.threshold_for(accepted / 100) < accepted + 1
        assert report.tpr_at(accepted / 100) == 1


def test_the_curve_is_thinned_and_stays_exact():
    query, gallery = world(torch.float64, 101, 1009)
    report = verify(query, gallery)
    full, thin = report.roc(10**9), report.roc(50)
    assert len(full.fpr) > 2000 >= len(report.roc().fpr) > 1000
    assert 25 < len(thin.fpr) <= 50
    for points in (2, 3):
        few = report.roc(points)
        assert len(few.fpr) <= points and (few.fpr[-1], few.tpr[-1]) == (1, 1)
    exact = {*zip(full.fpr, full.tpr, full.thresholds, strict=True)}
    assert {*zip(thin.fpr, thin.tpr, thin.thresholds, strict=True)} <= exact
    assert (thin.fpr[0], thin.tpr[0], thin.fpr[-1], thin.tpr[-1]) == (0, 0, 1, 1)
    assert (np.diff(thin.fpr) >= 0).all() and (np.diff(thin.tpr) >= 0).all()
    assert np.trapezoid(full.tpr, full.fpr) == pytest.approx(report.auc, abs=1e-12)
    assert np.trapezoid(thin.tpr, thin.fpr) == pytest.approx(report.auc, abs=0.01)
    low = (thin.fpr > 0) & (thin.fpr < 0.01)
    assert low.sum() > 5  # where thresholds are set in practice


def test_blocks_do_not_matter_and_bound_what_exists(monkeypatch: pytest.MonkeyPatch):
    query, gallery = world(torch.float64)
    expected = verify(query, gallery)
    largest = 0
    distance_to = pairs.DistanceTo.__call__

    def measured(self, rows: torch.Tensor) -> torch.Tensor:
        nonlocal largest
        found = distance_to(self, rows)
        largest = max(largest, found.numel())
        return found

    monkeypatch.setattr(pairs.DistanceTo, "__call__", measured)
    report = verify(query, gallery, block=5)
    report.threshold_for(0.01)
    assert largest == 5 * len(gallery)
    assert report.auc == pytest.approx(expected.auc, abs=1e-9)
    assert report.eer == pytest.approx(expected.eer, abs=1e-9)


def test_extremes_all_alike_and_perfectly_apart():
    alike = verify(
        FeatureSet(torch.zeros(3, 2), [1, 2, 3], [1] * 3),
        FeatureSet(torch.zeros(3, 2), [1, 2, 3], [2] * 3),
    )
    assert alike.auc == alike.eer == 0.5
    assert alike.tpr_at(0.5) == 0 and alike.threshold_for(0.5) < 0
    apart = verify(
        FeatureSet(torch.eye(3), [1, 2, 3], [1] * 3), FeatureSet(torch.eye(3), [1, 2, 3], [2] * 3)
    )
    assert (apart.auc, apart.eer, apart.tpr_at(0)) == (1, 0, 1)
    assert math.isclose(apart.threshold_for(0), 2**0.5, rel_tol=1e-6)


def test_squared_distances_have_squared_thresholds():
    query, gallery = world(torch.float64)
    plain, squared = verify(query, gallery), verify(query, gallery, distance="squared_euclidean")
    assert plain.auc == pytest.approx(squared.auc, abs=1e-12)
    threshold = plain.threshold_for(0.01)
    assert threshold > 1.5
    assert threshold**2 == pytest.approx(squared.threshold_for(0.01), rel=1e-9)


def test_report_as_json():
    values = verify(QUERY, GALLERY, distance="squared_euclidean").to_dict()
    assert json.loads(json.dumps(values)) == values
    assert list(values["tpr_at"]) == ["0.0001", "0.001", "0.01", "0.1"]
    assert values["conventions"]["distance"] == "squared_euclidean"
    assert "same identity and camera" in values["conventions"]["ignored"]


def test_what_is_refused():
    with pytest.raises(ProtocolError, match="images on both sides"):
        verify(QUERY.select([]), GALLERY)
    with pytest.raises(ProtocolError, match="no query has a match in the gallery: disjoint"):
        verify(QUERY, GALLERY.select([3, 4]))
    with pytest.raises(ProtocolError, match="no pair of two people: all counted images show one"):
        verify(QUERY, GALLERY.select([2, 5]))
    with pytest.raises(ProtocolError, match="every gallery image has identity -1"):
        verify(QUERY, GALLERY.select([0]))
    with pytest.raises(ConfigError, match="block must be at least 1, got 0"):
        verify(QUERY, GALLERY, block=0)
    report = verify(QUERY, GALLERY)
    for rate in (-0.1, 1, math.nan):
        with pytest.raises(ConfigError, match="false_match_rate must be at least 0 and below 1"):
            report.threshold_for(rate)
    with pytest.raises(ConfigError, match=r"fpr must be a share between 0 and 1, got 1\.5"):
        report.tpr_at(1.5)
    with pytest.raises(ConfigError, match="points must be at least 2, got 1"):
        report.roc(1)


def test_a_rate_just_below_a_share_admits_one_impostor_less() -> None:
    """0.8333333333333333 is below 5/6, though its product with 6 is rounded to 5."""
    query = FeatureSet([[0.0]], [1], [1])
    gallery = FeatureSet([[0.5], *([float(d)] for d in range(1, 7))], [1, *[2] * 6], [2] * 7)
    report = verify(query, gallery)
    assert 4 <= report.threshold_for(0.8333333333333333) < 5
    assert 5 <= report.threshold_for(5 / 6) < 6
