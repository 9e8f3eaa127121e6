"""How the notebooks of the course read, and that they are committed with outputs that anybody may see."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import Any

import nbformat
import pytest

from ccan.cli import COMMANDS
from ccan.notebooks import tidy
from tests.system.commands import check, commands, mentions
from tests.system.lessons import FOLDER, LESSONS, SOLUTIONS, name_of, printed, tag_of, tagged
from tests.system.test_readme import LINK

COURSE = [
    "00_tour",
    "01_data_and_protocol",
    "02_backbone_and_parts",
    "03_cross_correlated_attention",
    "04_losses",
    "05_training",
    "06_evaluation_and_rankings",
    "07_ablations",
    "08_explanations",
    "09_embeddings",
    "10_error_analysis",
    "11_your_own_data",
]
EXERCISE = re.compile(
    r"^### Exercise (\d) · .+ \((\d+) minutes, (easy|medium|hard)\)$", re.MULTILINE
)
PLACE = re.compile(r"(?<![\w.:/])/(home|root|tmp|Users|work|private|var|opt|mnt|usr)/|[A-Z]:\\\\")
LONGEST_CELL, BYTES = 25, 1_000_000
MOST_CELLS_BETWEEN_PICTURES = 8


def read(path: Path) -> Any:
    """A notebook, valid by its own format."""
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    return notebook


def code_of(notebook: Any) -> list[Any]:
    """Its code cells."""
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def texts_of(notebook: Any) -> list[str]:
    """The text of its other cells."""
    return [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]


def outputs_of(notebook: Any) -> list[Any]:
    """All outputs."""
    return [output for cell in code_of(notebook) for output in cell.outputs]


def body_of(notebook: Any) -> list[Any]:
    """The cells before the exercises."""
    for place, cell in enumerate(notebook.cells):
        if cell.source.startswith("## Exercises"):
            return notebook.cells[:place]
    raise AssertionError("there is no cell that begins with `## Exercises`")


def test_the_course_is_whole_and_every_lesson_has_its_solutions() -> None:
    assert [path.stem for path in LESSONS] == COURSE
    assert [path.stem for path in SOLUTIONS] == COURSE


@pytest.mark.parametrize("path", LESSONS, ids=name_of)
def test_a_lesson_begins_with_what_one_needs_to_know(path: Path) -> None:
    cells = read(path).cells
    assert cells[0].source.startswith(f"# {path.stem[:2]} · ")
    for word in ("**You will be able to**", "**Time:**", "**Hardware:**", "**Paper:**"):
        assert word in cells[0].source, word
    assert [tag_of(cell) for cell in cells[:4]] == ["", "", "parameters", "setup"]
    assert cells[3].source.startswith("# Set-up; you may ignore this cell.")


@pytest.mark.parametrize("path", [*LESSONS, *SOLUTIONS], ids=name_of)
def test_one_cell_holds_the_profile_and_nbmake_sets_it_to_ci(path: Path) -> None:
    cells = [cell for cell in read(path).cells if tag_of(cell) == "parameters"]
    assert len(cells) == 1
    assert re.search(r'^profile = "reader"', cells[0].source)
    assert cells[0].metadata["nbmake"] == {"mock": {"profile": "ci"}}


@pytest.mark.parametrize("path", LESSONS, ids=name_of)
def test_a_lesson_asks_first_and_checks_after(path: Path) -> None:
    body = body_of(read(path))
    text = "\n".join(cell.source for cell in body if cell.cell_type == "markdown")
    asked = re.findall(r"\*\*(?:Predict|Before you look)", text)
    assert len(asked) >= 3
    assert sum("assert" in cell.source for cell in body if cell.cell_type == "code") >= 4
    assert "## Summary" in text


@pytest.mark.parametrize("path", LESSONS, ids=name_of)
def test_text_and_code_are_in_balance(path: Path) -> None:
    body = body_of(read(path))
    kinds = [cell.cell_type for cell in body]
    assert 0.6 <= kinds.count("markdown") / kinds.count("code") <= 1.8
    runs = re.findall(r"c+", "".join(kind[0] for kind in kinds[4:]))
    assert max(map(len, runs)) <= 3, "more than three code cells without a word between them"


@pytest.mark.parametrize("path", LESSONS, ids=name_of)
def test_there_is_a_picture_at_least_every_eight_cells(path: Path) -> None:
    without = 0
    for cell in body_of(read(path)):
        pictures = [o for o in cell.get("outputs", []) if "image/png" in o.get("data", {})]
        without = 0 if pictures else without + 1
        assert without <= MOST_CELLS_BETWEEN_PICTURES, cell.source[:200]


@pytest.mark.parametrize("path", LESSONS, ids=name_of)
def test_exercises_have_a_time_a_difficulty_a_check_and_a_solution(path: Path) -> None:
    notebook = read(path)
    told = EXERCISE.findall("\n".join(texts_of(notebook)))
    numbers = [number for number, _, _ in told]
    assert numbers == [str(n + 1) for n in range(len(numbers))] and 3 <= len(numbers) <= 5
    assert {"easy", "hard"} <= {difficulty for _, _, difficulty in told}
    solutions = read(FOLDER / "solutions" / path.name)
    assert list(tagged(notebook, "exercise")) == list(tagged(notebook, "check")) == numbers
    assert list(tagged(solutions, "solution")) == numbers
    assert re.findall(r"^### Exercise (\d) · ", "\n".join(texts_of(solutions)), re.M) == numbers
    for number, cell in tagged(notebook, "check").items():
        assert cell.source.startswith(f'with exercise("Exercise {number}"):')
        assert printed(cell).startswith(f"○ Exercise {number} is open: ")  # as committed: unsolved


@pytest.mark.parametrize("path", [*LESSONS, *SOLUTIONS], ids=name_of)
def test_it_is_committed_executed_small_and_tidy(path: Path) -> None:
    notebook = read(path)
    code = code_of(notebook)
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert all(len(cell.source.splitlines()) <= LONGEST_CELL for cell in code)
    assert path.stat().st_size <= BYTES
    assert set(notebook.metadata) == {"kernelspec", "language_info"}  # no widgets, no machine
    before = nbformat.writes(notebook)
    assert nbformat.writes(tidy(notebook)) == before


@pytest.mark.parametrize("path", [*LESSONS, *SOLUTIONS], ids=name_of)
def test_outputs_are_static_pictures_and_plain_text(path: Path) -> None:
    for output in outputs_of(read(path)):
        assert output.output_type in ("stream", "display_data", "execute_result")
        kinds = {"text/plain"} if output.output_type == "stream" else set(output.data)
        assert kinds <= {"image/png", "image/svg+xml", "text/plain", "text/markdown"}, kinds
        if output.output_type == "stream":
            assert output.name == "stdout" and "\r" not in output.text, output.text[:200]


@pytest.mark.parametrize("path", [*LESSONS, *SOLUTIONS], ids=name_of)
def test_no_output_tells_where_it_was_made(path: Path) -> None:
    for output in outputs_of(read(path)):
        texts = [output.get("text", ""), *output.get("data", {}).values()]
        for text in texts if "image/png" not in output.get("data", {}) else []:
            assert not PLACE.search(text), text[:300]
            assert tempfile.gettempdir() not in text and str(Path.home()) not in text


@pytest.mark.parametrize("path", [*LESSONS, *SOLUTIONS], ids=name_of)
def test_its_links_lead_to_files_and_its_commands_parse(path: Path) -> None:
    text = "\n\n".join(texts_of(read(path)))
    assert not [link for link in LINK.findall(text) if not (path.parent / link).exists()]
    for command in commands(text):
        try:
            check(command)
        except SystemExit:
            pytest.fail(f"does not parse: {' '.join(command)}")
    for program, *rest in mentions(text):
        if program == "make":
            check(["make", *rest])
        else:
            assert rest[0] in COMMANDS, f"it names `ccan {rest[0]}`"


@pytest.mark.parametrize("top", ["home", "root", "tmp", "Users"])
def test_places_are_recognised(top: str) -> None:
    for text in (f"/{top}/somebody", f"see /{top}/x/world", f"(/{top}/.cache)", rf"C:\\{top}\\x"):
        assert PLACE.search(text), text


@pytest.mark.parametrize("text", ["A / MN", "runs/tmp/x", "http://host/home/", "1/8"])
def test_what_is_no_place_is_left_alone(text: str) -> None:
    assert not PLACE.search(text)
