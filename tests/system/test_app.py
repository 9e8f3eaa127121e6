"""The dashboard's store, actions, links and views, called directly: no browser, no server."""

from __future__ import annotations

import base64
import gc
import io
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

from app import actions, demo, lessons
from app.actions import ACTIONS, act, query_list
from app.images import MAX_UPLOAD_BYTES, UPLOADS_KEPT
from app.selection import TABS, Selection, from_link, to_link
from app.serving import AUTH_VARIABLE, free_port, is_loopback, logins, speak_directly
from app.store import Store
from app.views import attention, header, rank
from ccan.data.records import ReIDDataset
from ccan.errors import CCANError, ConfigError, DatasetError
from ccan.explain.attention import SUMMARIES
from ccan.predictor import Predictor
from tests.pages import HOSTILE, Page, make_store, png, uploaded
from tests.small import SMALL_MODEL, write_checkpoint

ROOT = Path(__file__).parents[2]


@pytest.fixture
def start(store: Store) -> Selection:
    return Selection(store.query_ids[4])


# Store


def test_ids_are_paths_below_the_root(store: Store, dataset: ReIDDataset) -> None:
    assert store.query_ids[0] == "query/0001_c1s1_000000_01.png"
    assert store.sample(store.gallery_ids[5]) == dataset.gallery[5]
    assert store.cameras == [1, 2, 3]
    with pytest.raises(DatasetError, match=r"there is no image '\.\./secret'"):
        store.sample("../secret")


def test_images_elsewhere_show_no_path(store: Store, dataset: ReIDDataset, tmp_path: Path) -> None:
    moved = replace(dataset, root=tmp_path)
    index = replace(store.index, dataset=moved)
    elsewhere = Store(store.predictor, index, store.report, "small")
    assert elsewhere.query_ids[:2] == ["query/0", "query/1"]


def test_thumbnails_travel_in_the_page(store: Store) -> None:
    for image, split, row in (
        (store.query_ids[3], "query", 3),
        (store.gallery_ids[7], "gallery", 7),
    ):
        kind, _, data = store.thumbnail(image).partition(",")
        assert kind == "data:image/jpeg;base64"
        path = store.index.thumbnail(split, row)
        assert path is not None and base64.b64decode(data) == path.read_bytes()


def test_rankings_agree_with_the_report(store: Store) -> None:
    for row, query in enumerate(store.query_ids):
        ranking = store.ranking(query)
        assert ranking.ap == pytest.approx(store.report.ap[row])
        assert ranking.inp == pytest.approx(store.report.inp[row])
        assert ranking.marks.count("ignored") == 2 and ranking.matches == 4
    nearest = store.nearest(store.query_ids[0])
    ranking = store.ranking(store.query_ids[0])
    counted = [
        row for row, mark in zip(ranking.order, ranking.marks, strict=True) if mark != "ignored"
    ]
    assert nearest == store.gallery_ids[counted[0]]


def test_queries_are_sorted_by_difficulty(store: Store) -> None:
    aps = [store.report.ap[store.query_rows[query]] for query in store.by_difficulty]
    assert aps == sorted(aps) and len(set(store.by_difficulty)) == len(store.query_ids)


def test_an_upload_is_ranked_without_marks_and_held_for_a_while(store: Store) -> None:
    first = store.add_upload("me.png", png())
    assert store.is_upload(first) and store.sample(first) is None
    assert set(store.ranking(first).marks) == {"unknown"}
    assert store.thumbnail(first).startswith("data:image/jpeg;base64,")
    assert store.attention(first).slots.keys() == {"SS1", "CC2_1", "CC2_2"}
    last = first
    for _ in range(UPLOADS_KEPT):
        last = store.add_upload("other.png", png(8, 16))
    assert store.name(last) == "other.png"
    with pytest.raises(DatasetError, match="no longer held; upload it again"):
        store.name(first)


def test_an_upload_is_shown_small_and_embedded_whole(store: Store) -> None:
    large = png(1200, 2400)
    held = store.add_upload("large.png", large)
    assert store.photo(held).size == (256, 512)
    for flip, found in ((False, "descriptor"), (True, "mirrored")):
        expected = store.network.embed(io.BytesIO(large), flip=flip)[0]
        described = getattr(store.upload(held).described, found)
        np.testing.assert_allclose(described, expected, atol=1e-5)


# Actions


