"""The command line: `ccan synth | train | evaluate`. It parses, calls one function, and prints; no logic lives here."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro
from tyro.conf import arg

from ccan.config import EvalConfig, Recipe
from ccan.data.synthetic.world import WorldConfig
from ccan.data.synthetic.write import SPLITS, Split
from ccan.errors import CCANError, ConfigError
from ccan.experiments.recipes import recipe
from ccan.files import write_text

if TYPE_CHECKING:
    from ccan.evaluation import EvaluationReport


@dataclass(frozen=True)
class Synth:
    """Render a synthetic world of pedestrians in Market-1501's layout."""

    out: Path | None = None
    """Folder of the world; with --sheet the picture's file (default: contact_sheet.png)."""
    world: Annotated[WorldConfig, arg(name="")] = field(default_factory=WorldConfig)
    """What the world is like."""
    sheet: bool = False
    """Render only a contact sheet: identities × cameras, label maps, look-alikes."""
    splits: tuple[Split, ...] = SPLITS
    """What is rendered of the world; all of it by default."""
    workers: int | None = None
    """Processes; by default one for each core."""

    def run(self) -> None:
        """Write the world or the sheet."""
        from ccan.data.synthetic import contact_sheet, write_world

        if self.sheet:
            out = self.out or Path("contact_sheet.png")
            out.parent.mkdir(parents=True, exist_ok=True)
            contact_sheet(self.world).save(out)
            print(f"wrote {out}")
            return
        if self.out is None:
            raise ConfigError(
                "a world needs a folder; pass --out DIR (or --sheet for a picture only)"
            )
        folder = write_world(self.world, self.out, workers=self.workers, splits=self.splits)
        if "train" not in self.splits:
            print(f"world ready at {folder}")
            return
        # The demo recipe's batches take more people than a small world has.
        people, batch = len(self.world.train_identities), recipe("demo", "synthetic").data
        name = "demo" if people >= batch.identities_per_batch else "smoke"
        print(f"world ready at {folder}; train on it with:")
        data = shlex.quote(str(folder))
        print(f"  ccan train --recipe {name} --dataset synthetic --data {data} --out runs/{name}")


@dataclass(frozen=True)
class Train:
    """Train CCAN by a recipe; every field of the recipe can be given on the command line."""

    data: Path
    """Folder of the dataset."""
    out: Path
    """Run folder: checkpoints, journal, settings."""
    dataset: str = "market1501"
    """Name of the dataset's layout."""
    recipe: str = "paper"
    """Where the settings start from: paper, demo or smoke."""
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
        from ccan.data import load_dataset
        from ccan.training import fit

        dataset = load_dataset(self.dataset, self.data)
        print(dataset.summary())
        result = fit(settings, dataset, self.out, resume=self.resume)
        if result.epochs:
            print(
                f"{result.epochs} epochs in {result.seconds / 60:.1f} minutes, "
                f"{result.images_per_second:.0f} images/s"
            )
        print("next:")
        out, data = shlex.quote(str(self.out)), shlex.quote(str(self.data))
        arguments = f"--checkpoint {out} --dataset {self.dataset} --data {data}"
        print(f"  ccan evaluate {arguments}\n  python app/demo.py {arguments}")


@dataclass(frozen=True)
class Evaluate:
    """Rank a dataset's gallery for its queries: CMC, mAP, mINP under the single-query protocol."""

    data: Path | None = None
    """Folder of the dataset; not needed for --dataset demo."""
    dataset: str = "market1501"
    """Name of the dataset's layout; `demo` = the dashboard's own world."""
    checkpoint: str = "demo"
    """A checkpoint file, a run folder, or `demo` for the bundled model."""
    json: str | None = None
    """Write the figures to this file; `-` = standard output."""
    per_query: Path | None = None
    """Write every query's AP, INP and first match to this .npz or .json file."""
    device: str = "auto"
    """`auto`, or a torch device."""
    eval: Annotated[EvalConfig, arg(name="")] = field(default_factory=EvalConfig)
    """How features are extracted and ranked."""

    def run(self) -> None:
        """Evaluate, print a table, write the files."""
        # With --json - only JSON may reach standard output.
        with contextlib.redirect_stdout(sys.stderr if self.json == "-" else sys.stdout):
            report = self._evaluate()
            print(report.summary())
            if self.per_query is not None:
                report.save_per_query(self.per_query)
                print(f"per-query results: {self.per_query}")
        _write_json(self.json, report.to_dict())

    def _evaluate(self) -> EvaluationReport:
        from ccan.data import load_dataset
        from ccan.evaluation import evaluate_features, extract_features
        from ccan.predictor import Predictor

        predictor = Predictor.from_checkpoint(self.checkpoint, self.device)
        dataset = load_dataset(self.dataset, self.data)
        print(f"{dataset.summary()}\ndevice: {predictor.device}")
        query, gallery = (
            extract_features(
                predictor.model,
                samples,
                batch_size=self.eval.batch_size,
                workers=self.eval.workers,
                device=predictor.device,
                progress=True,
            )
            for samples in (dataset.query, dataset.gallery)
        )
        return evaluate_features(query, gallery, distance=self.eval.distance, ap=self.eval.ap)


def _write_json(target: str | None, values: dict[str, Any]) -> None:
    """JSON to a file, to standard output for `-`, or nowhere for None."""
    text = json.dumps(values, indent=2)
    if target == "-":
        print(text)
    elif target is not None:
        write_text(target, text + "\n")


COMMANDS: dict[str, type[Synth] | type[Train] | type[Evaluate]] = {
    "synth": Synth,
    "train": Train,
    "evaluate": Evaluate,
}


def parse(arguments: Sequence[str]) -> Synth | Train | Evaluate:
    """Command-line words → a command, ready to run. Raises: SystemExit with usage for words that do not parse."""
    prog = "ccan"
    if not arguments or arguments[0] not in COMMANDS:
        listed = "\n".join(f"  ccan {name:<10}{kind.__doc__}" for name, kind in COMMANDS.items())
        asked_for_help = bool(arguments) and arguments[0] in ("-h", "--help")
        print(
            f"usage: ccan COMMAND [options]\n\n{listed}",
            file=sys.stdout if asked_for_help else sys.stderr,
        )
        raise SystemExit(0 if asked_for_help else 2)
    name, rest = arguments[0], list(arguments[1:])
    kind = COMMANDS[name]
    default: Any = dataclasses.MISSING
    if kind is Train:
        # The recipe decides the defaults of all other options, so it is read first.
        chosen = recipe(_option(rest, "recipe", "paper"), _option(rest, "dataset", "market1501"))
        default = Train(data=tyro.MISSING, out=tyro.MISSING, recipe=chosen.name, settings=chosen)
    options = {} if default is dataclasses.MISSING else {"default": default}
    return tyro.cli(kind, args=rest, prog=f"{prog} {name}", **options)


def _option(arguments: Sequence[str], name: str, default: str) -> str:
    """The value of ``--name value`` or ``--name=value``, without parsing the rest."""
    for place, word in enumerate(arguments):
        if word == f"--{name}" and place + 1 < len(arguments):
            return arguments[place + 1]
        if word.startswith(f"--{name}="):
            return word.split("=", 1)[1]
    return default


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of `ccan`: 0 = done, 2 = an error that is the user's to mend, 130 = interrupted."""
    try:
        parse(sys.argv[1:] if arguments is None else arguments).run()
    except (CCANError, OSError) as error:
        print(f"ccan: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("ccan: interrupted (a training run goes on with --resume)", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
