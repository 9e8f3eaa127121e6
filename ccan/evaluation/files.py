"""Features on disk, whatever made them: `.npz` or `.safetensors`, read without unpickling anything.

A file of an evaluation holds `query_features`, `query_ids`, `query_cameras` and the same of `gallery_`; a file of one
list holds `features`, `ids`, `cameras`. Optional, under the same prefix: `names`, and `meta_COLUMN` for each column of
metadata. In safetensors, which knows numbers only, text stands as JSON lists in the header.
"""

from __future__ import annotations

import json
import warnings
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from tokenize import TokenError
from typing import Any, Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray

from ccan.data.records import JUNK
from ccan.errors import CCANError, ConfigError, ProtocolError
from ccan.evaluation.feature_set import METADATA_PREFIX, FeatureSet
from ccan.files import atomic_path

SUFFIXES = (".npz", ".safetensors")
Precision = Literal["float32", "float16"]

UNREADABLE = (
    *(ValueError, TypeError, AttributeError, KeyError, EOFError, MemoryError, RuntimeError),
    *(SyntaxError, TokenError, OSError, zipfile.BadZipFile, zlib.error),
)
"""What NumPy raises for archives that are damaged, encrypted or made to harm; NotImplementedError is a RuntimeError."""

_FIELDS = {"features": "features", "ids": "identities", "cameras": "cameras"}
"""Name in a file → attribute; these must be there."""


def check_suffix(path: str | Path) -> None:
    """Raises: ConfigError if features are not written under such a name."""
    if Path(path).suffix not in SUFFIXES:
        raise ConfigError(
            f"features are kept as {' or '.join(SUFFIXES)}, got {Path(path).name!r}; choose one of these suffixes"
        )


def save_features(
    path: str | Path, query: FeatureSet, gallery: FeatureSet, precision: Precision = "float32"
) -> None:
    """Write both sides of an evaluation to one file, whole or not at all.

    Args:
        path: a `.npz` or `.safetensors` file.
        query, gallery: what is written; float64 features are narrowed too.
        precision: of the features; float16 halves the file.

    Raises: ConfigError for another suffix or precision, ProtocolError for features too large for float16.
    """
    _write(path, _arrays(query, "query_", precision) | _arrays(gallery, "gallery_", precision))


def load_features(path: str | Path) -> tuple[FeatureSet, FeatureSet]:
    """Query and gallery from a file of `save_features`, or of anyone who uses its keys.

    Identities and cameras may be floating point if they are whole. Junk (identity -1) is left out on both sides: no
    rule ever counts it. How many images that concerns is said in a UserWarning for each side.

    Raises: ProtocolError for a damaged file, missing keys, wrong shapes or kinds, and for what `FeatureSet` refuses;
    ConfigError for another suffix; OSError for a file that cannot be opened.
    """
    arrays = _read(path)
    query, gallery = (_feature_set(path, arrays, prefix) for prefix in ("query_", "gallery_"))
    return _without_junk(query, "query"), _without_junk(gallery, "gallery")


def save_feature_set(
    path: str | Path, features: FeatureSet, precision: Precision = "float32"
) -> None:
    """Write one list of images as `save_features` does, with the keys `features`, `ids`, `cameras` (and `names`)."""
    _write(path, _arrays(features, "", precision))


def load_feature_set(path: str | Path) -> FeatureSet:
    """One list of images from a file of `save_feature_set`, junk included; errors as `load_features`."""
    return _feature_set(path, _read(path), "")


def _arrays(features: FeatureSet, prefix: str, precision: str) -> dict[str, NDArray[Any]]:
    if precision not in ("float32", "float16"):
        raise ConfigError(f"precision must be float32 or float16, got {precision!r}")
    arrays = features.numpy()
    with np.errstate(over="ignore"):
        rows = arrays.pop("features").astype(precision)
    if not np.isfinite(rows).all():
        raise ProtocolError(
            f"features must be finite in {precision}, but some overflow it; normalise them or keep more precision"
        )
    for name, attribute in _FIELDS.items():
        arrays[name] = rows if name == "features" else arrays.pop(attribute)
    return {prefix + name: values for name, values in arrays.items()}