def test_every_action_keeps_the_rest_of_the_selection(store: Store, start: Selection) -> None:
    for name, value, changes in [
        ("choose", store.query_ids[9], {"query": store.query_ids[9]}),
        ("step", "1", {"query": store.query_ids[5]}),
        ("step", "-1", {"query": store.query_ids[3]}),
        ("match", store.gallery_ids[2], {"match": store.gallery_ids[2]}),
        ("camera", "2", {"cameras": (2,)}),
        ("page", "3", {"page": 3}),
        ("slot", "CC2_2", {"slot": "CC2_2"}),
        ("tab", "parts", {"tab": "parts"}),
        ("order", "hardest", {"order": "hardest"}),
        ("shown", "35", {"shown": 35}),
        ("ignored", "0", {"ignored": False}),
        ("summary", "gathered_share", {"summary": "gathered_share"}),
        ("identity", "3", {"identity": 3}),
        ("identity", " ", {"identity": None}),
        ("verdict", "wrong", {"verdict": "wrong"}),
        ("flip", "1", {"flip": True}),
        ("rerank", "1", {"rerank": True}),
        ("threshold", "0.5", {"threshold": 0.5}),
        ("threshold", "off", {"threshold": None}),
        ("weigh", {"stream": "P1", "weight": "0.5"}, {"weights": (1.0, 0.5, 1.0)}),
        ("reset_weights", "P2", {"weights": (0.0, 0.0, 1.0)}),
        ("reset_weights", "-G", {"weights": (0.0, 1.0, 1.0)}),
        ("reset_weights", "", {"weights": ()}),
        ("lens", "votes", {"lens": "votes"}),
        ("lens", "across", {"lens": "across", "slot": "CC2_1"}),
        ("matrix", "C", {"matrix": "C"}),
        ("part", "P2", {"part": "P2"}),
        ("target", "identity", {"target": "identity"}),
        ("paint", "80000001", {"hidden": "80000001"}),
        ("paint", "", {"hidden": ""}),
        ("paint", "strip 2", {"hidden": "0000ffff"}),
        ("blur", "1", {"blur": True}),
        ("look", "", {}),
        ("own_scale", "1", {"own_scale": True}),
        ("maps", "L", {"maps": "L"}),
        ("colour", "camera", {"colour": "camera"}),
        ("trust", "1", {"trust": True}),
        ("whole", "1", {}),  # so few images are all mapped
        ("side", "match", {"side": "match"}),
        ("sheet", "2", {"sheet": 2}),
        ("changes", "3", {"changes": 3}),
    ]:
        assert act(store, start, name, value) == replace(start, **changes), name


def test_another_query_brings_its_own_match_and_cell(store: Store, start: Selection) -> None:
    busy = replace(start, match=store.gallery_ids[0], cell=3, page=1, tab="attention", slot="CC2_1")
    after = act(store, busy, "choose", store.query_ids[0])
    assert (after.match, after.cell, after.page) == (None, None, None)
    assert (after.tab, after.slot) == ("attention", "CC2_1")


def test_walking_goes_round_in_the_order_of_the_list(store: Store) -> None:
    selection = Selection(store.query_ids[-1])
    assert act(store, selection, "step", 1).query == store.query_ids[0]
    hard = act(store, selection, "hardest", "")
    assert hard.query == store.by_difficulty[0] and hard.order == "hardest"
    assert act(store, hard, "step", 1).query == store.by_difficulty[1]
    assert query_list(store, hard) == store.by_difficulty


def test_random_never_stays(store: Store, start: Selection) -> None:
    seen = {act(store, start, "random", "").query for _ in range(60)}
    assert start.query not in seen and len(seen) > 5 and seen <= set(store.query_ids)


def test_cameras_are_switched_one_by_one(store: Store, start: Selection) -> None:
    one = act(store, start, "camera", "3")
    two = act(store, one, "camera", "1")
    assert two.cameras == (1, 3) and act(store, two, "camera", "3").cameras == (1,)
    assert act(store, two, "camera", "all").cameras == ()


def test_neighbours_follow_the_ranking(store: Store, start: Selection) -> None:
    order = [store.gallery_ids[row] for row in store.ranking(start.query).order]
    here = replace(start, match=order[3])
    assert act(store, here, "neighbour", "1").match == order[4]
    assert act(store, here, "neighbour", "-1").match == order[2]
    assert act(store, replace(start, match=order[-1]), "neighbour", "1").match == order[0]


