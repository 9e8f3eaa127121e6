"""Descriptors of a set of images with what the protocol must know of each: identity, camera, name.

Letters: N images, D numbers of a descriptor.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from torch.nn import functional

from ccan.errors import ProtocolError, ShapeError

_COMPUTED_IN_FLOAT32 = (torch.float16, torch.bfloat16)

METADATA_PREFIX = "meta_"
"""What the name of a column begins with among the arrays of `FeatureSet.numpy` and in files."""


@dataclass(frozen=True, init=False, eq=False)
class FeatureSet:
    """Features of N images and the facts that a ranking is judged by. Features are never re-normalised unasked.

    Attributes:
        features: (N, D) floating point, on any device; half precision is widened to float32, the rest is kept.
        identities: (N,) int64 array; -1 junk, 0 distractor (an ordinary negative).
        cameras: (N,) int64 array; -1 unknown.
        names: N names of the images, or None; needed where cameras are unknown, to know a query from its own copy.
        metadata: column → (N,) values, float64 or text, that results can be sliced by; missing = NaN or "".

    Tensors, NumPy arrays and lists are accepted.

    Raises: ShapeError for a wrong number of axes or lengths that differ; ProtocolError for features that are not
    finite floating point numbers, for identities or cameras that are not integers, and for metadata that is neither
    numbers nor text.
    """

    features: Tensor
    identities: NDArray[np.int64]
    cameras: NDArray[np.int64]
    names: tuple[str, ...] | None
    metadata: Mapping[str, NDArray[Any]]

    def __init__(
        self,
        features: Tensor | ArrayLike,
        identities: Tensor | ArrayLike,
        cameras: Tensor | ArrayLike,
        names: Sequence[str] | None = None,
        metadata: Mapping[str, Tensor | ArrayLike] | None = None,
    ) -> None:
        rows = check_features(features)
        for name, values in (("identities", identities), ("cameras", cameras)):
            object.__setattr__(self, name, _integers(name, values, len(rows)))
        if names is not None and len(names) != len(rows):
            raise ShapeError(
                f"names must have one entry for each of the {len(rows)} rows of features, got {len(names)}"
            )
        columns = {
            str(column): _column(str(column), values, len(rows))
            for column, values in (metadata or {}).items()
        }
        object.__setattr__(self, "features", rows)
        object.__setattr__(self, "names", None if names is None else tuple(map(str, names)))
        object.__setattr__(self, "metadata", columns)

    def __len__(self) -> int:
        return len(self.features)

    def select(self, rows: ArrayLike) -> FeatureSet:
        """The images at these row numbers, or where this boolean mask is true, in that order."""
        chosen = row_numbers(rows, len(self))
        names = None if self.names is None else [self.names[int(row)] for row in chosen]
        features = self.features[torch.as_tensor(chosen).to(self.features.device)]
        metadata = {column: values[chosen] for column, values in self.metadata.items()}
        return FeatureSet(features, self.identities[chosen], self.cameras[chosen], names, metadata)

    def with_features(self, features: Tensor | ArrayLike) -> FeatureSet:
        """The same images described by other features (N, D′)."""
        return FeatureSet(features, self.identities, self.cameras, self.names, self.metadata)

    def to(self, device: torch.device | str) -> FeatureSet:
        """The same set with its features on another device."""
        return self.with_features(self.features.to(device))

    def normalized(self) -> FeatureSet:
        """The same set with every row of features at unit length; a zero row stays zero."""
        return self.with_features(unit_rows(self.features))

    def numpy(self) -> dict[str, NDArray[Any]]:
        """Arrays by field name, as `numpy.savez` takes them; `names` and `meta_COLUMN` only where there are any."""
        arrays: dict[str, NDArray[Any]] = {
            "features": self.features.cpu().numpy(),
            "identities": self.identities,
            "cameras": self.cameras,
        }
        if self.names is not None:
            arrays["names"] = np.array(self.names, dtype=str)
        return arrays | {METADATA_PREFIX + name: values for name, values in self.metadata.items()}


def row_numbers(rows: ArrayLike, length: int) -> NDArray[np.int64]:
    """Row numbers from row numbers or a boolean mask, for something of this length; an empty list is no rows."""
    chosen = np.asarray(rows)
    return np.arange(length)[chosen if chosen.size else chosen.astype(np.int64)]


def unit_rows(features: Tensor) -> Tensor:
    """Each row over its Euclidean length, (N, D) → (N, D); a zero row stays zero."""
    return functional.normalize(features, dim=1)


def check_features(features: Tensor | ArrayLike) -> Tensor:
    """Features as a detached (N, D) tensor of finite float32 or float64 numbers.

    Raises: ShapeError, ProtocolError as `FeatureSet` does.
    """
    rows = torch.as_tensor(features).detach()
    if rows.ndim != 2 or rows.shape[1] == 0:
        raise ShapeError(f"features must have shape (N, D) with D ≥ 1, got {tuple(rows.shape)}")
    if not rows.is_floating_point():
        raise ProtocolError(
            f"features must be floating point, got {rows.dtype}; convert them, e.g. to float32"
        )
    if rows.dtype in _COMPUTED_IN_FLOAT32:
        rows = rows.float()
    # NaN and infinity both survive aminmax, which unlike isfinite needs no second array.
    if len(rows) and not all(torch.isfinite(bound) for bound in torch.aminmax(rows)):
        broken = (~torch.isfinite(rows).all(dim=1)).nonzero()[:, 0]
        raise ProtocolError(
            f"features must be finite, got NaN or infinity in {len(broken)} of {len(rows)} rows "
            f"(the first is row {int(broken[0])}); look at the images or the weights that made them"
        )
    return rows


def _integers(name: str, values: Tensor | ArrayLike, length: int) -> NDArray[np.int64]:
    numbers = values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
    if numbers.shape != (length,):
        raise ShapeError(
            f"{name} must have shape ({length},), one for each row of features, got {numbers.shape}"
        )
    if length and not np.issubdtype(numbers.dtype, np.integer):
        raise ProtocolError(f"{name} must be integers, got {numbers.dtype}")
    return numbers.astype(np.int64)


def _column(name: str, values: Tensor | ArrayLike, length: int) -> NDArray[Any]:
    """A metadata column as float64 or text."""
    column = values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
    if column.shape != (length,):
        raise ShapeError(
            f"metadata {name!r} must have shape ({length},), one for each row of features, got {column.shape}"
        )
    if column.dtype.kind in "biuf":
        return column.astype(np.float64)
    if column.dtype.kind == "O" and all(isinstance(value, str) for value in column):
        column = column.astype(str)
    if column.dtype.kind != "U":
        raise ProtocolError(
            f"metadata {name!r} must be numbers or text, got {column.dtype}; a missing value is NaN among "
            'numbers and "" in text'
        )
    return column
