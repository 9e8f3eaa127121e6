"""The dashboard as a person meets it: how long until the first page, and until a choice is seen.

    python benchmarks/bench_app.py [--clicks 20]

Starts `app/demo.py` with the bundled model and world, and drives it in a headless Chromium. A page counts as seen when
every picture in the window is there. Results are printed and written to benchmarks/results/app.json.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from measuring import REPOSITORY, spread, write_result

sys.path.insert(0, str(REPOSITORY))
from app.browser import FLAGS, find_chromium

SEEN = """async (click) => {
  const answer = () => document.querySelector('header[data-turn]')?.dataset.turn;
  const inWindow = (image) => {
    const box = image.getBoundingClientRect();
    return box.bottom > 0 && box.top < innerHeight && box.width > 0;
  };
  const missing = () => [...document.images].some((image) => inWindow(image) && !image.naturalWidth);
  const frame = () => new Promise(requestAnimationFrame);
  const before = answer(), began = performance.now();
  if (click) {
    document.querySelector(click).click();
    while (answer() === before) await new Promise((done) => setTimeout(done, 2));
  }
  await frame();
  while (missing()) await new Promise((done) => setTimeout(done, 2));
  await frame();
  await frame();
  return performance.now() - began;
}"""
"""Milliseconds from a click (or from now) until the answer has been painted with all its pictures."""

ACTIONS = {
    "next_query": ("rank", "button[data-do=step][data-value='1']"),
    "random_query": ("rank", "button[data-do=random]"),
    "next_query_with_attention": ("attention", "button[data-do=step][data-value='1']"),
}


def start(log: Path) -> tuple[subprocess.Popen[bytes], str, float]:
    """The running dashboard, its address, and the seconds until it listened."""
    began = time.perf_counter()
    with log.open("w") as output:
        command = [sys.executable, "app/demo.py", "--port", "0"]
        process = subprocess.Popen(command, cwd=REPOSITORY, stdout=output, stderr=subprocess.STDOUT)
    while process.poll() is None:
        found = re.search(r"Open (http\S+)", log.read_text())
        if found:
            return process, found[1], time.perf_counter() - began
        time.sleep(0.05)
    raise SystemExit(f"the dashboard did not start:\n{log.read_text()}")


def measure(address: str, clicks: int) -> dict[str, Any]:
    """Seconds until the first page is seen, and milliseconds until each kind of choice is."""
    from playwright.sync_api import sync_playwright

    chromium = find_chromium()
    if chromium is None:
        raise SystemExit("no Chromium found: install one, or name it in $CHROMIUM")
    result: dict[str, Any] = {}
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=FLAGS)
        first = []
        for _ in range(5):
            page = browser.new_context(viewport={"width": 1280, "height": 800}).new_page()
            began = time.perf_counter()
            page.goto(address)
            page.wait_for_selector(".strip .card")
            page.evaluate(SEEN, None)
            first.append(time.perf_counter() - began)
            page.context.close()
        result["first_page_seconds"] = spread(first)
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        for name, (tab, selector) in ACTIONS.items():
            page.goto(f"{address}?tab={tab}")
            page.wait_for_selector(".canvas img" if tab == "attention" else ".strip .card")
            page.wait_for_timeout(1000)
            taken = []
            for _ in range(clicks):
                taken.append(page.evaluate(SEEN, selector))
                page.wait_for_timeout(200)
            result[f"{name}_milliseconds"] = spread(taken)
        browser.close()
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the dashboard in a browser.")
    parser.add_argument("--clicks", type=int, default=20, help="of each kind")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        # Once without a clock: the first start of all renders and indexes the world.
        warming = start(Path(folder) / "first.log")[0]
        warming.terminate()
        warming.wait()
        process, address, seconds = start(Path(folder) / "log.txt")
        try:
            result = {"start_seconds_with_cache": seconds, **measure(address, options.clicks)}
        finally:
            process.terminate()
            process.wait()
    print(json.dumps(write_result("app", result), indent=2))


if __name__ == "__main__":
    main()
