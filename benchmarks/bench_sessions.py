"""Sessions in the dashboard: the map of 23,100 images, a tag, a round of questions, four people at once.

    python benchmarks/bench_sessions.py [--rounds 10]

Starts `app/demo.py` on 23,100 images with synthetic features, as `bench_app.py` does, and drives it in a headless
Chromium on the same machine, which draws WebGL by its processor. The places on the map are made up (rings of points a
person), since what is measured is drawing and answering; the time that t-SNE takes stands in `bench_explain.py`.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import threading
import time
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from bench_app import GALLERY, QUERIES, large_world, start
from measuring import spread, write_result

from app.browser import FLAGS, find_chromium
from app.serving import speak_directly
from ccan import Predictor, load_dataset
from ccan import projection as maps
from ccan.cases import Cases
from ccan.diagnosis.rankings import all_images
from ccan.files import cache_folder
from ccan.gallery import index_dataset
from ccan.projection import LIMIT, project

PEOPLE, TAGS = 4, 100


def make_maps(arguments: list[str]) -> None:
    """Put maps of the images into the cache, of all and of a part, without the minutes that t-SNE takes."""
    predictor = Predictor.from_checkpoint("demo")
    index = index_dataset(predictor, load_dataset(arguments[1], Path(arguments[3])))
    images, _ = all_images(index.query, index.gallery)

    def made_up(views: dict[str, Any], *_: object) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for number, name in enumerate(views):
            count = len(views[name])
            chance = np.random.default_rng(number)
            middle = 60 * chance.standard_normal((750, 2))
            points = middle[chance.integers(750, size=count)] + chance.standard_normal((count, 2))
            found |= {
                f"{name} points": points.astype(np.float32),
                f"{name} agreement": chance.random(count),
                f"{name} neighbours": chance.integers(count, size=(count, 10)),
                f"{name} trust": np.array(0.9),
            }
        return found

    with mock.patch.object(maps, "_in_child", made_up):
        for limit in (LIMIT, None):
            project(images, branches=2, limit=limit)


def lasso(page: Any, share: float, shift: int) -> float:
    """Draw around the middle of the first map, some pixels beside it → milliseconds until all of it is painted.

    From letting go of the pointer until counts and images are there.
    """
    box = page.locator(".mapplot").bounding_box()
    middle = (box["x"] + box["width"] / 6 + shift, box["y"] + 0.55 * box["height"])
    reach = share * box["width"] / 6
    page.evaluate("() => document.querySelector('.mapplot').dataset.selected = ''")
    before = page.get_attribute("header.ccan", "data-turn")
    for k in range(40):
        angle = 2 * math.pi * k / 39
        page.mouse.move(middle[0] + reach * math.cos(angle), middle[1] + reach * math.sin(angle))
        if k == 0:
            page.mouse.down()
    began = time.perf_counter()
    page.mouse.up()
    page.wait_for_function(
        """before => document.querySelector('header.ccan').dataset.turn !== before
          && document.querySelector('.mapplot').dataset.selected > 0""",
        arg=before,
        polling=5,
    )
    page.evaluate(
        "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"
    )
    return 1000 * (time.perf_counter() - began)


FRAMES = """() => {
  window.frames_ = [];
  let last = performance.now();
  const step = (now) => { window.frames_.push(now - last); last = now; window.stop_ || requestAnimationFrame(step); };
  window.stop_ = false;
  requestAnimationFrame(step);
}"""
"""Note the milliseconds from one painted frame to the next."""


def panning(page: Any) -> dict[str, float]:
    """Milliseconds a frame while one drags the map about."""
    page.click("[data-attr=dragmode][data-val=pan]")
    box = page.locator(".mapplot").bounding_box()
    x, y = box["x"] + box["width"] / 6, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.evaluate(FRAMES)
    for k in range(60):
        page.mouse.move(x + 60 * math.sin(k / 6), y + 40 * math.cos(k / 6))
    frames = page.evaluate("() => { window.stop_ = true; return window.frames_; }")
    page.mouse.up()
    page.click("[data-attr=dragmode][data-val=lasso]")
    return spread(frames[2:])


def answer(page: Any, act: Any, ready: str) -> float:
    """Milliseconds from a deed until the page shows what it leads to."""
    before = page.get_attribute("header.ccan", "data-turn")
    began = time.perf_counter()
    act()
    page.wait_for_function(
        """([before, ready]) => document.querySelector('header.ccan').dataset.turn !== before
          && document.querySelector(ready)""",
        arg=[before, ready],
        polling=5,
    )
    return 1000 * (time.perf_counter() - began)


def in_browser(address: str, rounds: int) -> dict[str, Any]:
    """Map, tags and questions."""
    from playwright.sync_api import sync_playwright

    result: dict[str, Any] = {}
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=find_chromium(), args=FLAGS)

        def new_page() -> Any:
            return browser.new_context(viewport={"width": 1280, "height": 900}).new_page()

        for name, link in (("part", ""), ("all", "&whole=1")):
            first = []
            for _ in range(5):
                page = new_page()
                page.goto(f"{address}?tab=map{link}")
                page.wait_for_selector(".mapplot[data-drawn]", timeout=60_000)
                page.goto(
                    f"{address}?tab=rank{link}"
                )  # the map is in the cache now, and the page is new
                page.wait_for_selector(".strip .card")
                page.wait_for_timeout(800)
                began = time.perf_counter()
                page.click("#ccan-tab-map")
                page.wait_for_selector(".mapplot[data-drawn]")
                first.append(time.perf_counter() - began)
                page.context.close()
            result[f"map_first_paint_{name}_seconds"] = spread(first)
        page = new_page()
        page.goto(f"{address}?tab=map&whole=1")
        page.wait_for_selector(".mapplot[data-drawn]")
        page.wait_for_timeout(1000)
        for name, share in (("small", 0.15), ("large", 0.6)):
            taken, count = [], 0
            for number in range(rounds):
                taken.append(lasso(page, share, number))
                count = int(page.get_attribute(".mapplot", "data-selected"))
                page.wait_for_timeout(300)
            result[f"lasso_{name}_milliseconds"] = spread(taken)
            result[f"lasso_{name}_points"] = count
        result["pan_frame_milliseconds"] = panning(page)
        taken = [
            answer(
                page,
                lambda colour=colour: page.click(f"button[data-do=colour][data-value={colour}]"),
                ".mapplot[data-drawn]",
            )
            for _ in range(rounds)
            for colour in ("camera", "split", "ap", "identity")
        ]
        result["colour_milliseconds"] = spread(taken)
        page.goto(f"{address}?tab=errors")
        page.wait_for_selector(".errors .kinds", timeout=600_000)
        taken = []
        for _ in range(2 * rounds):
            given = page.locator("button[data-do=untag][data-value=occlusion]").count()
            ready = f"button[data-do={'tag' if given else 'untag'}][data-value=occlusion]"
            taken.append(answer(page, lambda: page.keyboard.press("o"), ready))
        result["tag_by_key_milliseconds"] = spread(taken)
        page.goto(f"{address}?tab=learn")
        page.wait_for_selector(".slices button")
        waits: dict[str, list[float]] = {"guess": [], "answer": [], "next": []}
        page.click(".slices button >> nth=0")
        for number in range(10):
            page.wait_for_selector(f"section[aria-label='Question {number + 1} of 10']")
            page.wait_for_timeout(1500)  # people look at least so long
            waits["guess"].append(
                answer(page, lambda: page.keyboard.press("a"), "[data-do=guess][aria-pressed=true]")
            )
            waits["answer"].append(
                answer(
                    page, lambda: page.keyboard.press("Enter"), ".easel.pairs figure:nth-child(2)"
                )
            )
            ready = ".candidates button.card" if number < 9 else ".table.session"
            waits["next"].append(answer(page, lambda: page.keyboard.press("Enter"), ready))
        result["learn_milliseconds"] = {name: spread(taken) for name, taken in waits.items()}
        browser.close()
    return result


def on_disk(folder: Path) -> dict[str, Any]:
    """A tag until it is on the disk: one person, and four in processes' stead at once over one file."""
    alone = Cases(folder / "alone.jsonl")
    taken = []
    for number in range(500):
        began = time.perf_counter()
        alone.tag(f"image {number}", "tag")
        taken.append(1000 * (time.perf_counter() - began))
    together: list[float] = []

    def work(person: int) -> None:
        own = Cases(folder / "together.jsonl")  # each as if it were a dashboard of its own
        for number in range(TAGS):
            began = time.perf_counter()
            own.tag(f"{person} {number}", "tag", who=str(person))
            together.append(1000 * (time.perf_counter() - began))

    threads = [threading.Thread(target=work, args=(person,)) for person in range(PEOPLE)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    kept = len(Cases(folder / "together.jsonl").images("tag"))
    return {
        "tag_on_disk_milliseconds": spread(taken),
        "four_people": {
            "tags": PEOPLE * TAGS,
            "kept": kept,
            "tag_on_disk_milliseconds": spread(together),
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure sessions in the dashboard.")
    parser.add_argument("--rounds", type=int, default=10, help="of each kind")
    options = parser.parse_args()
    speak_directly()
    cache_folder().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache_folder()) as name:
        folder = Path(name)
        arguments = large_world(folder / "world")
        make_maps(arguments)
        result: dict[str, Any] = {"images": QUERIES + GALLERY} | on_disk(folder)
        process, address, _ = start(
            [*arguments, "--cases", str(folder / "cases.jsonl")], folder / "log.txt"
        )
        try:
            result |= in_browser(address, options.rounds)
        finally:
            process.terminate()
            process.wait()
    print(json.dumps(write_result("sessions", result), indent=2))


if __name__ == "__main__":
    main()
