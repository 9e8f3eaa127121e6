"""Journeys through the dashboard in a real Chromium, against the program as a user starts it.

Throughout, nothing may be asked of another machine and nothing may be complained about in the console.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, Request, sync_playwright

from app.browser import FLAGS
from ccan.data.synthetic import WorldConfig, write_world
from tests.small import write_checkpoint

pytestmark = pytest.mark.browser

ROOT = Path(__file__).parents[2]
PATIENCE = 60_000
"""Milliseconds; build servers are slow, and waiting ends as soon as the thing is there."""
PASTE = """async () => {
  const canvas = document.createElement('canvas');
  canvas.width = 32; canvas.height = 64;
  const blob = await new Promise(done => canvas.toBlob(done));
  const clipboardData = new DataTransfer();
  clipboardData.items.add(new File([blob], 'pasted.png', { type: 'image/png' }));
  document.dispatchEvent(new ClipboardEvent('paste', { clipboardData }));
}"""
"""A picture in the clipboard, pasted into the page."""


@pytest.fixture(scope="session")
def arguments(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A tiny world and an untrained model, as options of the program."""
    folder = tmp_path_factory.mktemp("app")
    config = WorldConfig(
        *(12, 3, 2, 4), height=128, width=64, distractors=3, junk=2, lookalikes=0.0
    )
    world = write_world(
        config, folder / "world", workers=1, progress=False, splits=("query", "gallery")
    )
    checkpoint = write_checkpoint(folder / "small.safetensors")
    return ["--checkpoint", str(checkpoint), "--dataset", "synthetic", "--data", str(world)]


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    cache = tmp_path_factory.mktemp("cache")
    return {**os.environ, "CCAN_CACHE": str(cache), "OMP_NUM_THREADS": "1", "CCAN_AUTH": ""}


def start(
    arguments: list[str], environment: dict[str, str], log: Path
) -> tuple[subprocess.Popen, str]:
    """The running program and its address."""
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "app/demo.py", "--port", "0", *arguments],
            cwd=ROOT,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline and process.poll() is None:
        found = re.search(r"Open (http://\S+)", log.read_text())
        if found:
            return process, found[1]
        time.sleep(0.2)
    stop(process)
    raise AssertionError(f"the dashboard did not start:\n{log.read_text()}")


