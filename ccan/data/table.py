"""A dataset as a table: a CSV file with one line for each image.

    path,identity,camera,split,anything
    people/a.jpg,7,2,query,noon          path relative to the table's folder; identity 0 distractor, -1 junk;
    people/b.jpg,7,,gallery,             camera empty, -1 or no such column = unknown; further columns are metadata

Samples stay in the order of the lines. A column of metadata is numeric if every value in it is a number.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ccan.data.listing import contents, entries, locate
from ccan.data.market_style import Scan, assemble
from ccan.data.records import JUNK, SPLITS, UNKNOWN_CAMERA, ReIDDataset, Sample, SkippedFile
from ccan.errors import DatasetError

NEEDED = ("path", "identity", "split")
HEADER = "path,identity,camera,split"

_EXPECTED = f"""\
  ROOT/                     or the table itself
    NAME.csv                {HEADER}, and columns of your own
                            people/a.jpg,7,2,query …"""


@dataclass(frozen=True)
class _Row:
    """One line of a table, its cells by the column's name."""

    number: int
    cells: dict[str, str]


def load_table(root: str | Path, *, file: str = "", keep_junk: bool = False) -> ReIDDataset:
    """Read a table of images; the module's head shows its columns.

    Args:
        root: the CSV file, or the folder that holds it.
        file: name of the table, where the folder has several.
        keep_junk: keep junk (identity -1) in the gallery, for tools that show it; an evaluation ignores it anyway.

    Raises: DatasetError that names the line if a cell cannot be read, or if no listed image is there.
    """
    root = Path(root)
    path = _find_table(root, file)
    rows = read_rows(path)
    numeric = _numeric_columns(rows)
    scan = Scan({split: [] for split in SPLITS})
    for row in rows:
        image, reason = locate(path.parent, row.cells["path"], within=False)
        sample, split = _sample(path, row, image, numeric)
        if reason:
            scan.skipped.append(SkippedFile(image, reason))
        else:
            scan.images[split].append(sample)
    if not any(scan.images.values()):
        first = f"; the first: {scan.skipped[0].path}: {scan.skipped[0].reason}" if rows else ""
        raise DatasetError(
            f"{path}: expected images, got none of {len(rows):,} listed{first}; paths are relative to "
            f"{path.parent}"
        )
    return assemble("csv", root, scan, keep_junk=keep_junk)


def tables(folder: Path) -> list[Path]:
    """The CSV files that lie in a folder."""
    return [
        folder / name
        for name, is_file in entries(folder)
        if is_file and name.lower().endswith(".csv") and not name.startswith(".")
    ]


def read_rows(path: Path) -> list[_Row]:
    """The lines of a table that are not blank. Raises: DatasetError that names the line."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as stream:
            reader = csv.reader(stream, strict=True)
            lines = [(reader.line_num, cells) for cells in reader if any(map(str.strip, cells))]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(f"{path}: expected a CSV file in UTF-8, got {error}") from error
    header = [cell.strip().lower() for cell in lines[0][1]] if lines else []
    missing = [column for column in NEEDED if column not in header]
    if missing or len(set(header)) < len(header):
        what = f"no column {', '.join(missing)}" if missing else "a column twice"
        raise DatasetError(
            f"{path}, line 1: expected the columns {HEADER}, separated by commas, got {what} in "
            f"{','.join(header)!r}; write them as the first line"
        )
    rows: list[_Row] = []
    for number, cells in lines[1:]:
        if len(cells) > len(header):
            raise DatasetError(
                f"{path}, line {number}: expected {len(header)} cells as in the first line, got "
                f"{len(cells)}; put cells with commas into quotes"
            )
        texts = [cell.strip() for cell in cells] + [""] * (len(header) - len(cells))
        rows.append(_Row(number, dict(zip(header, texts, strict=True))))
    return rows


def _find_table(root: Path, file: str) -> Path:
    if root.is_file():
        return root
    found = [root / file] if file else tables(root)
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise DatasetError(f"{root} holds several tables: {names}; choose one with file=NAME")
    if not found or not found[0].is_file():
        raise DatasetError(
            f"{root} holds no {file or 'CSV file'}: found {contents(root)}; expected\n{_EXPECTED}"
        )
    return found[0]


def _sample(path: Path, row: _Row, image: Path, numeric: set[str]) -> tuple[Sample, str]:
    """A line as a sample and its split. Raises: DatasetError that names the line."""
    split = row.cells["split"]
    if split not in SPLITS:
        raise DatasetError(
            f"{path}, line {row.number}: split must be one of {', '.join(SPLITS)}, got {split!r}"
        )
    if not row.cells["path"]:
        raise DatasetError(f"{path}, line {row.number}: expected the path of an image, got none")
    metadata: dict[str, str | float] = {
        column: float(cell) if column in numeric else cell
        for column, cell in row.cells.items()
        if cell and column and column not in (*NEEDED, "camera")
    }
    identity = _integer(path, row, "identity", JUNK)
    camera = UNKNOWN_CAMERA
    if row.cells.get("camera"):
        camera = _integer(path, row, "camera", UNKNOWN_CAMERA)
    return Sample(image, identity, camera, metadata), split


def _integer(path: Path, row: _Row, column: str, least: int) -> int:
    cell = row.cells[column]
    digits = cell.removeprefix("-")
    if digits.isascii() and digits.isdigit() and len(digits) < 18 and int(cell) >= least:
        return int(cell)
    advice = ", number people from 1" if column == "identity" else ", or leave it empty"
    raise DatasetError(
        f"{path}, line {row.number}: {column} must be an integer of at least {least}, got {cell!r}{advice}"
    )


def _numeric_columns(rows: Sequence[_Row]) -> set[str]:
    """Columns whose every value is a finite number."""
    columns = rows[0].cells.keys() if rows else ()
    return {
        column
        for column in columns
        if all(_is_number(row.cells[column]) for row in rows if row.cells[column])
    }


def _is_number(cell: str) -> bool:
    try:
        return math.isfinite(float(cell))
    except ValueError:
        return False
