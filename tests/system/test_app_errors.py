"""The Errors view: rules, lists, tags and verdicts, and what leads from one to the other."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from app.actions import act, query_list
from app.saving import save
from app.selection import Selection, from_link, to_link
from app.store import Store
from app.views import errors, header
from ccan.cases import Cases
from ccan.data.records import ReIDDataset
from ccan.diagnosis import Diagnosis, label_suspects
from ccan.errors import CCANError, ConfigError
from ccan.evaluation import FeatureSet
from ccan.evaluation.files import save_features
from ccan.predictor import Predictor
from tests.pages import HOSTILE, Page, make_store, png, uploaded
from tests.small import SMALL_MODEL, write_checkpoint


@pytest.fixture
def fresh(dataset: ReIDDataset, tmp_path: Path, store: Store) -> Store:
    """A store without any tag; the index is that of the others."""
    return Store(
        store.predictor, store.index, store.report, "small", tmp_path / "deep" / "cases.jsonl"
    )


@pytest.fixture
def here(fresh: Store) -> Selection:
    fresh.diagnosis().wait(60)
    return Selection(fresh.by_difficulty[0], tab="errors", order="hardest")


def found_in(store: Store) -> Diagnosis:
    return store.diagnosed()


def page_of(store: Store, selection: Selection) -> Page:
    return Page(errors.show(store, selection))


def test_a_tag_is_given_shown_counted_walked_and_taken_away(fresh: Store, here: Selection):
    assert "Nothing is tagged yet" in page_of(fresh, here).words
    after = act(fresh, here, "tag", "occlusion")
    after = act(fresh, after, "tag", "my own")
    pressed = {
        one["data-value"]
        for one in page_of(fresh, after).buttons("untag")
        if one["aria-pressed"] == "true"
    }
    assert pressed == {"occlusion", "my own"}
    assert "occlusion" in Page(header.show(fresh, after)).words
    third = fresh.by_difficulty[2]
    act(fresh, act(fresh, after, "choose", third), "tag", "occlusion")
    walking = act(fresh, after, "subset", "tag:occlusion")
    assert query_list(fresh, walking) == [here.query, third]
    assert query_list(fresh, act(fresh, walking, "subset", "tagged")) == [here.query, third]
    link = dict(pair.split("=", 1) for pair in to_link(walking, fresh)[1:].split("&"))
    assert from_link({**link, "subset": "tag:occlusion"}, fresh)[1] == ""
    act(fresh, walking, "untag", "occlusion")
    assert query_list(fresh, walking) == [third]  # at once, not from memory
    # Another program sees the same, and so does the dashboard after a restart.
    assert Cases(fresh.cases.path).tags(here.query) == ["my own"]


def test_the_same_tag_by_two_people_at_once_stays(fresh: Store, here: Selection):
    """Neither page shows the other's tag yet: the second press must not take away what the first one gave."""
    for who in ("anna", "ben"):
        act(fresh, replace(here, who=who), "tag", "occlusion")
    assert fresh.cases.tags(here.query) == ["occlusion"]


def test_when_the_last_query_of_a_tag_is_gone_one_is_told(fresh: Store, here: Selection):
    walking = act(fresh, act(fresh, here, "tag", "only"), "subset", "tag:only")
    act(fresh, walking, "untag", "only")
    assert query_list(fresh, walking) == []
    for action, value in (("step", "1"), ("hardest", "")):
        with pytest.raises(ConfigError, match="no query is left here"):
            act(fresh, walking, action, value)
    assert act(fresh, walking, "random", "").query == here.query
    Page(errors.show(fresh, walking) + header.show(fresh, walking))
    assert len(query_list(fresh, act(fresh, walking, "subset", ""))) == len(fresh.query_ids)


def test_notes_stay_until_they_are_taken_away_and_are_text(fresh: Store, here: Selection):
    hostile = '<img src=x onerror=alert(1)> "quoted"'
    after = act(fresh, act(fresh, here, "note", hostile), "note", "   ")
    act(fresh, replace(after, who="anna"), "note", "second")
    page = page_of(fresh, after)
    assert hostile in page.words and "second" in page.words and "anna" in page.words
    assert not [1 for _, attrs in page.tags if "onerror" in attrs]
    assert len(page.buttons("remove_note")) == 2
    act(fresh, after, "remove_note", page.buttons("remove_note")[0]["data-value"])
    assert [one.value for one in fresh.cases.notes(here.query)] == ["second"]
    with pytest.raises(ConfigError, match="unknown"):
        act(fresh, after, "remove_note", "none")
    with pytest.raises(ConfigError, match="1 to 2000 characters, got 2001"):
        act(fresh, after, "note", "x" * 2001)


