"""The synthetic world measured: images a second on one core, and how far a colour histogram gets on its test split.

    python benchmarks/bench_world.py speed [--identities 24] [--repeats 5]
    python benchmarks/bench_world.py difficulty [--identities 120] [--seeds 0 1]
    python benchmarks/bench_world.py                                             (both)

Results are printed and written to benchmarks/results/world_<what>.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ccan.data import load_dataset
from ccan.data.records import Sample
from ccan.data.synthetic import WorldConfig, write_world
from ccan.evaluation import EvaluationReport, FeatureSet, evaluate_features
from ccan.files import write_json

RESULTS = Path(__file__).parent / "results"


def machine() -> dict[str, Any]:
    """Where and on which commit it was measured."""
    git = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip()
    return {
        "processor": platform.machine(),
        "cores": os.cpu_count(),
        "load_average": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "commit": commit or "unknown",
    }


def speed(identities: int, repeats: int) -> dict[str, Any]:
    """Images a second in one process at 256×128 with label maps and JPEG files, after one warm-up world.

    `wall` suffers from whatever else the machine does; `processor` divides by the processor time of this process.
    Only the splits with one image a shot are counted, not gt_bbox, which re-uses a rendered scene.
    """
    config = WorldConfig(identities=identities)
    wall, processor, images = [], [], 0
    for _ in range(repeats + 1):
        with tempfile.TemporaryDirectory() as folder:
            started, worked = time.perf_counter(), time.process_time()
            out = write_world(
                config,
                Path(folder) / "world",
                workers=1,
                progress=False,
                splits=("train", "query", "gallery"),
            )
            images = len(list(out.glob("*/*.jpg")))
            wall.append(images / (time.perf_counter() - started))
            processor.append(images / (time.process_time() - worked))
    return {
        "images": images,
        "images_per_second": {
            name: {"median": statistics.median(v[1:]), "lowest": min(v[1:]), "highest": max(v[1:])}
            for name, v in (("wall", wall), ("processor", processor))
        },
    }


def histogram(path: Path, bins: int = 8, stripes: int = 6) -> NDArray[np.float32]:
    """HSV histograms of horizontal stripes, square-rooted and L2-normalised, (stripes·bins³,)."""
    with Image.open(path) as image:
        levels = np.asarray(image.convert("HSV"), np.int64) * bins // 256
    codes = (levels[..., 0] * bins + levels[..., 1]) * bins + levels[..., 2]
    counts = [np.bincount(s.ravel(), minlength=bins**3) for s in np.array_split(codes, stripes)]
    feature = np.sqrt(np.concatenate(counts).astype(np.float32))
    return (feature / np.linalg.norm(feature)).astype(np.float32)


def histogram_features(samples: tuple[Sample, ...]) -> FeatureSet:
    """The histograms of a split with what the protocol needs."""
    return FeatureSet(
        np.stack([histogram(sample.path) for sample in samples]),
        [sample.identity for sample in samples],
        [sample.camera for sample in samples],
    )


def histogram_report(config: WorldConfig) -> EvaluationReport:
    """The histogram's ranking of a world's test split, cosine distance."""
    with tempfile.TemporaryDirectory() as folder:
        out = write_world(config, Path(folder) / "world", splits=("query", "gallery"))
        dataset = load_dataset("synthetic", out)
        query, gallery = histogram_features(dataset.query), histogram_features(dataset.gallery)
        return evaluate_features(query, gallery, distance="cosine")


def difficulty(identities: int, seeds: list[int]) -> list[dict[str, Any]]:
    """mAP and rank-1 of the colour histogram for worlds of several seeds."""
    results = []
    for seed in seeds:
        report = histogram_report(WorldConfig(identities=identities, seed=seed))
        results.append({"identities": identities, "seed": seed, **report.to_dict()})
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the synthetic world.")
    parser.add_argument("what", nargs="?", choices=("speed", "difficulty", "all"), default="all")
    parser.add_argument("--identities", type=int, help="default: 24 for speed, 120 for difficulty")
    parser.add_argument("--repeats", type=int, default=5, help="worlds rendered after the warm-up")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    arguments = parser.parse_args()
    measured: dict[str, Any] = {}
    if arguments.what in ("speed", "all"):
        measured["speed"] = speed(arguments.identities or 24, arguments.repeats)
    if arguments.what in ("difficulty", "all"):
        measured["difficulty"] = difficulty(arguments.identities or 120, arguments.seeds)
    for name, result in measured.items():
        report = {"machine": machine(), "result": result}
        write_json(RESULTS / f"world_{name}.json", report)
        print(name, json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
