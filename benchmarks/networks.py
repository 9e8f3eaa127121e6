"""What the benchmarks of training and inference share: which networks, in which ways, and how they are compared.

Pixels and labels are random: no dataset is needed, and neither decoding nor augmentation is measured.
"""

from __future__ import annotations

import argparse
import gc
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from measuring import (
    RESULTS,
    commit,
    peak_memory,
    reset_peak_memory,
    seconds_of,
    spread,
    write_result,
)
from torch.utils.flop_counter import FlopCounterMode

from ccan.config import Recipe
from ccan.device import choose_device
from ccan.errors import ConfigError
from ccan.experiments.recipes import recipe
from ccan.model import CCAN, build_ccan
from ccan.model.fast import fast_for_inference

IDENTITIES = 751
"""Training identities, the width of both FC2: those of Market-1501."""


@dataclass(frozen=True)
class Way:
    """How the same arithmetic is run."""

    precision: Literal["float32", "bfloat16"] = "float32"
    """Autocast of the forward pass."""
    channels_last: bool = False
    """Whether weights and images lie in memory channel by channel for each pixel, or plane by plane."""
    folded: bool = False
    """Batch norms folded, 1×1 convolutions joined (`ccan.model.fast`); inference only."""
    compiled: str | None = None
    """torch.compile's mode, or None = eager."""
    exported: bool = False
    """As the file of `ccan export`, run by onnxruntime; inference only."""

    @property
    def name(self) -> str:
        """As it stands in the results."""
        words = [self.precision, "channels last" if self.channels_last else "standard layout"]
        words += ["folded"] if self.folded else []
        words += [f"compiled ({self.compiled})"] if self.compiled else []
        words += ["exported to ONNX"] if self.exported else []
        return ", ".join(words)

    @property
    def memory_format(self) -> torch.memory_format:
        """Of weights and images."""
        return torch.channels_last if self.channels_last else torch.contiguous_format


def ways_on(device: torch.device, inference: bool = False) -> list[Way]:
    """What is compared on a device; the plain way comes first."""
    folded = [Way("float32", True, folded=True)] if inference else []
    if device.type != "cuda":
        exported = [Way("float32", exported=True)] if inference else []
        return [Way("float32"), Way("float32", True), *folded, *exported]
    return [
        Way("float32"),
        Way("float32", True),
        *folded,
        Way("bfloat16", True, compiled="default"),
        Way("bfloat16", True, compiled="reduce-overhead"),  # CUDA graphs
        Way("bfloat16", True),
    ]


@dataclass(frozen=True)
class Setting:
    """One network on one device.

    Attributes:
        recipe: its settings.
        device: where it runs.
        batch: images in a batch.
        steps: that are timed, after the warm-up.
    """

    recipe: Recipe
    device: torch.device
    batch: int
    steps: int

    def network(self, way: Way) -> CCAN:
        """The network with fresh weights, on its device."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = build_ccan(self.recipe.model, IDENTITIES)
        if way.folded:
            model = fast_for_inference(model)
        model = model.to(self.device).to(memory_format=way.memory_format)
        if way.compiled:
            model.compile(mode=way.compiled)
        return model

    def images(self, way: Way) -> torch.Tensor:
        """Noise of an image's scale, (B, 3, H, W)."""
        model, generator = self.recipe.model, torch.Generator().manual_seed(1)
        shape = (self.batch, 3, model.image_height, model.image_width)
        images = torch.randn(shape, generator=generator)
        return images.to(self.device, memory_format=way.memory_format)


Prepare = Callable[[Setting, Way], Callable[[], object]]
"""Builds a network in one way and gives the work that is timed, one batch a call."""


def ceiling(device: torch.device, precision: str) -> float:
    """GFLOP/s of a large matrix product here and now: what no network can exceed."""
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    size = 8192 if device.type == "cuda" else 1536
    left, right = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    seconds = seconds_of(lambda: left @ right, repeats=10, warmup=3, device=device)
    return 2 * size**3 / min(seconds) / 1e9