def test_an_upload_takes_no_tag(fresh: Store, here: Selection):
    brought = act(fresh, here, "upload", uploaded(png()))
    for action in ("tag", "untag", "note", "remove_note"):
        with pytest.raises(ConfigError, match="an upload is not kept"):
            act(fresh, brought, action, "x")
    assert "An upload is not kept" in page_of(fresh, brought).words
    assert not fresh.cases.path.exists()


def test_each_number_leads_to_the_queries_that_it_counts(fresh: Store, here: Selection):
    found = found_in(fresh)
    page = page_of(fresh, here)
    asked = [one["data-value"] for one in page.asking("subset")]
    counted = {f"kind:{k.name}": int(k.holds.sum()) for k in found.failures.kinds if k.holds.any()}
    assert counted and set(counted) <= set(asked)
    for name, number in counted.items():
        assert len(fresh.subset(name)) == number
    for column in fresh.slice_columns:
        sliced = page_of(fresh, act(fresh, here, "slice_by", column))
        names = [
            n["data-value"] for n in sliced.asking("subset") if n["data-value"].startswith("slice")
        ]
        assert sum(len(fresh.subset(name)) for name in names) == len(fresh.query_ids)
    edges = [name for name in asked if name.startswith("taken:")]
    assert edges
    for name in edges:
        who, whom = map(int, name.split(":")[1:])
        queries = fresh.subset(name)
        assert len(queries) == found.confusers.edges[who, whom][0]
        for query in queries:
            ranking = fresh.ranking(query)
            first = ranking.marks.index("right")
            ahead = fresh.index.gallery.identities[ranking.order[:first]]
            assert fresh.sample(query).identity == who and whom in ahead  # type: ignore[union-attr]


def test_a_hub_leads_to_the_queries_that_it_misleads(fresh: Store, here: Selection):
    tops = found_in(fresh).tops
    wrong = tops.rows[~tops.right & (tops.rows >= 0)]
    image = fresh.gallery_ids[int(np.bincount(wrong).argmax())]
    queries = fresh.subset(f"hub:{image}")
    assert len(queries) == np.bincount(wrong).max()
    for query in queries:
        ranking = fresh.ranking(query)
        counted = ranking.order[ranking.positions > 0][: tops.rows.shape[1]]
        assert fresh.gallery_rows[image] in counted


@pytest.mark.parametrize(
    "name",
    ["kind:x", "slice:x:1", "slice:camera:99", "taken:1", "taken:a:b", "hub:none", "tag", "x:1"],
)
def test_a_subset_that_is_none_is_refused(fresh: Store, here: Selection, name: str):
    with pytest.raises(CCANError):
        act(fresh, here, "subset", name)
    assert "left out" in from_link({"subset": name}, fresh)[1]


@pytest.fixture
def muddled(tmp_path: Path) -> Store:
    """Features in which look and identity have little to do with each other."""
    chance = np.random.default_rng(3)

    def side(count: int) -> FeatureSet:
        people = np.arange(count) % 6 + 1
        return FeatureSet(chance.normal(size=(count, 8)), people, np.arange(count) % 4 + 1)

    save_features(tmp_path / "f.npz", side(12), side(30))
    store = Store.of_features(tmp_path / "f.npz", cases=tmp_path / "c.jsonl", progress=False)
    store.diagnosis().wait(60)
    return store


