"""Averages by camera, by metadata and by pairs of cameras: by hand, against loops, and adding up to the whole."""

from __future__ import annotations

import json
import math
from collections.abc import Callable

import numpy as np
import pytest

from ccan.errors import ConfigError, ProtocolError
from ccan.evaluation import EvaluationReport, FeatureSet, evaluate_features
from ccan.evaluation.slices import CameraPairs, Slice, camera_pairs, slice_report
from tests.reference import evaluation as twin

# Images on a line. From 0: a (person 1, camera 2) then b (2, 2), c (1, 3), d (2, 1).
GALLERY = FeatureSet([[1.0], [2.0], [3.0], [4.0]], [1, 2, 1, 2], [2, 2, 3, 1])
QUERY = FeatureSet(
    [[0.0], [0.0], [5.0], [0.0]],
    [1, 2, 1, 7],
    [1, 1, 2, 2],
    metadata={"view": ["front", "front", "", "back"], "angle": [10.0, 350.0, np.nan, 10.0]},
)
# q0: order a b c d → matches 1, 3: AP (1 + 2/3)/2 = 5/6, INP 2/3, rank 1.
# q1 (camera 1, so d ignored): a b c → match 2: AP 1/2, INP 1/2.
# q2 (camera 2, so a ignored): d c b → match 2: AP 1/2, INP 1/2.   q3: invalid.


def test_slices_by_camera_by_hand():
    slices = slice_report(evaluate_features(QUERY, GALLERY), "camera")
    assert slices == (
        Slice("camera", "1", 2, 2, pytest.approx(2 / 3), pytest.approx(7 / 12), 0.5),  # type: ignore[arg-type]
        Slice("camera", "2", 2, 1, 0.5, 0.5, 0.0),
    )


def test_slices_by_text_and_by_few_numbers():
    report = evaluate_features(QUERY, GALLERY)
    view = report.slices("view")
    assert [(s.value, s.queries, s.valid) for s in view] == [
        ("back", 1, 0),
        ("front", 2, 2),
        ("missing", 1, 1),
    ]
    assert math.isnan(view[0].mAP) and math.isnan(view[0].rank1)
    assert json.loads(json.dumps(view[0].to_dict()))["mAP"] is None
    angle = report.slices("angle")
    assert [(s.value, s.queries) for s in angle] == [("10", 2), ("350", 1), ("missing", 1)]
    assert angle[0].mAP == pytest.approx(5 / 6)


def test_the_trapezoid_rule_counts_invalid_queries_here_too():
    slices = slice_report(evaluate_features(QUERY, GALLERY, ap="trapezoid"), "camera")
    assert slices[1].mAP == pytest.approx((0 + 1 / 2) / 2 / 2)  # ½·(0/1 + 1/2) of one query in two


def test_an_unknown_column_names_those_that_there_are():
    report = evaluate_features(QUERY, GALLERY)
    for column in ("identity", "weather"):
        with pytest.raises(
            ConfigError, match=f"no column '{column}' to slice by; there is camera, view, angle"
        ):
            report.slices(column)


def numeric(values: np.ndarray) -> EvaluationReport:
    count = len(values)
    query = FeatureSet(np.zeros((count, 1)), [1] * count, [1] * count, metadata={"area": values})
    return evaluate_features(query, GALLERY)


def test_many_numbers_are_cut_at_their_quartiles():
    values = np.random.default_rng(0).permutation(
        np.arange(1.0, 18.0)
    )  # 17 values: quartiles 5, 9, 13
    slices = numeric(values).slices("area")
    assert [(s.value, s.queries) for s in slices] == [
        ("1 – 5", 5),
        ("5 – 9", 4),
        ("9 – 13", 4),
        ("13 – 17", 4),
    ]


def test_quartiles_of_numbers_that_are_mostly_equal():
    values = np.array([0.0] * 60 + list(range(1, 21)))
    slices = numeric(values).slices("area")
    assert sum(s.queries for s in slices) == 80 and all(s.queries for s in slices)
    assert slices[0].value.startswith("0 – ") and slices[0].queries >= 60


@pytest.mark.parametrize("ap", ["rank-sum", "trapezoid"])
@pytest.mark.parametrize("column", ["camera", "word", "few", "many"])
def test_slices_add_up_to_the_whole(column: str, ap):
    query, gallery = random_sets(np.random.default_rng(5), 211, 307)
    report = evaluate_features(query, gallery, ap=ap)
    slices = report.slices(column)
    assert sum(s.queries for s in slices) == 211
    assert sum(s.valid for s in slices) == report.valid_queries < 211
    weights = [s.queries if ap == "trapezoid" else s.valid for s in slices]
    for name in ("mAP", "mINP"):
        shares = [getattr(s, name) * w for s, w in zip(slices, weights, strict=True) if w]
        assert sum(shares) / sum(weights) == pytest.approx(getattr(report, name), abs=1e-12)
    assert len({round(s.mAP, 6) for s in slices}) > 1


def random_sets(generator: np.random.Generator, *sizes: int) -> list[FeatureSet]:
    return [
        FeatureSet(
            generator.integers(-3, 4, (size, 3)).astype(float),
            generator.integers(-1, 9, size),
            generator.choice([1, 2, 3, -1], size),
            [f"image{number}" for number in generator.integers(0, 40, size)],
            {
                "word": generator.choice(["", "a", "b"], size),
                "few": generator.choice([1.5, 2.5, np.nan], size),
                "many": generator.normal(size=size),
            },
        )
        for size in sizes
    ]


