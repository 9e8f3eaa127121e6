"""The dashboard as people meet it: how long until the first page, until a choice is seen, and with many at once.

    python benchmarks/bench_app.py [--clicks 20] [--only large]

Starts `app/demo.py` and drives it in a headless Chromium and by `gradio_client`, all on this machine: with the bundled
model on its own world (app.json), and on 23,100 images, Market-1501's size, whose features are synthetic
(app_large.json): each image is one of the world's under another name, its descriptor and parts the real ones and some
noise. A page counts as seen when every picture in the window is there.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from measuring import REPOSITORY, spread, write_result

sys.path.insert(0, str(REPOSITORY))
from app.browser import FLAGS, find_chromium
from app.serving import speak_directly
from ccan import Predictor, load_dataset
from ccan.files import cache_folder
from ccan.gallery import index_dataset, index_folder, save_numbers, thumbnail_name

QUERIES, GALLERY = 3368, 19732
PEOPLE, CAMERAS = 750, 6
CLIENTS, REQUESTS, MEMORY_REQUESTS = 20, 50, 2000

SEEN = """async ([click, slide]) => {
  const answer = () => document.querySelector('header[data-turn]')?.dataset.turn;
  const inWindow = (image) => {
    const box = image.getBoundingClientRect();
    return box.bottom > 0 && box.top < innerHeight && box.width > 0;
  };
  const missing = () => [...document.images].some((image) => inWindow(image) && !image.naturalWidth);
  const frame = () => new Promise(requestAnimationFrame);
  const before = answer(), began = performance.now();
  if (click) document.querySelector(click).click();
  if (slide) {
    const slider = document.querySelector(slide);
    slider.value = slider.value > 1 ? slider.value - 0.7 : Number(slider.value) + 0.4;
    slider.dispatchEvent(new Event('input', { bubbles: true }));
  }
  if (click || slide) while (answer() === before) await new Promise((done) => setTimeout(done, 2));
  await frame();
  while (missing()) await new Promise((done) => setTimeout(done, 2));
  await frame();
  await frame();
  return performance.now() - began;
}"""
"""Milliseconds from a click or a slider's step (or from now) until the answer is painted with all its pictures."""

FORTH, BACK = "button[data-do=step][data-value='1']", "button[data-do=step][data-value='-1']"
READY = {
    "overview": ".overview .chart",
    "rank": ".strip .card",
    "attention": ".canvas img",
    "parts": ".brush img",
}


def start(arguments: list[str], log: Path) -> tuple[subprocess.Popen[bytes], str, float]:
    """The running dashboard, its address, and the seconds until it listened."""
    began = time.perf_counter()
    with log.open("w") as output:
        command = [sys.executable, "app/demo.py", "--port", "0", *arguments]
        process = subprocess.Popen(command, cwd=REPOSITORY, stdout=output, stderr=subprocess.STDOUT)
    while process.poll() is None:
        found = re.search(r"Open (http\S+)", log.read_text())
        if found:
            return process, found[1], time.perf_counter() - began
        time.sleep(0.05)
    raise SystemExit(f"the dashboard did not start:\n{log.read_text()}")