def _write(path: str | Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    check_suffix(path)
    with atomic_path(path) as temporary:
        if Path(path).suffix == ".npz":
            with temporary.open("wb") as file:
                np.savez(file, allow_pickle=False, **arrays)
            return
        from safetensors.torch import save_file  # pyright: ignore[reportUnknownVariableType]

        text = {name: values for name, values in arrays.items() if values.dtype.kind == "U"}
        numbers = {
            name: torch.as_tensor(np.ascontiguousarray(values))
            for name, values in arrays.items()
            if name not in text
        }
        header = {name: json.dumps(values.tolist()) for name, values in text.items()}
        save_file(numbers, temporary, header)


def _read(path: str | Path) -> dict[str, Any]:
    """All arrays of a file by key, tensors for safetensors; text as lists or arrays."""
    check_suffix(path)
    read = _read_npz if Path(path).suffix == ".npz" else _read_safetensors
    return read(path)


def _read_npz(path: str | Path) -> dict[str, Any]:
    arrays: dict[str, Any] = {}
    try:
        with Path(path).open("rb") as file, np.load(file, allow_pickle=False) as saved:
            for key in saved.files:
                try:
                    arrays[key] = saved[key]
                except ValueError as error:
                    if "allow_pickle" not in str(error):
                        raise
                    raise ProtocolError(
                        f"{path}: {key!r} must be an array of numbers or text, got one of Python objects, which "
                        "are never loaded; save it again with a plain dtype"
                    ) from error
    except (ProtocolError, FileNotFoundError, PermissionError, IsADirectoryError):
        raise
    except UNREADABLE as error:
        raise ProtocolError(
            f"{path}: expected a .npz archive as numpy.savez writes it, got one that cannot be read "
            f"({type(error).__name__}); it is damaged or something else"
        ) from error
    return arrays


def _read_safetensors(path: str | Path) -> dict[str, Any]:
    from safetensors import SafetensorError, safe_open

    opened: Any = safe_open
    try:
        with opened(path, framework="pt") as saved:
            arrays: dict[str, Any] = {key: saved.get_tensor(key) for key in list(saved.keys())}
            header: dict[str, str] = saved.metadata() or {}
    except SafetensorError as error:
        raise ProtocolError(f"{path}: expected a safetensors file, got {error}") from error
    for key, text in header.items():
        try:
            values = json.loads(text)
        except (json.JSONDecodeError, RecursionError):  # a remark of another program
            continue
        if isinstance(values, list) and key not in arrays:
            arrays[key] = np.array(list(map(str, cast("list[object]", values))), dtype=str)
    return arrays


def _feature_set(path: str | Path, arrays: Mapping[str, Any], prefix: str) -> FeatureSet:
    """The rows under one prefix. Raises: ProtocolError that names the file."""
    missing = [prefix + name for name in _FIELDS if prefix + name not in arrays]
    if missing:
        raise ProtocolError(
            f"{path}: expected the keys {', '.join(prefix + name for name in _FIELDS)}, and missed "
            f"{', '.join(missing)}; got {', '.join(sorted(arrays)) or 'no key at all'}"
        )
    start = prefix + METADATA_PREFIX
    names = arrays.get(f"{prefix}names")
    if names is not None and np.ndim(names) != 1:
        raise ProtocolError(f"{path}: {prefix}names must be a list of texts, one a row")
    try:
        return FeatureSet(
            _numbers(f"{prefix}features", arrays[f"{prefix}features"]),
            _whole(f"{prefix}ids", arrays[f"{prefix}ids"]),
            _whole(f"{prefix}cameras", arrays[f"{prefix}cameras"]),
            None if names is None else [str(name) for name in names],
            {key[len(start) :]: arrays[key] for key in arrays if key.startswith(start)},
        )
    except CCANError as error:
        side = f" ({prefix.rstrip('_')})" if prefix else ""
        raise ProtocolError(f"{path}{side}: {error}") from error


def _numbers(name: str, values: Any) -> Any:
    """Features in a byte order and a width that torch knows. Raises: ProtocolError for what is no floating point."""
    if isinstance(values, torch.Tensor):
        return values.float() if values.is_floating_point() and values.itemsize == 1 else values
    rows: NDArray[Any] = np.asarray(values)
    if rows.dtype.kind != "f" or rows.itemsize not in (2, 4, 8):
        raise ProtocolError(
            f"{name} must be floating point of 16, 32 or 64 bits, got {rows.dtype}; convert them, e.g. to float32"
        )
    return rows.astype(rows.dtype.newbyteorder("="), copy=False)


def _whole(name: str, values: Any) -> NDArray[np.int64]:
    """Identities or cameras; Matlab and some frameworks write them as floating point."""
    if isinstance(values, torch.Tensor):
        values = values.double().numpy() if values.is_floating_point() else values.numpy()
    numbers = np.asarray(values)
    if numbers.dtype.kind == "f" and not np.array_equal(numbers, np.floor(numbers)):  # also NaN
        raise ProtocolError(
            f"{name} must be whole numbers, got fractions or NaN; are the keys swapped?"
        )
    if numbers.dtype.kind in "fu" and numbers.size and not np.abs(numbers).max() < 2**63:
        raise ProtocolError(
            f"{name} must be below 2**63, got {numbers.max()}; is the file damaged?"
        )
    return numbers.astype(np.int64) if numbers.dtype.kind in "fu" else numbers


def _without_junk(features: FeatureSet, side: str) -> FeatureSet:
    junk = features.identities == JUNK
    if not junk.any():
        return features
    warnings.warn(
        f"left out {int(junk.sum()):,} of {len(features):,} {side} images: junk (identity {JUNK})",
        stacklevel=3,
    )
    return features.select(~junk)
