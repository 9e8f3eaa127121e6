"""The notebooks of the course, as tests look at them."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import nbformat
from nbmake.nb_run import NotebookRun

from tests.system.commands import ROOT

FOLDER = ROOT / "notebooks"
LESSONS = sorted(FOLDER.glob("*.ipynb"))
SOLUTIONS = sorted((FOLDER / "solutions").glob("*.ipynb"))


def name_of(path: Path) -> str:
    """Name of a notebook in a test's name."""
    return path.relative_to(FOLDER).with_suffix("").as_posix()


def tag_of(cell: Any) -> str:
    """The one tag of a cell; "" without any."""
    tags = cell.metadata.get("tags", [])
    assert len(tags) <= 1, f"a cell has one tag at most, got {tags}"
    return tags[0] if tags else ""


def tagged(notebook: Any, kind: str) -> dict[str, Any]:
    """Cells whose tag is KIND-NUMBER, by their number."""
    found: dict[str, Any] = {}
    for cell in notebook.cells:
        name, sign, number = tag_of(cell).partition("-")
        if sign and name == kind:
            assert number not in found, f"{kind}-{number} stands twice"
            found[number] = cell
    return found


def with_solutions(lesson: Path) -> Any:
    """A lesson in which each check is followed by the solution and the check again."""
    notebook = nbformat.read(lesson, as_version=4)
    solutions = tagged(nbformat.read(FOLDER / "solutions" / lesson.name, as_version=4), "solution")
    cells = []
    for cell in notebook.cells:
        cells.append(cell)
        name, _, number = tag_of(cell).partition("-")
        if name == "check":
            solution, again = deepcopy(solutions[number]), deepcopy(cell)
            solution.id, again.id = f"solution-{number}", f"again-{number}"
            again.metadata["tags"] = [f"again-{number}"]
            cells += [solution, again]
    notebook.cells = cells
    return notebook


def run(notebook: Any, folder: Path) -> Any:
    """Execute a notebook as `pytest --nbmake` does, in its profile `ci`; the executed notebook."""
    path = folder / "notebook.ipynb"
    nbformat.write(notebook, path)
    result = NotebookRun(path, default_timeout=240).execute()
    assert result.error is None, result.error and result.error.trace
    return result.nb


def printed(cell: Any, stream: str = "stdout") -> str:
    """What a cell has written to a stream."""
    outputs = [output for output in cell.get("outputs", []) if output.output_type == "stream"]
    return "".join(output.text for output in outputs if output.name == stream)