Pairs = Callable[[FeatureSet, FeatureSet], CameraPairs]


def check_pairs_by_hand(pairs: Pairs = camera_pairs) -> None:
    found = pairs(QUERY, GALLERY)
    assert found.query_cameras.tolist() == [1, 2] and found.gallery_cameras.tolist() == [1, 2, 3]
    # Camera 1: d is q1's but in its own camera; a b: q0 finds 1st, q1 2nd; c is q0's. Camera 2: c is q2's.
    assert found.queries.tolist() == [[0, 2, 1], [0, 0, 1]]
    np.testing.assert_allclose(found.mAP, [[np.nan, 0.75, 1], [np.nan, np.nan, 1]])
    np.testing.assert_allclose(found.rank1, [[np.nan, 0.5, 1], [np.nan, np.nan, 1]])


def test_camera_pairs_by_hand():
    check_pairs_by_hand()


def transposed(query: FeatureSet, gallery: FeatureSet) -> CameraPairs:
    return camera_pairs(gallery, query)


def own_camera_kept(query: FeatureSet, gallery: FeatureSet) -> CameraPairs:
    unknown = FeatureSet(query.features, query.identities, [8, 8, 9, 9])
    found = camera_pairs(unknown, gallery)
    return CameraPairs(
        np.array([1, 2]), found.gallery_cameras, found.queries, found.mAP, found.rank1
    )


def whole_gallery(query: FeatureSet, gallery: FeatureSet) -> CameraPairs:
    found = camera_pairs(query, gallery)
    report = evaluate_features(query, gallery)
    mAP = np.array([[s.mAP] * 3 for s in report.slices("camera")])
    return CameraPairs(found.query_cameras, found.gallery_cameras, found.queries, mAP, found.rank1)


@pytest.mark.parametrize("mistake", [transposed, own_camera_kept, whole_gallery])
def test_the_hand_case_of_pairs_rejects_a_planted_error(mistake: Pairs):
    with pytest.raises(AssertionError):
        check_pairs_by_hand(mistake)


@pytest.mark.parametrize("ap", ["rank-sum", "trapezoid"])
def test_camera_pairs_equal_to_the_loop_twin(ap):
    """300 cases: ties, junk, unknown cameras, cells without a match."""
    generator = np.random.default_rng(len(ap))
    for _ in range(150):
        query, gallery = random_sets(
            generator, int(generator.integers(1, 12)), int(generator.integers(2, 30))
        )
        gallery.identities[0] = 3  # not all junk
        found = camera_pairs(query, gallery, ap=ap)
        probes, images = as_images(query), as_images(gallery)
        for row, own in enumerate(found.query_cameras):
            for column, camera in enumerate(found.gallery_cameras):
                there = [image for image in images if image.camera == camera]
                scores = [twin.score(probe, there) for probe in probes if probe.camera == own]
                scores = [score for score in scores if score.positions]
                assert found.queries[row, column] == len(scores)
                if scores:
                    ap_of = [s.ap if ap == "rank-sum" else s.trapezoid_ap for s in scores]
                    assert found.mAP[row, column] == pytest.approx(twin.mean(ap_of), abs=1e-12)
                    assert found.rank1[row, column] == pytest.approx(twin.cmc(scores, 1), abs=1e-12)
                else:
                    assert np.isnan(found.mAP[row, column]) and np.isnan(found.rank1[row, column])


def as_images(part: FeatureSet) -> list[twin.Image]:
    assert part.names is not None
    return [
        twin.Image(*facts)
        for facts in zip(
            part.features.tolist(),
            part.identities.tolist(),
            part.cameras.tolist(),
            part.names,
            strict=True,
        )
    ]


def test_settings_are_those_of_the_evaluation():
    with pytest.raises(ConfigError, match="distance must be one of"):
        camera_pairs(QUERY, GALLERY, distance="l1")
    with pytest.raises(ProtocolError, match="images on both sides, got 0 queries"):
        camera_pairs(QUERY.select([]).with_features(np.zeros((0, 1))), GALLERY)


def test_large_whole_numbers_keep_their_names() -> None:
    dates = [20190101.0, 20190102.0, 20190103.0]
    query = FeatureSet(np.eye(3, 4), [1, 2, 3], [1, 1, 1], metadata={"date": dates})
    gallery = FeatureSet(np.eye(3, 4), [1, 2, 3], [2, 2, 2])
    found = slice_report(evaluate_features(query, gallery), "date")
    assert [one.value for one in found] == ["20190101", "20190102", "20190103"]


def test_infinite_values_are_missing() -> None:
    values = [np.inf, *map(float, range(20)), -np.inf]
    query = FeatureSet(np.eye(22, 23), np.arange(22) + 1, np.ones(22, int), metadata={"x": values})
    gallery = FeatureSet(np.eye(22, 23), np.arange(22) + 1, np.full(22, 2))
    found = slice_report(evaluate_features(query, gallery), "x")
    assert [one.queries for one in found] == [5, 5, 5, 5, 2] and found[-1].value == "missing"