def test_a_click_finds_the_strip_and_the_cell(store: Store, start: Selection) -> None:
    """64×32 pixels, two parts: SS1 has 8×4 positions of 8 pixels, a part 4×2 over its 32 rows."""
    clicked = act(store, start, "point", {"panel": "SS1", "x": 0.3, "y": 0.26})
    assert (clicked.slot, clicked.cell) == ("SS1", 2 * 4 + 1)
    clicked = act(store, start, "point", {"panel": "CC2", "x": 0.6, "y": 0.1})
    assert (clicked.slot, clicked.cell) == ("CC2_1", 0 * 2 + 1)
    clicked = act(store, start, "point", {"panel": "CC2", "x": 0.6, "y": 0.9})
    assert (clicked.slot, clicked.cell) == ("CC2_2", 3 * 2 + 1)
    assert act(store, start, "point", {"panel": "CC2", "x": 1.5, "y": 0.9}) == start


def test_arrow_keys_stop_at_the_borders(store: Store, start: Selection) -> None:
    here = replace(start, slot="CC2_1")
    for cell, to, expected in [
        (0, "right", 1), (1, "right", 1), (0, "down", 2), (6, "down", 6), (5, "up", 3), (4, "left", 4)
    ]:  # fmt: skip
        assert act(store, here, "move", {"from": cell, "to": to}).cell == expected


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("no such", ""), (None, None), ([], []), ({}, "x"),
        ("choose", "../../etc/passwd"), ("choose", None), ("choose", ["a"]), ("choose", "gallery/x.png"),
        ("match", "query/0001_c1s1_000000_01.png"), ("match", 3), ("step", "2"), ("step", None),
        ("camera", "9"), ("camera", "<b>"), ("camera", None), ("page", "x"), ("page", {}),
        ("slot", "CC2_9"), ("slot", ""), ("tab", "maps"), ("maps", "x"), ("whole", "x"), ("colour", "x"), ("trust", 2),
        ("side", "x"), ("sheet", "x"), ("changes", None), ("order", "AP"), ("summary", "A"),
        ("shown", "many"), ("ignored", "2"), ("own_scale", True),
        ("page", None), ("page", []), ("verdict", "ignored"), ("flip", "yes"), ("rerank", 2),
        ("threshold", "-1"), ("threshold", "nan"), ("threshold", None), ("weigh", {"stream": "P9", "weight": 1}),
        ("weigh", {"stream": "G", "weight": "9"}), ("weigh", {"stream": "G", "weight": "nan"}), ("weigh", "G"),
        ("reset_weights", "P9"), ("lens", "x"), ("matrix", "B"), ("part", "P3"), ("part", ""), ("target", "x"),
        ("paint", "8"), ("paint", "zzzzzzzz"), ("paint", "strip 3"), ("paint", "-0000001"), ("paint", "0x000001"),
        ("blur", "on"),
        ("point", {"panel": "SS1"}), ("point", None), ("point", {"panel": "SS1", "x": "a", "y": 0}),
        ("move", {"from": 0, "to": "around"}), ("move", {"from": "x", "to": "up"}), ("move", 5),
        ("upload", None), ("upload", {}), ("upload", {"name": "a", "size": "x", "data": ""}),
        ("neighbour", "5"), ("page", float("inf")),
        ("upload", {"name": "a", "size": float("inf"), "data": ""}),
    ],
)  # fmt: skip
def test_what_a_browser_should_not_send_is_refused(
    store: Store, start: Selection, name: object, value: object
) -> None:
    with pytest.raises(ConfigError, match="the page asked for something unknown"):
        act(store, start, name, value)


def test_every_action_is_tried_here() -> None:
    tests = Path(__file__).parent.glob("test_app*.py")
    source = "".join(path.read_text(encoding="utf-8") for path in tests)
    assert [name for name in ACTIONS if f'"{name}"' not in source] == []


def test_an_upload_becomes_the_query(store: Store, start: Selection) -> None:
    after = act(store, start, "upload", uploaded(png()))
    assert store.is_upload(after.query) and store.name(after.query) == "me.png"
    assert act(store, after, "step", "1").query == store.query_ids[0]
    assert "query=" not in to_link(after, store)


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        (
            uploaded(b"no image at all", "notes.txt"),
            "notes.txt: expected a readable image (JPEG, PNG, WebP …), got a file of",
        ),
        (uploaded(png()[:60], "cut.png"), "cut.png: expected a readable image, got"),
        (uploaded(b"", "empty.png"), "empty.png: expected a readable image"),
        ({"name": "a.png", "size": 9, "data": "%%%"}, "a.png: the file did not arrive whole"),
        (
            {"name": "huge.png", "size": MAX_UPLOAD_BYTES + 1, "data": ""},
            "huge.png: expected at most 10 MB",
        ),
        (
            {"name": "liar.png", "size": 1, "data": "A" * (MAX_UPLOAD_BYTES // 3 * 4 + 8)},
            "liar.png: expected at most 10 MB",
        ),
        (uploaded(png(10, 10_000_000), "bomb.png"), "bomb.png: expected at most 50,000,000 pixels"),
    ],
)
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_bad_upload_is_said_clearly(
    store: Store, start: Selection, value: dict[str, object], complaint: str
) -> None:
    with pytest.raises(DatasetError, match=re.escape(complaint)):
        act(store, start, "upload", value)


