"""The Map view: points, groups, lassos, what they lead to, and what the browser is sent."""

from __future__ import annotations

import base64
import json
import threading
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from app import judged
from app.actions import act, query_list
from app.jobs import Report
from app.maps import GRID, Mapped, read_lasso, within
from app.selection import Selection, from_link, to_link
from app.store import Store
from app.views import errors, header
from app.views import map as map_view
from ccan.data.records import ReIDDataset
from ccan.errors import CCANError, ConfigError
from ccan.evaluation import FeatureSet
from ccan.evaluation.files import save_features
from ccan.projection import place
from tests.pages import HOSTILE, Page, make_store, png, uploaded


@pytest.fixture
def fresh(tmp_path: Path, store: Store) -> Store:
    """A store without any tag; index and maps are those of the others."""
    return Store(store.predictor, store.index, store.report, "small", tmp_path / "cases.jsonl")


@pytest.fixture
def mapped(fresh: Store) -> Mapped:
    return map_of(fresh)


def map_of(store: Store, whole: bool = False) -> Mapped:
    job = store.mapping(whole)
    assert job.wait(120) and job.value is not None, job.error
    return job.value


def start(store: Store, **more: object) -> Selection:
    return Selection(store.query_ids[0], tab="map", **more)  # type: ignore[arg-type]


def lasso_around(mapped: Mapped, name: str, images: list[str], margin: int = 3) -> str:
    """A box around some images of a map."""
    points = mapped.grid[name][[mapped.place_of[one] for one in images]].astype(int)
    (x0, y0), (x1, y1) = points.min(0) - margin, points.max(0) + margin
    box = np.clip([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], 0, GRID)
    return f"{name}:{mapped.key}:" + "".join(f"{int(n):04x}" for n in box.flat)


def state_of(page: Page) -> dict:
    (plot,) = page.classed("mapplot")
    return json.loads(plot["data-map"])


# Points


def test_every_image_that_is_no_junk_is_a_point(store: Store, fresh: Store) -> None:
    mapped = map_of(fresh)
    assert mapped.ids == [*store.query_ids, *store.gallery_ids]
    assert list(mapped.splits).count("query") == len(store.query_ids)
    for image, identity in zip(mapped.ids, mapped.identities, strict=True):
        sample = store.sample(image)
        assert sample is not None and sample.identity == identity
    assert mapped.maps == ["G", "L", "joint"]
    for points in mapped.grid.values():
        reach = np.ptp(points.astype(int), axis=0)
        assert reach.max() == GRID and reach.min() < GRID, "both ways on one scale"


def test_neighbours_are_those_of_the_embedding(store: Store, mapped: Mapped) -> None:
    rows = np.concatenate(
        [one.features.numpy() for one in (store.index.query, store.index.gallery)]
    )
    half = rows.shape[1] // 2
    for name, part in (("G", rows[:, :half]), ("L", rows[:, half:]), ("joint", rows)):
        unit = part / np.linalg.norm(part, axis=1, keepdims=True)
        for point in (0, 30):
            like = unit @ unit[point]
            like[point] = -2
            found = mapped.neighbours(name, point)
            np.testing.assert_allclose(like[found], np.sort(like)[::-1][:10], atol=1e-6)


def test_the_browser_is_sent_the_points_themselves(mapped: Mapped) -> None:
    sent = json.loads(json.dumps(mapped.sent()))
    for name, one in sent["maps"].items():
        x = np.frombuffer(base64.b64decode(one["x"]), "<u2")
        assert (x == mapped.grid[name][:, 0]).all() and 0 <= one["trust"] <= 1
        agreement = np.frombuffer(base64.b64decode(one["agreement"]), "u1") / 255
        np.testing.assert_allclose(agreement, mapped.projection.agreement[name], atol=1 / 255)
    query = np.frombuffer(base64.b64decode(sent["query"]), "u1")
    assert (query == (mapped.splits == "query")).all()


