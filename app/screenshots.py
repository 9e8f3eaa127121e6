"""Make the pictures of the dashboard that the documentation shows: `python app/screenshots.py [--out DIR]`.

Needs Playwright and a Chromium ($CHROMIUM, else the first on PATH).
"""

from __future__ import annotations

import argparse
import io
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from PIL import Image

from app.browser import FLAGS, find_chromium
from app.serving import free_port, launch_settings, speak_directly

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
}
"""View → what is waited for, what else its link says, and what is scrolled to."""
SIZE = {"width": 1280, "height": 800}


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