# Links


def test_a_link_opens_the_same_selection(store: Store) -> None:
    asked = lessons.question(store, store.query_ids[6])
    selection = Selection(
        store.query_ids[7],
        match=store.gallery_ids[1],
        tab="attention",
        subset="miss:1",
        order="hardest",
        shown=35,
        ignored=False,
        cameras=(1, 3),
        identity=4,
        verdict="wrong",
        weights=(1.0, 0.5, 2.0),
        threshold=0.625,
        slot="CC2_2",
        cell=7,
        summary="gathered_share",
        own_scale=True,
        lens="across",
        matrix="Ct",
        part="P2",
        target="identity",
        hidden="00ff00ff",
        blur=True,
        slice_by="camera",
        metric="loss",
        maps="joint",
        colour="ap",
        trust=True,
        focus=store.gallery_ids[3],
        side="match",
        lesson=lessons.round_of(store.query_ids[6:9]),
        answers=(lessons.answer(asked.candidates[3], "80000001"),),
        revealed=True,
        prepared=(lessons.code(store.query_ids[1]), lessons.code(store.query_ids[0])),
    )
    link = to_link(selection, store)
    assert link.startswith("?query=query/") and "cameras=1,3" in link
    values = dict(part.split("=") for part in link[1:].split("&"))
    assert from_link(values, store) == (selection, "")
    assert set(values) == {field.name for field in fields(Selection)} - {
        "page",
        "flip",
        "rerank",
        "who",
        "curves",
        "whole",
        "lasso",
        "sheet",
        "changes",
        "guess",
        "region",
    }
    switched = replace(selection, flip=True, rerank=True, weights=())
    values = dict(part.split("=") for part in to_link(switched, store)[1:].split("&"))
    assert from_link(values, store) == (switched, "")
    assert to_link(Selection(store.query_ids[0]), store) == f"?query={store.query_ids[0]}"


@pytest.mark.parametrize(
    "value",
    [
        {"query": "query/none.png"}, {"query": "upload:abc"}, {"match": "x"}, {"tab": "x"},
        {"shown": "x"}, {"ignored": "x"}, {"cameras": "1,7"}, {"cameras": ""}, {"slot": "SS2"},
        {"cell": "-1"}, {"cell": "32"}, {"cell": "x"}, {"slot": "CC2_1", "cell": "8"},
        {"summary": "x"}, {"own_scale": "x"}, {"subset": "x"}, {"subset": "hit:0"}, {"subset": "pair:1:9"},
        {"identity": "99"}, {"identity": "x"}, {"verdict": "x"}, {"flip": "x"}, {"weights": "1,2"},
        {"weights": "1,1,nan"}, {"weights": "1,1,4"}, {"threshold": "inf"}, {"threshold": "-1"}, {"lens": "x"},
        {"matrix": "x"}, {"part": "x"}, {"target": "x"}, {"hidden": "x"}, {"hidden": "0" * 40 + "1"}, {"blur": "x"},
        {"order": "x"}, {"rerank": ""}, {"maps": "x"}, {"colour": "x"}, {"trust": "x"}, {"focus": "x"}, {"whole": "x"},
        {"side": "x"}, {"lesson": "x"}, {"answers": "0.00000000"}, {"prepared": "x"}, {"revealed": "x"},
    ],
)  # fmt: skip
def test_what_a_link_names_wrongly_is_left_out_and_said(
    store: Store, value: dict[str, str]
) -> None:
    selection, notice = from_link(value, store)
    assert selection == replace(
        Selection(store.query_ids[0]), slot="CC2_1" if "cell" in value and "slot" in value else ""
    )
    name, text = list(value.items())[-1]
    assert f"{name}={text}" in notice
    assert from_link({"other": "x", "__theme": "dark"}, store)[1] == ""


# Views


