"""A small dataset and its store for tests without a browser; a program, a browser and a watched page for the others."""

from __future__ import annotations

import gc
import os
import urllib.parse
import warnings
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Request, sync_playwright

from app.browser import FLAGS
from app.store import Store
from ccan.data.records import ReIDDataset
from ccan.data.synthetic import WorldConfig, write_world
from tests.pages import make_store
from tests.small import small_dataset, small_predictor, write_checkpoint
from tests.system.browsing import HINTS, PATIENCE, Watched, start, stop


@pytest.fixture(scope="module", autouse=True)
def swept() -> Iterator[None]:
    """Event loops that Gradio and its clients leave open do not trouble the modules that come after."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        gc.collect()


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> ReIDDataset:
    return small_dataset(tmp_path_factory.mktemp("images"), identities=8, cameras=3)


@pytest.fixture(scope="module")
def store(dataset: ReIDDataset, tmp_path_factory: pytest.TempPathFactory) -> Store:
    folder = tmp_path_factory.mktemp("store")
    return make_store(dataset, small_predictor(folder), folder)


# In a browser


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
        hint = any(words in message.text for words in HINTS)
        if message.type in ("error", "warning") and not hint:
            seen.complaints.append(message.text)

    context.on("request", asked)
    context.on("console", said)
    context.on("weberror", lambda failure: seen.complaints.append(str(failure.error)))
    yield seen
    context.close()
    assert seen.hosts == {"127.0.0.1"}
    assert seen.complaints == []
