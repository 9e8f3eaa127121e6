"""Which input size for a small model that is trained for minutes? Three sizes, the same people, equal training time.

    python benchmarks/bench_input_size.py [--minutes 5] [--seeds 0]

The demo recipe on one thread: a few steps of each size tell its speed; then people are taken from the training world
until four epochs at the largest size fill the minutes (of processor time), and each smaller size gets the whole number
of epochs that comes nearest to the same time. The schedule is the recipe's in proportion: erasing from a third of the
epochs on, warm-up over a fifteenth. Judged on the dashboard's world, whose people nobody was trained on.

Result: benchmarks/results/input_size.json, written anew after each seed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bench_world import WORLDS
from measuring import RESULTS, commit, seconds_of, write_result

from ccan.config import Recipe
from ccan.data import ReIDDataset, load_dataset
from ccan.data.loading import TrainingImages
from ccan.data.sampler import IdentityBalancedSampler
from ccan.data.synthetic import WorldConfig, write_world
from ccan.data.synthetic.demo import demo_world
from ccan.evaluation import evaluate_features, extract_features
from ccan.experiments.recipes import demo
from ccan.losses import CCANLoss
from ccan.model import build_ccan
from ccan.training import fit, load_model, training_step
from ccan.training.checkpoint import MODEL
from ccan.training.step import build_optimizer

Size = tuple[int, int]
SIZES: tuple[Size, ...] = ((128, 64), (192, 96), (256, 128))
"""(height, width) in pixels, from the smallest to the largest."""
LEAST_EPOCHS = 4
"""Epochs that the largest size gets."""
TRAINING_WORLD = replace(WORLDS["harder"], images_per_camera=3)
"""The bundled model's training world (`make train`), of fewer people."""


def sized(size: Size, epochs: int = 30, seed: int = 0) -> Recipe:
    """The demo recipe on the CPU at this input size, its schedule in proportion to its epochs."""
    recipe = demo()
    return replace(
        recipe,
        model=replace(recipe.model, image_height=size[0], image_width=size[1]),
        data=replace(recipe.data, erasing_from_epoch=round(epochs / 3)),
        optim=replace(recipe.optim, warmup_epochs=max(1, round(epochs / 15))),
        train=replace(recipe.train, epochs=epochs, seed=seed, device="cpu"),
    )


def people_of(dataset: ReIDDataset, number: int) -> ReIDDataset:
    """The dataset with the first `number` training identities."""
    kept = set(dataset.train_identities[:number])
    return replace(dataset, train=tuple(s for s in dataset.train if s.identity in kept))


def training_images(recipe: Recipe, dataset: ReIDDataset) -> TrainingImages:
    """Its training images, decoded, at the recipe's input size."""
    label_of = {identity: label for label, identity in enumerate(dataset.train_identities)}
    labels = [label_of[sample.identity] for sample in dataset.train]
    return TrainingImages(dataset.train, labels, recipe.model, recipe.data)


def seconds_an_image(size: Size, dataset: ReIDDataset, steps: int = 3) -> float:
    """Processor seconds that training spends on an image: augmentation and step, median after a warm-up step."""
    recipe = sized(size)
    batch = recipe.data.batch_size
    images = training_images(recipe, people_of(dataset, recipe.data.identities_per_batch))
    batches = (one for epoch in count() for one in images.batches(recipe.data, 0, epoch))
    model = build_ccan(recipe.model, recipe.data.identities_per_batch).train()
    model = model.to(memory_format=torch.channels_last)
    optimizer, loss = build_optimizer(model, recipe.optim), CCANLoss(recipe.loss)

    def step() -> None:
        found = next(batches)
        pixels = found.images.to(memory_format=torch.channels_last)
        training_step(model, loss, optimizer, pixels, found.labels)

    times = seconds_of(step, repeats=steps, clock=time.process_time)
    return statistics.median(times) / batch


