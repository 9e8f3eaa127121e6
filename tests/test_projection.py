"""Maps of embeddings: one start, kept neighbours, thinning, cache, cancelling, placing."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import ccan.projection as projection
from ccan.errors import CCANError, ConfigError, ShapeError
from ccan.evaluation import FeatureSet
from ccan.projection import (
    Cancelled,
    balanced_rows,
    estimated_seconds,
    nearest,
    place,
    project,
    shared_start,
    views_of,
)


def clusters(people: int = 6, images: int = 10, width: int = 8, seed: int = 0) -> FeatureSet:
    """Every identity by itself, its images close together."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(people, width)).repeat(images, axis=0)
    rows = rows + 0.05 * rng.normal(size=rows.shape)
    identities = np.arange(people).repeat(images) + 1
    return FeatureSet(torch.tensor(rows), identities, np.ones_like(identities))


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def found(cache: Path) -> projection.Projection:
    return project(clusters(), branches=2, cache=cache)


def test_three_maps_that_keep_people_together(found: projection.Projection):
    assert list(found.points) == ["G", "L", "joint"]
    people = np.arange(6).repeat(10)
    for name, points in found.points.items():
        assert points.shape == (60, 2) and points.dtype == np.float32
        near = nearest(points.astype(float), 5)
        assert (people[near] == people[:, None]).mean() > 0.95, name
        assert found.trustworthiness[name] > 0.9
    assert found.rows.tolist() == list(range(60))


def test_agreement_and_neighbours_by_definition(found: projection.Projection):
    views = views_of(clusters().features.numpy(), 2)
    for name, values in views.items():
        assert np.linalg.norm(values, axis=1) == pytest.approx(1)
        for point in (0, 17, 59):
            far = np.linalg.norm(values - values[point], axis=1)
            true = [k for k in np.argsort(far) if k != point][:10]
            assert found.neighbours[name][point].tolist() == true
            shown = np.linalg.norm(found.points[name] - found.points[name][point], axis=1)
            on_map = [k for k in np.argsort(shown) if k != point][:10]
            share = len(set(true) & set(on_map)) / 10
            assert found.agreement[name][point] == pytest.approx(share)