def compare(setting: Setting, prepare: Prepare, inference: bool = False) -> dict[str, Any]:
    """Every way one after the other in this process: ms a step, images/s, peak MiB, GFLOP/s, and ratios to the plain.

    The arithmetic is counted once (multiplications and additions of convolutions and matrix products); peak memory
    on the CPU is the whole process's.
    """
    result: dict[str, Any] = {"batch": setting.batch, "steps": setting.steps}
    measured: dict[str, dict[str, Any]] = {}
    ways = ways_on(setting.device, inference)
    result["ceiling_gflop_per_second"] = {
        precision: ceiling(setting.device, precision)
        for precision in dict.fromkeys(way.precision for way in ways)
    }
    for way in ways:
        gc.collect()
        reset_peak_memory(setting.device)
        work = prepare(setting, way)
        if "gflop_a_step" not in result:
            result["gflop_a_step"] = gflop_of(work)
        # cuDNN chooses its kernels in the first calls.
        warmup = 5 if setting.device.type == "cuda" else 1
        seconds = seconds_of(work, repeats=setting.steps, warmup=warmup, device=setting.device)
        times = spread(seconds)
        measured[way.name] = {
            "ms_a_step": {name: 1000 * value for name, value in times.items()},
            "images_per_second": setting.batch / times["median"],
            "gflop_per_second": result["gflop_a_step"] / times["median"],
            "share_of_ceiling": result["gflop_a_step"]
            / times["median"]
            / result["ceiling_gflop_per_second"][way.precision],
            "peak_mib": peak_memory(setting.device),
        }
        del work
    plain = measured[ways[0].name]
    for figures in measured.values():
        figures["speed_ratio"] = figures["images_per_second"] / plain["images_per_second"]
        figures["memory_ratio"] = figures["peak_mib"] / plain["peak_mib"]
    return result | {"ways": measured}


def gflop_of(work: Callable[[], object]) -> float:
    """10⁹ floating point operations of one call, as torch counts them: convolutions and matrix products."""
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops() / 1e9


def float32_means() -> dict[str, str]:
    """How torch does float32 arithmetic on CUDA: "ieee", or "tf32", faster and rounded; "none" = its default, ieee."""
    backends: Any = torch.backends  # torch's own stubs lack these names
    return {
        "convolutions": backends.cudnn.conv.fp32_precision,
        "matrix_products": backends.cuda.matmul.fp32_precision,
    }


def arguments_of(description: str, arguments: list[str] | None) -> argparse.Namespace:
    """The command line of both benchmarks; a device that is not there is told and ends with 2."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")
    parser.add_argument("--model", choices=("paper", "demo"), help="default: one after the other")
    parser.add_argument("--batch", type=int, help="default: 64; on the CPU 8 for the paper's")
    parser.add_argument("--steps", type=int, help="timed steps; default 30, on the CPU 10 and 3")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the JSON")
    found = parser.parse_args(arguments)
    if (found.batch is not None and (found.batch < 8 or found.batch % 4)) or (
        found.steps is not None and found.steps < 1
    ):
        parser.error("--batch must be a multiple of 4 and at least 8, --steps at least 1")
    try:
        found.device = choose_device(found.device)
    except ConfigError as error:
        parser.error(f"nothing was measured: {error}")
    return found


def measure(
    what: str,
    description: str,
    prepare: Prepare,
    arguments: list[str] | None = None,
    more: Callable[[Setting], dict[str, Any]] | None = None,
) -> dict[str, Any]:
    """Parse the command line, compare, print and write `what_<device type>.json`; gives back what was written.

    What ``more`` measures of a setting stands beside its ways.
    """
    asked = arguments_of(description, arguments)
    commit()
    on_cpu = asked.device.type == "cpu"
    result: dict[str, Any] = {}
    for name in (asked.model,) if asked.model else ("demo", "paper"):
        heavy = on_cpu and name == "paper"
        batch = asked.batch or (8 if heavy else 64)
        steps = asked.steps or (3 if heavy else 10 if on_cpu else 30)
        setting = Setting(recipe(name, "market1501"), asked.device, batch, steps)
        result[name] = compare(setting, prepare, inference=what == "inference")
        if more is not None:
            result[name] |= more(setting)
    if asked.device.type == "cuda":
        result["float32_means"] = float32_means()
    report = write_result(f"{what}_{asked.device.type}", result, asked.device, asked.results)
    print(json.dumps(report, indent=2))
    return report