def plan(
    costs: Mapping[Size, float], dataset: ReIDDataset, seconds: float
) -> tuple[ReIDDataset, dict[Size, int]]:
    """(the people to train on, epochs of each size): all sizes take about `seconds`, the largest ≥ four epochs."""
    largest = SIZES[-1]
    everyone, batch = dataset.train_identities, demo().data
    epoch_of_all = images_in_epoch(dataset) * costs[largest]
    share = min(1.0, seconds / (LEAST_EPOCHS * epoch_of_all))
    people = people_of(dataset, max(batch.identities_per_batch, round(share * len(everyone))))
    images = images_in_epoch(people)
    epochs = {largest: max(LEAST_EPOCHS, round(seconds / (images * costs[largest])))}
    time_of_largest = epochs[largest] * costs[largest]
    for size in SIZES[:-1]:
        epochs[size] = max(1, round(time_of_largest / costs[size]))
    return people, epochs


def images_in_epoch(dataset: ReIDDataset) -> int:
    """Images that an epoch shows: whole groups of K of each identity, in whole batches; counted for epoch 0."""
    recipe = demo()
    label_of = {identity: label for label, identity in enumerate(dataset.train_identities)}
    sampler = IdentityBalancedSampler(
        [label_of[sample.identity] for sample in dataset.train],
        recipe.data.identities_per_batch,
        recipe.data.images_per_identity,
    )
    return len(sampler.epoch(np.random.default_rng([0, 0]))) * recipe.data.batch_size


def train_and_judge(recipe: Recipe, people: ReIDDataset, test: ReIDDataset) -> dict[str, Any]:
    """One training run with its processor seconds, and what it reaches on the test people."""
    with tempfile.TemporaryDirectory() as folder:
        out, began = Path(folder) / "run", time.process_time()
        trained = fit(recipe, people, out, progress=False, say=lambda _: None)
        seconds = time.process_time() - began
        model, _ = load_model(out / MODEL)
    query, gallery = (
        extract_features(model, samples, workers=0) for samples in (test.query, test.gallery)
    )
    report = evaluate_features(query, gallery)
    return {
        "image_height": recipe.model.image_height,
        "image_width": recipe.model.image_width,
        "seed": recipe.train.seed,
        "epochs": recipe.train.epochs,
        "processor_seconds": round(seconds, 1),
        "wall_seconds": round(trained.seconds, 1),
        "mAP": report.mAP,
        "rank1": report.rank(1),
    }


def measure(
    world: WorldConfig,
    people: ReIDDataset,
    test: ReIDDataset,
    minutes: float,
    seeds: Sequence[int],
    results: Path,
) -> dict[str, Any]:
    """Every size with every seed; the result is written after each seed. Gives back what was written last.

    Args:
        world: what the training people were rendered by, for the record.
        people: dataset whose training part is used, or as much of it as the minutes allow.
        test: dataset whose queries and gallery judge.
        minutes: of processor time for each run.
        seeds: of the weights and the batches.
        results: folder of the JSON.
    """
    costs = {size: seconds_an_image(size, people) for size in SIZES}
    people, epochs = plan(costs, people, minutes * 60)
    runs: list[dict[str, Any]] = []
    report: dict[str, Any] = {}
    for seed in seeds:
        for size in SIZES:
            runs.append(train_and_judge(sized(size, epochs[size], seed), people, test))
            print(json.dumps(runs[-1]), flush=True)
        result = {
            "minutes": minutes,
            "training_world": world.to_dict(),
            "identities": len(people.train_identities),
            "images": len(people.train),
            "images_per_processor_second": {f"{h}x{w}": 1 / c for (h, w), c in costs.items()},
            "evaluated_on": test.name,
            "runs": runs,
        }
        report = write_result("input_size", result, folder=results)
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description="Which input size for the demo model?")
    parser.add_argument("--minutes", type=float, default=5, help="of training, for each size")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--identities", type=int, default=240, help="of the world; half train")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the JSON")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    commit()
    with tempfile.TemporaryDirectory() as folder:
        world = replace(TRAINING_WORLD, identities=arguments.identities)
        out = write_world(world, Path(folder) / "world", splits=("train",))
        people = load_dataset("synthetic", out)
        measure(world, people, demo_world(), arguments.minutes, arguments.seeds, arguments.results)


if __name__ == "__main__":
    main()
