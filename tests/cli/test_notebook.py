"""`ccan notebook`: a notebook over parameters becomes a report; what does not fit is said before anything runs."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from ccan.cli import main

SOURCE = ("count = 2\nname = 'a'", "print(count * 3, name)\nassert count < 100, 'too many'")


@pytest.fixture
def notebook(tmp_path: Path) -> Path:
    """Two cells: parameters, and one that prints what they are and fails for a large count."""
    parameters, work = (new_code_cell(source) for source in SOURCE)
    parameters.metadata["tags"] = ["parameters"]
    path = tmp_path / "05_small.ipynb"
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(new_notebook(cells=[parameters, work], metadata=kernel), path)
    return path


def printed(path: Path) -> list[str]:
    """What the cells of an executed notebook printed."""
    outputs = [
        output for cell in nbformat.read(path, 4).cells for output in cell.get("outputs", [])
    ]
    return [output.text.strip() for output in outputs if output.output_type == "stream"]


@pytest.mark.slow
def test_parameters_reach_the_cells_and_the_notebook_stays(
    notebook: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before, out = notebook.read_bytes(), tmp_path / "reports" / "done.ipynb"
    words = ["notebook", str(notebook), "--set", "count=7", "name=Zoë", "--out", str(out)]
    assert main(words) == 0
    assert printed(out) == ["21 Zoë"]
    assert notebook.read_bytes() == before
    assert str(out) in capsys.readouterr().out


@pytest.mark.slow
def test_a_failing_cell_is_named_and_what_ran_is_kept(
    notebook: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "done.ipynb"
    assert main(["notebook", str(notebook), "--set", "count=100", "--out", str(out)]) == 2
    assert "AssertionError: too many" in capsys.readouterr().err
    assert printed(out)[-1] == "300 a"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["05_small.ipynb", "done.ipynb"]


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["99"], "expected one notebook, '99' names 0"),
        (["no/such.ipynb"], "no file is"),
        (["{notebook}", "--profile", "ci"], "has no parameter profile; it has count, name"),
        (["{notebook}", "--set", "count"], "expected --set NAME=VALUE, got 'count'"),
        (["{notebook}", "--out", "{notebook}"], "is the notebook itself"),
        (["{notebook}", "--out", "report.html"], "expected --out to end in .ipynb"),
    ],
)
def test_what_does_not_fit_is_said(
    words: list[str],
    complaint: str,
    notebook: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(notebook.parent)
    before = notebook.read_bytes()
    assert main(["notebook", *(word.format(notebook=notebook) for word in words)]) == 2
    assert complaint in capsys.readouterr().err
    assert notebook.read_bytes() == before
    assert [path.name for path in notebook.parent.iterdir()] == [notebook.name]
