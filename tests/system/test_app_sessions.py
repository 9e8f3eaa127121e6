"""Whole sessions in a real Chromium: what people do together in Map, Errors, Compare, Learn and Runs."""

from __future__ import annotations

import csv
import io
import json
import math
import re
import subprocess
import sys
from pathlib import Path

import pytest
from playwright.sync_api import Page

from ccan.cases import Cases
from ccan.config import ModelConfig
from ccan.data.synthetic import WorldConfig, write_world
from ccan.evaluation import FeatureSet
from ccan.evaluation.files import save_features
from tests.small import SMALL_MODEL, write_checkpoint
from tests.system.browsing import ROOT, Watched, answered, file_name, open_tab, running, start, stop

pytestmark = pytest.mark.browser


def wide_lasso(page: Page, share: float = 0.13) -> int:
    """Draw around the middle of the first map → how many points the browser finds in it."""
    box = page.locator(".mapplot").bounding_box()
    assert box is not None
    maps = page.locator(".mapplot .xy, .mapplot .x2y2, .mapplot .x3y3").count()
    middle = box["width"] / max(1, maps) / 2
    reach = share * box["width"]

    def at(angle: float) -> tuple[float, float]:
        return (
            box["x"] + middle + reach * math.cos(angle),
            box["y"] + box["height"] * 0.55 + reach * math.sin(angle),
        )

    page.mouse.move(*at(0))
    page.mouse.down()
    for k in range(1, 25):
        page.mouse.move(*at(k * 2 * math.pi / 24))
    page.mouse.up()
    page.wait_for_selector(".mapplot:not([data-selected=''])[data-selected]")
    return int(page.get_attribute(".mapplot", "data-selected") or 0)


def write(page: Page, field: str, words: str) -> None:
    page.fill(f"input[data-do={field}]", words)
    answered(page, lambda: page.press(f"input[data-do={field}]", "Enter"))


def saved(page: Page, value: str) -> str:
    """The text of a file that a Save menu gives."""
    button = page.locator(f"button[data-do=save][data-value='{value}']")
    if not button.is_visible():
        button.locator("xpath=ancestor::details/summary").click()
    with page.expect_download() as download:
        answered(page, button.click)
    return Path(download.value.path()).read_text("utf-8")


def test_from_a_lasso_over_errors_to_a_file_and_back_by_its_link(
    arguments: list[str], environment: dict[str, str], watched: Watched, tmp_path: Path
) -> None:
    page, cases = watched.page, tmp_path / "cases.jsonl"
    options = [*arguments, "--cases", str(cases)]
    process, found = start(options, environment, tmp_path / "log.txt")
    try:
        page.goto(f"{found}?tab=map")
        page.wait_for_selector(".mapplot[data-drawn]")
        count = wide_lasso(page)
        heading = page.inner_text("section[aria-label^=Lasso] h2")
        chosen, queries = map(int, re.findall(r"Lasso: (\d+) / \d+ images, (\d+)", heading)[0])
        assert chosen == count > 3, "browser and server find the same points in it"
        assert 0 < queries < chosen
        assert f"{count} / " in page.inner_text(".groups .sum")
        write(page, "tag_lasso", "the middle")
        page.wait_for_selector("button:has-text('all are tagged “the middle”')")
        assert page.input_value("input[data-do=tag_lasso]") == ""
        answered(page, page.locator("button", has_text="Walk through its").click)
        open_tab(page, "Errors", ".errors .kinds")
        assert f"the middle {chosen}, {queries} queries" in page.inner_text(".errors")
        rows = list(csv.DictReader(io.StringIO(saved(page, "cases.csv"))))
        assert len(rows) == chosen and {row["tags"] for row in rows} == {"the middle"}
        table = json.loads(saved(page, "cases.json"))
        assert sorted(table["columns"]["image"]) == sorted(row["image"] for row in rows)
        assert "lasso:" in page.url
        link = page.url.partition("?")[2]
        walked = [file_name(page)]
        for _ in range(queries):
            answered(page, lambda: page.keyboard.press("n"))
            walked.append(file_name(page))
        assert walked[0] == walked[-1] and len(set(walked)) == queries
        page.goto("about:blank")
    finally:
        process.kill()  # in mid-session
        process.wait()
    assert len(Cases(cases).images("the middle")) == chosen
    with running(options, environment, tmp_path / "log.txt") as found:
        page.goto(f"{found}?{link}")
        page.wait_for_selector(".errors .kinds")
        assert file_name(page) == walked[0]
        assert f"in the lasso ({queries})" in page.inner_text("header .subset")
        open_tab(page, "Map", ".mapplot[data-drawn]")
        page.wait_for_selector(f".mapplot[data-selected='{count}']")
        page.goto("about:blank")


