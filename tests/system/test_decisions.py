"""Every decision is told in docs/decisions.md with a setting and a place that exist, and is cited in the code."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from ccan import config

ROOT = Path(__file__).parents[2]
NUMBERS = range(1, 20)
TOLD = (ROOT / "docs" / "decisions.md").read_text(encoding="utf-8")
CITATION = re.compile(r"\bDecisions? (D\d+(?:(?:, | and )D\d+)*)")


def sections() -> dict[int, str]:
    """Number of each decision's heading → its text."""
    parts = re.split(r"^## D(\d+) — .+$", TOLD, flags=re.MULTILINE)[1:]
    return {int(number): text for number, text in zip(parts[::2], parts[1::2], strict=True)}


def citations() -> dict[int, set[Path]]:
    """Decision → the files of the package that cite it."""
    found: dict[int, set[Path]] = {}
    for path in (ROOT / "ccan").rglob("*.py"):
        text = re.sub(r"\s*\n[\s#]*", " ", path.read_text(encoding="utf-8"))
        for cited in CITATION.findall(text):
            for number in re.findall(r"D(\d+)", cited):
                found.setdefault(int(number), set()).add(path.relative_to(ROOT))
    return found


def test_each_decision_is_told_once_and_in_order():
    headings = re.findall(r"^## D(\d+) ", TOLD, flags=re.MULTILINE)
    assert headings == [str(number) for number in NUMBERS]


@pytest.mark.parametrize("number", NUMBERS)
def test_each_decision_says_what_is_open_what_we_do_and_where(number: int):
    text = sections()[number]
    labels = re.findall(r"^- \*\*([\w ]+)", text, flags=re.MULTILINE)
    assert labels == ["The paper", "We", "Setting", "Code"]
    setting, code = text.split("- **Setting:**")[1].split("- **Code:**")
    named = re.findall(r"`(\w+)\.(\w+)`", setting)
    assert named or setting.strip().startswith("none")
    for group, field in named:
        assert field in {one.name for one in dataclasses.fields(getattr(config, group))}
    places = re.findall(r"`(ccan/[\w/]+\.py)`", code)
    assert places
    for place in places:
        assert Path(place) in citations()[number], f"{place} does not cite Decision D{number}"


def test_no_code_cites_a_decision_that_is_not_told():
    assert set(citations()) == set(NUMBERS)


def test_citations_are_read_as_they_are_written():
    assert CITATION.findall("Decision D6), Decisions D8, D9 and D11.") == ["D6", "D8, D9 and D11"]