def test_the_header_tells_what_is_loaded_and_chosen(store: Store, start: Selection) -> None:
    page = Page(header.show(store, start, turn=5))
    head = page.tags[0][1]
    assert head["data-link"] == to_link(start, store) and head["data-turn"] == "5"
    row = store.query_rows[start.query]
    for words in ("small", "24 queries", "48 gallery images", "euclidean", "rank-sum", "0002"):
        assert words in page.words
    for share in (store.report.mAP, store.report.rank(1), store.report.ap[row]):
        assert f"{100 * share:.1f} %" in page.words
    assert head["data-event"] == "act" and head["data-tab"] == "overview"
    for tab in ("attention", "parts"):
        assert Page(header.show(store, replace(start, tab=tab))).tags[0][1]["data-event"] == "ask"
    tabs = {one["data-value"]: one for one in page.buttons("tab")}
    assert list(tabs) == list(TABS) and len(tabs) == 9
    assert [name for name, one in tabs.items() if one["aria-selected"] == "true"] == ["overview"]
    interval = store.confidence
    assert interval is not None
    assert f"{100 * interval.mAP.low:.1f}–{100 * interval.mAP.high:.1f}" in page.words
    below = np.mean(store.report.ap < store.report.ap[row])
    assert f"{100 * below:.0f} % of queries" in page.words


def show_rank(store: Store, selection: Selection) -> str:
    return rank.show_controls(store, selection) + rank.show_results(store, selection)


def cards(store: Store, selection: Selection) -> list[dict[str, str]]:
    return Page(show_rank(store, selection)).buttons("match")


def test_the_strip_shows_the_ranking_with_its_marks(store: Store, start: Selection) -> None:
    ranking = store.ranking(start.query)
    found = cards(store, replace(start, shown=60))
    assert [card["data-value"] for card in found] == [
        store.gallery_ids[row] for row in ranking.order
    ]
    for card, mark, distance in zip(found, ranking.marks, ranking.distances, strict=True):
        assert mark in card["class"].split() and card["title"].startswith(mark)
        assert f"distance {distance:.3f}" in card["title"]
    chosen = [card["data-value"] for card in found if card["aria-pressed"] == "true"]
    assert chosen == [store.nearest(start.query)]
    words = Page(show_rank(store, start)).words
    assert "✓" in words and "✗" in words and "–" in words


def test_filters_hide_cards_and_change_no_position(store: Store, start: Selection) -> None:
    everything = {
        card["data-value"]: card["title"] for card in cards(store, replace(start, shown=60))
    }
    assert len(cards(store, replace(start, shown=5))) == 5
    one = cards(store, replace(start, shown=60, cameras=(2,)))
    assert 0 < len(one) < len(everything)
    assert all("_c2s1_" in card["data-value"] for card in one)
    assert all(card["title"] == everything[card["data-value"]] for card in one)
    without = cards(store, replace(start, shown=60, ignored=False))
    assert len(everything) - len(without) == 2
    assert not any("ignored" in card["class"] for card in without)
    only_ignored = replace(start, cameras=(9,))
    assert "No image passes these filters" in show_rank(store, only_ignored)


def test_the_list_of_queries_follows_the_selection(store: Store) -> None:
    page = Page(show_rank(store, Selection(store.query_ids[20])))
    listed = page.buttons("choose")
    assert [query["data-value"] for query in listed] == store.query_ids
    assert [q["data-value"] for q in listed if q["aria-pressed"] == "true"] == [store.query_ids[20]]
    hardest = Page(show_rank(store, Selection(store.query_ids[0], order="hardest", page=99)))
    assert [query["data-value"] for query in hardest.buttons("choose")] == store.by_difficulty


def test_an_upload_has_no_right_and_wrong(store: Store, start: Selection) -> None:
    after = act(store, start, "upload", uploaded(png(), "<b>me</b>.png"))
    html = show_rank(store, after) + header.show(store, after)
    assert {card["class"] for card in cards(store, after)} == {"card unknown"}
    assert "nothing can be right or wrong" in html
    assert "<b>me</b>" not in html and "&lt;b&gt;me&lt;/b&gt;.png" in html
    assert "identity unknown (upload)" in attention_words(store, replace(after, tab="attention"))


def attention_words(store: Store, selection: Selection) -> str:
    page = Page(attention.show(store, selection)).words + Page(header.show(store, selection)).words
    return page.replace("identityunknown", "identity unknown")