def test_points_are_hovered_clicked_and_coloured(watched: Watched, address: str) -> None:
    page = watched.page
    page.goto(f"{address}?tab=map&maps=joint")
    page.wait_for_selector(".mapplot[data-drawn]")
    box = page.locator(".mapplot").bounding_box()
    assert box is not None
    place = page.evaluate(
        """() => {
          const plot = document.querySelector('.mapplot .plot'), { xaxis, yaxis } = plot._fullLayout;
          const { x, y } = plot._fullData[0];
          const far = (k) => Math.min(...[...x].map((_, j) => j === k ? 1e9 : Math.hypot(x[k] - x[j], y[k] - y[j])));
          const k = [...x].map((_, j) => j).sort((a, b) => far(b) - far(a))[0];  // the loneliest point
          return [k, xaxis._offset + xaxis.l2p(x[k]), yaxis._offset + yaxis.l2p(y[k])];
        }"""
    )
    point, x, y = place
    page.mouse.move(box["x"] + x - 20, box["y"] + y)
    page.mouse.move(box["x"] + x, box["y"] + y)
    page.wait_for_selector(".maptip.seen img")
    name = page.locator(".maptip span").first.inner_text()
    answered(page, lambda: page.mouse.click(box["x"] + x, box["y"] + y))
    assert name in page.inner_text("section[aria-label^='True neighbours']")
    assert "focus=" in page.url
    assert json.loads(page.get_attribute(".mapplot", "data-map") or "")["focus"] == point
    page.mouse.move(box["x"] + 2, box["y"] + 2)
    for colour in ("camera", "ap", "split", "identity"):
        answered(page, page.locator(f"button[data-do=colour][data-value={colour}]").click)
        page.wait_for_selector(".mapplot[data-drawn]")
    answered(page, page.locator("button[data-do=trust]").click)
    answered(page, page.locator("section[aria-label^='True neighbours'] button").first.click)
    answered(page, lambda: page.keyboard.press("n"))
    assert "focus=" not in page.url


def test_the_map_and_errors_of_bare_features(
    environment: dict[str, str], watched: Watched, tmp_path: Path
) -> None:
    import numpy as np

    chance = np.random.default_rng(0)
    who = np.repeat(np.arange(1, 21), 6)
    rows = chance.standard_normal((21, 16))[who] + 0.4 * chance.standard_normal((120, 16))
    camera, query = np.tile([1, 2, 3], 40), np.arange(120) % 6 == 0
    sides = [
        FeatureSet(rows[mask], who[mask], camera[mask], [f"{k}.jpg" for k in np.flatnonzero(mask)])
        for mask in (query, ~query)
    ]
    save_features(tmp_path / "any.npz", sides[0], sides[1])
    options = ["--features", str(tmp_path / "any.npz"), "--cases", str(tmp_path / "c.jsonl")]
    with running(options, environment, tmp_path / "log.txt") as found:
        page = watched.page
        page.goto(f"{found}?tab=map")
        page.wait_for_selector(".mapplot[data-drawn]")
        count = wide_lasso(page, 0.2)
        write(page, "tag_lasso", "here")
        open_tab(page, "Errors", ".errors .kinds")
        assert f"here {count}" in page.inner_text(".errors")
        page.goto("about:blank")