@pytest.mark.parametrize("colour", ["identity", "camera", "ap", "failure", "split"])
def test_groups_hold_each_point_once(fresh: Store, mapped: Mapped, colour: str) -> None:
    fresh.diagnosis().wait(60)
    groups = fresh.groups(mapped, colour)
    assert groups.counts().sum() == len(mapped.ids) == len(groups.of)
    assert len(groups.names) == len(groups.colours) and len(set(groups.names)) == len(groups.names)
    name = {image: groups.names[k] for image, k in zip(mapped.ids, groups.of, strict=True)}
    report, found = fresh.report, fresh.diagnosed().failures
    for image in (fresh.query_ids[0], fresh.query_ids[-1], fresh.gallery_ids[3]):
        sample, row = fresh.sample(image), fresh.query_rows.get(image)
        assert sample is not None
        if colour == "identity":
            assert name[image] == f"{sample.identity:04d}"
        elif colour == "camera":
            assert name[image] == f"camera {sample.camera}"
        elif colour == "split":
            assert name[image] == ("gallery" if row is None else "query")
        elif row is None:
            assert name[image].startswith(("no AP", "gallery"))
        elif colour == "ap":
            low, high = map(int, name[image].split()[1].split("–"))
            assert low <= 100 * report.ap[row] <= high
        else:
            kinds = found.of(row)
            expected = kinds[0] if kinds else "other failure"
            assert name[image] == (expected if found.failed[row] else "first image right")


def test_neighbours_in_number_have_other_colours() -> None:
    from app.maps import _hue

    colours = [np.array([int(_hue(k)[i : i + 2], 16) for i in (1, 3, 5)]) for k in range(1501)]
    apart = [int(np.abs(a - b).max()) for a, b in pairwise(colours)]
    assert min(apart) > 40 and len({tuple(one) for one in colours}) > 1000


# The lasso


def test_a_polygon_holds_what_an_independent_test_says() -> None:
    from matplotlib.path import Path as Polygon

    chance = np.random.default_rng(3)
    points = chance.integers(0, GRID + 1, (4000, 2)).astype("<u2")
    for corners in (chance.integers(0, GRID + 1, (n, 2)) for n in (3, 4, 9, 40)):
        middle = corners.mean(0)
        angle = np.arctan2(*(corners - middle).T)
        simple = corners[np.argsort(angle)]  # its sides do not cross
        expected = Polygon(simple).contains_points(points)
        assert (within(points, simple) == expected).all() and 0 < expected.sum() < len(points)


def test_counts_follow_the_lasso(fresh: Store, mapped: Mapped) -> None:
    images = [mapped.ids[k] for k in (0, 1, 2, 40)]
    lasso = lasso_around(mapped, "L", images)
    inside = mapped.inside(lasso)
    after = act(fresh, start(fresh, colour="split"), "lasso", lasso)
    page = Page(map_view.show(fresh, after))
    chosen = int(inside.sum())
    assert set(images) <= set(fresh.lassoed(lasso)) and 4 <= chosen < len(mapped.ids)
    queries = int((inside & (mapped.splits == "query")).sum())
    assert f"query{queries} / {len(fresh.query_ids)}" in page.words.replace("●", "")
    assert f"in the lasso{chosen} / {len(mapped.ids)}" in page.words
    assert f"Lasso: {chosen} / {len(mapped.ids)} images, {queries} of them queries" in page.words
    assert state_of(page)["lasso"] == lasso
    shown = [int(one["data-value"]) for one in page.buttons("dot")]
    assert np.flatnonzero(inside)[: map_view.PICTURES].tolist() == shown[: min(chosen, 24)]
    walked = act(fresh, act(fresh, after, "sheet", "1"), "step", "1")
    assert walked.sheet == 1, "the page of the lasso stays while one walks"
    gone = act(fresh, after, "lasso", "")
    assert gone.lasso == "" and "in the lasso" not in Page(map_view.show(fresh, gone)).words


def test_a_lasso_is_walked_tagged_and_found_in_errors(fresh: Store, mapped: Mapped) -> None:
    fresh.diagnosis().wait(60)
    own = [k for k in range(len(mapped.ids)) if mapped.identities[k] == mapped.identities[0]]
    lasso = lasso_around(mapped, "joint", [mapped.ids[k] for k in own])
    images = fresh.lassoed(lasso)
    selection = act(fresh, start(fresh), "lasso", lasso)
    (walk,) = Page(map_view.show(fresh, selection)).buttons("subset")
    selection = act(fresh, selection, "subset", walk["data-value"])
    queries = [one for one in images if one in fresh.query_rows]
    assert query_list(fresh, selection) == queries
    assert f"in the lasso ({len(queries)})" in Page(header.show(fresh, selection)).words
    before = fresh.cases.path.stat().st_size if fresh.cases.path.exists() else 0
    selection = act(fresh, replace(selection, who="ann"), "tag_lasso", " odd corner ")
    lines = fresh.cases.path.read_bytes()[before:].decode().splitlines()
    assert len(lines) == len(images) and all('"ann"' in line for line in lines)
    assert fresh.cases.images("odd corner") == images
    page = Page(map_view.show(fresh, selection))
    assert "all are tagged “odd corner”" in page.words
    (gone,) = page.buttons("untag_lasso")
    assert gone["data-value"] == "odd corner"
    page = Page(errors.show(fresh, replace(selection, tab="errors")))
    assert f"odd corner {len(images)}, {len(queries)} queries" in page.words
    assert act(fresh, selection, "tag_lasso", "  ") == selection
    assert fresh.cases.counts() == {"odd corner": len(images)}
    act(fresh, selection, "untag_lasso", "odd corner")
    assert fresh.cases.counts() == {}


