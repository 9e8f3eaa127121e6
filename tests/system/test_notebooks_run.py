"""Every notebook runs in its `ci` profile, by nbmake; exercises are open, and their solutions pass."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat
import pytest

from ccan.cli import main
from ccan.notebooks import tidy
from tests.system.lessons import (
    LESSONS,
    SOLUTIONS,
    name_of,
    printed,
    run,
    tag_of,
    tagged,
    with_solutions,
)

pytestmark = pytest.mark.slow


def complaints(done: Any) -> list[str]:
    """What an executed notebook wrote to stderr that is no progress bar: warnings, which nobody should have to read."""
    return [text for cell in tidy(done).cells if (text := printed(cell, "stderr"))]


@pytest.mark.parametrize("path", LESSONS, ids=name_of)
def test_a_lesson_runs_and_its_exercises_are_open_until_they_are_solved(
    path: Path, tmp_path: Path
) -> None:
    done = run(with_solutions(path), tmp_path)
    before, after = tagged(done, "check"), tagged(done, "again")
    assert before.keys() == after.keys() and len(before) >= 3
    for number, cell in before.items():
        assert f"○ Exercise {number} is open: " in printed(cell), printed(cell)
        assert "✓" not in printed(cell)
        assert f"✓ Exercise {number}: solved" in printed(after[number]), printed(after[number])
    assert not complaints(done)


@pytest.mark.parametrize("path", SOLUTIONS, ids=name_of)
def test_solutions_run_by_themselves(path: Path, tmp_path: Path) -> None:
    assert not complaints(run(nbformat.read(path, as_version=4), tmp_path))


def test_a_report_is_an_executed_notebook(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["notebook", "0", "--profile", "ci"]) == 0
    out = Path("runs/notebooks/00_tour.ipynb")
    assert str(out) in capsys.readouterr().out
    done = nbformat.read(out, as_version=4)
    injected = [cell for cell in done.cells if tag_of(cell) == "injected-parameters"]
    assert [cell.source.strip() for cell in injected] == ['# Parameters\nprofile = "ci"']
    queries = [printed(cell) for cell in done.cells if "gallery images" in printed(cell)]
    assert queries[0].startswith("64 queries")  # the tiny world's, not the bundled one's 360