def test_suspects_are_judged_by_keys(
    arguments: list[str], environment: dict[str, str], watched: Watched, tmp_path: Path
) -> None:
    page, cases = watched.page, tmp_path / "cases.jsonl"
    options = [*arguments, "--cases", str(cases)]
    with running(options, environment, tmp_path / "log.txt") as found:
        page.goto(f"{found}?tab=errors")
        page.wait_for_selector(".suspect.current")
        for number, (key, verdict) in enumerate(
            (("s", "same"), ("d", "different"), ("u", "unsure"))
        ):
            answered(page, lambda key=key: page.keyboard.press(key))
            page.wait_for_selector(f"section[aria-label*='{number + 1} of ']")
            assert f"1 {verdict}" in page.inner_text("section[aria-label*='judged'] h2")
        rows = list(csv.DictReader(io.StringIO(saved(page, "verdicts.csv"))))
        assert [row["verdict"] for row in rows] == ["same", "different", "unsure"]
        page.goto("about:blank")
    assert len(list(Cases(cases).verdict_table().rows())) == 3


def test_two_checkpoints_are_compared(
    arguments: list[str], environment: dict[str, str], watched: Watched, tmp_path: Path
) -> None:
    config = ModelConfig(**{**vars(SMALL_MODEL), "ssa": False, "cca": False})
    other = write_checkpoint(tmp_path / "plain.safetensors", 5, config)
    with running([*arguments, "--compare", str(other)], environment, tmp_path / "log.txt") as found:
        page = watched.page
        page.goto(f"{found}?tab=compare")
        page.wait_for_selector(".quadrants button")
        counts = [int(one) for one in page.locator(".quadrant b").all_inner_texts()]
        assert len(counts) == 4 and sum(counts) > 10
        button = page.locator(".quadrants button").last
        count = button.locator("b").inner_text()
        answered(page, button.click)
        assert f"({count})" in page.inner_text("header .subset")
        before = file_name(page)
        plane = page.locator("[data-plane=spot]").bounding_box()
        assert plane is not None
        for share in (0.05, 0.95):
            page.mouse.click(
                plane["x"] + share * plane["width"], plane["y"] + (1 - share) * plane["height"]
            )
            page.wait_for_timeout(400)
        assert file_name(page) != before
        assert page.locator(".row.maps img").count() == 6  # two without attention, four with it
        answered(page, page.locator("button[data-do=side][data-value=match]").click)
        line = page.locator("g[data-do=choose]").first
        line.focus()
        answered(page, lambda: page.keyboard.press("Enter"))
        assert len(saved(page, "outcomes.csv").splitlines()) == 1 + sum(counts)
        page.close()  # Gradio complains when a page with an open stream is left


def test_a_round_of_questions_from_start_to_report(watched: Watched, address: str) -> None:
    page = watched.page
    page.goto(f"{address}?tab=learn")
    answered(page, page.locator(".slices button").first.click)
    right = 0
    for number in range(10):
        page.wait_for_selector(f"section[aria-label='Question {number + 1} of 10'] .brush.region")
        assert "is told when you have answered" in page.inner_text("header .querybar")
        if number == 8:  # by the mouse, and Enter
            answered(page, page.locator("button[data-do=guess]").nth(2).click)
        else:
            answered(page, lambda number=number: page.keyboard.press("abc"[number % 3]))
        box = page.locator(".brush.region").bounding_box()
        assert box is not None
        if number not in (7, 8):  # nobody must paint
            page.mouse.move(box["x"] + 0.3 * box["width"], box["y"] + 0.3 * box["height"])
            page.mouse.down()
            page.mouse.move(box["x"] + 0.6 * box["width"], box["y"] + 0.4 * box["height"], steps=5)
            answered(page, page.mouse.up)
        answered(page, lambda: page.keyboard.press("Enter"))
        page.wait_for_selector(".easel.pairs figure:nth-child(2)")
        right += "You found the match" in page.inner_text(".verdict")
        said = page.inner_text(".outcome .note")
        assert ("You marked no region" if number in (7, 8) else "Overlap") in said
        if number == 4:  # somebody reloads in the middle
            page.goto(page.url)
            page.wait_for_selector(".easel.pairs")
        answered(page, lambda: page.keyboard.press("Enter"))
    page.wait_for_selector(".table.session")
    assert f"{right} of 10" in page.inner_text(".learn .facts")
    with page.expect_download() as download:
        answered(page, page.locator("button[data-value='lesson.html']").click)
    assert f"found {right} of 10" in Path(download.value.path()).read_text("utf-8")
    answered(page, page.locator("button[data-do=again]").first.click)
    page.wait_for_selector(".strip .card")
    open_tab(page, "Learn", ".table.session")