@pytest.mark.parametrize("summary", SUMMARIES)
@pytest.mark.parametrize("slot", ["SS1", "CC2_2"])
def test_attention_shows_both_images_with_numbers(
    store: Store, start: Selection, summary: str, slot: str
) -> None:
    selection = replace(start, tab="attention", slot=slot, cell=2, summary=summary)
    page = Page(attention.show(store, selection))
    canvases = page.classed("canvas")
    assert [canvas["data-panel"] for canvas in canvases] == ["SS1", "CC2", slot[:3], slot[:3]] * 2
    assert canvases[0]["data-grids"] == "0.000000,1.000000,8,4"
    assert canvases[1]["data-grids"] == "0.000000,0.500000,4,2;0.500000,1.000000,4,2"
    assert {canvas["data-cell"] for canvas in canvases} == {"2"}
    pictures = [attrs for tag, attrs in page.tags if tag == "img" and "draggable" in attrs]
    assert len(pictures) == 8 and all(one["src"].startswith("data:") for one in pictures)
    maps = store.attention(start.query).slots
    if slot == "SS1":
        both = [maps, store.attention(store.nearest(start.query)).slots]
        highest = max(float(slots["SS1"].gathers_from(2).max()) for slots in both)
        assert f"{highest:.3g}" in page.words
        assert "row 1, column 3 of the 8 × 4 positions" in page.words
    assert "(Eq.\xa02)" in page.words


def test_without_a_cell_the_most_changed_one_is_shown(store: Store, start: Selection) -> None:
    page = Page(attention.show(store, replace(start, slot="CC2_1")))
    expected = int(np.argmax(store.attention(start.query).slots["CC2_1"].added_energy()))
    assert page.classed("canvas")[0]["data-cell"] == str(expected)


def test_scales_are_shared_unless_asked_otherwise(store: Store, start: Selection) -> None:
    def ticks(html: str) -> list[list[str]]:
        return re.findall(
            r'class="ticks"><span>(.*?)</span><span>(.*?)</span><span>(.*?)</span>', html
        )

    shared = ticks(attention.show(store, start))
    own = ticks(attention.show(store, replace(start, own_scale=True)))
    assert shared[:4] == shared[4:] and own[:4] != own[4:]


def test_a_hostile_file_name_stays_text(dataset: ReIDDataset, store: Store, tmp_path: Path) -> None:
    if sys.platform == "win32":
        pytest.skip("such names cannot exist there")
    path = tmp_path / HOSTILE
    path.write_bytes(dataset.query[0].path.read_bytes())
    sample = replace(dataset.query[0], path=path)
    hostile = replace(
        dataset, root=tmp_path, query=(sample, *dataset.query), gallery=(sample, *dataset.gallery)
    )
    bad = make_store(hostile, store.network, tmp_path / "cache")
    selection = Selection(HOSTILE, match=HOSTILE)
    html = show_rank(bad, selection) + header.show(bad, selection, notice=HOSTILE)
    html += attention.show(bad, selection)
    assert "<img src=x" not in html and HOSTILE in Page(html).words
    assert not [attrs for _, attrs in Page(html).tags if "onerror" in attrs]
    assert HOSTILE in [button["data-value"] for button in Page(html).buttons("choose")]


@pytest.mark.parametrize(
    ("change", "panels"),
    [
        ({"ssa": False}, 3),
        ({"cca": False}, 3),
        ({"ssa": False, "cca": False}, 0),
        ({"global_branch": False, "ssa": False, "cca": False}, 0),
        ({"attention": "non_local"}, 4),
    ],
)
def test_ablated_networks_are_shown_too(
    dataset: ReIDDataset, tmp_path: Path, change: dict, panels: int
) -> None:
    config = replace(SMALL_MODEL, **change)
    predictor = Predictor.from_checkpoint(
        write_checkpoint(tmp_path / "m.safetensors", 0, config), "cpu"
    )
    few = replace(dataset, query=dataset.query[:6], gallery=dataset.gallery[:12])
    small = make_store(few, predictor, tmp_path)
    selection = Selection(small.query_ids[0], tab="attention")
    page = Page(attention.show(small, selection))
    assert len(page.classed("canvas")) == 2 * panels
    if not panels:
        assert "This network has no attention" in page.words
        for name, value in [("point", {"panel": "SS1", "x": 0, "y": 0}), ("slot", "SS1")]:
            with pytest.raises(CCANError):
                act(small, selection, name, value)
        assert "cell" in from_link({"cell": "0"}, small)[1]


# The frame: here Gradio is needed


@pytest.fixture
def litter() -> Iterator[None]:
    """Gradio leaves event loops open when a page is built; they are swept up before the next test sees them."""
    yield
    gc.collect()


def test_answers_draw_the_tab_on_top_alone(store: Store, start: Selection) -> None:
    from app.ui import PIECES, respond

    names = [tab for tab, _ in PIECES]
    after, head, *views = respond(store, start, "step", "1")
    assert after.query == store.query_ids[5] and "0002_c3" in head
    assert [isinstance(view, str) for view in views] == [name == "overview" for name in names]
    after, _, *views = respond(store, after, "tab", "rank")
    assert [isinstance(view, str) for view in views] == [name == "rank" for name in names]
    after, _, *views = respond(store, after, "tab", "attention")
    assert "canvas" in views[names.index("attention")] and len(views) == len(PIECES)


