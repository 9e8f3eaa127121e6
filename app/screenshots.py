"""Make the pictures of the dashboard that the documentation shows: `python app/screenshots.py [--out DIR]`.

Needs Playwright and a Chromium ($CHROMIUM, else the first on PATH).
"""

from __future__ import annotations

import argparse
import io
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from PIL import Image

from app.browser import FLAGS, find_chromium
from app.serving import free_port, launch_settings, speak_directly

if TYPE_CHECKING:
    from playwright.sync_api import Page

LARGEST = 400 * 1024
VIEWS = {
    "overview": (".overview .heat", "&subset=miss:1", None),
    "rank": (".strip .card", "", None),
    "attention": (".canvas img", "&slot=CC2_2", None),
    "parts": (
        ".painting .shortstrip",
        "&hidden=00000000000000003c3c3c3c00000000",
        "section[aria-label^=Hide]",
    ),
    "map": (".mapplot[data-drawn]", "&colour=camera", None),
    "errors": (".errors .kinds", "", None),
    "compare": (".quadrants", "&subset=outcome:fixed", None),
    "learn": (".slices", "", None),
}
"""View → what is waited for, what else its link says, and what is scrolled to."""
SIZE = {"width": 1280, "height": 800}


def _lasso(tab: Page) -> None:
    """Draw around a part of the first map."""
    box = tab.locator(".mapplot").bounding_box()
    if box is None:
        return
    for k in range(33):
        angle = math.tau * k / 32
        x = box["x"] + box["width"] * (0.2 + 0.05 * math.cos(angle))
        tab.mouse.move(x, box["y"] + box["height"] * (0.5 + 0.12 * math.sin(angle)))
        if k == 0:
            tab.mouse.down()
    tab.mouse.up()
    tab.wait_for_selector(".mapplot:not([data-selected=''])[data-selected]")


def _ask(tab: Page) -> None:
    """A question that is answered."""
    tab.click(".slices button >> nth=1")
    tab.wait_for_selector(".brush.region")
    tab.keyboard.press("a")
    box = tab.locator(".brush.region").bounding_box()
    if box is None:
        return
    tab.mouse.move(box["x"] + 0.3 * box["width"], box["y"] + 0.2 * box["height"])
    tab.mouse.down()
    tab.mouse.move(box["x"] + 0.6 * box["width"], box["y"] + 0.45 * box["height"], steps=6)
    tab.mouse.up()
    tab.wait_for_selector(".easel button")
    tab.keyboard.press("Enter")
    tab.wait_for_selector(".easel.pairs figure:nth-child(2)")


STEPS: dict[str, tuple[Callable[[Page], None], ...]] = {"map": (_lasso,), "learn": (_ask,)}
"""View → what is done before its picture is taken."""


def main() -> None:
    """Serve the dashboard, open each view, write one PNG a view."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("docs/screenshots"))
    parser.add_argument("--checkpoint", default="demo")
    parser.add_argument("--dataset", default="demo")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--query", help="id of the query, as in the page's address")
    parser.add_argument("--dark", action="store_true")
    options = parser.parse_args()
    speak_directly()
    from app.store import Store
    from app.ui import build_ui

    store = Store.open(options.checkpoint, options.dataset, options.data)
    if store.has_twin:
        store.load_twin().wait(600)
    page = build_ui(store)
    settings = launch_settings("127.0.0.1", free_port("127.0.0.1", 0))
    _, address, _ = page.launch(prevent_thread_lock=True, **settings)
    query = options.query or store.by_difficulty[len(store.by_difficulty) // 3]
    try:
        options.out.mkdir(parents=True, exist_ok=True)
        shoot(f"{address}?query={query}", options.out, "dark" if options.dark else "light")
    finally:
        page.close(verbose=False)


def shoot(address: str, out: Path, theme: str) -> None:
    """Write a picture of each view of a running dashboard, as a window of 1280 × 800 shows it."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=find_chromium(), args=FLAGS)
        tab = browser.new_page(viewport=SIZE)  # type: ignore[arg-type]
        for view, (ready, link, top) in VIEWS.items():
            tab.goto(f"{address}&tab={view}{link}&__theme={theme}")
            tab.wait_for_selector(ready)
            for step in STEPS.get(view, ()):
                step(tab)
            tab.wait_for_timeout(1500)  # pictures
            if top:
                tab.evaluate("top => document.querySelector(top).scrollIntoView()", top)
            _save(tab.screenshot(), out / f"{view}.png")
        browser.close()


def _save(png: bytes, path: Path) -> None:
    """As it is if it is small; otherwise in 256 colours, which costs pictures of photographs little."""
    with Image.open(io.BytesIO(png)) as opened:
        picture = opened.convert("RGB")
    picture.save(path, optimize=True)
    if path.stat().st_size > LARGEST:
        picture.quantize(256).save(path, optimize=True)
    print(f"wrote {path} ({path.stat().st_size // 1024} KiB)")


if __name__ == "__main__":
    main()