def stop(process: subprocess.Popen) -> None:
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@pytest.fixture(scope="session")
def address(
    arguments: list[str],
    environment: dict[str, str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[str]:
    process, found = start(arguments, environment, tmp_path_factory.mktemp("log") / "log.txt")
    yield found
    stop(process)


@pytest.fixture(scope="session")
def browser(chromium_path: str) -> Iterator[Browser]:
    with sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=chromium_path, args=FLAGS)
        yield chromium
        chromium.close()


@dataclass
class Watched:
    """A page, and what it and its tabs asked for and complained of."""

    page: Page
    hosts: set[str | None] = field(default_factory=set)
    complaints: list[str] = field(default_factory=list)


@pytest.fixture
def watched(browser: Browser) -> Iterator[Watched]:
    """A fresh page; at the end nothing must have gone outside and nothing must have gone wrong."""
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    context.set_default_timeout(PATIENCE)
    seen = Watched(context.new_page())

    def asked(request: Request) -> None:
        if not request.url.startswith(("data:", "blob:")):
            seen.hosts.add(urllib.parse.urlparse(request.url).hostname)

    def said(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            seen.complaints.append(message.text)

    context.on("request", asked)
    context.on("console", said)
    context.on("weberror", lambda failure: seen.complaints.append(str(failure.error)))
    yield seen
    context.close()
    assert seen.hosts == {"127.0.0.1"}
    assert seen.complaints == []


def open_page(watched: Watched, address: str) -> Page:
    watched.page.goto(address)
    watched.page.wait_for_selector("header.ccan .file")
    return watched.page


def file_name(page: Page) -> str:
    return page.inner_text("header.ccan .file")


def wait_for_other(page: Page, selector: str, before: str) -> str:
    """The text of an element once it has changed."""
    page.wait_for_function(
        "([selector, before]) => document.querySelector(selector)?.innerText !== before",
        arg=[selector, before],
    )
    return page.inner_text(selector)


def test_from_the_first_page_to_a_link_that_opens_it_again(watched: Watched, address: str) -> None:
    page = open_page(watched, address)
    page.wait_for_selector(".strip .card.right")
    assert page.locator(".strip .card.wrong").count() > 0
    assert page.locator(".strip .card.ignored .mark").first.inner_text() == "–"
    assert page.locator(".strip .card.right .mark").first.inner_text() == "✓"
    for image in page.locator(".strip img").all()[:5]:
        assert image.evaluate("image => image.decode().then(() => image.naturalHeight)") == 192

    before = file_name(page)
    page.locator(".queries button").nth(4).click()
    chosen = wait_for_other(page, "header.ccan .file", before)
    page.locator(".strip button.card").nth(3).click()
    page.wait_for_selector(".strip li:nth-child(5) .card[aria-pressed=true]")

    page.get_by_role("tab", name="Attention").click()
    page.wait_for_selector(".canvas img")
    assert page.locator(".canvas").count() == 6
    note = page.inner_text(".attention .note")
    page.locator(".canvas").nth(1).click(position={"x": 30, "y": 300})
    note = wait_for_other(page, ".attention .note", note)
    assert "CC2 part 2" in note
    page.wait_for_function("() => location.search.includes('slot=CC2_2')")

    page.locator(".canvas").nth(1).focus()
    page.keyboard.press("ArrowRight")
    note = wait_for_other(page, ".attention .note", note)
    link = page.url
    assert "query=query/" in link and "match=bounding_box_test/" in link and "cell=" in link

    # In another tab: Gradio complains of its broken stream if one leaves a page at the wrong moment.
    other = page.context.new_page()
    other.goto(link)
    other.wait_for_selector(".canvas img")
    assert file_name(other) == chosen
    assert other.inner_text(".attention .note") == note


def test_choosing_filtering_and_walking(watched: Watched, address: str) -> None:
    page = open_page(watched, address)
    page.wait_for_selector(".strip .card")
    shown = page.locator(".strip button.card").count()
    page.locator(".control button", has_text="hidden").click()
    page.wait_for_function("() => !document.querySelector('.strip .card.ignored')")
    page.locator("[data-do=camera]", has_text="2").click()
    page.wait_for_function(
        "shown => document.querySelectorAll('.strip button.card').length < shown", arg=shown
    )
    assert all("· c2" in words for words in page.locator(".strip button .whose").all_inner_texts())
    page.locator("[data-do=shown]").evaluate(
        "slider => { slider.value = 5; slider.dispatchEvent(new Event('change', {bubbles: true})); }"
    )
    page.wait_for_function("() => document.querySelectorAll('.strip button.card').length === 5")
    seen = [file_name(page)]
    for name in ("Random", "Hardest", "›", "‹"):
        page.locator("header.ccan nav button", has_text=name).click()
        seen.append(wait_for_other(page, "header.ccan .file", seen[-1]))
    assert seen[4] == seen[2] != seen[3]
    assert page.locator("[data-do=order][aria-pressed=true]").inner_text() == "Hardest"
    assert "cameras=2" in page.url and "ignored=0" in page.url and "shown=5" in page.url


def test_pictures_from_outside(
    watched: Watched, address: str, tmp_path: Path, arguments: list[str]
) -> None:
    page = open_page(watched, address)
    page.wait_for_selector(".uploader input")
    broken = tmp_path / "<b>broken.jpg"
    broken.write_bytes(b"this is no picture")
    page.set_input_files(".uploader input", broken)
    page.wait_for_selector(".notice")
    assert "<b>broken.jpg: expected a readable image" in page.inner_text(".notice")
    assert page.locator(".strip .card.right").count() > 0

    large = tmp_path / "large.jpg"
    large.write_bytes(bytes(11 * 2**20))
    page.set_input_files(".uploader input", large)
    page.wait_for_function("() => document.querySelector('.notice')?.innerText.includes('10 MB')")

    world = Path(arguments[-1])
    page.set_input_files(".uploader input", next((world / "query").glob("*.jpg")))
    page.wait_for_selector(".strip .card.unknown")
    assert page.locator(".notice").count() == 0
    assert page.locator(".strip .card.right, .strip .card.wrong").count() == 0
    page.evaluate(PASTE)
    assert wait_for_other(page, "header.ccan .file", file_name(page)) == "pasted.png"
    assert "nothing can be right or wrong" in page.inner_text(".verdict")
    page.get_by_role("tab", name="Attention").click()
    page.wait_for_selector(".canvas img")
    assert "query=" not in page.url


def test_a_link_to_what_is_not_here_says_so(watched: Watched, address: str) -> None:
    page = open_page(watched, f"{address}?query=../../etc/passwd&slot=%3Cb%3E&__theme=dark")
    words = page.inner_text(".notice")
    assert "query=../../etc/passwd" in words and "slot=<b>" in words
    assert page.evaluate("() => document.body.classList.contains('dark')")
    page.locator("header .theme").click()
    page.wait_for_function("() => !document.body.classList.contains('dark')")
    assert "__theme=light" in page.url


def test_two_people_do_not_see_each_others_choice(
    watched: Watched, browser: Browser, address: str
) -> None:
    page = open_page(watched, address)
    first = file_name(page)
    with browser.new_context() as other:
        other.set_default_timeout(PATIENCE)
        theirs = other.new_page()
        theirs.goto(address)
        theirs.wait_for_selector("header.ccan .file")
        theirs.locator("header.ccan nav button", has_text="Hardest").click()
        hardest = wait_for_other(theirs, "header.ccan .file", first)
        page.locator("header.ccan nav button", has_text="›").click()
        assert wait_for_other(page, "header.ccan .file", first) != hardest
        assert file_name(theirs) == hardest


def status(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=60) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        error.close()
        return error.code


def test_no_file_of_this_machine_can_be_read(
    address: str, arguments: list[str], environment: dict[str, str]
) -> None:
    index = next(Path(environment["CCAN_CACHE"]).glob("indices/*"))
    for path in (
        next((index / "thumbnails").iterdir()),
        index / "features.safetensors",
        arguments[1],
        next(Path(arguments[-1]).glob("query/*.jpg")),
        ROOT / "app" / "demo.py",
        "/etc/passwd",
        "../../../../../../etc/passwd",
    ):
        assert status(f"{address}gradio_api/file={urllib.parse.quote(str(path))}") in (403, 404), (
            path
        )
    assert status(f"{address}gradio_api/monitoring") in (403, 404)
    assert status(f"{address}monitoring") in (403, 404)


def test_a_login_guards_everything(
    arguments: list[str], environment: dict[str, str], tmp_path: Path
) -> None:
    guarded = {**environment, "CCAN_AUTH": "anna:secret"}
    process, address = start(arguments, guarded, tmp_path / "log.txt")
    try:
        cache = Path(environment["CCAN_CACHE"])
        thumbnail = next(cache.glob("indices/*/thumbnails/*.jpg"))
        assert status(f"{address}gradio_api/file={thumbnail}") == 401
        assert status(f"{address}config") == 401
    finally:
        stop(process)


def test_check_builds_everything_and_ends(
    arguments: list[str], environment: dict[str, str]
) -> None:
    done = subprocess.run(
        [sys.executable, "app/demo.py", "--check", *arguments],
        cwd=ROOT,
        env={**environment, "CCAN_AUTH": "anna:secret"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    assert "check passed" in done.stdout and "ranks query/0001_c1s1" in done.stdout
    assert "secret" not in done.stdout + done.stderr
