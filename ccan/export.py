"""A trained network as one file for other programs: torch.export, ONNX, or safetensors.

The exported network takes pixels as picture libraries give them, uint8 (B, H, W, 3) RGB of the network's own size, and
gives the descriptor, float32 (B, 2d): normalisation is inside, resizing is not. The batch may have any size. Each file
is compared with the network that it was made from before it takes its place.
"""

from __future__ import annotations

import copy
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ccan.data.transforms import IMAGENET_MEAN, IMAGENET_STD
from ccan.errors import CheckpointError, ConfigError
from ccan.files import atomic_path
from ccan.model.network import CCAN
from ccan.training.checkpoint import CheckpointInfo, load_model, save_checkpoint

Format = Literal["torch", "onnx", "safetensors"]
Precision = Literal["float32", "float16"]

SUFFIXES: dict[Format, str] = {"torch": ".pt2", "onnx": ".onnx", "safetensors": ".safetensors"}
OPSET = 20
CHECKED_BATCHES = (1, 2, 5, 17)
"""Batch sizes at which a file is compared with the network; it is traced with 3."""
TOLERANCE: dict[Precision, float] = {"float32": 1e-4, "float16": 2e-2}
"""Largest difference of a number of the descriptor (each branch has length 1) that a file may show."""
METADATA = "ccan"
"""Name of the JSON text in the file that says what it is."""


@dataclass(frozen=True)
class ExportReport:
    """What was written.

    Attributes:
        path: the file; bytes: its size.
        format, precision: as asked.
        largest_difference: of any number of a descriptor from the float32 network's, over the checked batches.
        batches: sizes of the batches that were compared.
    """

    path: Path
    bytes: int
    format: Format
    precision: Precision
    largest_difference: float
    batches: tuple[int, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self) | {"path": str(self.path)}


