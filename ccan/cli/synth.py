"""`ccan synth`: a synthetic world of pedestrians, or a contact sheet of one."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from tyro.conf import arg

from ccan.cli.output import Outputs, folder_only
from ccan.data.synthetic.world import WorldConfig
from ccan.data.synthetic.write import SPLITS, Split
from ccan.errors import ConfigError
from ccan.experiments.recipes import recipe
from ccan.files import atomic_path


@dataclass(frozen=True)
class Synth:
    """Render a synthetic world of pedestrians in Market-1501's layout."""

    out: Path | None = None
    """Folder of the world; with --sheet the picture's file (default: contact_sheet.png; `-` = standard output)."""
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
        if self.sheet:
            self._draw_sheet(self.out or Path("contact_sheet.png"))
            return
        from ccan.data.synthetic import write_world

        if self.out is None:
            raise ConfigError(
                "a world needs a folder; pass --out DIR (or --sheet for a picture only)"
            )
        out = folder_only(self.out, "a world")
        folder = write_world(self.world, out, workers=self.workers, splits=self.splits)
        if "train" not in self.splits:
            print(f"world ready at {folder}")
            return
        # The demo recipe's batches take more people than a small world has.
        people, batch = len(self.world.train_identities), recipe("demo", "synthetic").data
        name = "demo" if people >= batch.identities_per_batch else "smoke"
        print(f"world ready at {folder}; train on it with:")
        data = shlex.quote(str(folder))
        print(f"  ccan train --recipe {name} --dataset synthetic --data {data} --out runs/{name}")

    def _draw_sheet(self, target: Path) -> None:
        from PIL import Image

        from ccan.data.synthetic import contact_sheet

        with Outputs(target) as outputs, outputs.file(target, ".png") as out:
            kind = Image.registered_extensions().get(out.suffix.lower())
            if kind not in Image.SAVE:
                raise ConfigError(
                    f"a sheet is a picture such as contact_sheet.png, got {out.name!r}"
                )
            with atomic_path(out) as temporary:
                contact_sheet(self.world).save(temporary, format=kind)
            print(f"wrote {target}")
