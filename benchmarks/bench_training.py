"""A training step of the demo and of the paper's network, and the loop that feeds it.

    python benchmarks/bench_training.py [--device cuda] [--model paper] [--batch 64] [--steps 30]

Compared as ratios in one run: layouts (on CUDA also bfloat16 autocast and torch.compile) on random images, then whole
loops with their images (`pipeline.py`), on CUDA also at Market-1501's size. Result: results/training_<device>.json.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from networks import Setting, Way, measure
from pipeline import measure_pipeline

from ccan.losses import CCANLoss, LossReport
from ccan.training import training_step
from ccan.training.step import build_optimizer


def prepare_step(setting: Setting, way: Way) -> Callable[[], LossReport]:
    """The step that `ccan train` makes, on one batch of random images of B/4 identities."""
    model = setting.network(way).train()
    optimizer = build_optimizer(model, setting.recipe.optim)
    loss = CCANLoss(setting.recipe.loss)
    images = setting.images(way)
    people = torch.randperm(setting.batch, generator=torch.Generator().manual_seed(2)) // 4
    labels = people.to(setting.device)

    def step() -> LossReport:
        return training_step(model, loss, optimizer, images, labels, way.precision)

    return step


def main(arguments: list[str] | None = None) -> None:
    measure("training", "Time a training step.", prepare_step, arguments, measure_pipeline)


if __name__ == "__main__":
    main()
