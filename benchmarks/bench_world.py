"""The synthetic world measured: images a second on one core, and how far a colour histogram gets on its test split.

    python benchmarks/bench_world.py speed [--identities 24] [--repeats 5]
    python benchmarks/bench_world.py difficulty [--identities 120] [--seeds 0 1]
    python benchmarks/bench_world.py                                             (both)

Results are printed and written to benchmarks/results/world_<what>.json.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from histogram import histogram_features
from measuring import spread, write_result

from ccan.data import load_dataset
from ccan.data.synthetic import WorldConfig, write_world
from ccan.evaluation import EvaluationReport, evaluate_features


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
            "wall": spread(wall[1:]),
            "processor": spread(processor[1:]),
        },
    }


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
        print(name, json.dumps(write_result(f"world_{name}", result), indent=2))


if __name__ == "__main__":
    main()
