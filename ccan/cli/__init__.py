"""The command line, `ccan COMMAND`: each command parses its words, calls the library, and prints."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import sys
import warnings
from collections.abc import Sequence
from typing import Any, Protocol

import tyro

from ccan.cli.ablate import Ablate
from ccan.cli.check import Check
from ccan.cli.diagnose import Diagnose
from ccan.cli.evaluate import Evaluate
from ccan.cli.explain import Explain
from ccan.cli.export import Export
from ccan.cli.extract import Extract
from ccan.cli.index import Index
from ccan.cli.notebook import Notebook
from ccan.cli.rank import Rank
from ccan.cli.report import Report
from ccan.cli.score import Score
from ccan.cli.synth import Synth
from ccan.cli.train import Train
from ccan.cli.trust import Trust
from ccan.errors import CCANError
from ccan.experiments.recipes import recipe


class Command(Protocol):
    """A command whose words are parsed."""

    def run(self) -> None:
        """Do it."""
        ...


COMMANDS: dict[str, type[Command]] = {
    "synth": Synth,
    "check": Check,
    "train": Train,
    "ablate": Ablate,
    "report": Report,
    "evaluate": Evaluate,
    "extract": Extract,
    "score": Score,
    "explain": Explain,
    "diagnose": Diagnose,
    "trust": Trust,
    "index": Index,
    "rank": Rank,
    "export": Export,
    "notebook": Notebook,
}


def parse(arguments: Sequence[str]) -> Command:
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
    kind: Any = COMMANDS[name]
    default: Any = dataclasses.MISSING
    if kind in (Train, Ablate):
        # The recipe decides the defaults of all other options, so it is read first.
        chosen = recipe(_option(rest, "recipe", "paper"), _layout(rest))
        needed: dict[str, Any] = {"data": tyro.MISSING, "out": tyro.MISSING}
        needed |= {"name": tyro.MISSING} if kind is Ablate else {}
        default = kind(**needed, recipe=chosen.name, settings=chosen)
    options = {} if default is dataclasses.MISSING else {"default": default}
    return tyro.cli(kind, args=rest, prog=f"{prog} {name}", **options)


def _layout(arguments: Sequence[str]) -> str:
    """The dataset's name, by which recipes differ; recognised where it is `auto`, if it can be."""
    name = _option(arguments, "dataset", "market1501")
    if name != "auto":
        return name
    from ccan.data import recognise

    with contextlib.suppress(CCANError, OSError):  # told in full when the data are read
        found = recognise(_option(arguments, "data", ""))
        name = name if found is None else found.name
    return name


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
    for stream in (sys.stdout, sys.stderr):  # a file's name may be no text of the terminal's
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    usual, warnings.formatwarning = warnings.formatwarning, _plainly
    try:
        parse(sys.argv[1:] if arguments is None else arguments).run()
    except (CCANError, OSError) as error:
        print(f"ccan: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("ccan: interrupted (a training run goes on with --resume)", file=sys.stderr)
        return 130
    finally:
        warnings.formatwarning = usual
    return 0


def _plainly(message: Warning | str, *_: object) -> str:
    """A warning as people of a command line read it, without a place in our code."""
    return f"ccan: {message}\n"
