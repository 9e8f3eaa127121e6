"""`ccan explain`: chosen queries from all sides, as a folder and one page."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from tyro.conf import arg

from ccan.cli.indexed import Indexed


@dataclass(frozen=True)
class Explain:
    """Explain rankings: where the network looked, why an image is ahead, what would change it; as one page."""

    out: Path
    """Folder for the page, the figures (.png, .svg) and the numbers (.npz, .csv)."""
    query: tuple[str, ...] = ()
    """File names of queries."""
    hardest: int = 4
    """So many of the hardest queries besides."""
    of: Annotated[Indexed, arg(name="")] = field(default_factory=Indexed)
    """Which checkpoint, on which dataset."""
    top: int = 8
    """Images of each ranking strip."""
    interactive: bool = False
    """Put in figures that answer to the pointer (plotly.js, 5 MB)."""
    blur_faces: bool = False
    """Blur the head strip of every picture."""

    def run(self) -> None:
        """Study, write, say where."""
        from ccan.reports.whole import ReportOptions, choose_queries, write_explanations

        predictor, index = self.of.open()
        rows = choose_queries(index, self.query, self.hardest)
        options = ReportOptions(
            self.out, self.top, self.interactive, self.blur_faces, self.of.checkpoint
        )
        path = write_explanations(predictor, index, rows, options)
        print(f"wrote {path} ({path.stat().st_size / 2**20:.1f} MiB)")
