"""The Learn view: questions that tell nothing, answers that stay, scores that are right, and a teacher's link."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from urllib.parse import parse_qsl

import numpy as np
import pytest

from app import lessons
from app.actions import act
from app.components.html import queries
from app.saving import save
from app.selection import Selection, from_link, to_link
from app.store import Store
from app.views import header, learn
from ccan.data.records import ReIDDataset
from ccan.errors import CCANError, ConfigError
from ccan.evaluation.files import save_features
from ccan.explain.similarity import ledger
from tests.pages import HOSTILE, Page, make_store


@pytest.fixture
def fresh(tmp_path: Path, store: Store) -> Store:
    return Store(store.predictor, store.index, store.report, "small", tmp_path / "cases.jsonl")


@pytest.fixture
def round_(fresh: Store) -> Selection:
    """A round that has begun."""
    return act(fresh, Selection(fresh.query_ids[0], tab="learn"), "lesson", "")


def page_of(store: Store, selection: Selection) -> Page:
    return Page(learn.show(store, selection))


def open_question(store: Store, selection: Selection) -> lessons.Question:
    asked = lessons.queries_of(store, selection.lesson)
    return lessons.question(store, asked[len(selection.answers)])


def reopened(store: Store, selection: Selection) -> tuple[Selection, str]:
    return from_link(dict(parse_qsl(to_link(selection, store)[1:])), store)


# Questions


def test_one_candidate_is_right_and_the_others_are_nearest_wrong_people(fresh: Store) -> None:
    places = []
    for query in fresh.query_ids:
        asked = lessons.question(fresh, query)
        assert len(set(asked.candidates)) == len(asked.candidates) == lessons.CANDIDATES
        samples = [fresh.sample(one) for one in asked.candidates]
        mine = fresh.sample(query)
        people = [one.identity for one in samples if one]
        assert mine and [k for k, who in enumerate(people) if who == mine.identity] == [asked.right]
        assert samples[asked.right].camera != mine.camera  # type: ignore[union-attr]
        assert len(set(people)) == len(people), "each wrong one is another person"
        distances = [fresh.distance(query, one) for one in asked.candidates]
        assert asked.model == int(np.argmin(distances))
        np.testing.assert_allclose(asked.distances, distances, atol=1e-5)
        ranking = fresh.ranking(query)
        wrong = [k for k, mark in enumerate(ranking.marks) if mark == "wrong"]
        gallery = fresh.index.gallery.identities[ranking.order]
        nearest = list(dict.fromkeys(gallery[wrong].tolist()))[: lessons.CANDIDATES - 1]
        assert set(people) - {mine.identity} == set(nearest)
        places.append(asked.right)
    assert len(set(places)) > 3, "the place of the right one tells nothing"
    first = fresh.query_ids[0]
    assert lessons.question(fresh, first) == lessons._question(fresh, first), "asked alike"


def test_an_open_question_tells_nothing(fresh: Store, round_: Selection) -> None:
    query = lessons.queries_of(fresh, round_.lesson)[0]
    asked, sample = open_question(fresh, round_), fresh.sample(query)
    assert sample is not None
    html = learn.show(fresh, round_) + header.show(fresh, round_)
    page = Page(html)
    shown = re.sub(r'src="[^"]*"', "", html)
    for telling in (query, sample.path.name, *asked.candidates, "<dt>AP", "hardness", "✓", "✗"):
        assert telling not in shown, telling
    assert not page.classed("mark") and not page.classed("right") and not page.classed("model")
    assert "covered until you have answered" in page.words
    letters = [one["title"] for one in page.buttons("guess")]
    assert letters == [f"Image {letter}" for letter in "abcdef"]


def test_a_drawn_round_is_the_same_for_the_same_link(fresh: Store, round_: Selection) -> None:
    asked = lessons.queries_of(fresh, round_.lesson)
    assert len(asked) == len(set(asked)) == lessons.ROUND
    assert lessons._queries(fresh, round_.lesson) == asked
    others = {tuple(lessons._queries(fresh, lessons.drawn(seed, ""))) for seed in range(5)}
    assert len(others) == 5
    hard = act(fresh, round_, "lesson", "miss:1")
    assert set(lessons.queries_of(fresh, hard.lesson)) <= set(fresh.subset("miss:1"))
    assert hard.answers == () and hard.query == lessons.queries_of(fresh, hard.lesson)[0]


@pytest.mark.parametrize(
    "lesson",
    ["x", "draw:", "draw:x:", "draw:1:none", "draw:-1:", "set:", "set:nobody", "draw:1:tag:none", "set:a,b",
     "set:0123456789"],
)  # fmt: skip
def test_a_round_that_is_none_is_left_out(fresh: Store, lesson: str) -> None:
    selection, notice = from_link({"lesson": lesson}, fresh)
    assert selection.lesson == "" and "left out" in notice


def test_slices_to_choose_from_count_their_queries(fresh: Store) -> None:
    fresh.diagnosis().wait(60)
    fresh.cases.tag(fresh.query_ids[2], "odd <b>")
    here = Selection(fresh.query_ids[0], tab="learn", subset="hit:2")
    page = page_of(fresh, here)
    offered = [one["data-value"] for one in page.buttons("lesson")]
    assert offered[:2] == ["", "miss:1"] and {"hit:2", "tag:odd <b>"} <= set(offered)
    for subset in offered:
        assert fresh.subset(subset)
        assert queries(len(fresh.subset(subset))) in page.words
    kinds = [kind for kind in fresh.diagnosed().failures.kinds if kind.judged and kind.holds.any()]
    assert {f"kind:{kind.name}" for kind in kinds} <= set(offered)


# Answers


def test_from_the_question_to_the_truth(fresh: Store, round_: Selection) -> None:
    asked = open_question(fresh, round_)
    with pytest.raises(ConfigError, match="choose the image that shows the same person first"):
        act(fresh, round_, "answer", "")
    chosen = act(fresh, round_, "guess", str(asked.right))
    assert [one["aria-pressed"] for one in page_of(fresh, chosen).buttons("guess")].count(
        "true"
    ) == 1
    marked = act(fresh, chosen, "region", "66000000")
    shown = act(fresh, marked, "answer", "")
    assert shown.revealed and shown.answers == (f"{asked.right}.66000000",)
    fresh.lesson_job(asked).wait(30)
    page = page_of(fresh, shown)
    assert "You found the match" in page.words and "you 1 of 1" in page.words
    cards = [one["class"].split() for one in page.classed("card")]
    assert [k for k, card in enumerate(cards) if "right" in card] == [asked.right]
    assert [k for k, card in enumerate(cards) if "you" in card] == [asked.right]
    assert [k for k, card in enumerate(cards) if "model" in card] == [asked.model]
    assert fresh.name(shown.query) in Page(header.show(fresh, shown)).words, "no longer covered"
    found = lessons.marked(fresh, shown.lesson, shown.answers)[0]
    assert f"Overlap {found.overlap:.2f} (by chance {lessons.chance_overlap(4):.2f})" in page.words
    for name, value in (("guess", "0"), ("answer", "")):
        with pytest.raises(ConfigError, match="there is no question to answer"):
            act(fresh, shown, name, value)
    after = act(fresh, shown, "next", "")
    second = lessons.queries_of(fresh, shown.lesson)[1]
    assert (after.query, after.guess, after.region, after.revealed) == (second, "", "", False)
    assert "Question 2 of 10" in page_of(fresh, after).words


def test_a_round_from_start_to_report(fresh: Store, round_: Selection) -> None:
    chance, selection = np.random.default_rng(0), round_
    mine, theirs, overlaps = 0, 0, []
    asked_all = lessons.queries_of(fresh, round_.lesson)
    for number, query in enumerate(asked_all):
        asked = lessons.question(fresh, query)
        guess = int(chance.integers(6))
        region = f"{int(chance.integers(1, 2**32)):08x}" if number else "00000000"
        selection = act(fresh, selection, "guess", str(guess))
        selection = act(fresh, selection, "region", region)
        selection = act(fresh, selection, "answer", "")
        selection = act(fresh, selection, "next", "")
        mine += asked.candidates[guess] == asked.candidates[asked.right]
        theirs += asked.distances[asked.right] == min(asked.distances)
        if number:
            overlaps.append(_overlap_anew(fresh, asked, region))
    page = page_of(fresh, selection)
    assert f"you{mine} of 10" in page.words and f"the model{theirs} of 10" in page.words
    assert f"overlap with the model{np.mean(overlaps):.2f}" in page.words
    assert "guessing would give1.7" in page.words
    rows = save(fresh, selection, "lesson.csv").data.decode().splitlines()
    assert len(rows) == 11 and rows[0].startswith("question,query,match,learner,model")
    table = json.loads(save(fresh, selection, "lesson.json").data)
    assert sum(table["columns"]["learner right"]) == mine
    np.testing.assert_allclose(table["columns"]["overlap"][1:], overlaps, atol=1e-6)
    assert save(fresh, selection, "lesson.png").data.startswith(b"\x89PNG")
    report = save(fresh, selection, "lesson.html")
    text = report.data.decode()
    assert report.kind == "html" and f"found {mine} of 10 matches, the model {theirs}" in text
    assert 'src="data:' in text and "http" not in text.replace("http://www.w3.org", "")
    back, notice = reopened(fresh, selection)
    assert notice == "" and replace(back, query=selection.query) == selection
    elsewhere = act(fresh, selection, "tab", "rank")
    assert "query=" not in to_link(round_, fresh) and "query=" in to_link(elsewhere, fresh)
    assert page_of(fresh, back).words == page.words, "the link keeps the session"
    again = act(fresh, selection, "again", asked_all[3])
    assert (again.tab, again.query, again.answers) == ("rank", asked_all[3], selection.answers)
    with pytest.raises(ConfigError, match="there is no question to answer"):
        act(fresh, selection, "answer", "")
    ended = act(fresh, selection, "lesson_end", "")
    assert (ended.lesson, ended.answers) == ("", ())
    with pytest.raises(ConfigError, match="no question is answered yet"):
        save(fresh, ended, "lesson.html")


def _overlap_anew(store: Store, asked: lessons.Question, region: str) -> float:
    """The overlap worked out from the network's own account, without the page's code."""
    from ccan.explain.embedding import embedding_maps
    from ccan.explain.maps import ledger_pictures

    mine, other = store.trace(asked.query), store.trace(asked.candidates[asked.right])
    model = store.network.model
    found = ledger(model, embedding_maps(model), mine, other)
    picture = ledger_pictures(model, found, mine)["parts ledger"]
    h, w = picture.shape
    cells = {}
    for r in range(8):
        for c in range(4):
            part = picture[r * h // 8 : (r + 1) * h // 8, c * w // 4 : (c + 1) * w // 4]
            cells[r * 4 + c] = np.maximum(np.nan_to_num(part), 0).mean()
    painted = {k for k, bit in enumerate(f"{int(region, 16):032b}") if bit == "1"}
    best = set(sorted(cells, key=lambda k: -cells[k])[: len(painted)])
    return len(painted & best) / len(painted | best)


def test_a_session_goes_on_after_a_restart(fresh: Store, round_: Selection, tmp_path: Path):
    selection = act(fresh, round_, "guess", "2")
    selection = act(fresh, act(fresh, selection, "answer", ""), "next", "")
    link = to_link(selection, fresh)
    anew = Store(fresh.predictor, fresh.index, fresh.report, "small", tmp_path / "other.jsonl")
    back, notice = from_link(dict(parse_qsl(link[1:])), anew)
    assert notice == "" and back.answers == selection.answers
    assert "Question 2 of 10" in page_of(anew, back).words


@pytest.mark.parametrize(
    "answers", ["7.00000000", "1.0000000g", "1", "1.0", "x", ",".join(11 * ["1.00000000"])]
)
def test_answers_that_are_none_are_left_out(fresh: Store, round_: Selection, answers: str) -> None:
    selection, notice = from_link({"lesson": round_.lesson, "answers": answers}, fresh)
    assert selection.answers == () and "answers=" in notice
    selection, notice = from_link({"answers": "1.00000000"}, fresh)
    assert selection.answers == () and "answers=" in notice


@pytest.mark.parametrize(
    ("name", "value"),
    [("guess", "6"), ("guess", "-1"), ("guess", "x"), ("region", "0"), ("region", "zzzzzzzz"), ("prepare", "nobody"),
     ("again", "nobody"), ("lesson", "none"), ("lesson", "tag:none")],
)  # fmt: skip
def test_what_a_browser_should_not_send(
    fresh: Store, round_: Selection, name: str, value: str
) -> None:
    with pytest.raises(CCANError):
        act(fresh, round_, name, value)


# Numbers


def test_overlap_by_hand() -> None:
    values = np.arange(32, dtype=float).reshape(8, 4)  # strongest: the last cells
    region = np.zeros((8, 4), bool)
    region[7] = True
    assert lessons.overlap(region, values) == 1.0
    region[7, :2], region[0, :2] = False, True
    assert lessons.overlap(region, values) == pytest.approx(2 / 6)
    assert np.isnan(lessons.overlap(np.zeros((8, 4), bool), values))
    assert np.isnan(lessons.overlap(region, None)) and np.isnan(lessons.overlap(region, 0 * values))
    assert np.flatnonzero(lessons.region_of("8000000f")).tolist() == [0, 28, 29, 30, 31]


@pytest.mark.parametrize("count", [1, 5, 16, 30, 32])
def test_chance_is_what_random_cells_give(count: int) -> None:
    generator = np.random.default_rng(count)
    drawn = []
    for _ in range(20_000):
        a, b = (set(generator.permutation(32)[:count].tolist()) for _ in range(2))
        drawn.append(len(a & b) / len(a | b))
    error = 4 * np.std(drawn) / len(drawn) ** 0.5 + 1e-9
    assert abs(lessons.chance_overlap(count) - np.mean(drawn)) <= error


# The teacher


def test_a_teacher_prepares_a_set_and_its_link_asks_it(fresh: Store) -> None:
    here = Selection(fresh.query_ids[4], tab="learn", subset="hit:20")
    for query in (fresh.query_ids[4], fresh.query_ids[1], fresh.query_ids[9]):
        here = act(fresh, here, "prepare", query)
    here = act(fresh, here, "prepare", fresh.query_ids[1])
    assert here.prepared == (fresh.query_ids[4], fresh.query_ids[9]), "a second time takes it out"
    assert reopened(fresh, here)[0].prepared == here.prepared
    (address,) = page_of(fresh, here).classed("address")
    opened, notice = from_link(dict(parse_qsl(address["data-address"][1:])), fresh)
    assert notice == "" and opened.tab == "learn"
    assert lessons.queries_of(fresh, opened.lesson) == list(here.prepared)
    assert "Question 1 of 2" in page_of(fresh, opened).words
    tried = act(fresh, here, "lesson", "prepared")
    assert tried.lesson == opened.lesson
    many = act(fresh, here, "prepare", "subset")
    assert len(many.prepared) == min(lessons.PREPARED, len(fresh.subset("hit:20")))
    assert many.prepared[:2] == here.prepared
    if len(many.prepared) == lessons.PREPARED:
        assert page_of(fresh, many).buttons("prepare")[0]["data-value"] in many.prepared
        left = next(one for one in fresh.query_ids if one not in many.prepared)
        with pytest.raises(ConfigError):
            act(fresh, many, "prepare", left)
    assert act(fresh, many, "prepare", "").prepared == ()


def test_names_with_commas_keep_their_links(dataset: ReIDDataset, store: Store, tmp_path: Path):
    path = tmp_path / f"a,b {HOSTILE}"
    path.write_bytes(dataset.query[0].path.read_bytes())
    odd = replace(
        dataset, root=tmp_path, query=(replace(dataset.query[0], path=path), *dataset.query[1:])
    )
    hostile = make_store(odd, store.network, tmp_path / "cache")
    name = hostile.query_ids[0]
    here = act(hostile, Selection(name, tab="learn"), "prepare", name)
    page = page_of(hostile, here)
    (address,) = page.classed("address")
    opened, notice = from_link(dict(parse_qsl(address["data-address"][1:])), hostile)
    assert notice == "" and lessons.queries_of(hostile, opened.lesson) == [name]
    assert not [1 for _, attrs in page.tags if "onerror" in attrs]
    assert not [1 for _, attrs in page_of(hostile, opened).tags if "onerror" in attrs]


# Without a network; hidden faces


def test_features_alone_ask_without_a_map(store: Store, tmp_path: Path) -> None:
    save_features(tmp_path / "f.npz", store.index.query, store.index.gallery)
    blind = Store.of_features(tmp_path / "f.npz", cases=tmp_path / "c.jsonl", progress=False)
    nothing = Selection(blind.query_ids[0], tab="learn")
    assert "no pictures here" in page_of(blind, nothing).words
    with pytest.raises(ConfigError, match="no query with a match and a picture"):
        act(blind, nothing, "lesson", "")
    images = store.dataset.root / "query"
    for sample in store.dataset.gallery:
        (images / sample.path.name).write_bytes(sample.path.read_bytes())
    bare = Store.of_features(tmp_path / "f.npz", images, cases=tmp_path / "c.jsonl", progress=False)
    here = act(bare, Selection(bare.query_ids[0], tab="learn"), "lesson", "")
    here = act(bare, act(bare, here, "guess", "1"), "region", "ffff0000")
    here = act(bare, here, "answer", "")
    assert bare.lesson_job(lessons.question(bare, here.query)).wait(10)
    assert "no network here" in page_of(bare, here).words
    assert np.isnan(lessons.marked(bare, here.lesson, here.answers)[0].overlap)


def test_faces_are_blurred_in_questions_and_report(
    fresh: Store, round_: Selection, monkeypatch: pytest.MonkeyPatch
) -> None:
    selection = act(fresh, act(fresh, round_, "guess", "0"), "region", "0ff00000")
    shown = act(fresh, selection, "answer", "")
    ended = replace(shown, lesson=lessons.prepared([shown.query]), revealed=False)
    for ahead in lessons.queries_of(fresh, shown.lesson)[:3]:
        fresh.lesson_job(lessons.question(fresh, ahead)).wait(30)
    asked: list[bool] = []
    for name in ("thumbnail", "photo"):
        real = getattr(fresh, name)
        monkeypatch.setattr(
            fresh,
            name,
            lambda image, blur=False, real=real: asked.append(blur) or real(image, blur),
        )
    for one in (selection, shown, ended):
        learn.show(fresh, replace(one, blur=True))
    assert len(asked) > 15 and all(asked)
