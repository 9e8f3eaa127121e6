"""Painted cells as text, as they stand in a link: a bit each, row by row, the first cell the highest bit."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def digits_in(rows: int, columns: int) -> int:
    """Hexadecimal digits of so many cells."""
    return -(-rows * columns // 4)


def read_mask(digits: str, rows: int, columns: int) -> NDArray[np.bool_]:
    """The painted cells, (rows, columns); "" = none. Raises: ValueError for digits that are none of so many cells."""
    count = digits_in(rows, columns)
    if not digits:
        return np.zeros((rows, columns), bool)
    if len(digits) != count or not set(digits) <= set("0123456789abcdef"):
        raise ValueError(digits)
    bits = f"{int(digits, 16):0{4 * count}b}"
    return np.array([bit == "1" for bit in bits[: rows * columns]]).reshape(rows, columns)


def mask_text(mask: NDArray[np.bool_]) -> str:
    """The digits of painted cells; "" where nothing is painted."""
    if not mask.any():
        return ""
    count = digits_in(*mask.shape)
    bits = "".join("1" if cell else "0" for cell in mask.flat).ljust(4 * count, "0")
    return f"{int(bits, 2):0{count}x}"
