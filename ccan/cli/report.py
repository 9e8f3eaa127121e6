"""`ccan report`: the tables of finished ablations."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from ccan.errors import ConfigError
from ccan.experiments.ablations import ABLATIONS, AblationName


@dataclass(frozen=True)
class Report:
    """Tables of what `ccan ablate` found: mean and spread, paired differences, cost, the paper's figure."""

    runs: Positional[tuple[Path, ...]]
    """Folders of sweeps that were begun alike; their cells are taken together."""
    ablation: AblationName | None = None
    """Only this one; by default every ablation with at least two finished rows."""
    out: Path | None = None
    """Folder for the tables (.md, .csv) and charts (.png); by default `report` in the first sweep's folder."""

    def run(self) -> None:
        """Write the files, print the tables."""
        from ccan.charts import save_ablation_chart
        from ccan.experiments.report import ablation_table
        from ccan.experiments.sweep import read_sweep
        from ccan.files import write_text

        sweep = read_sweep(self.runs)
        names: list[AblationName] = [self.ablation] if self.ablation else list(ABLATIONS)
        tables = [ablation_table(sweep, name) for name in names]
        tables = [table for table in tables if table.finished >= 2]
        if not tables:
            raise ConfigError(
                f"{', '.join(map(str, self.runs))}: expected at least two finished rows of "
                f"{self.ablation or 'an ablation'}; run `ccan ablate` further"
            )
        folder = self.runs[0] / "report" if self.out is None else self.out
        for table in tables:
            markdown = table.to_markdown()
            write_text(folder / f"{table.name}.md", markdown)
            write_text(folder / f"{table.name}.csv", table.to_csv())
            save_ablation_chart(table, folder / f"{table.name}.png")
            print(markdown)
        print(f"wrote {len(tables)} tables with their charts to {folder}")