def test_a_tag_of_gallery_images_alone_is_counted_and_is_no_button(
    fresh: Store, mapped: Mapped
) -> None:
    fresh.diagnosis().wait(60)
    fresh.cases.tag_all(fresh.gallery_ids[:2], "crowd")
    page = Page(errors.show(fresh, start(fresh)))
    assert "crowd 2, 0 queries" in page.words
    assert "tag:crowd" not in [one["data-value"] for one in page.buttons("subset")]


def test_an_empty_lasso_says_so(fresh: Store, mapped: Mapped) -> None:
    grid = mapped.grid["G"].astype(int)
    corner = next(
        c for c in ((0, 0), (GRID - 9, 0), (0, GRID - 9), (GRID - 9, GRID - 9))
        if not ((np.abs(grid - c) < 12).all(1)).any()
    )  # fmt: skip
    box = [(corner[0] + x, corner[1] + y) for x, y in ((0, 0), (8, 0), (8, 8))]
    lasso = f"G:{mapped.key}:" + "".join(f"{x:04x}{y:04x}" for x, y in box)
    after = act(fresh, start(fresh), "lasso", lasso)
    assert "No point lies in it" in Page(map_view.show(fresh, after)).words
    with pytest.raises(ConfigError, match="no image lies in the lasso"):
        act(fresh, after, "tag_lasso", "x")
    with pytest.raises(ConfigError, match="no query is behind this"):
        act(fresh, after, "subset", f"lasso:{lasso}")


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text[:-1], lambda text: text.replace("joint", "M"), lambda text: text[:-8] + "zzzzzzzz",
        lambda text: text.rpartition(":")[0] + ":" + 2 * "00000000", lambda text: text + 64 * "00010002",
        lambda text: text.replace(":p", ":q"), lambda text: text.replace(":p", ":w"), lambda _: "joint", lambda _: "::",
        lambda text: text.upper(), lambda text: text.replace(":p", ":p0"),
    ],
)  # fmt: skip
def test_a_lasso_that_is_none_is_refused(fresh: Store, mapped: Mapped, change) -> None:
    bad = change(lasso_around(mapped, "joint", mapped.ids[:2]))
    with pytest.raises(CCANError):
        act(fresh, start(fresh), "lasso", bad)
    for values in ({"lasso": bad}, {"subset": f"lasso:{bad}"}):
        selection, notice = from_link(values, fresh)
        assert selection == Selection(fresh.query_ids[0]) and "left out" in notice


def test_a_link_brings_map_lasso_and_point_back(fresh: Store, mapped: Mapped) -> None:
    lasso = lasso_around(mapped, "G", mapped.ids[:3])
    selection = start(
        fresh, lasso=lasso, subset=f"lasso:{lasso}", colour="camera", trust=True, maps="L",
        focus=fresh.gallery_ids[2],
    )  # fmt: skip
    values = dict(part.split("=", 1) for part in to_link(selection, fresh)[1:].split("&"))
    assert from_link(values, fresh) == (selection, "")


# What is clicked


def test_a_point_becomes_the_query_or_stands_beside_it(fresh: Store, mapped: Mapped) -> None:
    here = start(fresh)
    query, image = fresh.query_ids[5], fresh.gallery_ids[7]
    after = act(fresh, here, "dot", str(mapped.place_of[query]))
    assert (after.query, after.focus) == (query, query)
    after = act(fresh, after, "dot", str(mapped.place_of[image]))
    assert (after.query, after.match, after.focus) == (query, image, image)
    state = state_of(Page(map_view.show(fresh, after)))
    focus = mapped.place_of[image]
    assert state["focus"] == focus and state["match"] == focus
    assert state["query"] == mapped.place_of[query]
    assert state["spokes"] == {name: mapped.neighbours(name, focus) for name in mapped.maps}
    assert act(fresh, after, "step", "1").focus == "", "another query brings its own neighbours"
    for value in ("-1", str(len(mapped.ids)), "x", None):
        with pytest.raises(ConfigError, match="something unknown"):
            act(fresh, here, "dot", value)


