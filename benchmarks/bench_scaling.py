"""How time and memory of a training step grow: with the batch, the parts, the embedding's width.

    python benchmarks/bench_scaling.py [--device cuda] [--model demo] [--steps 3]

Each point is a process of its own, so that its peak memory is its own. Results: results/scaling_<device>.json and .png.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from bench_training import prepare_step
from measuring import (
    RESULTS,
    commit,
    peak_memory,
    reset_peak_memory,
    seconds_of,
    spread,
    write_result,
)
from networks import Setting, Way

from ccan.device import choose_device
from ccan.experiments.recipes import recipe
from ccan.files import atomic_path

AXES: dict[str, tuple[int, ...]] = {
    "batch": (16, 32, 64, 128),
    "parts": (1, 2, 4, 6, 8),
    "embedding_dim": (128, 256, 512, 1024),
}
TITLES = {"batch": "images in a batch", "parts": "parts kp", "embedding_dim": "embedding's width d"}


def point(axis: str, value: int, model: str, device: str, steps: int) -> dict[str, Any]:
    """One training step with one setting changed: ms, and peak MiB above what the process held before."""
    torch.set_num_threads(1)
    settings = recipe(model, "market1501")
    batch = value if axis == "batch" else 32
    if axis != "batch":
        settings = replace(settings, model=replace(settings.model, **{axis: value}))
    reset_peak_memory(device)
    before = peak_memory(device)
    work = prepare_step(Setting(settings, torch.device(device), batch, steps), Way("float32", True))
    times = spread(seconds_of(work, repeats=steps, device=device))
    return {
        "axis": axis,
        "value": value,
        "batch": batch,
        "ms_a_step": {name: 1000 * seconds for name, seconds in times.items()},
        "mib": peak_memory(device) - before,
    }


def draw(points: list[dict[str, Any]], path: Path) -> None:
    """Time and memory over each axis."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4.6), dpi=110, layout="constrained")
    axes = figure.subplots(2, 3, sharey="row")
    for column, axis in enumerate(AXES):
        mine = [one for one in points if one["axis"] == axis]
        values = [one["value"] for one in mine]
        times = [one["ms_a_step"]["median"] for one in mine]
        axes[0, column].plot(values, times, "o-", color="#0072b2")
        axes[1, column].plot(values, [one["mib"] for one in mine], "o-", color="#d55e00")
        axes[1, column].set_xlabel(TITLES[axis])
        for row in (0, 1):
            axes[row, column].set_xticks(values)
            axes[row, column].set_ylim(bottom=0)
            axes[row, column].grid(color="#d9dde2", linewidth=0.8)
            axes[row, column].spines[["top", "right"]].set_visible(False)
    axes[0, 0].set_ylabel("ms a step")
    axes[1, 0].set_ylabel("peak MiB")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--model", choices=("demo", "paper"), default="demo")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--results", type=Path, default=RESULTS)
    asked = parser.parse_args(arguments)
    device = str(choose_device(asked.device))
    commit()
    points = []
    for axis, values in AXES.items():
        for value in values:
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                points.append(pool.apply(point, (axis, value, asked.model, device, asked.steps)))
            print(json.dumps(points[-1]), flush=True)
    kind = torch.device(device).type
    write_result(f"scaling_{kind}", {"model": asked.model, "points": points}, device, asked.results)
    draw(points, asked.results / f"scaling_{kind}.png")


if __name__ == "__main__":
    main()
