"""`ccan trust`: which maps of a checkpoint can be believed, tested on a dataset."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import numpy as np
from tqdm import tqdm
from tyro.conf import arg

from ccan.cli.indexed import Indexed
from ccan.errors import ConfigError


@dataclass(frozen=True)
class Trust:
    """Test every map: faithfulness, randomisation, and on a synthetic world where it looks; as tables."""

    out: Path
    """Folder for the tables (.md, .csv, .json)."""
    of: Annotated[Indexed, arg(name="")] = field(default_factory=Indexed)
    """Which checkpoint, on which dataset."""
    queries: int = 120
    """Queries to test with, drawn at random, at most as many as there are."""
    tested: int = 40
    """Images of the randomisation test."""
    seed: int = 0
    """Of all that is random."""

    def run(self) -> None:
        """Test, print, write."""
        from ccan.data.synthetic_world import read_labels
        from ccan.explain.trust import Case, assess
        from ccan.files import write_text

        if min(self.queries, self.tested) < 2:
            raise ConfigError(
                f"--queries and --tested must be at least 2, got {self.queries} and {self.tested}"
            )
        predictor, index = self.of.open()
        samples, gallery = index.dataset.query, index.dataset.gallery
        order = np.random.default_rng(self.seed).permutation(len(samples))
        cases = [
            Case(
                predictor.prepare(samples[row].path),
                index.query.select([row]),
                read_labels(samples[row].path),
            )
            for row in sorted(order[: self.queries].tolist())
        ]
        with tqdm(total=len(cases) + 1, unit="query") as bar:

            def progress(done: int, _: int, what: str) -> None:
                bar.set_description(what, refresh=False)
                bar.update(done - bar.n)

            report = assess(
                predictor.model,
                cases,
                index.gallery,
                lambda row: predictor.prepare(gallery[row].path),
                tested=self.tested,
                seed=self.seed,
                progress=progress,
            )
        text = []
        for table in report.tables():
            table.save(self.out)
            text.append(f"## {table.name}\n\n{table.note}\n\n{table.to_markdown()}")
        write_text(self.out / "trust.md", "\n".join(text))
        print("\n".join(text))
        print(f"wrote {len(text)} tables to {self.out}")