def test_what_stands_beside_the_pointer(fresh: Store, mapped: Mapped) -> None:
    point = mapped.place_of[fresh.query_ids[2]]
    found = map_view.peek(fresh, mapped, point, False)
    sample = fresh.sample(fresh.query_ids[2])
    assert sample is not None and found["words"][0] == sample.path.name
    assert f"{sample.identity:04d} · camera {sample.camera}" in found["words"][1]
    assert found["picture"] == fresh.thumbnail(fresh.query_ids[2])
    assert map_view.peek(fresh, mapped, point, True)["picture"] != found["picture"]
    for point in (-1, len(mapped.ids)):
        with pytest.raises(IndexError):
            map_view.peek(fresh, mapped, point, False)


def test_an_upload_is_placed_and_said_to_be_a_guess(fresh: Store, mapped: Mapped) -> None:
    here = act(fresh, start(fresh), "upload", uploaded(png()))
    html = map_view.show(fresh, here)
    state = state_of(Page(html))
    assert state["query"] == -1 and set(state["placed"]) == set(mapped.maps)
    assert "its place is a guess" in html
    descriptor = fresh.upload(here.query).described.descriptor
    points = mapped.projection.points["joint"]
    expected = place(mapped.projection, mapped.images, descriptor)[0] - points.min(0)
    span = np.ptp(points, axis=0).max()
    shift = (1 - np.ptp(points, axis=0) / span) / 2
    np.testing.assert_allclose(
        np.array(state["placed"]["joint"]) / GRID, expected / span + shift, atol=1e-4
    )
    assert state_of(Page(map_view.show(fresh, start(fresh))))["placed"] == {}


# Many images


