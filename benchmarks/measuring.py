"""What every benchmark shares: where it ran, how a time is taken, where its result is written."""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ccan.files import write_json

RESULTS = Path(__file__).parent / "results"
REPOSITORY = Path(__file__).parents[1]


def machine(device: torch.device | str = "cpu") -> dict[str, Any]:
    """Processor, cores, load, versions, commit and, for a CUDA device, its name and driver: plain JSON values.

    `commit` ends in "+" if files under version control differ from it; `load_average` is the last minute's, of
    all that the machine does.
    """
    facts: dict[str, Any] = {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load_average": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": np.__version__,
        "commit": commit(),
    }
    device = torch.device(device)
    if device.type == "cuda":
        facts["gpu"] = torch.cuda.get_device_name(device)
        facts["driver"] = _output(
            "nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"
        )
        facts["cuda"] = torch.version.cuda
    return facts


@cache
def commit() -> str:
    """Short name of the commit that is checked out at the first call, or "unknown".

    A benchmark of many minutes calls it when it begins: the files may have moved on when it ends.
    """
    git = ("git", "-C", str(REPOSITORY))
    name = _output(*git, "rev-parse", "--short", "HEAD")
    changed = _output(
        *git, "status", "--porcelain", "--untracked-files=no", "--", "ccan", "benchmarks/*.py"
    )
    return f"{name}+" if name and changed else name or "unknown"


def _output(*command: str) -> str:
    """First line that a command prints, or nothing."""
    try:
        lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split(
            "\n"
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return lines[0].strip()


def _processor() -> str:
    """The processor's name as Linux tells it, else its architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def spread(values: Iterable[float]) -> dict[str, float]:
    """Median, lowest and highest of the values, in their unit."""
    values = list(values)
    return {"median": statistics.median(values), "lowest": min(values), "highest": max(values)}


def synchronise(device: torch.device | str) -> None:
    """Wait until a CUDA device has done all that it was given; nothing on other devices."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


def seconds_of(
    work: Callable[[], object],
    *,
    repeats: int,
    warmup: int = 1,
    device: torch.device | str = "cpu",
    clock: Callable[[], float] = time.perf_counter,
) -> list[float]:
    """Seconds of each of `repeats` calls, after `warmup` calls that do not count.

    `clock=time.process_time` gives processor time of this process (all its threads), which other work on the
    machine stretches less than wall time.
    """
    for _ in range(warmup):
        work()
    seconds = []
    for _ in range(repeats):
        synchronise(device)
        began = clock()
        work()
        synchronise(device)
        seconds.append(clock() - began)
    return seconds


def reset_peak_memory(device: torch.device | str) -> None:
    """Begin a new measurement of `peak_memory`; on the CPU only Linux can (through /proc/self/clear_refs)."""
    if torch.device(device).type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return


def peak_memory(device: torch.device | str = "cpu") -> float:
    """MiB: CUDA's most memory held by tensors at once, else the most that this process held resident."""
    if torch.device(device).type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    try:
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 2**10
    except OSError:
        pass
    if sys.platform == "win32":  # no counter without another package
        return float("nan")
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / (2**20 if sys.platform == "darwin" else 2**10)


def write_result(
    name: str, result: Any, device: torch.device | str = "cpu", folder: Path = RESULTS
) -> dict[str, Any]:
    """Write FOLDER/NAME.json = {"machine": …, "result": …}, whole or not at all; gives back what was written."""
    report = {"machine": machine(device), "result": result}
    write_json(folder / f"{name}.json", report)
    return report
