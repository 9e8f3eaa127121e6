"""`ccan notebook`: a notebook of the course run over parameters, into a report of its own."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import Positional, arg

from ccan.errors import ConfigError


@dataclass(frozen=True)
class Notebook:
    """Run a notebook of the course over parameters; the executed notebook is the report."""

    name: Positional[str]
    """Its number (07), its name (07_ablations), or the path of any notebook with a cell tagged `parameters`."""
    out: Path | None = None
    """Where the executed notebook goes; by default runs/notebooks/NAME.ipynb. One that is there is replaced."""
    profile: str | None = None
    """ci (seconds, to see that all runs), reader (as committed), or full."""
    dataset: str | None = None
    """Name of a dataset's layout, such as market1501; with --data."""
    data: str | None = None
    """Folder of the dataset."""
    checkpoint: str | None = None
    """A run folder, or the name of a bundled model."""
    device: str | None = None
    """`auto`, or a torch device."""
    sets: Annotated[tuple[str, ...], arg(name="set")] = ()
    """Any other parameter as NAME=VALUE; values are read as JSON (3, true, null, [1,2]), anything else is text."""

    def run(self) -> None:
        """Find it, run it, say where it is."""
        from ccan.notebooks import find_notebook, run_notebook

        path = find_notebook(self.name)
        out = self.out or Path("runs/notebooks") / path.name
        if out.suffix != ".ipynb":
            raise ConfigError(f"expected --out to end in .ipynb, got {out}")
        if out.resolve() == path.resolve():
            raise ConfigError(f"{out} is the notebook itself; choose another --out")
        named = ("profile", "dataset", "data", "checkpoint", "device")
        parameters = {name: getattr(self, name) for name in named if getattr(self, name)}
        run_notebook(path, out, parameters | dict(_pair(one) for one in self.sets))
        print(f"wrote {out}; to read it: jupyter lab {out}")
        print(f"as a page without code: jupyter nbconvert --to html --no-input {out}")


def _pair(words: str) -> tuple[str, Any]:
    """`NAME=VALUE` → the name and its value."""
    name, sign, text = words.partition("=")
    if not sign or not name.isidentifier():
        raise ConfigError(f"expected --set NAME=VALUE, got {words!r}")
    try:
        return name, json.loads(text)
    except json.JSONDecodeError:
        return name, text
