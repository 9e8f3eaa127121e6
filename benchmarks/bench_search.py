"""Searching galleries of 10,000 to 1,000,000 images: exact in this process, and by the embedded Milvus.

    python benchmarks/bench_search.py [--sizes 10000 100000] [--limit 60] [--threads 2] [--small --results FOLDER]

Descriptors are clustered unit vectors of 512 numbers, 20 images a person, six cameras; queries are further images of
people in the gallery, one at a time, the ten nearest wanted. Each case builds its index in one process and searches it
in another. Memory is the most that it held resident above what it held before: in building beside the gallery, in
searching beside an idle process, pages mapped from files included. A case that takes longer than the limit is told.
Results: benchmarks/results/search_cpu.json.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measuring import (
    RESULTS,
    commit,
    peak_memory,
    reset_peak_memory,
    seconds_of,
    spread,
    write_result,
)
from safetensors.torch import load_file, save_file
from torch.nn import functional

from ccan.config import SearchConfig
from ccan.evaluation import FeatureSet
from ccan.search import Where, build_index, open_index

SIZES = (10_000, 100_000, 1_000_000)
WIDTH, IMAGES_A_PERSON, CAMERAS = 512, 20, 6
SCATTER = 1.0
"""Length of an image's deviation from its person, whose vector has length 1, before both are normalised."""
TOP, QUERIES, WARMUP = 10, 50, 3
CASES = ("exact", "FLAT", "HNSW", "IVF_FLAT", "IVF_SQ8")
COPIED = 2**28
"""Bytes that the copy's bandwidth is measured with."""


def write_gallery(path: Path, images: int) -> None:
    """A gallery and its queries, the same for the same size: every person a random direction, images around it."""
    persons = max(1, images // IMAGES_A_PERSON)
    draw = torch.Generator().manual_seed(1)
    centres = functional.normalize(torch.randn(persons, WIDTH, generator=draw))
    numbers: dict[str, torch.Tensor] = {}
    for name, count in (("gallery", images), ("queries", QUERIES)):
        identities = torch.randint(0, persons, (count,), generator=draw)
        rows = torch.empty(count, WIDTH)
        for part in torch.arange(count).split(2**14):
            noise = torch.randn(len(part), WIDTH, generator=draw) * (SCATTER / WIDTH**0.5)
            rows[part] = functional.normalize(centres[identities[part]] + noise)
        numbers |= {name: rows, f"{name}.identities": identities + 1}
    numbers["gallery.cameras"] = torch.randint(1, CAMERAS + 1, (images,), generator=draw)
    save_file(numbers, path)


def build(case: str, data: Path, folder: Path) -> dict[str, Any]:
    """Seconds, memory and disk of making an index; recall is measured within, where the engine is not exact."""
    numbers = load_file(data)
    gallery = FeatureSet(
        numbers["gallery"], numbers["gallery.identities"], numbers["gallery.cameras"]
    )
    config = SearchConfig() if case == "exact" else SearchConfig("milvus", _kind(case))
    before = sum(resident().values())  # the gallery, too
    reset_peak_memory("cpu")
    began = time.perf_counter()
    with build_index(folder, gallery, config) as index:
        seconds = time.perf_counter() - began
        settings, recall = dict(index.description.settings), index.description.recall
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return {
        "settings": settings,
        "build_seconds": seconds,
        "build_mib": peak_memory() - before,
        "disk_mib": size / 2**20,
        "recall_told": None if recall is None else recall.value,
    }


def _kind(case: str) -> Any:
    return case


def search(data: Path, folder: Path, truth: Path) -> dict[str, Any]:
    """Milliseconds of single queries, what they find of the truth, and memory.

    The exact search writes the truth: the distance of each query's farthest wanted image.
    """
    queries = load_file(data)["queries"].clone()
    before = resident()
    reset_peak_memory("cpu")
    began = time.perf_counter()
    index = open_index(folder)
    opened = time.perf_counter() - began
    found: list[np.ndarray] = []
    seconds: list[float] = []
    with index:
        for place, query in enumerate(queries):
            seconds += seconds_of(
                lambda query=query: found.append(index.search(query, TOP).distances[0]),
                repeats=1,
                warmup=WARMUP if place == 0 else 0,
            )
        own, peak = resident(), peak_memory() - sum(before.values())
        filtered = seconds_of(
            lambda: index.search(queries[0], TOP, Where(cameras=(1, 2))), repeats=3
        )
    distances = np.array(found[WARMUP:])
    if not truth.exists():
        np.save(truth, distances)
    farthest = np.load(truth).max(axis=1, keepdims=True)
    right = np.isfinite(distances) & (distances <= farthest)
    return {
        "open_seconds": opened,
        "query_ms": spread(1000 * value for value in seconds),
        "two_cameras_ms": spread(1000 * value for value in filtered),
        f"recall_at_{TOP}": float(right.sum() / right.size),
        "search_mib": peak,
        "of_it_mapped_mib": own["RssFile"] - before["RssFile"],
    }


def resident() -> dict[str, float]:
    """MiB of this process in memory: its own (RssAnon) and mapped from files (RssFile), where Linux tells them."""
    found = {"RssAnon": float("nan"), "RssFile": float("nan")}
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return found
    for line in lines:
        name, _, value = line.partition(":")
        if name in found:
            found[name] = int(value.split()[0]) / 1024
    return found


def keep_within(gibibytes: float) -> None:
    """Have this process refused more memory of its own, where the system can, before the machine runs out of it."""
    if sys.platform == "linux":
        import resource

        most = int(gibibytes * 2**30)
        resource.setrlimit(resource.RLIMIT_DATA, (most, most))


def in_a_process(step: str, limit: float, memory: float, *words: str) -> dict[str, Any]:
    """A step's figures from a process of its own; what ended it, if it did not end well."""
    command = [sys.executable, __file__, "--memory", str(memory), "--step", step, *words]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=60 * limit,
            env=os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())},
        )
    except subprocess.TimeoutExpired:
        return {"ended": f"{step}: not done after {limit:g} minutes"}
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no word"])[-1]
        return {"ended": f"{step}: {last[:200]} (exit {done.returncode})"}
    return json.loads(done.stdout.splitlines()[-1])