def test_all_maps_begin_at_the_joint_embeddings_components(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    views = views_of(clusters().features.numpy(), 2)
    start = shared_start(views)
    assert start.shape == (60, 2) and start[:, 0].std() == pytest.approx(1e-4)
    assert abs(float(start[:, 0] @ start[:, 1])) < 1e-12
    given: list[np.ndarray] = []

    def tsne(values: np.ndarray, begin: np.ndarray, _perplexity: float, _seed: int) -> np.ndarray:
        given.append(begin)
        return values[:, :2].astype(np.float32)

    monkeypatch.setattr(projection, "_tsne", tsne)
    arrays: dict[str, Any] = {f"view {k}": v for k, v in views.items()}
    np.savez(tmp_path / "in.npz", perplexity=5, seed=0, **arrays)
    projection._work(tmp_path / "in.npz", tmp_path / "out.npz")
    assert len(given) == 3 and all(np.array_equal(one, start) for one in given)


def test_the_same_again_comes_from_the_cache(
    found: projection.Projection, cache: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(projection, "_in_child", lambda *_: pytest.fail("a child was started"))
    again = project(clusters(), branches=2, cache=cache)
    assert all(np.array_equal(again.points[k], v) for k, v in found.points.items())
    assert again.trustworthiness == found.trustworthiness
    for change in ({"branches": 1}, {"seed": 1}, {"perplexity": 7.0}, {"limit": 30}):
        with pytest.raises(pytest.fail.Exception, match="a child was started"):
            project(clusters(), **({"branches": 2} | change), cache=cache)  # type: ignore[arg-type]


@pytest.mark.parametrize("damage", ["cut", "other rows", "nan", "no archive"])
def test_a_damaged_map_is_made_again(
    found: projection.Projection,
    cache: Path,
    tmp_path: Path,
    damage: str,
    monkeypatch: pytest.MonkeyPatch,
):
    (file,) = (cache / "projections").glob("*.npz")
    place_ = tmp_path / "projections" / file.name
    place_.parent.mkdir()
    with np.load(file) as arrays:
        values = {name: arrays[name] for name in arrays.files}
    if damage == "cut":
        place_.write_bytes(file.read_bytes()[:-200])
    elif damage == "no archive":
        place_.write_text("nothing")
    else:
        spoilt = (
            {"rows": values["rows"][::-1]}
            if damage == "other rows"
            else {"G points": values["G points"] * np.nan}
        )
        np.savez(place_, **(values | spoilt))
    made = {name: value for name, value in values.items() if name != "rows"}
    monkeypatch.setattr(projection, "_in_child", lambda *_: made)
    again = project(clusters(), branches=2, cache=tmp_path)
    assert np.array_equal(again.points["G"], found.points["G"])
    with np.load(place_) as arrays:
        assert np.array_equal(arrays["rows"], values["rows"])


def test_identities_share_the_places():
    people = [1] * 50 + [2] * 5 + [3] * 20 + [-1] * 9 + [0] * 30
    rows = balanced_rows(people, 24, seed=4)
    counts = {who: sum(people[row] == who for row in rows) for who in (-1, 0, 1, 2, 3)}
    assert len(rows) == 24 and rows.tolist() == sorted(set(rows.tolist()))
    assert counts[-1] == 0 and counts[2] == 5
    assert sorted(counts[who] for who in (0, 1, 3)) == [6, 6, 7]
    assert balanced_rows(people, 24, seed=4).tolist() == rows.tolist()
    assert balanced_rows(people, 24, seed=5).tolist() != rows.tolist()
    assert balanced_rows(people, None).tolist() == [k for k, who in enumerate(people) if who != -1]
    assert len(balanced_rows(people, 105)) == 105
    few = balanced_rows(list(range(1, 11)), 4, seed=1)
    assert len(few) == 4


def test_few_and_equal_points_are_no_trouble(tmp_path: Path):
    few = project(clusters(2, 2), cache=tmp_path)
    assert few.points["joint"].shape == (4, 2) and few.neighbours["joint"].shape == (4, 3)
    equal = FeatureSet(torch.ones(7, 3, dtype=torch.float64), np.arange(7), np.ones(7, int))
    found = project(equal, cache=tmp_path)
    assert np.isfinite(found.points["joint"]).all()
    assert all(k not in row for k, row in enumerate(found.neighbours["joint"]))


def test_a_large_map_can_be_cancelled(tmp_path: Path):
    cancel, told = threading.Event(), list[tuple[float, float]]()

    def progress(passed: float, estimate: float, _: str) -> None:
        told.append((passed, estimate))
        if passed > 0.6:
            cancel.set()

    began = time.monotonic()
    with pytest.raises(Cancelled, match="cancelled"):
        project(clusters(300, 10, 64), cache=tmp_path, progress=progress, cancel=cancel)
    assert time.monotonic() - began < 10
    assert told[0][1] == estimated_seconds(3000, 1) and not list(tmp_path.rglob("*.npz"))


def test_a_child_that_fails_says_why():
    with pytest.raises(CCANError, match=r"the map could not be made: .*perplexity"):
        projection._in_child({"joint": np.ones((3, 2))}, float("nan"), 0, None, None)


def test_a_new_image_lies_among_its_neighbours(found: projection.Projection):
    features = clusters()
    rows = features.features.numpy()
    points = found.points["joint"].astype(float)
    assert place(found, features, rows[13])[0] == pytest.approx(points[13])
    between = rows[0] + 0.01
    values = views_of(rows, 2)["joint"]
    probe = between / np.linalg.norm(between)
    weights = values @ probe
    best = np.argsort(-weights)[:10]
    expected = weights[best] @ points[best] / weights[best].sum()
    assert place(found, features, between)[0] == pytest.approx(expected, abs=1e-5)
    assert place(found, features, rows[:2], "G").shape == (2, 2)
    opposite = place(found, features, -rows[0], neighbours=60)
    assert np.isfinite(opposite).all()
    with pytest.raises(ShapeError, match=r"expected descriptors \(M, 8\), got \(1, 3\)"):
        place(found, features, [1, 2, 3])
    with pytest.raises(ShapeError, match="expected one of the maps G, L, joint, got 'K'"):
        place(found, features, rows[0], "K")


def test_the_table_holds_every_map(found: projection.Projection):
    table = found.table()
    assert list(table.columns) == [
        "row",
        *(f"{m} {c}" for m in ("G", "L", "joint") for c in ("x", "y", "agreement")),
    ]
    assert len(table) == 60 and "trustworthiness: G 0.9" in table.note


def test_errors_say_what_to_do(monkeypatch: pytest.MonkeyPatch):
    features = clusters(2, 3, 7)
    with pytest.raises(ConfigError, match="branches must be 1 or 2, got 3"):
        project(features, branches=3)
    with pytest.raises(ShapeError, match="even width, got 7; pass branches=1"):
        project(features, branches=2)
    for wrong in ({"limit": 3}, {"perplexity": 0.0}, {"seed": -1}):
        with pytest.raises(ConfigError, match="limit must be at least 4"):
            project(features, **wrong)  # type: ignore[arg-type]
    with pytest.raises(ShapeError, match="at least 4 images that are not junk, got 3"):
        project(features.select([0, 1, 2]))
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(ConfigError, match=r'pip install "ccan\[explain\]"'):
        project(features)


def test_the_child_needs_no_torch():
    code = "import sys, ccan.projection; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
