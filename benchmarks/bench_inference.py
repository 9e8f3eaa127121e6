"""The forward pass of the demo and of the paper's network as an evaluation makes it, on random images.

    python benchmarks/bench_inference.py [--device cuda] [--model paper] [--batch 64] [--steps 30]

Compared as ratios with the plain way: layouts, folded batch norms, the exported file; on CUDA also bfloat16 autocast
and torch.compile.
Result: benchmarks/results/inference_<device>.json.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from networks import IDENTITIES, Setting, Way, measure

from ccan.device import autocast
from ccan.export import export
from ccan.training.checkpoint import CheckpointInfo, save_checkpoint


def prepare_forward(setting: Setting, way: Way) -> Callable[[], Any]:
    """Descriptors of one batch of random images, in evaluation mode."""
    if way.exported:
        return prepare_exported(setting)
    model = setting.network(way).eval()
    images = setting.images(way)

    def forward() -> torch.Tensor:
        with torch.inference_mode(), autocast(setting.device, way.precision):
            return model(images).descriptor

    return forward


def prepare_exported(setting: Setting) -> Callable[[], Any]:
    """The same from pixels by onnxruntime, with as many threads as torch has; normalisation is inside."""
    import onnxruntime

    identities = tuple(range(IDENTITIES))
    with tempfile.TemporaryDirectory() as folder:
        checkpoint, path = Path(folder) / "net.safetensors", Path(folder) / "net.onnx"
        save_checkpoint(
            checkpoint,
            setting.network(Way("float32")),
            CheckpointInfo(setting.recipe, identities),
        )
        export(checkpoint, path, "onnx")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
    model, generator = setting.recipe.model, np.random.default_rng(1)
    shape = (setting.batch, model.image_height, model.image_width, 3)
    pixels = generator.integers(0, 256, shape, np.uint8)
    return lambda: session.run(None, {"pixels": pixels})


def main(arguments: list[str] | None = None) -> None:
    measure("inference", "Time the forward pass.", prepare_forward, arguments)


if __name__ == "__main__":
    main()