class ExportedNetwork(nn.Module):
    """Pixels in, descriptor out.

    Args:
        model: the network; it is copied.
        precision: of the weights and of the arithmetic inside.

    Shapes: uint8 (B, H, W, 3) → float32 (B, 2d), or (B, d) with one branch.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, model: CCAN, precision: Precision = "float32") -> None:
        super().__init__()
        self.dtype = torch.float16 if precision == "float16" else torch.float32
        self.model = copy.deepcopy(model).eval().to("cpu", self.dtype)
        self.model.gives_part_attention = False
        std = torch.tensor(IMAGENET_STD)
        self.register_buffer("scale", 1 / (255 * std))
        self.register_buffer("shift", torch.tensor(IMAGENET_MEAN) / std)
        self.eval()

    def forward(self, pixels: Tensor) -> Tensor:
        """See the class."""
        images = pixels.float() * self.scale - self.shift  # B H W 3
        return self.model(images.permute(0, 3, 1, 2).to(self.dtype)).descriptor.float()


def export(
    checkpoint: str | Path, out: str | Path, format: Format, precision: Precision = "float32"
) -> ExportReport:
    """Write a checkpoint's network in another format, whole or not at all.

    Args:
        checkpoint: `demo`, a checkpoint file or a run folder.
        out: the file; its suffix is the format's (`SUFFIXES`).
        format: `torch` (torch.export), `onnx`, or `safetensors` (weights with the recipe, for `Predictor`).
        precision: float16 halves the file and computes in half precision; a safetensors file only stores so.

    Raises: ConfigError for another suffix or a missing package; CheckpointError if the checkpoint cannot be read, the
    file cannot be written, or differs from the network.
    """
    path = Path(out)
    if path.suffix != SUFFIXES[format]:
        raise ConfigError(
            f"a file of format {format} ends in {SUFFIXES[format]}, got {path.name!r}; rename it, or choose another "
            f"--format ({', '.join(f'{name}: {suffix}' for name, suffix in SUFFIXES.items())})"
        )
    model, info = load_model(checkpoint)
    try:
        with atomic_path(path) as temporary:
            # Readers go by the suffix, so it is written under one and checked under it.
            written = temporary.with_name(temporary.name + path.suffix)
            try:
                run = _WRITERS[format](model, info, precision, written)
                difference = _largest_difference(model, run)
                limit = TOLERANCE[precision]
                if not difference <= limit:
                    raise CheckpointError(
                        f"the exported network differs from the original by {difference:.2g} (expected at most "
                        f"{limit:g}); nothing was written. Try --precision float32, or another --format"
                    )
                written.replace(temporary)
            finally:
                written.unlink(missing_ok=True)
    except OSError as error:
        raise CheckpointError(f"could not write {path}: {error}; choose another --out") from error
    return ExportReport(path, path.stat().st_size, format, precision, difference, CHECKED_BATCHES)


Run = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
"""Pixels (B, H, W, 3) → descriptors, by the file that was written."""


def describe_export(info: CheckpointInfo, precision: Precision) -> dict[str, Any]:
    """What stands in the file: how to prepare an image, what comes out, and where it comes from."""
    model = info.recipe.model
    return {
        "input": "pixels: uint8 (batch, height, width, 3), RGB, resized (bilinear, antialiased) to the size below",
        "height": model.image_height,
        "width": model.image_width,
        "output": "descriptor: float32 (batch, numbers); rank by Euclidean distance",
        "numbers": model.descriptor_dim,
        "normalisation": "inside: ImageNet mean and standard deviation",
        "precision": precision,
        "recipe": info.recipe.to_dict(),
        "dataset": info.dataset,
        "epoch": info.epoch,
    }


def _write_torch(model: CCAN, info: CheckpointInfo, precision: Precision, path: Path) -> Run:
    network = ExportedNetwork(model, precision)
    program = torch.export.export(network, (_pixels(model, 3),), dynamic_shapes=_any_batch())
    text = json.dumps(describe_export(info, precision))
    torch.export.save(program, path, extra_files={f"{METADATA}.json": text})
    # The file holds pickled parts: the one that was just written is the only one that is ever loaded here.
    loaded: Any = torch.export.load(path).module()

    def run(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        with torch.inference_mode():
            return loaded(torch.from_numpy(pixels)).numpy()

    return run


def _write_onnx(model: CCAN, info: CheckpointInfo, precision: Precision, path: Path) -> Run:
    try:
        import onnx
        import onnxruntime
        import onnxscript  # noqa: F401  the exporter's own need, told before it is half done
    except ImportError as error:
        raise ConfigError(
            f'ONNX needs packages that are not installed ({error.name}): pip install "ccan[export]"'
        ) from error
    network = ExportedNetwork(model, precision)
    with _quiet_exporter():
        torch.onnx.export(
            network,
            (_pixels(model, 3),),
            str(path),
            input_names=["pixels"],
            output_names=["descriptor"],
            dynamic_shapes=_any_batch(),
            opset_version=OPSET,
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    graph = onnx.load(path)
    entry = graph.metadata_props.add()
    entry.key, entry.value = METADATA, json.dumps(describe_export(info, precision))
    onnx.checker.check_model(graph)
    onnx.save(graph, path)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def run(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        (descriptor,) = session.run(["descriptor"], {"pixels": pixels})
        return np.asarray(descriptor, np.float32)

    return run


def _write_safetensors(model: CCAN, info: CheckpointInfo, precision: Precision, path: Path) -> Run:
    save_checkpoint(path, model, info, half=precision == "float16")
    network = ExportedNetwork(load_model(path)[0])

    def run(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        with torch.inference_mode():
            return network(torch.from_numpy(pixels)).numpy()

    return run


_WRITERS: dict[Format, Callable[[CCAN, CheckpointInfo, Precision, Path], Run]] = {
    "torch": _write_torch,
    "onnx": _write_onnx,
    "safetensors": _write_safetensors,
}


def _largest_difference(model: CCAN, run: Run, batches: Sequence[int] = CHECKED_BATCHES) -> float:
    """Between the file's descriptors and the float32 network's, on random pixels; infinite if any is not finite."""
    network, largest = ExportedNetwork(model), 0.0
    for size in batches:
        pixels = _pixels(model, size)
        with torch.inference_mode():
            expected = network(pixels).numpy()
        found = run(pixels.numpy())
        if found.shape != expected.shape or not np.isfinite(found).all():
            return float("inf")
        largest = max(largest, float(np.abs(found - expected).max()))
    return largest


def _pixels(model: CCAN, batch: int) -> Tensor:
    """Random pixels, (batch, H, W, 3): smooth enough that a network sees more than noise."""
    config, generator = model.config, torch.Generator().manual_seed(batch)
    coarse = torch.rand(batch, 3, 8, 4, generator=generator)
    size = (config.image_height, config.image_width)
    smooth = nn.functional.interpolate(coarse, size, mode="bilinear", align_corners=False)
    return (255 * smooth).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def _any_batch() -> dict[str, Any]:
    return {"pixels": {0: torch.export.Dim("batch", min=1)}}


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """The exporter's remarks on its own inner life are no news for who calls it."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=DeprecationWarning)
            warnings.filterwarnings("ignore", category=FutureWarning)
            yield
    finally:
        logger.setLevel(level)
