"""What our pages say of the committed ablations is what was measured."""

from __future__ import annotations

import csv
import io

import pytest

from ccan.experiments.ablations import ABLATIONS, AblationName
from ccan.experiments.report import Row, ablation_table, mean_of, spread_of
from ccan.experiments.sweep import Sweep, read_sweep
from tests.system.commands import ROOT

FOLDER = ROOT / "benchmarks" / "results" / "ablations"


@pytest.fixture(scope="module")
def sweep() -> Sweep:
    return read_sweep([FOLDER])


def line_of(row: Row) -> str:
    """A row as LOG.md prints it."""

    def figure(values: tuple[float, ...]) -> str:
        spread = spread_of(values)
        return f"{mean_of(values):.1f}" + ("" if spread is None else f" ± {spread:.1f}")

    change = "–"
    if row.against is not None:
        found = row.against.mAP.difference
        value, low, high = (f"{100 * one:+.1f}" for one in (found.value, found.low, found.high))
        change = f"{value} ({low} … {high})"
    return (
        f"| {row.label} | {len(row.seeds)} | {figure(row.mAP)} | {figure(row.rank1)} | {change} |"
    )


@pytest.mark.parametrize("name", ABLATIONS)
def test_the_log_says_what_came_out(name: AblationName, sweep: Sweep):
    log = (ROOT / "LOG.md").read_text(encoding="utf-8")
    for row in ablation_table(sweep, name).rows:
        assert line_of(row) in log


@pytest.mark.parametrize("name", ABLATIONS)
def test_the_committed_tables_are_made_of_the_committed_cells(name: AblationName, sweep: Sweep):
    table = ablation_table(sweep, name)
    assert (FOLDER / "report" / f"{name}.md").read_text(encoding="utf-8") == table.to_markdown()
    committed = (FOLDER / "report" / f"{name}.csv").read_text(encoding="utf-8")
    lines, expected = (list(csv.reader(io.StringIO(one))) for one in (committed, table.to_csv()))
    assert [[*map(number, line)] for line in lines] == [
        [*map(in_short, map(number, line))] for line in expected
    ]


def number(cell: str) -> object:
    """A number of a table, or its text."""
    try:
        return float(cell)
    except ValueError:
        return cell


def in_short(value: object) -> object:
    """A number without the digits that another processor rounds otherwise."""
    return pytest.approx(value, rel=1e-9, abs=1e-12) if isinstance(value, float) else value


def test_the_page_on_reproducing_says_the_same(sweep: Sweep):
    page = (ROOT / "docs" / "reproduce.md").read_text(encoding="utf-8")
    for row in ablation_table(sweep, "table6").rows:
        assert line_of(row) in page


def test_table6_and_the_decisions_have_three_seeds_and_the_others_one(sweep: Sweep):
    seeds: dict[AblationName, int] = {
        "table6": 3, "decisions": 3, "attention": 3, "parts": 1, "embedding-dim": 1
    }  # fmt: skip
    for name, least in seeds.items():
        assert all(len(row.seeds) >= least for row in ablation_table(sweep, name).rows)
    assert len(sweep.results) == 43


def test_every_cell_was_trained_as_long_as_its_recipe_says(sweep: Sweep):
    for (cell, seed), result in sweep.results.items():
        assert result["epochs"] == sweep.base.train.epochs == 16
        lines = (sweep.folders[cell, seed] / "metrics.jsonl").read_text().splitlines()
        assert len(lines) == 16