def in_browser(address: str, clicks: int) -> dict[str, Any]:
    """Seconds until the first page is seen, and milliseconds until each kind of choice is."""
    from playwright.sync_api import sync_playwright

    chromium = find_chromium()
    if chromium is None:
        raise SystemExit("no Chromium found: install one, or name it in $CHROMIUM")
    result: dict[str, Any] = {}
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=FLAGS)
        for tab in ("overview", "rank"):
            taken = []
            for _ in range(5):
                page = browser.new_context(viewport={"width": 1280, "height": 800}).new_page()
                began = time.perf_counter()
                page.goto(f"{address}?tab={tab}")
                page.wait_for_selector(READY[tab])
                page.evaluate(SEEN, [None, None])
                taken.append(time.perf_counter() - began)
                page.context.close()
            result[f"first_page_{tab}_seconds"] = spread(taken)
        page = browser.new_page(viewport={"width": 1280, "height": 800})

        def measured(tab: str, *asks: tuple[str | None, str | None]) -> list[dict[str, float]]:
            """Each ask in turn, so many times."""
            page.goto(f"{address}?tab={tab}")
            page.wait_for_selector(READY[tab])
            page.wait_for_timeout(1000)
            taken: list[list[float]] = [[] for _ in asks]
            for _ in range(clicks):
                for own, ask in zip(taken, asks, strict=True):
                    own.append(page.evaluate(SEEN, list(ask)))
                    page.wait_for_timeout(150)
            return [spread(one) for one in taken]

        (result["next_query_milliseconds"],) = measured("rank", (FORTH, None))
        (result["random_query_milliseconds"],) = measured("rank", ("button[data-do=random]", None))
        (result["slider_milliseconds"],) = measured("rank", (None, "input[data-key=P2]"))
        for tab in ("attention", "parts"):
            # Two forth, one back: the second is a query that nobody has looked at, the third has its maps.
            _, cold, cached = measured(tab, (FORTH, None), (FORTH, None), (BACK, None))
            result[f"{tab}_cold_milliseconds"], result[f"{tab}_cached_milliseconds"] = cold, cached
        browser.close()
    return result


