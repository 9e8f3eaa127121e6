"""Diagnosis: heads of rankings as the protocol ranks, every rule on cases whose answer is plain, all of it saved."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ccan.diagnosis import (
    FailureRules,
    compare_checkpoints,
    confusers,
    diagnose,
    distance_distributions,
    duplicates_table,
    failure_kinds,
    hubs,
    label_suspects,
    rank_all,
)
from ccan.errors import ConfigError, ProtocolError, ShapeError
from ccan.evaluation import FeatureSet, camera_pairs, evaluate_features, rank_gallery
from ccan.evaluation.ranking import Distance


def random_sets(seed: int, queries: int = 13, images: int = 41) -> tuple[FeatureSet, FeatureSet]:
    """With ties, junk, distractors and unknown cameras."""
    rng = np.random.default_rng(seed)
    rows = rng.integers(-2, 3, (queries + images, 3)).astype(np.float64)
    names = [f"dir/{k}.jpg" for k in range(queries + images)]
    identities = np.r_[rng.integers(1, 6, queries), rng.integers(-1, 6, images)]
    cameras = rng.integers(1, 4, queries + images)
    cameras[rng.random(queries + images) < 0.1] = -1
    both = FeatureSet(torch.tensor(rows), identities, cameras, names)
    return both.select(np.arange(queries)), both.select(np.arange(queries, queries + images))


@pytest.mark.parametrize("seed", range(12))
def test_heads_are_those_of_the_ranking(seed: int):
    query, gallery = random_sets(seed)
    found = rank_all(query, gallery, top=7, block=5)
    for k in range(len(query)):
        ranking = rank_gallery(query.select([k]), gallery, include_ignored=False)
        head = ranking.order[:7].tolist()
        assert found.rows[k].tolist() == head + [-1] * (7 - len(head))
        assert found.right[k].tolist() == [mark == "right" for mark in ranking.marks[:7]] + [
            False
        ] * (7 - len(head))
        assert found.distances[k, : len(head)] == pytest.approx(ranking.distances[:7])
        for mark, rows, distances in (
            ("right", found.nearest_right, found.right_distance),
            ("wrong", found.nearest_wrong, found.wrong_distance),
        ):
            if mark in ranking.marks:
                place = ranking.marks.index(mark)
                assert rows[k] == ranking.order[place]
                assert distances[k] == pytest.approx(ranking.distances[place])
            else:
                assert rows[k] == -1 and np.isinf(distances[k])
        assert found.failed[k] == (ranking.first_match > 1)
    margin = found.margin
    both = (found.nearest_right >= 0) & (found.nearest_wrong >= 0)
    assert np.isnan(margin[~both]).all()
    assert margin[both] == pytest.approx((found.wrong_distance - found.right_distance)[both])


def test_a_short_gallery_is_filled_up_and_bad_numbers_are_refused():
    query, gallery = random_sets(1)
    assert rank_all(query, gallery.select([0, 1]), top=10).rows.shape == (13, 2)
    with pytest.raises(ConfigError, match="top and block must be at least 1, got 0 and 256"):
        rank_all(query, gallery, top=0)
    with pytest.raises(ProtocolError, match="images on both sides"):
        rank_all(query, gallery.select([]))


def on_a_line(places: list[tuple[float, int, int]], **metadata: list) -> FeatureSet:
    """Images at (place, identity, camera)."""
    where, identities, cameras = zip(*places, strict=True)
    names = [f"{who}_c{camera}_{k}.jpg" for k, (_, who, camera) in enumerate(places)]
    return FeatureSet(
        torch.tensor(where, dtype=torch.float64)[:, None], identities, cameras, names, metadata
    )


QUERIES = on_a_line(
    [(0, 1, 1), (10, 2, 1), (20, 3, 1), (30, 4, 1)],
    view=["front", "back", "front", "front"],
    occlusion=[0.0, 0.0, 0.5, 0.0],
    box_scale=[1.0, 1.0, 1.0, 0.5],
)
GALLERY = on_a_line(
    [(0.1, 1, 2), (10.1, 9, 2), (13, 2, 2), (20.2, 9, 2), (23, 3, 3), (30.3, 9, 3), (39, 4, 2)],
    view=["front", "back", "front", "side", "front", "side", "front"],
    occlusion=[0.0] * 7,
    box_scale=[1.0] * 7,
)


def test_every_rule_where_its_answer_is_plain():
    tops = rank_all(QUERIES, GALLERY)
    assert tops.failed.tolist() == [False, True, True, True]
    found = failure_kinds(QUERIES, GALLERY, tops, pairs=camera_pairs(QUERIES, GALLERY))
    kinds = {kind.name: kind for kind in found.kinds}
    assert kinds["no similar view"].holds.tolist() == [False, True, False, False]
    assert kinds["no near match"].holds.tolist() == [
        False,
        False,
        False,
        True,
    ]  # 9 away, the others 0.1, 3, 3
    assert kinds["look-alike"].holds.tolist() == [False, True, True, True]  # nearer than 3
    assert kinds["occlusion"].holds.tolist() == [False, False, True, False]
    assert kinds["bad crop"].holds.tolist() == [False, False, False, True]
    assert not kinds["camera pair"].judged, "no pair has ten queries"
    assert not kinds["unexplained"].holds.any()
    assert found.of(1) == ["no similar view", "look-alike"]
    assert kinds["look-alike"].evidence[1] == pytest.approx(0.1)
    table = found.table()
    assert (
        dict(zip(table.columns["kind"], table.columns["queries"], strict=True))["camera pair"]
        == "not judged"
    )
    assert "0.2" in kinds["occlusion"].rule and "3 queries failed" in table.note


def test_a_pair_of_cameras_that_is_far_below_the_others_is_named():
    tops = rank_all(QUERIES, GALLERY)
    pairs = camera_pairs(QUERIES, GALLERY)
    rules = FailureRules(pair_queries=1, pair_gap=0.05)
    kind = failure_kinds(QUERIES, GALLERY, tops, pairs=pairs, rules=rules).kinds[5]
    # camera 1 → 2: two of three right; 1 → 3: query 3's match is 3 away, the wrong image 10: right.
    assert pairs.rank1.tolist() == [[pytest.approx(2 / 3), 1.0]] and pairs.queries.tolist() == [
        [3, 1]
    ]
    assert kind.judged and kind.holds.tolist() == [False, True, False, True]
    assert kind.evidence.tolist() == [
        pytest.approx(2 / 3),
        pytest.approx(2 / 3),
        1.0,
        pytest.approx(2 / 3),
    ]


def test_without_facts_kinds_are_not_judged_and_the_rest_is_unexplained():
    plain = [FeatureSet(one.features, one.identities, one.cameras) for one in (QUERIES, GALLERY)]
    tops = rank_all(plain[0], plain[1])
    found = {kind.name: kind for kind in failure_kinds(plain[0], plain[1], tops).kinds}
    unknown = [name for name, kind in found.items() if not kind.judged]
    assert unknown == ["no similar view", "occlusion", "bad crop", "camera pair"]
    shifted = failure_kinds(plain[0], plain[1], tops, shift=np.array([1, 0, 0, -1]))
    assert shifted.kinds[4].judged and shifted.kinds[4].holds.tolist() == [
        False,
        False,
        False,
        True,
    ]
    far = on_a_line([(0, 1, 1), (20, 2, 1), (40, 3, 1)])
    others = on_a_line([(5, 1, 2), (4.9, 9, 2), (21, 2, 2), (46, 3, 2)])
    last = failure_kinds(far, others, rank_all(far, others)).kinds[-1]
    # 4.9 is not nearer than the median 5 by much, but it is: a look-alike; with 5.2 ahead of 5.5 it is none.
    assert last.name == "unexplained" and not last.holds.any()
    others = on_a_line([(5.5, 1, 2), (5.2, 9, 2), (21, 2, 2), (45, 3, 2), (47, 3, 2)])
    assert failure_kinds(far, others, rank_all(far, others)).kinds[-1].holds.tolist() == [False] * 3
    near = on_a_line([(4, 1, 2), (3.9, 9, 2), (21, 2, 2), (41, 3, 2), (60, 4, 2)])
    asked = on_a_line([(0, 1, 1), (20, 2, 1), (40, 3, 1), (66, 4, 1)])
    kinds = {one.name: one for one in failure_kinds(asked, near, rank_all(asked, near)).kinds}
    # Nearest matches 4, 1, 1, 6: the median is 2.5 and 3.9 no look-alike; 4 is not the farthest.
    assert kinds["unexplained"].holds.tolist() == [True, False, False, False]
    with pytest.raises(ShapeError, match="a shift for each of 4 queries"):
        failure_kinds(plain[0], plain[1], tops, shift=np.zeros(3, int))


def test_confusers_and_hubs_by_hand():
    query = on_a_line([(0, 1, 1), (1, 2, 1), (2, 1, 3)])
    gallery = on_a_line([(0.9, 2, 2), (0.4, 9, 2), (5, 1, 2), (0.2, 2, 4)])
    tops = rank_all(query, gallery, top=3)
    graph = confusers(query, gallery, tops)
    # Query 1 (identity 1): 9 and 2 and 2 ahead; query 3 (identity 1 at 2): 2, 9, 2 ahead; query 2 is right.
    assert graph.edges == {(1, 2): (2, 4), (1, 9): (2, 2)}
    assert graph.table().rows()[0] == [1, 2, 2, 4, False]
    found = hubs(gallery, tops)
    assert found.appearances.tolist() == [3, 3, 0, 3] and found.wrong.tolist() == [2, 3, 0, 2]
    assert found.expected == 2.25 and len(found.rows) == 0
    many = on_a_line([(k, 1, 1) for k in range(30)])
    crowd = on_a_line([(k + 0.1, 1, 2) for k in range(30)] + [(15, 7, 2)])
    crowded = rank_all(many, crowd, top=1)
    crowded.rows[:, 0] = 30  # everybody's nearest
    crowded.right[:] = False
    hub = hubs(crowd, crowded)
    assert hub.rows.tolist() == [30] and hub.skewness > 5
    assert hub.table().rows()[0][2:] == [7, 30, 1.0]


def test_a_person_under_two_numbers_is_suspected():
    rng = np.random.default_rng(0)
    base = rng.normal(size=(6, 8))
    rows, identities, cameras = [], [], []
    for who in range(6):
        for camera in (1, 2, 3):
            rows.append(base[who] + 0.02 * rng.normal(size=8))
            identities.append(who + 1)
            cameras.append(camera)
    identities[1] = 50  # identity 1's image of camera 2 got another number
    both = FeatureSet(torch.tensor(np.array(rows)), identities, cameras)
    query, gallery = both.select(np.arange(0, 18, 3)), both.select([k for k in range(18) if k % 3])
    found = label_suspects(query, gallery, streams={
        name: (query.features[:, half], gallery.features[:, half])
        for name, half in (("G", slice(0, 4)), ("L", slice(4, 8)))
    })  # fmt: skip
    assert found.suspects, "nobody is suspected"
    best = found.suspects[0]
    assert {int(found.identities[best.first]), int(found.identities[best.second])} == {1, 50}
    assert best.mutual and best.agreeing == 1 and best.distance < 0.3
    assert found.streams == ("G", "L") and len(found.table()) == len(found.suspects)
    clean = FeatureSet(both.features, np.arange(18) // 3 + 1, cameras)
    none = label_suspects(
        clean.select(np.arange(0, 18, 3)), clean.select([k for k in range(18) if k % 3])
    )
    assert none.suspects == ()
    with pytest.raises(
        ShapeError, match="expected stream 'G' to have 6 and 12 rows, got 12 and 12"
    ):
        label_suspects(query, gallery, streams={"G": (gallery.features, gallery.features)})
    with pytest.raises(ConfigError, match="most must be at least 1"):
        label_suspects(query, gallery, most=0)


def test_copies_are_found_and_named():
    rows = torch.randn(20, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    rows[13] = rows[2] + 1e-5
    both = FeatureSet(rows, np.arange(20) // 2 + 1, np.arange(20) % 2 + 1)
    found = duplicates_table(both.select(np.arange(5)), both.select(np.arange(5, 20)))
    assert len(found) == 1
    line = dict(zip(found.columns, found.rows()[0], strict=True))
    assert (line["split"], line["its split"], line["identities differ"]) == (
        "query",
        "gallery",
        True,
    )
    assert line["distance"] == pytest.approx(1e-5 * 5**0.5)
    assert len(duplicates_table(both, both.select([]), share=0)) == 0
    with pytest.raises(ConfigError, match="share must lie from 0 to below 1, got 1"):
        duplicates_table(both, both, share=1)


def test_distances_and_thresholds_by_a_loop():
    query, gallery = random_sets(3)
    found = distance_distributions(query, gallery, bins=7)
    sides: dict[bool, list[float]] = {True: [], False: []}
    for k in range(len(query)):
        ranking = rank_gallery(query.select([k]), gallery, include_ignored=False)
        for mark, distance in zip(ranking.marks, ranking.distances, strict=True):
            sides[mark == "right"].append(float(distance))
    assert found.genuine.sum() == len(sides[True]) and found.impostor.sum() == len(sides[False])
    assert found.genuine.tolist() == np.histogram(sides[True], found.edges)[0].tolist()
    for threshold in (0.5, 1.7, found.eer_threshold):
        expected = [np.mean(np.array(sides[side]) <= threshold) for side in (True, False)]
        assert found.at(threshold) == pytest.approx(tuple(expected), abs=1e-9)
    true, false = found.at(found.eer_threshold)
    grid = [found.at(t) for t in np.unique(sides[True])]
    assert abs(false - (1 - true)) <= min(abs(f - (1 - t)) for t, f in grid) + 1e-9
    assert len(found.table()) == 4 and len(found.histogram()) == 7
    with pytest.raises(ConfigError, match="bins must be at least 2"):
        distance_distributions(query, gallery, bins=1)


def test_two_checkpoints_query_by_query():
    query, gallery = random_sets(4)
    other = query.with_features(torch.tensor(np.random.default_rng(9).normal(size=(13, 3))))
    a, b = evaluate_features(query, gallery), evaluate_features(other, gallery)
    found = compare_checkpoints(a, b)
    for row, outcome in zip(found.rows, found.outcomes, strict=True):
        right = (a.first_match[row] == 1, b.first_match[row] == 1)
        assert outcome == {
            (False, True): "fixed", (True, False): "broken", (True, True): "both right", (False, False): "both wrong",
        }[right]  # fmt: skip
    assert sum(found.counts().values()) == a.valid_queries
    assert (found.counts()["fixed"], found.counts()["broken"]) == (
        found.paired.fixed,
        found.paired.broken,
    )
    changes = found.table().columns["change"]
    assert (np.diff(np.abs(changes)) <= 1e-12).all() and "McNemar p" in found.table().note


def test_the_whole_is_saved_and_told(tmp_path: Path):
    query, gallery = random_sets(5)
    found = diagnose(query, gallery)
    found.save(tmp_path)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["failed"] == int(found.tops.failed.sum())
    assert summary["mAP"] == found.report.mAP
    for table in found.tables():
        assert (tmp_path / f"{table.name}.csv").read_text() == table.to_csv()
    hardest = found.hardest
    assert len(hardest) == found.report.valid_queries
    assert (np.diff(hardest.columns["AP"]) >= 0).all()
    assert f"{summary['failed']} of {found.report.valid_queries} queries fail" in found.summary()
    frame: Any = hardest.to_frame()
    assert frame["margin"].notna().any()
    sliced = diagnose(QUERIES, GALLERY, by=["view"])
    assert [table.name for table in sliced.slices] == ["by_view"]
    assert sliced.slices[0].columns["queries"].tolist() == [1, 3]
    two = diagnose(
        query.with_features(torch.randn(13, 4)),
        gallery.with_features(torch.randn(41, 4)),
        branches=2,
    )
    assert two.suspects.streams == ("G", "L")
    with pytest.raises(ConfigError, match="branches must be 1 or 2"):
        diagnose(query, gallery, branches=3)
    with pytest.raises(ShapeError, match="even width, got 3"):
        diagnose(query, gallery, branches=2)


def test_a_model_without_failures_and_a_single_camera_view():
    query = on_a_line([(0, 1, 1), (10, 2, 1)])
    gallery = on_a_line([(0.1, 1, 2), (10.1, 2, 2)])
    found = diagnose(query, gallery)
    assert not found.tops.failed.any() and not found.confusers.edges and not found.suspects.suspects
    assert "0 of 2 queries fail" in found.summary()
    with pytest.raises(ProtocolError, match="no query has a match"):
        diagnose(query, on_a_line([(0.1, 1, 1), (10.1, 2, 1)]))


def test_near_is_not_yet_mutual():
    query = on_a_line([(0, 1, 1), (1.4, 3, 1)])
    gallery = on_a_line([(1, 2, 2), (50, 1, 2), (60, 2, 1), (70, 3, 2)])
    found = label_suspects(query, gallery)
    by_distance = {round(one.distance, 3): one for one in found.suspects}
    # 1 at 0 sees 2 at 1, but 2 sees 3 at 1.4, and 3 sees 2.
    assert not by_distance[1.0].mutual and by_distance[0.4].mutual
    assert by_distance[0.4].strength > by_distance[1.0].strength


def test_where_cameras_are_unknown_all_but_the_image_itself_can_be_near():
    query = on_a_line([(0, 1, -1), (9, 1, -1)])
    gallery = on_a_line([(0.1, 2, -1), (9.2, 2, -1)])
    found = label_suspects(query, gallery)
    assert len(found.suspects) == 2 and all(one.mutual for one in found.suspects)
    assert found.suspects[0].distance == pytest.approx(0.1)


def test_one_match_of_the_same_view_is_enough():
    query = on_a_line([(0, 1, 1)], view=["front"])
    gallery = on_a_line([(1, 9, 2), (2, 1, 2), (3, 1, 3)], view=["back", "side", "front"])
    kind = failure_kinds(query, gallery, rank_all(query, gallery)).kinds[0]
    assert kind.judged and not kind.holds[0] and kind.evidence[0] == 0.5


@pytest.mark.parametrize("distance", ["euclidean", "squared_euclidean", "cosine"])
def test_the_distance_of_copies_is_that_of_their_difference(distance: Distance):
    rows = torch.randn(12, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    rows[7] = rows[3] * (1 + 1e-9)
    rows[7, 0] += 1e-7
    sides = (
        FeatureSet(rows[:6], np.arange(6) + 1, [1] * 6),
        FeatureSet(rows[6:], np.arange(6) + 7, [2] * 6),
    )
    (line,) = duplicates_table(*sides, distance=distance).rows()
    a, b = rows[3].numpy().astype(np.longdouble), rows[7].numpy().astype(np.longdouble)
    expected = {
        "euclidean": np.sqrt(((a - b) ** 2).sum()),
        "squared_euclidean": ((a - b) ** 2).sum(),
        "cosine": 1 - (a @ b) / np.sqrt((a @ a) * (b @ b)),
    }[distance]
    assert line[8] == pytest.approx(float(expected), rel=1e-2)


def test_streams_agree_as_one_by_one():
    """Many suspects at once, more than a block, against a loop over each."""
    chance = np.random.default_rng(5)
    people, cameras = chance.integers(1, 90, 700), chance.integers(1, 4, 700)
    rows = chance.standard_normal((90, 8))[people] + 1.2 * chance.standard_normal((700, 8))
    query, gallery = (
        FeatureSet(rows[part], people[part], cameras[part])
        for part in (slice(0, 200), slice(200, None))
    )
    streams = {
        name: (torch.tensor(rows[:200, part]), torch.tensor(rows[200:, part]))
        for name, part in (("G", slice(0, 4)), ("L", slice(4, 8)))
    }
    found = label_suspects(query, gallery, streams=streams, most=10_000)
    assert len(found.suspects) > 300
    for one in found.suspects:
        agreeing = []
        for part in (slice(0, 4), slice(4, 8)):
            far = np.linalg.norm(rows[:, part] - rows[one.first, part], axis=1)
            others = cameras != cameras[one.first]
            agreeing.append((far[others] < far[one.second] - 1e-9).sum() < 3)
        assert one.agreeing == np.mean(agreeing)
