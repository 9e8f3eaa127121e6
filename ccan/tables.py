"""One table as everybody wants it: for people, for pandas, for a spreadsheet, for other programs."""

from __future__ import annotations

import csv
import html
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ccan.errors import ConfigError, ShapeError
from ccan.files import write_json, write_text

if TYPE_CHECKING:
    from pandas import DataFrame

_FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""What a spreadsheet takes for the beginning of a formula."""


@dataclass(frozen=True, init=False, eq=False)
class Table:
    """Named columns of one length.

    Attributes:
        name: a word that files can be called by.
        columns: column → N numbers, truth values or texts.
        note: what the table shows and how to read it.

    Raises: ShapeError for columns of different lengths.
    """

    name: str
    columns: Mapping[str, NDArray[Any]]
    note: str

    def __init__(self, name: str, columns: Mapping[str, ArrayLike], note: str = "") -> None:
        arrays = {key: np.asarray(values) for key, values in columns.items()}
        lengths = {key: values.shape for key, values in arrays.items()}
        if any(len(shape) != 1 for shape in lengths.values()) or len(set(lengths.values())) > 1:
            raise ShapeError(f"expected columns of one length, got {lengths}")
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "columns", arrays)
        object.__setattr__(self, "note", note)

    @classmethod
    def of_rows(
        cls, name: str, header: Sequence[str], rows: Sequence[Sequence[Any]], note: str = ""
    ) -> Table:
        """From rows of plain values; a table without rows keeps its header."""
        columns = list(zip(*rows, strict=True)) if rows else [()] * len(header)
        return cls(name, dict(zip(header, columns, strict=True)), note)

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()))) if self.columns else 0

    def rows(self) -> list[list[Any]]:
        """Plain values, row by row; NaN stays."""
        lists = [values.tolist() for values in self.columns.values()]
        return [list(row) for row in zip(*lists, strict=True)]

    def head(self, count: int) -> Table:
        """The first rows."""
        return Table(
            self.name, {k: values[:count] for k, values in self.columns.items()}, self.note
        )

    def to_frame(self) -> DataFrame:
        """As a pandas DataFrame. Raises: ConfigError if pandas is missing."""
        try:
            from pandas import DataFrame
        except ImportError as error:
            raise ConfigError("a DataFrame needs pandas: pip install pandas") from error
        return DataFrame(dict(self.columns))

    def to_csv(self) -> str:
        """Comma-separated, with a header; NaN is empty, and no text can be taken for a formula."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow([_safe(name) for name in self.columns])
        writer.writerows([[_cell(value) for value in row] for row in self.rows()])
        return out.getvalue()

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values: name, note, and a list a column; null for NaN."""
        columns = {
            name: [None if value != value else value for value in values.tolist()]
            for name, values in self.columns.items()
        }
        return {"name": self.name, "note": self.note, "columns": columns}

    def save(self, folder: str | Path) -> None:
        """Write NAME.csv and NAME.json, each whole or not at all."""
        write_text(Path(folder) / f"{self.name}.csv", self.to_csv())
        write_json(Path(folder) / f"{self.name}.json", self.to_dict())

    def to_markdown(self) -> str:
        """For documents."""
        numeric = [values.dtype.kind in "iuf" for values in self.columns.values()]
        rule = ["---:" if right else "---" for right in numeric]
        lines = [list(self.columns), rule, *([shown(v) for v in row] for row in self.rows())]
        return "".join(f"| {' | '.join(line)} |\n" for line in lines)

    def to_html(self) -> str:
        """A ``<table>``; all text is escaped, numbers have the class `n`."""
        numeric = [values.dtype.kind in "iuf" for values in self.columns.values()]

        def line(tag: str, cells: Sequence[str]) -> str:
            marked = (' class="n"' if right else "" for right in numeric)
            inner = "".join(
                f"<{tag}{mark}>{html.escape(cell)}</{tag}>"
                for cell, mark in zip(cells, marked, strict=True)
            )
            return f"<tr>{inner}</tr>"

        body = "".join(line("td", [shown(value) for value in row]) for row in self.rows())
        return (
            f"<table><thead>{line('th', list(self.columns))}</thead><tbody>{body}</tbody></table>"
        )


def shown(value: Any) -> str:
    """A value for people: four significant digits, – for what is not known, yes and no."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return "–" if value != value else f"{value:.0f}" if abs(value) >= 1e4 else f"{value:.4g}"
    return str(value)


def _cell(value: Any) -> Any:
    if isinstance(value, str):
        return _safe(value)
    return "" if value != value else value


def _safe(text: str) -> str:
    """Text that a spreadsheet shows and does not compute."""
    return f"'{text}" if text.startswith(_FORMULA) else text
