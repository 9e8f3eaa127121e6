"""`ccan check`: what a folder holds, whether it is the dataset it should be, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from ccan.cli.output import Outputs


@dataclass(frozen=True)
class Check:
    """Look a dataset over before training: counts, cameras, broken images, official figures, problems, cures."""

    data: Positional[Path]
    """Folder of the dataset."""
    dataset: str = "auto"
    """Name of its layout; `auto` recognises it."""
    options: tuple[str, ...] = ()
    """Options of the loader as name=value, for example box=labelled or train-only=true."""
    no_decode: bool = False
    """Leave out what needs every image read: broken images, sizes, duplicate contents."""
    json: str | None = None
    """Write the findings to this file; `-` = standard output."""

    def run(self) -> None:
        """Check and print; problems do not change the exit code, an unreadable dataset does."""
        from ccan.data import load_dataset, read_options
        from ccan.data.check import check_dataset

        with Outputs(self.json) as outputs:
            dataset = load_dataset(
                self.dataset, self.data, **read_options(self.dataset, self.options)
            )
            found = check_dataset(dataset, decode=not self.no_decode, progress=True)
            outputs.json(self.json, found.to_dict())
            print(found.text())
