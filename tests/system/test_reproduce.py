"""The page on reproducing says the paper's figures, and the costs that are counted."""

from __future__ import annotations

import pytest

from ccan.experiments.ablations import ABLATIONS, Variant
from ccan.experiments.cell import cost_of
from ccan.experiments.recipes import paper
from tests.system.commands import ROOT

PAGE = (ROOT / "docs" / "reproduce.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("row", ABLATIONS["table6"].variants, ids=lambda row: row.label)
def test_table6_is_the_papers_with_counted_costs(row: Variant):
    assert row.paper is not None
    whole = cost_of(paper().model, 751).gflop
    share = cost_of(row.change(paper()).model, 751).gflop / whole
    mAP, rank1 = row.paper
    assert f"\n| {row.label} | {mAP} | {rank1} | {share:.2f} |\n" in PAGE


# Section 4: mAP and the ranks that the paper prints, single query.
@pytest.mark.parametrize(
    "line",
    [
        "| CCAN | 87.0 | 94.6 | 200 | 12,936 | 11 min |",
        "| CCAN | 76.8 | 87.2 | 200 | 16,522 | 14 min |",
        "| labelled | 72.9 | 75.2 | 200 | 7,368 | 6 min |",
        "| detected | 70.7 | 73.0 | 200 | 7,365 | 6 min |",
        "| CCAN | 53.6 | 76.3 | 86.9 | 90.2 | 200 | 32,621 | 27 min |",
    ],
)
def test_the_papers_figures_stand_there(line: str):
    assert f"\n{line}\n" in PAGE
