"""A training step of the demo and of the paper's network: forward, loss, backward, Adam, on random images.

    python benchmarks/bench_training.py [--device cuda] [--model paper] [--batch 64] [--steps 30]

On CUDA float32 and bfloat16 autocast, standard and channels-last layout are compared as ratios; on the CPU the layouts.
Result: benchmarks/results/training_<device>.json.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from networks import Setting, Way, measure

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
    measure("training", "Time a training step.", prepare_step, arguments)


if __name__ == "__main__":
    main()
