"""The synthetic world measured: images a second on one core, and how well its test people are told apart.

    python benchmarks/bench_world.py speed [--identities 24] [--repeats 5]
    python benchmarks/bench_world.py difficulty [--identities 120] [--seeds 0 1]
    python benchmarks/bench_world.py                                             (both)

Difficulty: the bundled model and a colour histogram rank the same images, of the default world and of the harder one.
Results are printed and written to benchmarks/results/world_<what>.json.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from histogram import histogram_features
from measuring import RESULTS, commit, spread, write_result

from ccan.data import load_dataset
from ccan.data.synthetic import WorldConfig, write_world
from ccan.evaluation import evaluate_features, extract_features
from ccan.model import CCAN
from ccan.training import load_model


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


WORLDS = {
    "default": WorldConfig(),
    "harder": WorldConfig(lookalikes=0.3, occlusion=0.22, jitter=1.0),
}
"""Worlds by name; the harder one has the difficulty of the bundled model's training world (`make train`)."""


def judge(config: WorldConfig, model: CCAN) -> dict[str, Any]:
    """The ranking of a world's test split by the model (Euclidean) and by the histogram (cosine)."""
    with tempfile.TemporaryDirectory() as folder:
        out = write_world(config, Path(folder) / "world", splits=("query", "gallery"))
        dataset = load_dataset("synthetic", out)
        by_model = (
            extract_features(model, samples, workers=0)
            for samples in (dataset.query, dataset.gallery)
        )
        by_colour = (histogram_features(samples) for samples in (dataset.query, dataset.gallery))
        return {
            "model": evaluate_features(*by_model).to_dict(),
            "histogram": evaluate_features(*by_colour, distance="cosine").to_dict(),
        }


def difficulty(identities: int, seeds: Sequence[int]) -> list[dict[str, Any]]:
    """Default and harder worlds of each seed: their settings, and what the bundled model and the histogram reach."""
    model, _ = load_model("demo")
    results = []
    for world, settings in WORLDS.items():
        for seed in seeds:
            config = replace(settings, identities=identities, seed=seed)
            judged = judge(config, model)
            results.append({"world": world, "seed": seed, "config": config.to_dict(), **judged})
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the synthetic world.")
    parser.add_argument("what", nargs="?", choices=("speed", "difficulty", "all"), default="all")
    parser.add_argument("--identities", type=int, help="default: 24 for speed, 120 for difficulty")
    parser.add_argument("--repeats", type=int, default=5, help="worlds rendered after the warm-up")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the JSON")
    arguments = parser.parse_args()
    commit()
    measured: dict[str, Any] = {}
    if arguments.what in ("speed", "all"):
        measured["speed"] = speed(arguments.identities or 24, arguments.repeats)
    if arguments.what in ("difficulty", "all"):
        measured["difficulty"] = difficulty(arguments.identities or 120, arguments.seeds)
    for name, result in measured.items():
        print(
            name,
            json.dumps(write_result(f"world_{name}", result, folder=arguments.results), indent=2),
        )


if __name__ == "__main__":
    main()
