"""The forward pass of the demo and of the paper's network as an evaluation makes it, on random images.

    python benchmarks/bench_inference.py [--device cuda] [--model paper] [--batch 64] [--steps 30]

Compared as ratios with the plain way: layouts, folded batch norms; on CUDA also bfloat16 autocast and torch.compile.
Result: benchmarks/results/inference_<device>.json.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from networks import Setting, Way, measure
from torch import Tensor

from ccan.device import autocast


def prepare_forward(setting: Setting, way: Way) -> Callable[[], Tensor]:
    """Descriptors of one batch of random images, in evaluation mode."""
    model = setting.network(way).eval()
    images = setting.images(way)

    def forward() -> Tensor:
        with torch.inference_mode(), autocast(setting.device, way.precision):
            return model(images).descriptor

    return forward


def main(arguments: list[str] | None = None) -> None:
    measure("inference", "Time the forward pass.", prepare_forward, arguments)


if __name__ == "__main__":
    main()
