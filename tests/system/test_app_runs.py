"""The Runs view: curves that follow a training, and the tables of ablations."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path
from urllib.parse import parse_qsl

import pytest

from app.actions import act
from app.runs import DRAWN, LIVE_SECONDS, Runs
from app.saving import save
from app.selection import Selection, from_link, to_link
from app.store import Store
from app.views import runs
from ccan.errors import ConfigError
from ccan.training.checkpoint import MODEL
from ccan.training.journal import RunFolder
from tests.pages import HOSTILE, Page


def write_run(path: Path, losses: list[float], epochs: int = 5) -> RunFolder:
    folder = RunFolder(path)
    folder.start({"recipe": {"train": {"epochs": epochs}}}, {})
    for epoch, loss in enumerate(losses):
        folder.write(epoch, {"loss": loss, "learning_rate": 0.1, "seconds": 30.0})
    return folder


@pytest.fixture
def here(store: Store, tmp_path: Path) -> Selection:
    store.runs = Runs(tmp_path / "runs")
    return Selection(store.query_ids[0], tab="runs")


def test_without_runs_the_view_says_how_to_get_some(store: Store, here: Selection):
    page = Page(runs.show(store, here))
    assert "No run folder here yet" in page.words and "--runs DIR" in page.words
    assert "No ablation with two finished rows" in page.words
    with pytest.raises(ConfigError, match="there is no curve to save"):
        save(store, here, "curves.csv")


def test_a_curve_follows_its_journal(store: Store, here: Selection):
    run = write_run(store.runs.folder / "a", [4.0, 3.0])
    page = Page(runs.show(store, here))
    assert "2 / 5" in page.words and "3.000" in page.words and "training" in page.words
    assert page.classed("curve") and [one for one in page.classed("pending") if "data-poll" in one]
    run.write(2, {"loss": 1.25, "seconds": 30.0})
    page = Page(runs.show(store, here))
    assert "3 / 5" in page.words and "1.250" in page.words and "1.5" in page.words
    assert store.runs.all()[0].curve("loss") == [(1, 4.0), (2, 3.0), (3, 1.25)]
    assert store.runs.all()[0].curve("learning_rate") == [(1, 0.1), (2, 0.1)]
    (run.path / MODEL).touch()
    page = Page(runs.show(store, here))
    assert "finished" in page.words and not page.classed("pending")


def test_a_run_that_stands_still_is_not_followed(store: Store, here: Selection):
    run = write_run(store.runs.folder / "deep" / "er" / "a", [4.0])
    long_ago = time.time() - LIVE_SECONDS - 60
    os.utime(run.path / "metrics.jsonl", (long_ago, long_ago))
    page = Page(runs.show(store, here))
    assert "stopped" in page.words and "deep/er/a" in page.words and not page.classed("pending")


def test_one_chooses_curves_and_metric_and_the_link_keeps_them(store: Store, here: Selection):
    for number in range(3):
        run = write_run(store.runs.folder / f"r{number}", [3.0 - number])
        stamp = time.time() - number
        os.utime(run.path / "metrics.jsonl", (stamp, stamp))
    assert [run.name for run in store.runs.all()] == ["r0", "r1", "r2"]
    after = act(store, here, "curve", "r1")  # of the newest, which are all: one less
    assert after.curves == ("r0", "r2")
    after = act(store, act(store, after, "curve", "r0"), "metric", "learning_rate")
    assert after.curves == ("r2",)
    page = Page(runs.show(store, after))
    pressed = [one["data-value"] for one in page.buttons("curve") if one["aria-pressed"] == "true"]
    assert pressed == ["r2"]
    link = dict(pair.split("=", 1) for pair in to_link(after, store)[1:].split("&"))
    assert from_link(link, store) == (after, "")
    assert "curves=none" in from_link({"curves": "none"}, store)[1]
    assert act(store, after, "curve", "").curves == ()
    with pytest.raises(ConfigError, match="unknown"):
        act(store, after, "curve", "none")
    rows = save(store, after, "curves.csv").data.decode().splitlines()
    assert rows == ["run,epoch,learning_rate", "r2,1,0.1"]


def test_a_comma_in_a_name_is_no_border_of_names(store: Store, here: Selection):
    names = ["a,b", "c", "50%2C"]
    for name in names:
        write_run(store.runs.folder / name, [1.0])
    chosen = replace(here, curves=tuple(names))
    link = dict(parse_qsl(to_link(chosen, store)[1:]))
    assert from_link(link, store) == (chosen, "")


def test_never_more_curves_than_one_can_tell_apart(store: Store, here: Selection):
    for number in range(DRAWN + 2):
        write_run(store.runs.folder / f"r{number:02d}", [1.0])
    shown = here
    for run in store.runs.all():
        shown = act(store, shown, "curve", run.name)
        assert len(shown.curves) <= DRAWN
    pressed = Page(runs.show(store, here)).buttons("curve")
    assert sum(one["aria-pressed"] == "true" for one in pressed) == DRAWN + 1  # and “the newest”


@pytest.mark.parametrize(
    "journal",
    ["", "no json\n", "[]\n", '{"epoch": 0}\n', '{"epoch": "x", "loss": 1}\n',
     '{"epoch": 0, "loss": null}\n', '{"epoch": 0, "loss": NaN}\n', '{"epoch": 0, "loss": "a"}\n'],
)  # fmt: skip
def test_a_damaged_journal_takes_nothing_else_with_it(store: Store, here: Selection, journal: str):
    write_run(store.runs.folder / "good", [2.0])
    bad = store.runs.folder / "bad"
    bad.mkdir()
    (bad / "metrics.jsonl").write_text(journal)
    (bad / "config.json").write_text("{")
    page = Page(runs.show(store, replace(here, curves=("good", "bad"))))
    assert "good" in page.words and "bad" in page.words and page.classed("curve")
    Page(runs.show(store, here))


def test_a_folder_whose_name_is_html_stays_a_name(store: Store, here: Selection):
    name = HOSTILE.replace("/", "")
    write_run(store.runs.folder / name, [2.0, 1.0])
    page = Page(runs.show(store, here))
    assert name in page.words
    assert not [1 for _, attrs in page.tags if {"onerror", "onload"} & set(attrs)]