def under_load(address: str, queries: list[str], server: int) -> dict[str, Any]:
    """Many clients at once, each asking for the whole Rank view of one query after the other; then memory."""
    from gradio_client import Client

    def client() -> Client:
        return Client(address, verbose=False, analytics_enabled=False)

    def ask(one: Client, chance: random.Random) -> float:
        began = time.perf_counter()
        found = one.predict(f"?tab=rank&query={chance.choice(queries)}", api_name="/view")
        assert "strip" in found["view"] and not found["notice"]
        return time.perf_counter() - began

    taken: list[float] = []
    errors: list[str] = []

    def work(number: int, one: Client) -> None:
        chance = random.Random(number)
        for _ in range(REQUESTS):
            try:
                taken.append(ask(one, chance))
            except Exception as error:
                errors.append(f"{type(error).__name__}: {error}")

    clients = [client() for _ in range(CLIENTS)]
    threads = [threading.Thread(target=work, args=pair) for pair in enumerate(clients)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - began
    process, chance, memory = psutil.Process(server), random.Random(99), []
    for number in range(MEMORY_REQUESTS + 1):
        if number % 250 == 0:
            memory.append(process.memory_info().rss / 2**20)
        ask(clients[0], chance)
    return {
        "clients": CLIENTS,
        "requests": CLIENTS * REQUESTS,
        "errors": len(errors),
        "first_errors": errors[:3],
        "requests_a_second": CLIENTS * REQUESTS / seconds,
        "median_milliseconds": 1000 * float(np.median(taken)),
        "p95_milliseconds": 1000 * float(np.quantile(taken, 0.95)),
        "memory_requests": MEMORY_REQUESTS,
        "memory_MiB_every_250_requests": [round(one, 1) for one in memory],
    }


def large_world(folder: Path) -> list[str]:
    """23,100 images in Market-1501's layout with an index of synthetic features → arguments of the dashboard."""
    predictor, world = Predictor.from_checkpoint("demo"), load_dataset("demo")
    index = index_dataset(predictor, world)
    generator = np.random.default_rng(0)
    rows: dict[str, list[int]] = {"query": [], "gallery": []}
    names = {"query": "query", "gallery": "bounding_box_test"}
    train = folder / "bounding_box_train"  # the layout wants an image there
    train.mkdir(parents=True)
    os.link(world.query[0].path, train / "1501_c1s1_000000_01.jpg")
    for split, count in (("query", QUERIES), ("gallery", GALLERY)):
        (folder / names[split]).mkdir()
        samples = index.samples(split)
        for number in range(count):
            row = int(generator.integers(len(samples)))
            person, camera = 1 + number % PEOPLE, 1 + (number // PEOPLE) % CAMERAS
            name = f"{person:04d}_c{camera}s1_{number:06d}_01.jpg"
            os.link(samples[row].path, folder / names[split] / name)
            rows[split].append(row)
    dataset = load_dataset("market1501", folder)
    target = index_folder(predictor, dataset)
    numbers: dict[str, torch.Tensor] = {}
    (target / "thumbnails").mkdir(parents=True, exist_ok=True)
    for split in ("query", "gallery"):
        order = [int(s.path.name.split("_")[2]) for s in getattr(dataset, split)]
        chosen = torch.tensor([rows[split][number] for number in order])
        noise = torch.Generator().manual_seed(len(order))
        for name, values in (
            (split, index.features(split).features),
            (f"{split}.mirrored", index.mirrored[split].features),
            (f"{split}.parts", index.parts[split]),
        ):
            own = values[chosen]
            own = own + 0.3 * own.std() * torch.randn(own.shape, generator=noise)
            numbers[name] = own.contiguous()
        for place, row in enumerate(chosen.tolist()):
            thumbnail = index.thumbnail(split, row)
            link = target / "thumbnails" / thumbnail_name(split, place)
            if thumbnail is not None and not link.exists():
                os.link(thumbnail, link)
    assert index.bias is not None
    save_numbers(target, numbers | {"bias": index.bias.clone()})
    return ["--dataset", "market1501", "--data", str(folder)]


def opening(arguments: list[str]) -> dict[str, float]:
    """Seconds that `Store.open` takes from the cache in a fresh process, its imports not counted."""
    code = (
        "import sys, time; from pathlib import Path; from app.store import Store; began = time.perf_counter(); "
        "Store.open('demo', sys.argv[1], Path(sys.argv[2]), progress=False); print(time.perf_counter() - began)"
    )
    command = [sys.executable, "-c", code, arguments[1], arguments[3]]
    taken = []
    for _ in range(3):
        done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
        taken.append(float(done.stdout.split()[-1]))
    return spread(taken)


def measure(
    name: str, arguments: list[str], clicks: int, more: Callable[[], dict[str, Any]]
) -> None:
    """One world: start, browser, load; the result is printed and written."""
    queries = json.loads(
        subprocess.run(
            [sys.executable, "-c", LIST_QUERIES, *arguments],
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    )
    with tempfile.TemporaryDirectory() as folder:
        # Once without a clock: the first start of all renders and indexes the world.
        warming = start(arguments, Path(folder) / "first.log")[0]
        warming.terminate()
        warming.wait()
        process, address, seconds = start(arguments, Path(folder) / "log.txt")
        try:
            result = {"start_seconds_with_cache": seconds, **more()}
            result |= in_browser(address, clicks)
            result["load"] = under_load(address, queries, process.pid)
        finally:
            process.terminate()
            process.wait()
    print(json.dumps(write_result(name, result), indent=2))


LIST_QUERIES = """
import json, sys
from pathlib import Path
from ccan import load_dataset
name, data = (sys.argv[2], Path(sys.argv[4])) if len(sys.argv) > 1 else ("demo", None)
world = load_dataset(name, data)
print(json.dumps([sample.path.relative_to(world.root).as_posix() for sample in world.query]))
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Measure the dashboard in a browser and under load."
    )
    parser.add_argument("--clicks", type=int, default=20, help="of each kind")
    parser.add_argument("--only", choices=("small", "large"), help="one of the two worlds")
    options = parser.parse_args()
    speak_directly()
    if options.only != "large":
        measure("app", [], options.clicks, dict)
    if options.only != "small":
        # On the disk of the cache, so that images can be linked instead of copied.
        cache_folder().mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache_folder()) as folder:
            arguments = large_world(Path(folder) / "world")
            measure(
                "app_large",
                arguments,
                options.clicks,
                lambda: {"images": QUERIES + GALLERY, "open_seconds": opening(arguments)},
            )


if __name__ == "__main__":
    main()