def test_more_images_than_are_mapped_at_first(
    fresh: Store, mapped: Mapped, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place_ in ("app.judged", "app.selection", "app.actions", "app.views.map"):
        monkeypatch.setattr(f"{place_}.LIMIT", 30)
    fresh.jobs.drop(("map", False))
    here = start(fresh)
    assert here.whole is False and act(fresh, here, "whole", "1").whole
    few = map_of(fresh)
    assert len(few.ids) == 30 and few.key != mapped.key and few.key.startswith("p")
    page = Page(map_view.show(fresh, here))
    (more,) = page.buttons("whole")
    assert "Map of 30 images" in page.words and f"all {len(mapped.ids)}" in page.words
    all_ = act(fresh, replace(here, lasso="x"), "whole", more["data-value"])
    assert all_.whole and all_.lasso == ""
    every = map_of(fresh, whole=True)
    assert every.ids == mapped.ids and every.key.startswith("w")
    assert fresh.mapped(every.key) is every
    # A lasso that was drawn on the part is none on the whole, and is not drawn there.
    lasso = lasso_around(few, "joint", few.ids[:2])
    state = state_of(Page(map_view.show(fresh, replace(all_, lasso=lasso))))
    assert state["lasso"] == "" and state["key"] == every.key
    gone = next(one for one in fresh.query_ids if one not in few.place_of)
    assert "not among the points" in Page(map_view.show(fresh, replace(here, query=gone))).words
    assert from_link({"whole": "1"}, fresh)[0].whole
    monkeypatch.setattr("app.selection.LIMIT", 5000)
    assert not from_link({"whole": "1"}, fresh)[0].whole, "here a part is all"


def test_a_map_of_all_is_waited_for_by_everybody(
    fresh: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place_ in ("app.judged", "app.actions", "app.selection", "app.views.map"):
        monkeypatch.setattr(f"{place_}.LIMIT", 30)
    monkeypatch.setattr("app.judged.WAIT", 0.05)
    go, real = threading.Event(), judged.project

    def slow(*arguments: object, progress: Report, **more: object):
        while not go.wait(0.01):
            progress(1, 2, "placing")
        return real(*arguments, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(judged, "project", slow)
    fresh.jobs.drop(("map", False))
    few = fresh.mapping()
    here = act(fresh, start(fresh), "whole", "1")
    page = Page(map_view.show(fresh, here))
    assert "placing 50 %" in page.words
    (back,) = page.buttons("whole")
    assert not act(fresh, here, "whole", back["data-value"]).whole
    job = fresh.jobs.found(("map", True))
    assert job is not None and not job.ended, "somebody else may wait for it"
    # A lasso of a map that is being made is kept, and looked at when the map is there.
    lasso = "joint:w1234567:" + "00000000ffff0000ffffffff"
    opened, notice = from_link({"whole": "1", "lasso": lasso, "tab": "map"}, fresh)
    assert opened.lasso == lasso and notice == ""
    opened, notice = from_link({"whole": "1", "subset": f"lasso:{lasso}"}, fresh)
    assert opened.subset == "" and "still being made" in notice and "left out" in notice
    with pytest.raises(ConfigError, match="still being made; click again"):
        act(fresh, here, "dot", "1")
    go.set()
    assert job.wait(60) and few.wait(60) and job.value is not None
    assert from_link({"whole": "1", "lasso": lasso}, fresh)[0].lasso == "", "it is of another map"


def test_no_key_begins_a_map_of_all(fresh: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.judged.LIMIT", 30)
    for ask in (
        lambda: fresh.mapped("w1234567"),
        lambda: act(fresh, start(fresh), "lasso", "G:w1234567:" + "00000000ffff0000ffffffff"),
    ):
        with pytest.raises((ValueError, CCANError)):
            ask()
    assert fresh.jobs.found(("map", True)) is None


# Other models, other worlds


def test_features_alone_have_one_map(store: Store, tmp_path: Path) -> None:
    query, gallery = store.index.query, store.index.gallery
    names = [
        [f"{split}/{k}" for k in range(len(one))] for split, one in (("q", query), ("g", gallery))
    ]
    sides = [
        FeatureSet(one.features, one.identities, one.cameras, which)
        for one, which in zip((query, gallery), names, strict=True)
    ]
    save_features(tmp_path / "f.npz", sides[0], sides[1])
    bare = Store.of_features(tmp_path / "f.npz", cases=tmp_path / "c.jsonl", progress=False)
    mapped = map_of(bare)
    assert mapped.maps == ["joint"] and len(mapped.ids) == len(query) + len(gallery)
    page = Page(map_view.show(bare, start(bare, maps="L")))
    assert state_of(page)["maps"] == ["joint"] and not page.buttons("maps")
    after = act(bare, start(bare), "lasso", lasso_around(mapped, "joint", mapped.ids[:3]))
    after = act(bare, after, "tag_lasso", "odd")
    bare.diagnosis().wait(60)
    assert "odd" in Page(errors.show(bare, after)).words


def test_too_few_images_are_said(tmp_path: Path) -> None:
    rows = np.eye(3)
    sides = FeatureSet(rows[:1], [1], [1]), FeatureSet(rows[1:], [1, 2], [2, 2])
    save_features(tmp_path / "f.npz", *sides)
    bare = Store.of_features(tmp_path / "f.npz", cases=tmp_path / "c.jsonl", progress=False)
    assert bare.mapping().wait(30)
    assert "needs at least 4 images" in Page(map_view.show(bare, start(bare))).words


def test_a_name_that_is_html_stays_a_name(dataset: ReIDDataset, store: Store, tmp_path: Path):
    path = tmp_path / HOSTILE
    path.write_bytes(dataset.query[0].path.read_bytes())
    bad = replace(
        dataset, root=tmp_path, query=(replace(dataset.query[0], path=path), *dataset.query[1:])
    )
    hostile = make_store(bad, store.network, tmp_path / "cache")
    mapped = map_of(hostile)
    lasso = lasso_around(mapped, "joint", [HOSTILE])
    page = Page(map_view.show(hostile, Selection(HOSTILE, tab="map", lasso=lasso)))
    assert [one for one in page.tags if one[0] == "img" and "onerror" in one[1]] == []
    assert HOSTILE in map_view.peek(hostile, mapped, mapped.place_of[HOSTILE], False)["words"]


def test_faces_are_blurred_on_the_map(
    fresh: Store, mapped: Mapped, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bool] = []
    real = fresh.thumbnail
    monkeypatch.setattr(
        fresh, "thumbnail", lambda image, blur=False: asked.append(blur) or real(image, blur)
    )
    lasso = lasso_around(mapped, "joint", mapped.ids[:6])
    page = Page(map_view.show(fresh, start(fresh, lasso=lasso, blur=True)))
    assert state_of(page)["blur"] is True and len(asked) > 12 and all(asked)


def test_reading_a_lasso() -> None:
    name, key, corners = read_lasso("G:p12:000000010002fffe00030004")
    assert (name, key) == ("G", "p12")
    assert corners.tolist() == [[0, 1], [2, 65534], [3, 4]]
