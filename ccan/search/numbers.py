"""Tensors in a file with their checksum, mapped when they are read."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ccan.errors import SearchError
from ccan.files import atomic_path


def write_numbers(path: Path, numbers: Mapping[str, Tensor]) -> None:
    """Write tensors with their checksum, whole or not at all."""
    with atomic_path(path) as temporary:
        save_file(dict(numbers), temporary, metadata={"crc32": _checksum(numbers)})


def read_numbers(path: Path) -> dict[str, Tensor]:
    """Tensors mapped from a file of `write_numbers`. Raises: SearchError if it is missing or damaged."""
    try:
        with safe_open(path, framework="pt") as file:
            numbers = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            whole = (file.metadata() or {}).get("crc32") == _checksum(numbers)
    except (OSError, SafetensorError, ValueError) as error:
        raise SearchError(f"{path}: cannot be read ({error}); make the index anew") from error
    if not whole:
        raise SearchError(f"{path}: its numbers are not those that were written; make it anew")
    return numbers


def _checksum(numbers: Mapping[str, Tensor]) -> str:
    """CRC-32 of all numbers, against silent damage on disk."""
    value = 0
    for name in sorted(numbers):
        if numbers[name].numel():
            value = zlib.crc32(numbers[name].numpy().data.cast("B"), value)
    return f"{value:08x}"
