"""An index on disk: `index.json` says what it is, `facts.safetensors` who is on which image; nothing is unpickled.

Beside them lie the numbers: `features.safetensors` of the exact search, `gallery.db` of an embedded Milvus, or nothing
where a Milvus server holds them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
from numpy.typing import NDArray

from ccan.errors import SearchError
from ccan.files import write_json
from ccan.search.numbers import read_numbers, write_numbers

DESCRIPTION, FACTS, FEATURES, DATABASE = (
    *("index.json", "facts.safetensors"),
    *("features.safetensors", "gallery.db"),
)
FORMAT, VERSION = "ccan search index", 1


@dataclass(frozen=True)
class Source:
    """Where descriptors come from.

    Attributes:
        dataset: name of the images.
        root: whole path of the folder that the images' names are paths in; None where there are no pictures.
        checkpoint: what `Predictor.from_checkpoint` opens; None for features that another program made.
        fingerprint: hash of that network's settings and weights.
    """

    dataset: str = ""
    root: str | None = None
    checkpoint: str | None = None
    fingerprint: str | None = None


@dataclass(frozen=True)
class Recall:
    """What an engine that is not exact finds: the share of the true nearest images, measured when it was built.

    Attributes:
        value: from 0 to 1.
        top: of the so many nearest.
        queries: gallery images that were asked with, each without its own view.
    """

    value: float
    top: int
    queries: int


@dataclass(frozen=True)
class Description:
    """What `index.json` says.

    Attributes:
        engine: `exact` or `milvus`.
        count: G.
        width: D.
        source: of the descriptors.
        kind: Milvus' index type; None for the exact search.
        settings: what the engine's index was built and is searched with.
        uri: of the Milvus server; None where the numbers lie in the folder.
        collection: Milvus' name of the numbers.
        recall: None where the engine is exact.
        longest: largest length of a descriptor.
        metric: always `euclidean`.
    """

    engine: str
    count: int
    width: int
    source: Source
    kind: str | None = None
    settings: Mapping[str, int] = field(default_factory=dict)
    uri: str | None = None
    collection: str | None = None
    recall: Recall | None = None
    longest: float = 0.0
    metric: str = "euclidean"

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self) | {"settings": dict(self.settings)}

    def save(self, folder: Path) -> None:
        """Write index.json, whole or not at all."""
        values = {"format": FORMAT, "version": VERSION} | self.to_dict()
        write_json(folder / DESCRIPTION, values)

    @classmethod
    def load(cls, folder: Path) -> Description:
        """Read index.json. Raises: SearchError if there is none, or it is damaged or of another program or version."""
        path = folder / DESCRIPTION
        try:
            values = json.loads(path.read_bytes())
        except (FileNotFoundError, NotADirectoryError) as error:
            raise SearchError(
                f"{folder}: expected an index, a folder with {DESCRIPTION}, got none; make one with ccan index"
            ) from error
        except (OSError, ValueError, RecursionError) as error:
            raise SearchError(f"{path}: damaged ({error}); make the index anew") from error
        if not isinstance(values, dict) or values.pop("format", None) != FORMAT:
            raise SearchError(f"{path}: not written by ccan index; name the folder that it made")
        version = values.pop("version", None)
        if version != VERSION:
            raise SearchError(
                f"{path}: expected version {VERSION}, got {version}; make the index anew"
            )
        try:
            recall = values.pop("recall")
            found = cls(
                source=Source(**values.pop("source")),
                recall=None if recall is None else Recall(**recall),
                **values,
            )
            found._check()
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise SearchError(f"{path}: damaged ({error}); make the index anew") from error
        return found

    def _check(self) -> None:
        """Raises: ValueError for values that no index has."""
        texts = (self.kind, self.uri, self.collection, *vars(self.source).values())
        if not all(text is None or isinstance(text, str) for text in texts):
            raise ValueError("a text is something else")
        whole = (self.count, self.width, *self.settings.values())
        if any(type(number) is not int or number < 0 for number in whole) or self.width < 1:
            raise ValueError("a number is none")
        if self.recall is not None and not 0 <= self.recall.value <= 1:
            raise ValueError("recall is from 0 to 1")
        if not isinstance(self.longest, int | float):
            raise ValueError("a length is none")
        if self.metric != "euclidean":
            raise ValueError(f"metric {self.metric!r}")


class Names(Sequence[str]):
    """Texts that stay as bytes until they are asked for: a million names without a million objects.

    Args:
        text: all names in UTF-8, one after the other, (B,) uint8.
        ends: where each ends, (G,) int64.
    """

    def __init__(self, text: NDArray[np.uint8], ends: NDArray[np.int64]) -> None:
        self.text, self.ends = text, ends

    @classmethod
    def of(cls, names: Sequence[str]) -> Names:
        """From texts."""
        encoded = [name.encode(errors="surrogateescape") for name in names]
        text = np.frombuffer(b"".join(encoded), dtype=np.uint8)
        return cls(text, np.cumsum([len(one) for one in encoded], dtype=np.int64))

    def __len__(self) -> int:
        return len(self.ends)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[row] for row in range(*index.indices(len(self)))]
        row = range(len(self))[index]
        start = self.ends[row - 1] if row else 0
        return self.text[start : self.ends[row]].tobytes().decode(errors="surrogateescape")

    def __iter__(self) -> Iterator[str]:
        return (self[row] for row in range(len(self)))


@dataclass(frozen=True, eq=False)
class StoredFacts:
    """Who is on which image, mapped from the file; see `ccan.evaluation.ranking.Facts`."""

    identities: NDArray[np.int64]
    cameras: NDArray[np.int64]
    names: Names

    def save(self, folder: Path) -> None:
        """Write facts.safetensors with its checksum, whole or not at all."""
        arrays = {
            "identities": self.identities,
            "cameras": self.cameras,
            "names": self.names.text,
            "name_ends": self.names.ends,
        }
        write_numbers(folder / FACTS, {key: torch.tensor(one) for key, one in arrays.items()})

    @classmethod
    def load(cls, folder: Path, count: int) -> StoredFacts:
        """Map facts.safetensors. Raises: SearchError if it is damaged or of another number of images."""
        path = folder / FACTS
        numbers = read_numbers(path)
        try:
            wanted = ("identities", "cameras", "name_ends", "names")
            identities, cameras, ends, text = (numbers[key].numpy() for key in wanted)
            found = cls(identities, cameras, Names(text, ends))
        except KeyError as error:
            raise SearchError(f"{path}: {error} is missing; make the index anew") from error
        shapes = {one.shape for one in (identities, cameras, ends)}
        if shapes != {(count,)}:
            raise SearchError(f"{path}: expected {count} images, got {shapes}; make the index anew")
        return found
