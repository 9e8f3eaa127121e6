"""What one of two training processes does in the test of many; run by torchrun: FOLDER TASK."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import torch

from ccan.config import EvalConfig
from ccan.losses import CCANLoss
from ccan.model import build_ccan
from ccan.training import fit, load_model, training_step
from ccan.training.engine import Engine, end_processes
from ccan.training.sharding import evaluate_together
from tests.training.people import tiny_dataset, tiny_recipe


def recipe_of_two(**changes: object) -> object:
    """One identity a process, so that two of them deal what one with two would."""
    recipe = tiny_recipe(epochs=2, validation_identities=2, evaluate_every=1, **changes)
    return replace(recipe, data=replace(recipe.data, identities_per_batch=2))


def half_of_the_batch(engine: Engine) -> tuple[torch.Tensor, torch.Tensor]:
    """Eight images of four identities, dealt to the processes in order."""
    images = torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(4)).double()
    labels = torch.arange(4).repeat_interleave(2)
    share = slice(engine.rank * 8 // engine.processes, (engine.rank + 1) * 8 // engine.processes)
    return images[share], labels[share]


def gradients(engine: Engine, joined: bool) -> dict[str, torch.Tensor]:
    """Gradients of one step without batch normalisation's batch statistics, by name of the parameter."""
    recipe = tiny_recipe()
    torch.manual_seed(0)
    model = build_ccan(recipe.model, 4).double().train()
    for module in model.modules():  # its statistics are each process's own
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()
    images, labels = half_of_the_batch(engine)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    training_step(
        engine.prepare(model), CCANLoss(), optimizer, images, labels,
        backward=engine.backward, joined=engine.joined if joined else None,
    )  # fmt: skip
    return {
        name: value.grad.clone()
        for name, value in model.named_parameters()
        if value.grad is not None
    }


def main(folder: Path) -> None:
    engine = Engine("cpu")
    dataset = tiny_dataset_of(folder)
    for joined in (False, True):
        found = gradients(engine, joined)
        torch.save(found, folder / f"gradients-{joined}-{engine.rank}.pt")
    said: list[str] = []
    fit(recipe_of_two(), dataset, folder / "run", progress=False, say=said.append)  # type: ignore[arg-type]
    model, _ = load_model(folder / "run")
    model = model.double()  # so that no two distances are equal up to rounding
    report = evaluate_together(engine, model, dataset.query, dataset.gallery, EvalConfig(workers=0))
    (folder / f"told-{engine.rank}.json").write_text(
        json.dumps({"said": said, "ap": report.ap.tolist(), "processes": engine.processes})
    )
    end_processes()


def tiny_dataset_of(folder: Path):
    """The same people for every process: made by the first caller, read by all."""
    people = folder / "people"
    people.mkdir(exist_ok=True)
    return tiny_dataset(people, identities=8)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
