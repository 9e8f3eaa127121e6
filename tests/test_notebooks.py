"""Notebooks from outside: found by number or name; made fit to be committed."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from PIL import Image

from ccan.errors import ConfigError
from ccan.notebooks import find_notebook, tidy


def encoded(picture: Image.Image) -> str:
    """A picture as a notebook stores it."""
    file = io.BytesIO()
    picture.save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


@pytest.mark.parametrize("name", ["7", "07", "07_second", "07_sec"])
def test_a_notebook_is_found_by_number_and_name(name: str, tmp_path: Path) -> None:
    for stem in ("01_first", "07_second", "17_third"):
        (tmp_path / f"{stem}.ipynb").touch()
    assert find_notebook(name, tmp_path).stem == "07_second"


@pytest.mark.parametrize("name", ["", "2", "0", "tour"])
def test_a_name_of_none_or_several_is_refused_with_what_there_is(name: str, tmp_path: Path) -> None:
    for stem in ("01_first", "07_second"):
        (tmp_path / f"{stem}.ipynb").touch()
    with pytest.raises(ConfigError, match="01_first, 07_second"):
        find_notebook(name, tmp_path)


def test_without_a_checkout_one_is_told_where_notebooks_come_from(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="they come with the repository"):
        find_notebook("07", tmp_path / "notebooks")


def test_what_should_not_be_committed_goes_and_the_rest_stays() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8)
    picture = encoded(Image.fromarray(np.repeat(np.repeat(noise, 4, 0), 4, 1)))
    cell = new_code_cell("x", execution_count=7)
    cell.metadata |= {"tags": ["setup"], "execution": {"iopub.execute_input": "2020"}}
    cell.outputs = [
        new_output("stream", name="stderr", text="world: 10%|█ | 1/10\r"),
        new_output("stream", name="stderr", text="\n"),
        new_output("stream", name="stdout", text="kept"),
        new_output("stream", name="stderr", text="a warning"),
        new_output("execute_result", data={"text/plain": "3"}, execution_count=7),
        new_output("display_data", data={"image/png": picture, "text/plain": "<Figure>"}),
    ]
    notebook = new_notebook(cells=[new_markdown_cell("# a"), cell])
    notebook.metadata = {"widgets": {}, "papermill": {"start": "2020"}}
    done = tidy(notebook)
    assert set(done.metadata) == {"kernelspec", "language_info"}
    assert cell.metadata == {"tags": ["setup"]} and cell.execution_count == 1
    texts = [output.get("text", "") for output in cell.outputs]
    assert texts == ["kept", "a warning", "", ""]  # a warning is not hidden
    assert cell.outputs[2].execution_count == 1
    data = cell.outputs[3].data
    assert set(data) == {"image/png"} and len(data["image/png"]) < len(picture)
    small = Image.open(io.BytesIO(base64.b64decode(data["image/png"])))
    assert small.mode == "P" and small.size == (240, 160)
    again = data["image/png"]
    assert tidy(done).cells[1].outputs[3].data["image/png"] == again
