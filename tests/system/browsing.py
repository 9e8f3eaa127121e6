"""What journeys through the dashboard share: the program as a user starts it, and a page that is watched."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from playwright.sync_api import Page

ROOT = Path(__file__).parents[2]
PATIENCE = 60_000
"""Milliseconds; build servers are slow, and waiting ends as soon as the thing is there."""
HINTS = ("GL Driver Message", "willReadFrequently")
"""What Chromium says about the speed of Plotly's canvas where there is no graphics card."""


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


@contextmanager
def running(arguments: list[str], environment: dict[str, str], log: Path) -> Iterator[str]:
    """The address of a program that runs as long as it is asked for."""
    process, found = start(arguments, environment, log)
    try:
        yield found
    finally:
        stop(process)


@dataclass
class Watched:
    """A page, and what it and its tabs asked for and complained of."""

    page: Page
    hosts: set[str | None] = field(default_factory=set)
    complaints: list[str] = field(default_factory=list)


def open_page(watched: Watched, address: str, link: str = "?tab=rank") -> Page:
    watched.page.goto(address + link)
    watched.page.wait_for_selector("header.ccan .file")
    return watched.page


def answered(page: Page, ask: Callable[[], object]) -> None:
    """Ask for something, and wait until the answer stands in the page."""
    turn = page.get_attribute("header.ccan", "data-turn")
    ask()
    page.wait_for_function(
        "turn => document.querySelector('header.ccan').dataset.turn !== turn", arg=turn
    )


def open_tab(page: Page, name: str, ready: str) -> None:
    page.get_by_role("tab", name=name).click()
    page.wait_for_selector(ready)


def file_name(page: Page) -> str:
    return page.inner_text("header.ccan .file")


def wait_for_other(page: Page, selector: str, before: str) -> str:
    """The text of an element once it has changed."""
    page.wait_for_function(
        "([selector, before]) => document.querySelector(selector)?.innerText !== before",
        arg=[selector, before],
    )
    return page.inner_text(selector)
