"""Maps of embeddings: one start, kept neighbours, thinning, cache, cancelling, placing."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import ccan.projection as projection
from ccan.errors import CCANError, ConfigError, ProtocolError, ShapeError
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


def test_trustworthiness_by_definition(found: projection.Projection):
    """1 less the ranks, beyond k, of those that are neighbours on the map alone, over the most they could be."""
    n, k = 60, 10
    for name, values in views_of(clusters().features.numpy(), 2).items():
        excess = 0
        for point in range(n):
            far = np.linalg.norm(values - values[point], axis=1)
            rank = {row: r for r, row in enumerate(r for r in np.argsort(far) if r != point)}
            shown = np.linalg.norm(found.points[name] - found.points[name][point], axis=1)
            on_map = [row for row in np.argsort(shown) if row != point][:k]
            excess += sum(max(0, rank[row] + 1 - k) for row in on_map)
        expected = 1 - excess * 2 / (n * k * (2 * n - 3 * k - 1))
        assert found.trustworthiness[name] == pytest.approx(expected), name


def test_the_start_is_scikit_learns_own():
    from sklearn.decomposition import PCA

    views = views_of(clusters().features.numpy(), 2)
    axes = PCA(2, svd_solver="full").fit_transform(views["joint"])
    expected = axes / axes[:, 0].std() * 1e-4
    assert np.abs(shared_start(views)) == pytest.approx(np.abs(expected), abs=1e-9)


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


def test_the_key_holds_all_that_a_map_depends_on():
    values, rows = np.arange(24.0).reshape(4, 6), np.arange(4)
    key = projection._key(values, rows, 1, 30, 0)
    assert key == projection._key(values, rows, 1, 30.0, np.int64(0))  # type: ignore[arg-type]
    others = [
        projection._key(values.reshape(6, 4), rows, 1, 30, 0),
        projection._key(values + 1, rows, 1, 30, 0),
        projection._key(values, rows + 1, 1, 30, 0),
        projection._key(values, rows, 2, 30, 0),
        projection._key(values, rows, 1, 29, 0),
        projection._key(values, rows, 1, 30, 1),
    ]
    assert len({key, *others}) == 7


def test_the_same_features_give_the_same_bytes(found: projection.Projection, tmp_path: Path):
    again = project(clusters(), branches=2, cache=tmp_path).arrays()
    for name, values in found.arrays().items():
        assert again[name].tobytes() == values.tobytes(), name


SPOILT: dict[str, Any] = {
    "other rows": lambda v: {"rows": v["rows"][::-1]},
    "nan": lambda v: {"G points": v["G points"] * np.nan},
    "wrong shape": lambda v: {"L points": v["L points"][:-1]},
    "wrong type": lambda v: {"L points": v["L points"].astype(float)},
    "other key": lambda v: {"key": np.array("0" * 64)},
    "no such neighbour": lambda v: {"joint neighbours": v["joint neighbours"] + 60},
    "impossible share": lambda v: {"L agreement": v["L agreement"] + 1.5},
    "no trust": lambda v: {"G trust": np.array(np.nan)},
    "pickled": lambda v: {"rows": v["rows"].astype(object)},
}


@pytest.mark.parametrize("damage", ["cut", "no archive", *SPOILT])
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
        np.savez(place_, **(values | SPOILT[damage](values)))
    made = {name: value for name, value in values.items() if name not in ("key", "rows")}
    children: list[int] = []

    def child(*_: Any) -> dict[str, NDArray[Any]]:
        children.append(1)
        return made

    monkeypatch.setattr(projection, "_in_child", child)
    again = project(clusters(), branches=2, cache=tmp_path)
    assert len(children) == 1
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
    with pytest.raises(ConfigError, match="limit must be at least 1, got 0; pass None"):
        balanced_rows(people, 0)


def test_few_and_equal_points_are_no_trouble(tmp_path: Path):
    few = project(clusters(2, 2), cache=tmp_path)
    assert few.points["joint"].shape == (4, 2) and few.neighbours["joint"].shape == (4, 3)
    equal = FeatureSet(torch.ones(7, 3, dtype=torch.float64), np.arange(7), np.ones(7, int))
    found = project(equal, cache=tmp_path)
    assert np.isfinite(found.points["joint"]).all()
    assert all(k not in row for k, row in enumerate(found.neighbours["joint"]))


def test_twins_and_a_dead_branch_do_not_even_warn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PYTHONWARNINGS", "error")
    rows = np.random.default_rng(3).normal(size=(13, 134)).repeat(2, axis=0)
    rows[:, :67] = 0
    features = FeatureSet(torch.tensor(rows), np.arange(26), np.ones(26, int))
    found = project(features, branches=2, cache=tmp_path)
    assert all(np.isfinite(points).all() for points in found.points.values())
    twin = np.arange(26) ^ 1
    assert found.neighbours["L"][:, 0].tolist() == twin.tolist()
    spot = place(found, features, rows[4])[0]
    assert any(np.array_equal(spot, found.points["joint"][k].astype(float)) for k in (4, 5))


@pytest.fixture
def children(monkeypatch: pytest.MonkeyPatch) -> list[subprocess.Popen[Any]]:
    """All processes that are started."""
    started: list[subprocess.Popen[Any]] = []
    real = subprocess.Popen

    def start(*given: Any, **settings: Any) -> subprocess.Popen[Any]:
        started.append(real(*given, **settings))
        return started[-1]

    monkeypatch.setattr(subprocess, "Popen", start)
    return started


def test_an_interrupt_ends_the_child(tmp_path: Path, children: list[subprocess.Popen[Any]]):
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        project(clusters(300, 10, 64), cache=tmp_path, progress=interrupt)
    assert len(children) == 1 and children[0].returncode not in (None, 0)
    assert not list(tmp_path.rglob("*.npz"))


def test_a_large_map_can_be_cancelled(tmp_path: Path, children: list[subprocess.Popen[Any]]):
    cancel, told = threading.Event(), list[tuple[float, float]]()
    asked: list[float] = []

    def progress(passed: float, estimate: float, _: str) -> None:
        told.append((passed, estimate))
        if passed > 0.6:
            asked.append(time.monotonic())
            cancel.set()

    with pytest.raises(Cancelled, match="cancelled"):
        project(clusters(300, 10, 64), cache=tmp_path, progress=progress, cancel=cancel)
    assert time.monotonic() - asked[0] < 2
    assert len(children) == 1 and children[0].returncode not in (None, 0)
    assert told[0][1] == estimated_seconds(3000, 1) and not list(tmp_path.rglob("*.npz"))


def test_the_estimate_is_what_was_measured():
    for points, maps, seconds in ((300, 1, 2.1), (300, 3, 3.2), (1000, 1, 4.0), (1000, 3, 9.3)):
        assert estimated_seconds(points, maps) == pytest.approx(seconds, rel=0.15)
    for points, maps, seconds in ((3000, 1, 13.5), (3000, 3, 36.7), (5000, 1, 24.0)):
        assert estimated_seconds(points, maps) == pytest.approx(seconds, rel=0.15)


def test_the_child_runs_nothing_that_lies_in_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "tempfile.py").write_text("raise SystemExit('not from here')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    assert str(tmp_path) not in projection._import_path().split(os.pathsep)
    made = projection._in_child(views_of(np.eye(5), 1), 1.0, 0, None, None)
    assert made["joint points"].shape == (5, 2)


def test_the_child_has_one_thread(monkeypatch: pytest.MonkeyPatch):
    class Started(Exception):
        pass

    def start(*_: Any, env: dict[str, str], **__: Any) -> None:
        names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
        assert [env[name] for name in names] == ["1"] * 3
        raise Started

    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.setattr(subprocess, "Popen", start)
    with pytest.raises(Started):
        projection._in_child(views_of(np.eye(5), 1), 1.0, 0, None, None)


def test_a_child_that_fails_says_why():
    with pytest.raises(CCANError, match=r"the map could not be made: .*perplexity"):
        projection._in_child({"joint": np.ones((3, 2))}, float("nan"), 0, None, None)


def test_a_new_image_lies_among_its_neighbours(found: projection.Projection):
    features = clusters()
    rows = features.features.numpy()
    points = found.points["joint"].astype(float)
    assert place(found, features, rows[13])[0].tolist() == points[13].tolist()
    assert place(found, features, torch.tensor(rows[[13, 5]]).float()).tolist() == (
        points[[13, 5]].tolist()
    )
    between = rows[0] + 0.01
    values = views_of(rows, 2)["joint"]
    probe = between / np.linalg.norm(between)
    weights = values @ probe
    best = np.argsort(-weights)[:10]
    expected = weights[best] @ points[best] / weights[best].sum()
    assert place(found, features, between)[0] == pytest.approx(expected, abs=1e-5)
    assert place(found, features, rows[:2], "G").shape == (2, 2)
    unlike = place(found, features, np.zeros(8), neighbours=60)[0]
    assert unlike == pytest.approx(points.mean(axis=0))
    far = place(found, features, -rows[0], neighbours=60)[0]
    positive = np.maximum(values @ -values[0], 0)
    assert far == pytest.approx(positive @ points / positive.sum())
    with pytest.raises(ShapeError, match=r"expected descriptors \(M, 8\), got \(1, 3\)"):
        place(found, features, [1, 2, 3])
    with pytest.raises(ShapeError, match="expected one of the maps G, L, joint, got 'K'"):
        place(found, features, rows[0], map="K")
    with pytest.raises(ConfigError, match="neighbours must be at least 1, got 0"):
        place(found, features, rows[0], neighbours=0)
    with pytest.raises(ProtocolError, match="features must be finite"):
        place(found, features, rows[0] * np.nan)
    with pytest.raises(ShapeError, match="that were mapped, more than 59 rows, got 59"):
        place(found, features.select(range(59)), rows[0])


def test_the_table_holds_every_map(found: projection.Projection):
    table = found.table()
    assert list(table.columns) == [
        "row",
        *(f"{m} {c}" for m in ("G", "L", "joint") for c in ("x", "y", "agreement")),
    ]
    assert len(table) == 60 and "trustworthiness: G 0.9" in table.note


def test_a_map_is_saved_whole(found: projection.Projection, tmp_path: Path):
    found.save(tmp_path / "map.csv")
    head, first, *rest = (tmp_path / "map.csv").read_text().splitlines()
    assert head.split(",") == list(found.table().columns) and len(rest) == 59
    assert first.split(",")[0] == "0" and float(first.split(",")[1]) == found.points["G"][0, 0]
    found.save(tmp_path / "map.npz")
    with np.load(tmp_path / "map.npz", allow_pickle=False) as arrays:
        assert len(arrays.files) == 13 and np.array_equal(arrays["rows"], found.rows)
        assert np.array_equal(arrays["L neighbours"], found.neighbours["L"])
        assert float(arrays["joint trust"]) == found.trustworthiness["joint"]
    with pytest.raises(ConfigError, match=r"saved as \.csv or \.npz, got 'map\.png'"):
        found.save(tmp_path / "map.png")
    assert {path.name for path in tmp_path.iterdir()} == {"map.csv", "map.npz"}


def test_the_frame_is_the_table(found: projection.Projection):
    pytest.importorskip("pandas")
    frame: Any = found.to_frame()
    assert list(frame.columns) == list(found.table().columns) and frame.shape == (60, 10)
    assert frame["L y"].to_numpy().tolist() == found.points["L"][:, 1].tolist()


def test_errors_say_what_to_do(monkeypatch: pytest.MonkeyPatch):
    features = clusters(2, 3, 7)
    with pytest.raises(ConfigError, match="branches must be 1 or 2, got 3"):
        project(features, branches=3)
    with pytest.raises(ShapeError, match="even width, got 7; pass branches=1"):
        project(features, branches=2)
    for wrong in (
        {"limit": 3},
        {"perplexity": 0.0},
        {"perplexity": np.nan},
        {"seed": -1},
        {"seed": 2**32},
    ):
        with pytest.raises(ConfigError, match="limit must be at least 4"):
            project(features, **wrong)  # type: ignore[arg-type]
    with pytest.raises(ShapeError, match="at least 4 images that are not junk, got 3; add"):
        project(features.select([0, 1, 2]))
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(ConfigError, match=r'pip install "ccan\[explain\]"'):
        project(features)


def test_the_child_needs_no_torch(tmp_path: Path):
    np.savez(tmp_path / "in.npz", perplexity=1.0, seed=0, **{"view joint": np.eye(5)})  # type: ignore[arg-type]
    code = (
        "import sys, ccan.projection as p; p.main(sys.argv[1:]); "
        "sys.exit('torch came along' if 'torch' in sys.modules else 0)"
    )
    paths = [str(tmp_path / "in.npz"), str(tmp_path / "out.npz")]
    subprocess.run([sys.executable, "-c", code, *paths], check=True)
    assert (tmp_path / "out.npz").is_file()
