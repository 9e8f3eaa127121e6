"""What the pages say of the bundled model's explanations is what was measured, and the sample report is whole."""

from __future__ import annotations

import json
import re

from ccan.tables import Table
from tests.system.commands import ROOT

TRUST = ROOT / "docs" / "trust"


def table(name: str) -> Table:
    saved = json.loads((TRUST / f"{name}.json").read_text())
    columns = {
        key: [float("nan") if value is None else value for value in values]
        for key, values in saved["columns"].items()
    }
    return Table(saved["name"], columns, saved["note"])


def test_the_page_is_made_of_the_tables():
    page = (TRUST / "trust.md").read_text()
    for name in ("faithfulness", "randomisation", "grounding"):
        found = table(name)
        assert f"## {name}\n\n{found.note}\n\n{found.to_markdown()}" in page
        assert (TRUST / f"{name}.csv").read_text() == found.to_csv()


def test_at_least_a_hundred_queries_and_both_rivals():
    found = table("faithfulness")
    queries = re.search(r"(\d+) queries of", found.note)
    assert queries is not None and int(queries[1]) >= 100
    assert {"random", "centre"} <= set(found.columns["map"])


def test_what_the_guide_says_follows_from_the_tables():
    guide = (ROOT / "docs" / "explanations.md").read_text()
    found = table("faithfulness")
    verdicts = dict(
        zip(found.columns["map"].tolist(), found.columns["verdict"].tolist(), strict=True)
    )
    scores = dict(zip(found.columns["map"].tolist(), found.columns["score"].tolist(), strict=True))
    assert not [name for name, verdict in verdicts.items() if verdict.startswith("faithful")]
    assert "**No map beats the centre prior**" in guide
    misleading = {name for name, verdict in verdicts.items() if verdict.startswith("misleading")}
    assert misleading == {"SS1 gathered", "CC2 gathered"}
    for name, score in re.findall(r"`([^`]+)` \((-?[\d.]+)\)", guide):
        assert f"{scores[name]:.3f}" == score, name
    best = max(scores, key=lambda name: -9 if name in ("centre", "random") else scores[name])
    assert f"`{best}` (" in guide


def test_the_sample_report_needs_nothing_else_and_is_small():
    sample = ROOT / "docs" / "sample_report.html"
    text = sample.read_text(encoding="utf-8")
    assert sample.stat().st_size <= 2 * 2**20
    assert not re.search(r'(?:src|href)="(?!data:|#)', text)
    assert "Where it looked" in text and "Why this order" in text and "Failures" in text