def test_a_slider_stays_under_the_finger_that_drags_it(store: Store, start: Selection) -> None:
    from app.ui import respond

    here = replace(start, tab="rank")
    after, _, *views = respond(store, here, "weigh", {"stream": "P1", "weight": 0.5})
    assert not isinstance(views[1], str) and isinstance(views[2], str)
    # Where more changes than the slider, its piece is drawn anew.
    after, _, *views = respond(
        store, replace(here, flip=True), "weigh", {"stream": "P1", "weight": 0}
    )
    assert isinstance(views[1], str) and not after.flip
    _, _, *views = respond(store, here, "threshold", "on")
    assert isinstance(views[1], str)
    _, _, *views = respond(store, replace(here, threshold=0.5), "threshold", "0.7")
    assert not isinstance(views[1], str) and isinstance(views[2], str)


def test_a_complaint_stands_in_the_page_and_changes_nothing(store: Store, start: Selection) -> None:
    from app.ui import respond

    after, head, *_ = respond(store, start, "upload", uploaded(b"x", "<i>x</i>.jpg"))
    assert after == start
    alert = Page(head)
    assert alert.classed("notice")[0]["role"] == "alert"
    assert "<i>x</i>.jpg: expected a readable image" in alert.words
    assert "notice" not in respond(store, after, "step", "1")[1]


def test_a_forgotten_upload_gives_way_to_the_first_query(store: Store) -> None:
    from app.ui import respond

    gone = Selection("upload:gone", tab="attention", match=store.gallery_ids[3], cell=2)
    after, head, *_ = respond(store, gone, "slot", "SS1")
    assert after.query == store.query_ids[0] and "no longer held" in head


def test_the_typed_endpoint(store: Store) -> None:
    import gradio as gr

    from app.ui import ranked_images

    found = ranked_images(store, store.query_ids[0], 3)
    ranking = store.ranking(store.query_ids[0])
    assert [one["mark"] for one in found] == list(ranking.marks[:3])
    assert found[0]["distance"] == pytest.approx(float(ranking.distances[0]))
    assert len(ranked_images(store, store.query_ids[0], 10**9)) == len(store.gallery_ids)
    for other in ("x", store.gallery_ids[0]):
        with pytest.raises(gr.Error, match="there is no query"):
            ranked_images(store, other)


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.usefixtures("litter")
def test_the_page_is_built_and_private(store: Store) -> None:
    from app.serving import launch_settings
    from app.ui import build_ui

    page = build_ui(store)
    assert page.analytics_enabled is False and page.delete_cache is not None
    assert page._queue.max_size == 64
    typed = ("rank", "account", "view")
    listeners = [fn for fn in page.fns.values() if fn.api_name not in typed]
    assert len(page.fns) == len(listeners) + len(typed)
    assert listeners and all(fn.api_visibility == "private" for fn in listeners)
    queued = {fn.concurrency_id for fn in listeners if fn.queue}
    assert queued == {"model"}
    settings = launch_settings("127.0.0.1", 7000)
    assert (settings["server_name"], settings["server_port"]) == ("127.0.0.1", 7000)
    assert "allowed_paths" not in settings
    off = (
        "share",
        "run_history",
        "enable_monitoring",
        "show_error",
        "ssr_mode",
        "mcp_server",
        "pwa",
    )
    assert not any(settings[name] for name in off) and settings["strict_cors"]
    assert settings["max_file_size"] == MAX_UPLOAD_BYTES and settings["footer_links"] == []


def test_assets_name_no_address_outside() -> None:
    for path in (ROOT / "app" / "assets").iterdir():
        outside = re.findall(
            r"(?:https?:)?//[a-z0-9.-]+\.[a-z]{2,}[^\s'\"]*", path.read_text("utf-8")
        )
        assert [address for address in outside if "www.w3.org" not in address] == [], path.name


# Starting


def test_hosts() -> None:
    assert all(map(is_loopback, ["127.0.0.1", "localhost", "::1", "127.1.2.3"]))
    assert not any(map(is_loopback, ["0.0.0.0", "192.168.0.4", "example", "::", ""]))


