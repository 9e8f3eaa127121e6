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
from tests.small import small_dataset, small_predictor


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


def answer(store: Store, selection: Selection) -> Selection:
    """What the page's Answer does."""
    return act(store, selection, "answer", str(len(selection.answers)))


def go_on(store: Store, selection: Selection) -> Selection:
    """What the page's Next does."""
    return act(store, selection, "next", str(len(selection.answers) - 1))


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
    asked = open_question(fresh, round_)
    sample = fresh.sample(asked.query)
    assert sample is not None and round_.query == fresh.query_ids[0] != asked.query
    telling = [asked.query, sample.path.name, *asked.candidates, "<dt>AP", "hardness", "✓", "✗"]
    html = learn.show(fresh, round_) + header.show(fresh, round_)
    shown = re.sub(r'src="[^"]*"', "", html).replace(f"query={round_.query}", "")
    assert [words for words in telling if words in shown] == []
    page = Page(html)
    assert not page.classed("mark") and not page.classed("right") and not page.classed("model")
    letters = [one["title"] for one in page.buttons("guess")]
    assert letters == [f"Image {letter}" for letter in "abcdef"]
    elsewhere = act(fresh, round_, "tab", "rank")
    assert elsewhere.query == round_.query, "other views do not show who is asked for"
    for key in ("step", "random", "hardest"):
        other = act(fresh, round_, key, "1")
        assert open_question(fresh, other) == asked and asked.query not in header.show(fresh, other)


def test_a_round_is_drawn_by_chance_and_stays(fresh: Store, round_: Selection) -> None:
    asked = lessons.queries_of(fresh, round_.lesson)
    assert len(asked) == len(set(asked)) == lessons.ROUND
    draws = [lessons.draw(fresh, "", np.random.default_rng(seed)) for seed in range(5)]
    assert len(set(map(tuple, draws))) == 5
    hard = act(fresh, round_, "lesson", "miss:1")
    assert set(lessons.queries_of(fresh, hard.lesson)) <= set(fresh.subset("miss:1"))
    assert hard.answers == ()
    for one in asked[:3]:
        fresh.cases.tag(one, "shaky")
    tagged = act(fresh, round_, "lesson", "tag:shaky")
    before = lessons.queries_of(fresh, tagged.lesson)
    fresh.cases.tag(asked[5], "shaky")  # somebody tags while the round goes on
    assert lessons.queries_of(fresh, tagged.lesson) == before and set(before) == set(asked[:3])


def test_the_match_is_the_same_for_every_model(
    dataset: ReIDDataset, fresh: Store, round_: Selection, tmp_path: Path
) -> None:
    other = make_store(dataset, small_predictor(tmp_path, 5), tmp_path)
    same, alike = 0, 0
    for query in fresh.query_ids:
        first, second = (lessons.question(one, query) for one in (fresh, other))
        assert first.candidates[first.right] == second.candidates[second.right]
        same += first.candidates == second.candidates
        alike += set(first.candidates) == set(second.candidates)
    assert alike < len(fresh.query_ids), "the wrong ones are those of each model"
    # An answer that was given to other images is none here.
    for query in fresh.query_ids:
        first, second = (lessons.question(one, query) for one in (fresh, other))
        gone = [one for one in first.candidates if one not in second.candidates]
        if gone:
            link = {"lesson": lessons.round_of([query]), "answers": lessons.answer(gone[0], "")}
            assert from_link(link, fresh)[0].answers
            selection, notice = from_link(link, other)
            assert selection.answers == () and "answers=" in notice
            break
    else:
        raise AssertionError("no question differs")


@pytest.mark.parametrize("lesson", ["x", ",", "nobody,", "0123456789", "draw:1:", "a" * 5000])
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
        answer(fresh, round_)
    assert act(fresh, round_, "next", "0") == round_
    chosen = act(fresh, round_, "guess", str(asked.right))
    assert [one["aria-pressed"] for one in page_of(fresh, chosen).buttons("guess")].count(
        "true"
    ) == 1
    marked = act(fresh, chosen, "region", "66000000")
    shown = answer(fresh, marked)
    assert shown.revealed and shown.answers == (
        lessons.answer(asked.candidates[asked.right], "66000000"),
    )
    assert shown.query == asked.query, "now it is the query of all views"
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
    with pytest.raises(ConfigError, match="there is no question to answer"):
        act(fresh, shown, "guess", "0")
    assert act(fresh, shown, "answer", "0") == shown, "a key that was pressed twice"
    after = go_on(fresh, shown)
    second = lessons.queries_of(fresh, shown.lesson)[1]
    assert (after.query, after.guess, after.region, after.revealed) == (asked.query, "", "", False)
    assert open_question(fresh, after).query == second
    assert go_on(fresh, after) == after, "a key that was pressed twice"
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
        selection = answer(fresh, selection)
        selection = go_on(fresh, selection)
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
    assert notice == "" and back == selection
    assert page_of(fresh, back).words == page.words, "the link keeps the session"
    again = act(fresh, selection, "again", asked_all[3])
    assert (again.tab, again.query, again.answers) == ("rank", asked_all[3], selection.answers)
    with pytest.raises(ConfigError, match="there is no question to answer"):
        act(fresh, selection, "answer", "10")
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
    selection = go_on(fresh, answer(fresh, act(fresh, round_, "guess", "2")))
    link = to_link(selection, fresh)
    anew = Store(fresh.predictor, fresh.index, fresh.report, "small", tmp_path / "other.jsonl")
    back, notice = from_link(dict(parse_qsl(link[1:])), anew)
    assert notice == "" and back.answers == selection.answers
    assert "Question 2 of 10" in page_of(anew, back).words


