"""A training that is killed (-9) at chosen moments and goes on each time; run as a script: FOLDER.

Every try is a fork of a process that has imported everything but computed nothing, so that it costs no start.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ccan import files
from ccan.config import Recipe
from ccan.model import build_ccan
from ccan.training import checkpoint, fit, loop
from ccan.training.journal import RunFolder
from tests.training.people import tiny_dataset, tiny_recipe

KILLS = 20
EPOCHS = 24


def long_recipe() -> Recipe:
    recipe = tiny_recipe(epochs=EPOCHS, validation_identities=2, evaluate_every=2, ema_decay=0.9)
    return replace(recipe, data=replace(recipe.data, erasing_from_epoch=5))


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def dying(real: Callable[..., Any], number: int, last_words: Callable[..., object]) -> Any:
    """The function, which at its call of that number does its last words and is killed."""
    calls = 0

    def wrapped(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == number:
            last_words(*arguments, **options)
            die()
        return real(*arguments, **options)

    return wrapped


def half_a_file(_tensors: object, path: Path, *_: object) -> None:
    path.write_bytes(b"\x40\x00\x00\x00\x00\x00\x00\x00{half a header")


def half_a_line(folder: RunFolder, *_: object) -> None:
    with open(folder.path / "metrics.jsonl", "a", encoding="utf-8") as journal:
        journal.write('{"epoch": 1, "lo')
        journal.flush()


def after_the_move(source: Path, target: Path) -> None:
    os.rename(source, target)


def nothing(*_: object, **__: object) -> None:
    """Killed before anything is done."""


def arm(moment: str, number: int) -> None:
    """Make this process die at the number-th time of a moment."""
    if moment == "step":
        loop.training_step = dying(loop.training_step, number, loop.training_step)
    elif moment == "writing a checkpoint":
        checkpoint.save_file = dying(checkpoint.save_file, number, half_a_file)
    elif moment == "before a file is moved":
        files.os.replace = dying(os.replace, number, nothing)
    elif moment == "after a file is moved":
        files.os.replace = dying(os.replace, number, after_the_move)
    elif moment == "journal":
        RunFolder.write = dying(RunFolder.write, number, half_a_line)  # type: ignore[method-assign]
    else:
        loop.evaluate_together = dying(loop.evaluate_together, number, nothing)


MOMENTS = {
    "step": 9,
    "writing a checkpoint": 3,
    "before a file is moved": 3,
    "after a file is moved": 3,
    "journal": 2,
    "evaluation": 1,
}
"""What is going on when the kill comes, and up to which time of it."""


def whole(path: Path) -> bool:
    """Whether a checkpoint is there and complete, optimiser and average included."""
    info = checkpoint.read_info(path)
    model = build_ccan(info.recipe.model, len(info.identities))
    optimizer = loop.build_optimizer(model, info.recipe.optim)
    average = loop.average_of(model, info.recipe.train.ema_decay)
    checkpoint.load_weights(path, model, optimizer, average)
    return True


def in_a_fork(work: Callable[[], object]) -> int:
    """Exit status of a child that does the work: 0, or minus the signal that ended it."""
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main(folder: Path) -> None:
    people = folder / "people"
    people.mkdir()
    dataset = tiny_dataset(people, identities=8)

    def train(name: str) -> None:
        fit(long_recipe(), dataset, folder / name, resume=True, progress=False, say=lambda _: None)

    generator = np.random.default_rng(11)
    told = []
    for kill in range(KILLS):
        moment = list(MOMENTS)[kill % len(MOMENTS)]
        number = int(generator.integers(1, MOMENTS[moment] + 1))

        def killed(moment: str = moment, number: int = number) -> None:
            arm(moment, number)
            train("killed")

        ended = in_a_fork(killed)
        last = folder / "killed" / "last.safetensors"
        found = not last.exists() or in_a_fork(lambda last=last: whole(last)) == 0
        told.append({"moment": moment, "number": number, "ended": ended, "whole": found})
    finished = [in_a_fork(lambda name=name: train(name)) for name in ("killed", "undisturbed")]
    (folder / "told.json").write_text(json.dumps({"kills": told, "finished": finished}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
