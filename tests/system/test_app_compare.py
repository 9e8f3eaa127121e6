"""The Compare view: two checkpoints on the same images, and what leads from one number to the queries behind it."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from app.actions import act, query_list
from app.demo import open_store, other_of, parse
from app.saving import save
from app.selection import Selection, from_link, to_link
from app.store import Store
from app.views import compare, header
from ccan.data.records import ReIDDataset
from ccan.errors import ConfigError, ProtocolError
from ccan.evaluation.files import save_features
from ccan.predictor import Predictor
from tests.pages import Page, make_store, png, uploaded
from tests.small import SMALL_MODEL, small_dataset, small_predictor, write_checkpoint


@pytest.fixture(scope="module")
def pair(dataset: ReIDDataset, store: Store, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """The model (now) against one of other weights and without attention (before)."""
    folder = tmp_path_factory.mktemp("pair")
    path = write_checkpoint(folder / "1.safetensors", 1, replace(SMALL_MODEL, ssa=False, cca=False))
    now = Store(store.predictor, store.index, store.report, "runs/full", folder / "cases.jsonl")
    other = make_store(dataset, Predictor.from_checkpoint(path, "cpu"), folder)
    other.checkpoint = "runs/plain"
    now.set_other(other)
    return now


@pytest.fixture
def here(pair: Store) -> Selection:
    return Selection(pair.query_ids[3], tab="compare")


def before(pair: Store) -> Store:
    assert pair.other is not None
    return pair.other


def test_each_field_leads_to_the_queries_that_it_counts(pair: Store, here: Selection) -> None:
    first = [one.report.first_match == 1 for one in (before(pair), pair)]
    expected = {
        "both right": first[0] & first[1], "both wrong": ~first[0] & ~first[1],
        "fixed": ~first[0] & first[1], "broken": first[0] & ~first[1],
    }  # fmt: skip
    expected = {name: mask & pair.report.valid for name, mask in expected.items()}
    assert sum(int(mask.sum()) for mask in expected.values()) == int(pair.report.valid.sum())
    assert sum(mask.any() for mask in expected.values()) >= 3, "a pair that differs"
    page = Page(compare.show(pair, here))
    links = {one["data-value"] for one in page.buttons("subset")}
    assert links == {f"outcome:{name}" for name, mask in expected.items() if mask.any()}
    for name, mask in expected.items():
        if mask.any():
            after = act(pair, here, "subset", f"outcome:{name}")
            assert {pair.query_rows[one] for one in query_list(pair, after)} == set(
                np.flatnonzero(mask).tolist()
            )
            words = Page(header.show(pair, after)).words
            assert f"{name} at rank 1 ({int(mask.sum())})" in words
    p = pair.compared.paired.mcnemar
    assert f"p = {p:.3g}" in page.words


def test_averages_are_those_of_both_reports(pair: Store, here: Selection) -> None:
    words = Page(compare.show(pair, here)).words
    for one in (before(pair), pair):
        assert f"mAP {100 * one.report.mAP:.1f} %, rank-1 {100 * one.report.rank(1):.1f} %" in words
    assert "before: plain" in words and "now: full" in words


def test_a_click_finds_the_nearest_query(pair: Store, here: Selection) -> None:
    for query in pair.query_ids[::5]:
        row = pair.query_rows[query]
        x, y = (float(one.report.ap[row]) for one in (before(pair), pair))
        after = act(pair, here, "spot", {"x": x, "y": 1 - y})
        found = pair.query_rows[after.query]
        assert (before(pair).report.ap[found], pair.report.ap[found]) == pytest.approx((x, y))
    for value in (None, {"x": "a", "y": 0}, {"x": 1}, []):
        with pytest.raises(ConfigError, match="something unknown"):
            act(pair, here, "spot", value)


def test_slopes_and_rows_show_both_rankings(pair: Store, here: Selection) -> None:
    page = Page(compare.show(pair, here))
    lines = [attrs for tag, attrs in page.tags if tag == "g" and attrs.get("data-do") == "choose"]
    assert len(lines) == min(compare.LINES, int(pair.report.valid.sum()))
    steep = []
    for line in lines:
        row = pair.query_rows[line["data-value"]]
        first, second = (int(one.report.first_match[row]) for one in (before(pair), pair))
        assert f"first match at {first} before, at {second} now" in line["aria-label"]
        steep.append(abs(np.log(second / first)))
    rest = pair.compared
    assert min(steep) >= np.sort(np.abs(np.log(rest.first_b / rest.first_a)))[-len(lines)] - 1e-9
    change = np.abs(rest.ap_b - rest.ap_a)
    order = compare.changes(pair, here, rest)
    assert change[order[0]] == change.max() and len(order) == len(change)
    some = act(pair, here, "subset", "outcome:fixed")
    assert len(compare.changes(pair, some, rest)) == rest.counts()["fixed"]
    order = [pair.query_ids[int(rest.rows[k])] for k in order]
    second = act(pair, here, "changes", "1")
    shown = [one["data-value"] for one in Page(compare.show(pair, second)).buttons("choose")]
    assert shown == order[compare.ROWS : 2 * compare.ROWS]
    walked = act(pair, act(pair, second, "choose", shown[2]), "step", "1")
    assert walked.changes == 1, "the list stays while one walks"


def test_both_rankings_and_maps_of_the_query_stand_side_by_side(pair: Store, here: Selection):
    page = Page(compare.show(pair, here))
    for word, one in (("before: plain", before(pair)), ("now: full", pair)):
        ranking = one.ranking(here.query)
        assert (
            f"{word} · AP {100 * ranking.ap:.1f} % · first match at {ranking.first_match}"
            in page.words
        )
    titles = [name for name in ("SS1 added", "CC2 added", "G energy", "parts energy")]
    assert set(compare.maps_of(pair, here)) == set(titles)
    assert set(compare.maps_of(before(pair), here)) == {"G energy", "parts energy"}
    match = act(pair, here, "side", "match")
    first, second = (compare.maps_of(pair, one)["G energy"] for one in (here, match))
    assert not np.array_equal(first, second)
    expected = pair.energy(pair.match(here))["G energy"]
    np.testing.assert_array_equal(second, expected)
    with pytest.raises(ConfigError, match="something unknown"):
        act(pair, here, "side", "both")


def test_an_upload_has_no_twin(pair: Store, here: Selection) -> None:
    after = act(pair, here, "upload", uploaded(png()))
    assert "described by one of the two" in Page(compare.show(pair, after)).words
    beside = act(pair, here, "upload", uploaded(png(), **{"as": "match"}))
    beside = act(pair, beside, "side", "match")
    assert "no maps" in Page(compare.show(pair, beside)).words


def test_a_link_brings_it_back(pair: Store, here: Selection) -> None:
    selection = replace(here, subset="outcome:broken", side="match")
    values = dict(part.split("=", 1) for part in to_link(selection, pair)[1:].split("&"))
    assert from_link({k: v.replace("%20", " ") for k, v in values.items()}, pair) == (selection, "")


def test_with_one_checkpoint_it_says_how_to_add_another(store: Store) -> None:
    here = Selection(store.query_ids[0], tab="compare")
    assert "--compare" in Page(compare.show(store, here)).words
    for name, value in (("spot", {"x": 0, "y": 0}), ("subset", "outcome:fixed")):
        with pytest.raises(ConfigError, match=r"start with --compare|there is no subset"):
            act(store, here, name, value)
    for figure in ("ap_scatter.csv", "slopes.png", "side_by_side.svg", "outcomes.json"):
        with pytest.raises(ConfigError, match="start with --compare"):
            save(store, here, figure)


def test_the_bundled_model_brings_its_twin(
    dataset: ReIDDataset, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match="only the bundled model has a twin"):
        act(store, Selection(store.query_ids[0]), "twin", "")
    world = replace(dataset, name="demo")
    bundled = make_store(world, store.network, tmp_path)
    bundled.checkpoint = "demo"
    go, asked = threading.Event(), []

    def opened(checkpoint: str, **_: object) -> Store:
        asked.append(checkpoint)
        assert go.wait(30)
        return make_store(world, small_predictor(tmp_path, 7), tmp_path)

    monkeypatch.setattr(Store, "open", opened)
    here = Selection(bundled.query_ids[0], tab="compare")
    (button,) = Page(compare.show(bundled, here)).buttons("twin")
    here = act(bundled, here, "twin", button["data-value"])
    page = Page(compare.show(bundled, here))
    assert page.classed("pending") and not page.buttons("twin")
    go.set()
    job = bundled.jobs.found("twin")
    assert job is not None and job.wait(60) and job.error == "" and asked == ["demo-plain"]
    assert Page(compare.show(bundled, here)).classed("quadrants")


def test_other_images_cannot_be_compared(store: Store, tmp_path: Path) -> None:
    other = small_dataset(tmp_path / "images", identities=3)
    with pytest.raises(ProtocolError, match="must be judged on the same images"):
        store.set_other(make_store(other, small_predictor(tmp_path), tmp_path))
    assert store.other is None


def test_saved_numbers_are_those_of_the_comparison(pair: Store, here: Selection) -> None:
    for name in ("ap_scatter", "outcomes", "slopes", "side_by_side"):
        for kind, begin in (("png", b"\x89PNG"), ("svg", b"<?xml"), ("csv", b""), ("json", b"{")):
            assert save(pair, here, f"{name}.{kind}").data.startswith(begin)
    rows = save(pair, here, "outcomes.csv").data.decode().splitlines()
    assert len(rows) == 1 + len(pair.compared.rows) and "outcome" in rows[0]


def test_two_files_of_features_are_compared_too(store: Store, tmp_path: Path) -> None:
    query, gallery = store.index.query, store.index.gallery
    save_features(tmp_path / "a.npz", query, gallery)
    other = store.index.query.with_features(store.index.query.features.flip(1))
    save_features(tmp_path / "b.npz", other, gallery)
    options = parse(
        ["--features", str(tmp_path / "b.npz"), "--compare", str(tmp_path / "a.npz"),
         "--cases", str(tmp_path / "c.jsonl")]
    )  # fmt: skip
    now = open_store(options)
    now.set_other(open_store(other_of(options)))
    page = Page(compare.show(now, Selection(now.query_ids[0], tab="compare")))
    assert "before: a.npz" in page.words and "now: b.npz" in page.words and "no maps" in page.words
    assert now.other is not None and now.other.report.mAP == pytest.approx(store.report.mAP)


def test_the_second_checkpoint_stands_in_place_of_the_first() -> None:
    options = parse(["--checkpoint", "runs/a", "--compare", "runs/b", "--dataset", "market1501"])
    other = other_of(options)
    assert (other.checkpoint, other.dataset) == ("runs/b", "market1501")
    assert options.checkpoint == "runs/a"


def test_faces_are_blurred_in_both(
    pair: Store, here: Selection, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bool] = []
    for one in (pair, before(pair)):
        for name in ("thumbnail", "photo"):
            real = getattr(one, name)
            monkeypatch.setattr(
                one,
                name,
                lambda image, blur=False, real=real: asked.append(blur) or real(image, blur),
            )
    before(pair).energy(here.query)  # what the network sees is never blurred
    pair.energy(here.query), pair.attention(here.query)
    asked.clear()
    compare.show(pair, replace(here, blur=True))
    assert len(asked) > 20 and all(asked)
