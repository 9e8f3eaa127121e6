"""The notebooks of the course from outside: find one, run it over parameters (papermill), make it fit to commit.

A notebook has one cell tagged `parameters`; papermill puts the given values into a cell behind it.
"""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from ccan.errors import ConfigError, NotebookError
from ccan.files import atomic_path

FOLDER = Path(__file__).parents[1] / "notebooks"
"""Where the notebooks of a checkout lie."""


def find_notebook(name: str, folder: Path = FOLDER) -> Path:
    """A notebook by its number (`7`, `07`), its name (`07_ablations`) or its path. Raises: ConfigError."""
    if name.endswith(".ipynb"):
        if not Path(name).is_file():
            raise ConfigError(f"expected a notebook, got {name}, where no file is")
        return Path(name)
    if not folder.is_dir():
        raise ConfigError(
            f"expected the course's notebooks in {folder}, where no folder is; they come with the repository: "
            "run this in a checkout, or name a notebook by its path"
        )
    begin = f"{int(name):02d}_" if name.isdecimal() else name
    found = sorted(path for path in folder.glob("*.ipynb") if path.stem.startswith(begin))
    if len(found) != 1 or not name:
        there = ", ".join(sorted(path.stem for path in folder.glob("*.ipynb"))) or "none"
        raise ConfigError(
            f"expected one notebook, {name!r} names {len(found)}; in {folder} there are: {there}"
        )
    return found[0]


def run_notebook(
    path: Path, out: Path, parameters: Mapping[str, Any], *, progress: bool = True
) -> None:
    """Execute a notebook with these parameters into another file, which keeps every output up to a failure.

    Its kernel runs in the current folder, so that relative paths among the parameters mean what they say.

    Args:
        path: the notebook; it is left as it is.
        out: the executed notebook, written as a whole when it ends.
        parameters: names that its `parameters` cell sets → their values.
        progress: whether to show a bar of cells.

    Raises:
        ConfigError: for a parameter that the notebook does not have, one without a kernel's name, or if papermill is
            not installed.
        NotebookError: if a cell fails; ``out`` then holds the notebook up to there, with the error.
    """
    try:
        import papermill
        from papermill.exceptions import PapermillExecutionError
    except ImportError as error:
        raise ConfigError(
            "running a notebook needs papermill; pip install 'ccan[notebooks]'"
        ) from error
    try:
        known = papermill.inspect_notebook(str(path))
    except ValueError as error:
        raise ConfigError(
            f"{path.name} names no kernel ({error}); save it once in JupyterLab"
        ) from error
    unknown = sorted(set(parameters) - set(known))
    if unknown:
        raise ConfigError(
            f"{path.name} has no parameter {', '.join(unknown)}; it has {', '.join(known) or 'none'}"
        )
    failed: PapermillExecutionError | None = None
    with atomic_path(out) as temporary:
        work = temporary.with_suffix(".ipynb")
        try:
            papermill.execute_notebook(
                str(path),
                str(work),
                dict(parameters),
                kernel_name="python3",
                progress_bar=progress,
                log_output=False,
            )
        except PapermillExecutionError as error:
            failed = error
        finally:
            if work.exists():
                work.replace(temporary)
    if failed is not None:
        raise NotebookError(
            f"{path.name}, cell {failed.cell_index}: {failed.ename}: {failed.evalue}; "
            f"{out} holds everything up to there"
        ) from failed


def tidy(notebook: Any) -> Any:
    """The notebook with nothing in it that should not be committed; changed in place and returned.

    Bars and other lines that overwrite themselves go, and so do timestamps, widgets' state and the traces of papermill;
    pictures are stored with at most 256 colours where that is smaller; cells are counted from 1.
    """
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    count = 0
    for cell in notebook.cells:
        for key in ("execution", "papermill", "ExecuteTime", "collapsed", "scrolled"):
            cell.metadata.pop(key, None)
        if not cell.metadata.get("tags", True):
            del cell.metadata["tags"]  # papermill gives every cell a list of them
        if cell.cell_type != "code":
            continue
        count += 1
        cell.execution_count = count
        cell.outputs = [output for output in cell.outputs if not _is_bar(output)]
        for output in cell.outputs:
            if output.output_type == "execute_result":
                output.execution_count = count
            if "image/png" in output.get("data", {}):
                output.data["image/png"] = _smaller(output.data["image/png"])
                output.data.pop("text/plain", None)
    return notebook


def _is_bar(output: Any) -> bool:
    """Whether an output is a progress bar: text on stderr that overwrites itself."""
    return (
        output.output_type == "stream"
        and output.name == "stderr"
        and (not output.text.strip() or re.search(r"\r|it/s|\d%\|", output.text) is not None)
    )


def _smaller(encoded: str) -> str:
    """A PNG in base64, with a palette if that saves room; one that has a palette stays as it is."""
    data = base64.b64decode(encoded)
    picture = Image.open(io.BytesIO(data))
    if picture.mode == "P":
        return encoded
    file = io.BytesIO()
    picture.convert("RGB").quantize(
        256, Image.Quantize.MEDIANCUT, dither=Image.Dither.FLOYDSTEINBERG
    ).save(file, "PNG", optimize=True)
    return encoded if file.tell() >= len(data) else base64.b64encode(file.getvalue()).decode()
