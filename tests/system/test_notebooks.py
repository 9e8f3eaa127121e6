"""Every notebook runs from top to bottom in its `ci` profile, and is committed with its results."""

import tempfile
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.system.commands import ROOT

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def with_profile(path: Path, profile: str) -> nbformat.NotebookNode:
    """A notebook whose `parameters` cell says another profile."""
    notebook = nbformat.read(path, as_version=4)
    cells = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    assert len(cells) == 1, f"{path.name} must have one cell tagged `parameters`"
    assert 'profile = "reader"' in cells[0].source
    cells[0].source = f'profile = "{profile}"'
    return notebook


def test_there_are_notebooks() -> None:
    assert [path.name for path in NOTEBOOKS][:1] == ["00_tour.ipynb"]


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs_from_top_to_bottom(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CCAN_CACHE", str(tmp_path))
    notebook = with_profile(path, "ci")
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": tmp_path}}).execute()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_is_committed_executed_and_small(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error"]
    assert [output for output in outputs if "image/png" in output.get("data", {})]
    assert path.stat().st_size < 1_000_000
    assert all(len(cell.source.splitlines()) <= 25 for cell in code)
    text = path.read_text(encoding="utf-8")
    assert not [place for place in (Path.home(), ROOT, tempfile.gettempdir()) if str(place) in text]
