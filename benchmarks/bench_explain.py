"""Explanations of one image and the diagnosis of a dataset: seconds, and as ratios to one forward of the same network.

    python benchmarks/bench_explain.py [--device cuda] [--threads 2] [--repeats 15]

The bundled model on its own world; the diagnosis on random features of 500 queries and 2,000 gallery images.
Result: benchmarks/results/explain_<device>.json.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from measuring import RESULTS, machine, seconds_of, spread

from ccan import Predictor, load_dataset
from ccan.diagnosis import diagnose
from ccan.evaluation import FeatureSet
from ccan.explain.attention import record_of
from ccan.explain.embedding import embedding_maps
from ccan.explain.gradcam import CAM_METHODS, CamMethod, grad_cams, similarity_score
from ccan.explain.maps import attention_pictures, energy_pictures, image_maps
from ccan.explain.similarity import ledger
from ccan.explain.trace import trace
from ccan.files import write_json

QUERIES, GALLERY = 500, 2000


def works(
    predictor: Predictor, image: torch.Tensor, other: torch.Tensor
) -> dict[str, Callable[[], Any]]:
    """What is timed, by name."""
    model = predictor.model
    score = similarity_score(trace(model, other).output.descriptor[0])

    def attention_and_parts() -> None:
        found = trace(model, image)
        attention_pictures(record_of(model.config, found.output, found.slots))
        energy_pictures(model, found)

    def cam(method: CamMethod) -> Callable[[], Any]:
        return lambda: grad_cams(model, image, score, (method,), "middle")

    def book() -> None:
        ledger(model, embedding_maps(model), trace(model, image), trace(model, other))

    def forward() -> None:
        with torch.inference_mode():
            model(image)

    return {
        "one forward": forward,
        "attention and part maps": attention_and_parts,
        **{f"{method}, all streams": cam(method) for method in CAM_METHODS},
        "ledger of two images": book,
        "every map of one image": lambda: image_maps(model, image, other),
    }


def random_sets() -> tuple[FeatureSet, FeatureSet]:
    """Features of people who are told apart sometimes, with a column of metadata."""
    rng = np.random.default_rng(0)
    people = rng.normal(size=(250, 512))
    sides = []
    for count in (QUERIES, GALLERY):
        identity = rng.integers(0, 250, count)
        rows = people[identity] + 1.6 * rng.normal(size=(count, 512))
        view = rng.choice(["front", "back", "side"], count)
        features = torch.tensor(rows, dtype=torch.float32)
        sides.append(
            FeatureSet(features, identity + 1, rng.integers(1, 7, count), None, {"view": view})
        )
    return sides[0], sides[1]


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=15)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    facts = machine(options.device)
    predictor = Predictor.from_checkpoint("demo", options.device)
    query = load_dataset("demo").query
    image, other = (predictor.prepare(query[row].path)[None].to(predictor.device) for row in (0, 1))
    found: dict[str, Any] = {}
    for name, work in works(predictor, image, other).items():
        seconds = seconds_of(work, repeats=options.repeats, warmup=2, device=options.device)
        found[name] = {"milliseconds": spread(1000 * one for one in seconds)}
        base = found["one forward"]["milliseconds"]["median"]
        found[name]["forwards"] = found[name]["milliseconds"]["median"] / base
        print(
            f"{name:<28}{found[name]['milliseconds']['median']:>9.1f} ms {found[name]['forwards']:>8.1f} forwards"
        )
    sides = random_sets()
    name = f"diagnosis, {QUERIES} × {GALLERY}"
    seconds = seconds_of(lambda: diagnose(*sides, branches=2), repeats=3, device=options.device)
    found[name] = {"seconds": spread(seconds)}
    print(f"{name:<28}{found[name]['seconds']['median']:>9.2f} s")
    kind = torch.device(options.device).type
    write_json(RESULTS / f"explain_{kind}.json", {"machine": facts, "result": found})


if __name__ == "__main__":
    main()
