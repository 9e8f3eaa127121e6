"""`ccan diagnose`: what goes wrong in a dataset, as tables and one page."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

from tyro.conf import arg

from ccan.cli.indexed import Indexed


@dataclass(frozen=True)
class Diagnose:
    """Diagnose a model: failures by kind, cameras, confusers, label suspects, thresholds, a map; as one page."""

    out: Path
    """Folder for the page, the figures (.png, .svg) and the tables (.csv, .json)."""
    of: Annotated[Indexed, arg(name="")] = field(default_factory=Indexed)
    """Which checkpoint, on which dataset."""
    compare: str | None = None
    """Another checkpoint, to be compared with query by query."""
    cases: int = 3
    """So many of the hardest failed queries are studied in full."""
    by: tuple[str, ...] | None = None
    """Columns of the images' metadata to slice by; by default all."""
    top: int = 8
    """Images of each ranking strip."""
    map: bool = True
    """Make t-SNE maps of the queries."""
    interactive: bool = False
    """Put in figures that answer to the pointer (plotly.js, 5 MB)."""
    blur_faces: bool = False
    """Blur the head strip of every picture."""

    def run(self) -> None:
        """Diagnose, write, print the summary."""
        from ccan.diagnosis import compare_checkpoints
        from ccan.evaluation import evaluate_features
        from ccan.reports.whole import ReportOptions, write_diagnosis

        predictor, index = self.of.open()
        comparison = None
        if self.compare is not None:
            _, other = replace(self.of, checkpoint=self.compare).open()
            comparison = compare_checkpoints(
                *(evaluate_features(one.query, one.gallery) for one in (index, other))
            )
        options = ReportOptions(
            self.out, self.top, self.interactive, self.blur_faces, self.of.checkpoint
        )
        path, found = write_diagnosis(
            predictor,
            index,
            options,
            cases=self.cases,
            by=self.by,
            comparison=comparison,
            with_map=self.map,
        )
        print(found.summary())
        print(f"wrote {path} ({path.stat().st_size / 2**20:.1f} MiB)")