def copy_bandwidth() -> float:
    """Bytes a second that a copy in memory reads, and as many that it writes."""
    source = torch.ones(COPIED // 4)
    target = torch.empty_like(source)
    return COPIED / spread(seconds_of(lambda: target.copy_(source), repeats=5))["median"]


def measure(sizes: list[int], limit: float, memory: float) -> dict[str, Any]:
    """Every case at every size, the largest last."""
    rows: list[dict[str, Any]] = []
    bandwidth = copy_bandwidth()
    for images in sorted(sizes):
        with tempfile.TemporaryDirectory() as work:
            data, truth = Path(work) / "data.safetensors", Path(work) / "truth.npy"
            write_gallery(data, images)
            gallery_bytes = images * WIDTH * 4
            for case in CASES:
                folder = Path(work) / case
                row: dict[str, Any] = {"images": images, "case": case}
                row |= in_a_process("build", limit, memory, case, str(data), str(folder))
                if "ended" not in row:
                    row |= in_a_process("search", limit, memory, str(data), str(folder), str(truth))
                if "query_ms" in row:
                    row["limit_ms"] = 1000 * gallery_bytes / bandwidth
                rows.append(row)
                print(json.dumps(row), file=sys.stderr, flush=True)
    exact = {row["images"]: row for row in rows if row["case"] == "exact"}
    for row in rows:
        if "query_ms" in row:
            ours = exact[row["images"]]["query_ms"]["median"]
            row["time_ratio"] = row["query_ms"]["median"] / ours
    settings = {"width": WIDTH, "images_a_person": IMAGES_A_PERSON, "scatter": SCATTER}
    settings |= {"queries": QUERIES, "top": TOP, "limit_minutes": limit, "limit_gib": memory}
    return {"settings": settings, "copy_bytes_a_second": bandwidth, "rows": rows}


def main(arguments: list[str] | None = None) -> dict[str, Any] | None:
    parser = argparse.ArgumentParser(description="Search of large galleries.")
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES), help="images")
    parser.add_argument("--limit", type=float, default=40, help="minutes for a build, or a search")
    parser.add_argument("--threads", type=int, default=1, help="of every process")
    parser.add_argument("--memory", type=float, default=16, help="GiB for a build, or a search")
    parser.add_argument(
        "--small", action="store_true", help="tiny galleries, to see that it runs; needs --results"
    )
    parser.add_argument("--results", type=Path, help="folder of the results")
    parser.add_argument("--step", nargs="+", help=argparse.SUPPRESS)
    asked = parser.parse_args(arguments)
    if asked.step:
        keep_within(asked.memory)
        step, *words = asked.step
        made = build(words[0], *map(Path, words[1:])) if step == "build" else None
        print(json.dumps(made or search(*map(Path, words))))
        return None
    if asked.small and asked.results is None:
        parser.error("--small needs --results FOLDER: it must not overwrite what was measured")
    commit()
    torch.set_num_threads(asked.threads)
    result = measure([200] if asked.small else asked.sizes, asked.limit, asked.memory)
    report = write_result("search_cpu", result, folder=asked.results or RESULTS)
    print(json.dumps(report, indent=2))
    return report


if __name__ == "__main__":
    main()
