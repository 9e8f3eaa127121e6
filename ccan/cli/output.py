"""Where results go: to a file, or with `-` to standard output, which then holds nothing else."""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from ccan.errors import ConfigError
from ccan.files import write_text

STANDARD_OUTPUT = "-"


class Outputs:
    """The results of one command. While it is open and one of them is `-`, sentences go to standard error.

    Args:
        targets: where each result goes: a path, `-`, or None = nowhere.

    Raises: ConfigError if two results would share standard output.
    """

    def __init__(self, *targets: str | Path | None) -> None:
        dashes = [target for target in targets if str(target) == STANDARD_OUTPUT]
        if len(dashes) > 1:
            raise ConfigError(
                f"{len(dashes)} results are to go to standard output (-), which holds one; "
                "name a file for the others"
            )
        self._stack = contextlib.ExitStack()
        self._taken = bool(dashes)
        self._standard: TextIO = sys.stdout

    def __enter__(self) -> Outputs:
        self._standard = sys.stdout
        if self._taken:
            self._stack.enter_context(contextlib.redirect_stdout(sys.stderr))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def json(self, target: str | Path | None, values: dict[str, Any]) -> None:
        """Plain values as indented JSON text."""
        text = json.dumps(values, indent=2) + "\n"
        if target is not None and str(target) == STANDARD_OUTPUT:
            self._standard.write(text)
        elif target is not None:
            write_text(target, text)

    @contextlib.contextmanager
    def file(self, target: str | Path, suffix: str) -> Iterator[Path]:
        """A path to write one result to; for `-` a temporary one of that suffix, whose bytes are then put out."""
        if str(target) != STANDARD_OUTPUT:
            yield Path(target)
            return
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"output{suffix}"
            yield path
            self._standard.flush()
            with path.open("rb") as written:
                shutil.copyfileobj(written, self._standard.buffer)
            self._standard.buffer.flush()


def columns(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A table for a terminal: numbers to the right, texts to the left, four decimals."""
    texts = [
        [f"{value:.4f}" if isinstance(value, float) else str(value) for value in row]
        for row in rows
    ]
    widths = [max(map(len, cells)) for cells in zip(header, *texts, strict=True)]
    numeric = [
        bool(rows) and isinstance(value, int | float) for value in (rows[0] if rows else header)
    ]

    def line(cells: Sequence[str]) -> str:
        padded = (
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(cells, widths, numeric, strict=True)
        )
        return "  ".join(padded).rstrip()

    return "\n".join(map(line, [header, *texts]))


def folder_only(target: Path, what: str) -> Path:
    """The folder's path. Raises: ConfigError for `-`, since a folder does not fit into a stream."""
    if str(target) == STANDARD_OUTPUT:
        raise ConfigError(f"{what} is a folder and cannot go to standard output; pass --out DIR")
    return target