@pytest.mark.parametrize(
    "answers",
    [
        "7.00000000",
        "0123456789.00000000",
        "x",
        ".",
        "RIGHT.0000000g",
        "RIGHT.0",
        ",".join(11 * ["RIGHT."]),
    ],
)
def test_answers_that_are_none_are_left_out(fresh: Store, round_: Selection, answers: str) -> None:
    asked = open_question(fresh, round_)
    answers = answers.replace("RIGHT", lessons.code(asked.candidates[asked.right]))
    selection, notice = from_link({"lesson": round_.lesson, "answers": answers}, fresh)
    assert selection.answers == () and "answers=" in notice
    good = lessons.answer(asked.candidates[asked.right], "")
    assert from_link({"lesson": round_.lesson, "answers": good}, fresh)[0].answers == (good,)
    selection, notice = from_link({"answers": good}, fresh)
    assert selection.answers == () and "answers=" in notice


@pytest.mark.parametrize(
    ("name", "value"),
    [("guess", "6"), ("guess", "-1"), ("guess", "x"), ("region", "0"), ("region", "zzzzzzzz"), ("prepare", "nobody"),
     ("unprepare", "nobody"), ("again", "nobody"), ("lesson", "none"), ("lesson", "tag:none"), ("lesson", "prepared")],
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
    wanted = [fresh.query_ids[k] for k in (4, 1, 9)]
    here = Selection(fresh.query_ids[4], tab="learn", subset="hit:20")
    for query in wanted:
        here = act(fresh, here, "prepare", query)
    assert act(fresh, here, "prepare", wanted[0]) == here, "once is enough"
    assert f"Add the query {fresh.name(wanted[0])}" not in page_of(fresh, here).words
    here = act(fresh, here, "unprepare", wanted[1])
    assert here.prepared == (lessons.code(wanted[0]), lessons.code(wanted[2]))
    link = to_link(here, fresh)
    assert reopened(fresh, here)[0].prepared == here.prepared
    assert not [one for one in wanted[1:] if one in link], "names tell who is on a picture"
    (address,) = page_of(fresh, here).classed("address")
    assert not [one for one in wanted if one in address["data-address"]]
    opened, notice = from_link(dict(parse_qsl(address["data-address"][1:])), fresh)
    assert notice == "" and opened.tab == "learn"
    assert lessons.queries_of(fresh, opened.lesson) == [wanted[0], wanted[2]]
    assert "Question 1 of 2" in page_of(fresh, opened).words
    answered = answer(fresh, act(fresh, opened, "guess", "0"))
    assert answered.query == wanted[0]
    assert fresh.name(wanted[0]) in Page(header.show(fresh, answered)).words
    assert act(fresh, here, "lesson", "prepared").lesson == opened.lesson
    many = act(fresh, here, "prepare_all", "")
    assert len(many.prepared) == min(lessons.PREPARED, len(fresh.subset("hit:20")))
    assert many.prepared[:2] == here.prepared
    assert act(fresh, many, "unprepare", "all").prepared == ()
    full = replace(here, prepared=tuple(map(lessons.code, fresh.query_ids[: lessons.PREPARED])))
    left = fresh.query_ids[lessons.PREPARED]
    page = page_of(fresh, replace(full, query=left))
    assert not page.buttons("prepare") and not page.buttons("prepare_all")
    with pytest.raises(ConfigError, match="something unknown"):
        act(fresh, full, "prepare", left)


def test_a_picture_that_is_gone_does_not_end_the_round(
    dataset: ReIDDataset, store: Store, tmp_path: Path
) -> None:
    few = small_dataset(tmp_path / "images", identities=8, cameras=3)
    own = make_store(few, store.network, tmp_path / "cache")
    here = act(own, Selection(own.query_ids[0], tab="learn"), "lesson", "")
    asked = open_question(own, here)
    sample = own.sample(asked.query)
    assert sample is not None
    sample.path.unlink()
    assert "Question 1 of 10" in page_of(own, here).words
    here = answer(own, act(own, act(own, here, "guess", "1"), "region", "ff000000"))
    assert own.lesson_job(asked).wait(30)
    page = page_of(own, here)
    assert "The model's account could not be made" in page.words and page.buttons("next")
    here = go_on(own, here)
    assert "Question 2 of 10" in page_of(own, here).words
    report = replace(here, lesson=lessons.round_of([asked.query]))
    assert "Your session" in page_of(own, report).words
    assert lessons.marked(own, report.lesson, report.answers)[0].correct in (True, False)


def test_many_questions_do_not_push_the_map_out(fresh: Store) -> None:
    from app.jobs import KEPT

    assert fresh.mapping().wait(60) and fresh.diagnosis().wait(60)
    held = fresh.mapping(), fresh.diagnosis()
    for number in range(KEPT + 5):
        fresh.brief.begin(number, lambda _: 1).wait(5)
    assert (fresh.mapping(), fresh.diagnosis()) == held


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
    here = answer(bare, here)
    assert bare.lesson_job(lessons.question(bare, here.query)).wait(10)
    assert "no network here" in page_of(bare, here).words
    assert np.isnan(lessons.marked(bare, here.lesson, here.answers)[0].overlap)


def test_faces_are_blurred_in_questions_and_report(
    fresh: Store, round_: Selection, monkeypatch: pytest.MonkeyPatch
) -> None:
    selection = act(fresh, act(fresh, round_, "guess", "0"), "region", "0ff00000")
    shown = answer(fresh, selection)
    ended = replace(shown, lesson=lessons.round_of([shown.query]), revealed=False)
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