def test_beyond_this_machine_a_login_is_needed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv(AUTH_VARIABLE, raising=False)
    assert logins("127.0.0.1", None) is None
    with pytest.raises(ConfigError, match=r"--host 0\.0\.0\.0 lets other machines in"):
        logins("0.0.0.0", None)
    with pytest.raises(ConfigError, match="--share lets other machines in"):
        logins("127.0.0.1", None, share=True)
    monkeypatch.setenv(AUTH_VARIABLE, "anna:se:cret")
    assert logins("127.0.0.1", None, share=True) == [("anna", "se:cret")]
    assert logins("0.0.0.0", None) == [("anna", "se:cret")]
    file = tmp_path / "logins"
    file.write_text("anna:one\n\nben:two\n")
    assert logins("127.0.0.1", file) == [("anna", "one"), ("ben", "two")]
    for wrong in ("anna", ":x", "anna:"):
        monkeypatch.setenv(AUTH_VARIABLE, wrong)
        with pytest.raises(ConfigError, match="expected logins as user:password"):
            logins("0.0.0.0", None)
    file.write_text("\n")
    with pytest.raises(ConfigError, match="got an empty file"):
        logins("127.0.0.1", file)


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        yield holder.getsockname()[1]


def test_ports(taken_port: int) -> None:
    assert free_port("127.0.0.1", 0) > 0
    with pytest.raises(ConfigError, match=f"cannot listen on 127.0.0.1 port {taken_port}"):
        free_port("127.0.0.1", taken_port)
    for port in (-1, 70000):
        with pytest.raises(ConfigError, match="cannot listen"):
            free_port("127.0.0.1", port)


def test_what_a_user_can_mend_is_one_line_and_exit_code_2(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    taken_port: int,
) -> None:
    monkeypatch.setattr(demo, "speak_directly", lambda: None)
    monkeypatch.delenv(AUTH_VARIABLE, raising=False)
    good = ["--port", "0", "--checkpoint", str(write_checkpoint(tmp_path / "m.safetensors"))]
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(b"\x08\0\0\0\0\0\0\0{}")
    for arguments, complaint in [
        (["--port", str(taken_port)], "cannot listen on"),
        (["--host", "0.0.0.0"], "needs a login"),
        (["--share"], "needs a login"),
        (["--port", "0", "--images", str(tmp_path)], "--images belongs to --features"),
        (["--port", "0", "--features", "f.npz", "--data", "x"], "--features stands for itself"),
        (["--port", "0", "--features", str(tmp_path / "none.npz")], "none.npz"),
        (["--auth-file", str(tmp_path / "none")], "none"),
        (["--port", "0", "--checkpoint", str(tmp_path / "none")], "expected a checkpoint at"),
        (["--port", "0", "--checkpoint", str(damaged)], "damaged.safetensors"),
        ([*good, "--dataset", "nonesuch"], "dataset must be auto or one of"),
        ([*good, "--dataset", "market1501"], "--data DIR"),
        ([*good, "--dataset", "market1501", "--data", str(tmp_path / "no")], "no such folder"),
    ]:
        assert demo.main(arguments) == 2, arguments
        printed = capsys.readouterr()
        assert printed.err.startswith("error: ") and complaint in printed.err
        assert "Traceback" not in printed.err + printed.out
    with pytest.raises(SystemExit) as stopped:
        demo.main(["--port", "many"])
    assert stopped.value.code == 2


def test_missing_packages_are_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo, "speak_directly", lambda: None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert demo.main(["--port", "0"]) == 2
    assert "pip install -e '.[app]'" in capsys.readouterr().err


def test_a_proxy_is_not_asked_for_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "intranet")
    speak_directly()
    assert os.environ["NO_PROXY"] == os.environ["no_proxy"] == "intranet,127.0.0.1,localhost,::1"


def test_the_views_and_the_store_need_no_gradio() -> None:
    code = (
        "import app.demo, app.store, app.actions, app.saving, app.views.rank, app.views.parts, app.views.overview, sys;"
        "print('gradio' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.strip() == "False"


def test_chance_is_the_pages_own() -> None:
    before = np.random.get_state()[1].copy()  # type: ignore[index]
    actions._CHANCE.integers(5)
    assert (np.random.get_state()[1] == before).all()  # type: ignore[index]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_default_start_works(own_cache: Path) -> None:
    """The bundled model on the bundled world, rendered and indexed for the first time."""
    done = subprocess.run(
        [sys.executable, "app/demo.py", "--check"],
        cwd=ROOT,
        env=os.environ | {"CCAN_CACHE": str(own_cache), AUTH_VARIABLE: ""},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "check passed" in done.stdout and "360 of 360 queries have a match" in done.stdout
    assert "right" in done.stdout.splitlines()[-1]
    assert "features of gallery images" in done.stderr
