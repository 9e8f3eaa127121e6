"""A world's work shared out: in this process, or in children that talk JSON lines over pipes.

Children run a fresh interpreter instead of multiprocessing's spawn, which would import the caller's main module (a
Gradio server, say) once more in each.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ccan.data.synthetic.develop import Unit, render_unit
from ccan.data.synthetic.world import WorldConfig
from ccan.errors import DatasetError

Records = dict[str, dict[str, Any]]
"""What is known of images, by `folder/name.jpg`."""


def in_this_process(
    config: WorldConfig, root: Path, splits: tuple[str, ...], units: list[Unit], workers: int
) -> Iterator[Records]:
    """Render the units one after another; the records of each (``workers`` is 1)."""
    del workers
    for unit in units:
        yield render_unit(config, root, splits, unit)


def in_processes(
    config: WorldConfig, root: Path, splits: tuple[str, ...], units: list[Unit], workers: int
) -> Iterator[Records]:
    """Render the units in ``workers`` children, every nth in the nth; records as they come, in any order.

    Raises: DatasetError with the last line of the first child that fails. The children end with the iterator.
    """
    environment = dict(os.environ, OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")
    environment["PYTHONPATH"] = os.pathsep.join(path or os.getcwd() for path in sys.path)
    command = [sys.executable, "-c", f"from {__name__} import work; work()"]
    lines: queue.Queue[str | None] = queue.Queue()
    children = [
        subprocess.Popen(
            command,
            env=environment,
            text=True,
            encoding="utf-8",
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for _ in range(workers)
    ]
    errors: list[str] = []
    try:
        for place, child in enumerate(children):
            order = {
                "config": config.to_dict(),
                "root": str(root.resolve()),
                "splits": list(splits),
                "units": units[place::workers],
            }
            threading.Thread(
                target=_listen, args=(child, json.dumps(order), lines, errors), daemon=True
            ).start()
        running = workers
        while running:
            line = lines.get()
            if line is None:
                running -= 1
                if errors:
                    raise DatasetError(f"rendering the world failed: {errors[0]}")
            else:
                yield json.loads(line)
    finally:
        for child in children:
            child.kill()
            child.wait()


def _listen(
    child: subprocess.Popen[str], order: str, lines: queue.Queue[str | None], errors: list[str]
) -> None:
    """Give a child its order and pass on its lines, then None; keeps the last line of its complaint."""
    assert child.stdin and child.stdout and child.stderr
    try:
        with child.stdin, child.stdout, child.stderr:
            child.stdin.write(order)
            child.stdin.close()
            for line in child.stdout:
                lines.put(line)
            complaint = child.stderr.read().strip()
        if child.wait() != 0:
            errors.append(complaint.splitlines()[-1] if complaint else f"exit {child.returncode}")
    except (OSError, ValueError) as error:
        errors.append(str(error))
    finally:
        lines.put(None)


def work() -> None:
    """A child's life: read the order from stdin, render its units, print the records of each as a line."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    order = json.load(sys.stdin)
    config, root = WorldConfig.from_dict(order["config"]), Path(order["root"])
    for kind, number in order["units"]:
        records = render_unit(config, root, tuple(order["splits"]), (kind, number))
        print(json.dumps(records), flush=True)
