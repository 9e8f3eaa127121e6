"""`ccan train`: train by a recipe into a run folder."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

from tyro.conf import arg

from ccan.cli.output import folder_only
from ccan.config import Recipe


@dataclass(frozen=True)
class Train:
    """Train CCAN by a recipe; every field of the recipe can be given on the command line."""

    data: Path
    """Folder of the dataset."""
    out: Path
    """Run folder: checkpoints, journal, settings."""
    dataset: str = "market1501"
    """Name of the dataset's layout; `auto` = recognise it."""
    options: tuple[str, ...] = ()
    """Options of the dataset's loader as name=value, for example box=labelled."""
    recipe: str = "paper"
    """Where the settings start from: paper, scratch, strong, demo or smoke."""
    resume: bool = False
    """Go on from the last checkpoint in --out; begin anew where there is none."""
    val_identities: int | None = None
    """Training identities held out to choose `best`; short for --train.validation-identities."""
    dry_run: bool = False
    """Print the settings as JSON and stop."""
    settings: Annotated[Recipe, arg(name="")] = field(default_factory=Recipe)
    """The settings themselves."""

    def run(self) -> None:
        """Train, then say what to do next."""
        settings = self.settings
        if self.val_identities is not None:
            train = replace(settings.train, validation_identities=self.val_identities)
            settings = replace(settings, train=train)
        if self.dry_run:
            print(settings.to_json(), end="")
            return
        from ccan.data import load_dataset, read_options
        from ccan.training import fit
        from ccan.training.engine import end_processes, is_first_process

        folder_only(self.out, "a run")
        options = read_options(self.dataset, self.options)
        dataset = load_dataset(self.dataset, self.data, **options)
        if is_first_process():
            print(dataset.summary())
        result = fit(settings, dataset, self.out, resume=self.resume)
        end_processes()
        if not is_first_process():
            return
        if result.epochs:
            print(
                f"{result.epochs} epochs in {result.seconds / 60:.1f} minutes, "
                f"{result.images_per_second:.0f} images/s"
            )
        print("next:")
        out, data = shlex.quote(str(self.out)), shlex.quote(str(self.data))
        arguments = f"--checkpoint {out} --dataset {self.dataset} --data {data}"
        if self.options:
            arguments += f" --options {shlex.join(self.options)}"
        flip = " --flip" if settings.eval.flip else ""
        print(f"  ccan evaluate {arguments}{flip}\n  python app/demo.py {arguments}")