def test_enter_belongs_to_what_has_the_focus(watched: Watched, address: str) -> None:
    page = watched.page
    page.goto(f"{address}?tab=learn")
    answered(page, page.locator(".slices button").first.click)
    page.wait_for_selector(".brush.region")
    page.locator("button[data-do=guess]").nth(1).focus()
    answered(page, lambda: page.keyboard.press("Enter"))
    assert page.locator("button[data-do=guess][aria-pressed=true]").count() == 1
    page.keyboard.down("Enter")
    for _ in range(10):
        page.keyboard.down("Enter")  # held: the same key again and again
    page.keyboard.up("Enter")
    page.wait_for_selector(".easel.pairs")
    page.wait_for_timeout(500)
    assert page.locator(".easel.pairs").count() == 1, "the truth is not skipped"
    page.locator("button[data-do=lesson_end]").focus()
    answered(page, lambda: page.keyboard.press("Enter"))
    page.wait_for_selector(".slices")


def test_a_teachers_link_asks_what_was_prepared(watched: Watched, address: str) -> None:
    page = watched.page
    page.goto(f"{address}?tab=learn")
    for _ in range(3):
        answered(page, page.locator(".panel button[data-do=prepare]").first.click)
        answered(page, lambda: page.keyboard.press("n"))
    link = page.input_value("input.address")
    assert link.startswith(address) and "lesson=" in link
    page.goto(link)
    page.wait_for_selector("section[aria-label='Question 1 of 3']")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_training_is_followed_while_it_writes(
    arguments: list[str], environment: dict[str, str], watched: Watched, tmp_path: Path
) -> None:
    config = WorldConfig(*(12, 3, 2, 4), height=128, width=64, lookalikes=0.0)
    world = write_world(config, tmp_path / "world", workers=1, progress=False)
    runs = tmp_path / "runs"
    options = [*arguments, "--runs", str(runs)]
    process, found = start(options, environment, tmp_path / "log.txt")
    training = None
    try:
        page = watched.page
        page.goto(f"{found}?tab=runs")
        page.wait_for_selector("text=No run folder here yet")
        words = f"ccan.cli train --recipe smoke --dataset synthetic --data {world} "
        words += f"--out {runs / 'live'} --train.epochs 80"
        training = subprocess.Popen(
            [sys.executable, "-m", *words.split()],
            cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT,
        )  # fmt: skip
        page.wait_for_timeout(500)
        seen: set[str] = set()
        for _ in range(240):
            assert training.poll() in (None, 0), "the training ended badly"
            if page.locator(".runs th button").count():
                seen.add(page.locator(".runs .table td.n").first.inner_text())
                if "finished" in page.inner_text(".runs .table"):
                    break
            page.wait_for_timeout(500)
        assert training.wait(60) == 0
        assert "80 / 80" in seen and len(seen) >= 3, seen
        assert page.locator(".chart .curve").count() >= 1
        page.goto("about:blank")
    finally:
        if training is not None and training.poll() is None:
            training.kill()
        stop(process)