def test_one_key_judges_a_suspect_and_the_next_one_comes(muddled: Store):
    fresh, here = muddled, Selection(muddled.query_ids[0], tab="errors")
    direct = label_suspects(fresh.index.query, fresh.index.gallery, streams=None).suspects
    suspects = found_in(fresh).suspects.suspects
    assert len(suspects) >= 2 and {frozenset((s.first, s.second)) for s in suspects} == {
        frozenset((s.first, s.second)) for s in direct
    }
    for one, names in ((suspects[0], fresh.suspect_pair(0)), (suspects[1], fresh.suspect_pair(1))):
        first, second = (fresh.sample(name) for name in names)
        assert first and second and first.identity != second.identity
        assert fresh.distance(*names) == pytest.approx(one.distance, abs=1e-4)

    def keys() -> dict[str, str]:
        page = page_of(fresh, here)
        return {
            one["data-hot"]: one["data-value"] for one in page.buttons("judge") if "data-hot" in one
        }

    assert keys() == {"s": "same 0", "d": "different 0", "u": "unsure 0"}
    act(fresh, here, "judge", keys()["d"])
    assert keys()["s"] == "same 1"
    verdict = fresh.cases.verdict(*fresh.suspect_pair(0))
    assert verdict is not None and verdict.value == "different"
    act(fresh, here, "judge", "same 0")  # a mistake is mended by a click
    assert fresh.cases.verdict(*fresh.suspect_pair(0)).value == "same"  # type: ignore[union-attr]
    for value in ("same", "same -1", "same 999999", "maybe 0", ""):
        with pytest.raises(ConfigError):
            act(fresh, here, "judge", value)
    for k in range(len(suspects)):
        act(fresh, here, "judge", f"unsure {k}")
    assert (
        keys() == {} and f"{len(suspects)} of {len(suspects)} judged" in page_of(fresh, here).words
    )


def test_the_report_of_tagged_queries_holds_what_was_said(fresh: Store, here: Selection):
    with pytest.raises(ConfigError, match="no query is tagged yet"):
        act(fresh, here, "report", "")
    after = act(fresh, act(fresh, here, "tag", "look-alike"), "note", "the <same> bag")
    with pytest.raises(ConfigError, match="no finished report"):
        save(fresh, after, "report.html")
    act(fresh, after, "report", "")
    job = fresh.found_report(False)
    assert job is not None and job.wait(120) and job.error == ""
    assert page_of(fresh, after).buttons("save")[-1]["data-value"]
    found = save(fresh, after, "report.html")
    text = found.data.decode()
    assert found.name == "report.html" and found.kind == "html"
    assert fresh.name(here.query) in text and text.count("<h2") == 1
    assert "Tags: look-alike" in text and "the &lt;same&gt; bag" in text
    # What is said afterwards is in a new report, not in this one.
    act(fresh, after, "tag", "late")
    assert fresh.found_report(False) is None and fresh.found_report(True) is None


def test_what_is_saved_is_what_was_said(fresh: Store, here: Selection):
    for name in ("cases", "verdicts"):
        with pytest.raises(ConfigError, match=r"nothing is tagged yet|no pair is judged yet"):
            save(fresh, here, f"{name}.csv")
    act(fresh, act(fresh, replace(here, who="anna"), "tag", "=cmd()"), "note", "a, b")
    rows = save(fresh, here, "cases.csv").data.decode().splitlines()
    assert rows[1].startswith(f'{here.query},\'=cmd(),"a, b",anna,small,20')
    assert b'"=cmd()"' in save(fresh, here, "cases.json").data


def test_people_on_one_dashboard_and_on_another_lose_nothing(fresh: Store, here: Selection):
    """Two dashboards over one file, two people on each."""
    other = Store(fresh.predictor, fresh.index, fresh.report, "other", fresh.cases.path)
    failed: list[BaseException] = []

    def work(store: Store, who: str) -> None:
        try:
            for query in store.query_ids:
                act(store, replace(here, query=query, who=who), "tag", f"by {who}")
                errors.show(store, here)
        except BaseException as error:
            failed.append(error)

    people = [(fresh, "anna"), (fresh, "ben"), (other, "cleo"), (other, "dan")]
    threads = [threading.Thread(target=work, args=one) for one in people]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert failed == []
    for store in (fresh, other):
        assert store.cases.counts() == {
            f"by {who}": len(store.query_ids) for who in ("anna", "ben", "cleo", "dan")
        }


def test_a_name_that_is_html_stays_a_name(dataset: ReIDDataset, tmp_path: Path):
    (tmp_path / "query").mkdir()
    samples = list(dataset.query)
    hostile = tmp_path / "query" / HOSTILE
    hostile.write_bytes(samples[0].path.read_bytes())
    samples[0] = replace(samples[0], path=hostile)
    predictor = Predictor.from_checkpoint(
        write_checkpoint(tmp_path / "m.safetensors", 0, SMALL_MODEL), "cpu"
    )
    store = make_store(replace(dataset, query=tuple(samples)), predictor, tmp_path)
    store.diagnosis().wait(60)
    selection = act(store, Selection(store.query_ids[0], tab="errors"), "tag", "<b>bold</b>")
    page = Page(errors.show(store, selection) + header.show(store, selection))
    assert "<b>bold</b>" in page.words
    assert not [1 for _, attrs in page.tags if {"onerror", "onload"} & set(attrs)]
