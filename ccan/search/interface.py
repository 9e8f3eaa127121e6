"""What is asked of a gallery and what comes back, and what an engine must give for it.

Letters: Q queries, G gallery images, D numbers of a descriptor, K candidates, k images that are found.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ccan.data.records import JUNK
from ccan.evaluation.ranking import Facts

Rows = NDArray[np.int64]
Vectors = NDArray[np.floating[Any]]


@dataclass(frozen=True, eq=False)
class Views:
    """What is known of Q queries; a FeatureSet of them will do as well.

    Attributes:
        identities: (Q,); -1 unknown.
        cameras: (Q,); -1 unknown.
        names: Q names, to know a query's own image by where a camera is unknown; or None.
    """

    identities: Rows
    cameras: Rows
    names: tuple[str, ...] | None = None

    @classmethod
    def of(cls, identity: int, camera: int, name: str | None = None) -> Views:
        """Of one query."""
        names = None if name is None else (name,)
        return cls(np.array([identity]), np.array([camera]), names)


@dataclass(frozen=True, eq=False)
class Where:
    """Which gallery images may be found. Junk (identity -1) never is.

    Attributes:
        cameras: only images of these, all if None.
        identities: only images of these, all if None.
        own: what is known of the queries: what the protocol ignores for each of them
            (`ccan.evaluation.ranking.ignored_pairs`: its identity under its camera) is left out.
    """

    cameras: tuple[int, ...] | None = None
    identities: tuple[int, ...] | None = None
    own: Facts | None = None

    def mask(self, gallery: Facts) -> NDArray[np.bool_]:
        """Which images may be found by any query, (G,)."""
        allowed = gallery.identities != JUNK
        if self.cameras is not None:
            allowed &= np.isin(gallery.cameras, self.cameras)
        if self.identities is not None:
            allowed &= np.isin(gallery.identities, self.identities)
        return allowed


@dataclass(frozen=True, eq=False)
class Found:
    """The nearest images of each query, nearest first; equal distances keep the gallery's order.

    Attributes:
        rows: (Q, k) int64 rows of the gallery; -1 where there are no more.
        distances: (Q, k) float64 Euclidean distances; infinite where there are no more.
    """

    rows: Rows
    distances: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Near:
    """Candidates for each query, in any order.

    Attributes:
        rows: (Q, K) int64; -1 where there are fewer.
        squared: (Q, K) float64 squared Euclidean distances, from differences in float64; infinite where there is none.
        floor: (Q,) no allowed image that is missing among the rows is nearer than this (squared). Infinite if none is
            missing, and for an approximate engine, which cannot know.
    """

    rows: Rows
    squared: NDArray[np.float64]
    floor: NDArray[np.float64]


class Engine(Protocol):
    """What searches numbers: in this process, or somewhere else."""

    @property
    def exact(self) -> bool:
        """Whether nothing nearer is ever missed."""
        ...

    @property
    def name(self) -> str:
        """In words, for people."""
        ...

    @property
    def width(self) -> int:
        """D."""
        ...

    @property
    def most(self) -> int:
        """The largest K that may be asked for."""
        ...

    def nearest(self, queries: Vectors, count: int, where: Where) -> Near:
        """At least the `count` nearest allowed images of each query, (Q, D) → K ≥ count or all; `where.own` is not its
        affair."""
        ...

    def close(self) -> None:
        """Let go of files and connections."""
        ...


def squared_differences(queries: Vectors, vectors: Vectors) -> NDArray[np.float64]:
    """‖q − g‖² in float64 without cancellation: (Q, D), (Q, K, D) → (Q, K). Equal vectors give equal numbers."""
    difference = vectors.astype(np.float64)
    difference -= queries[:, None].astype(np.float64)
    return np.einsum("qkd,qkd->qk", difference, difference)


def rounding(width: int, eps: float, query: Vectors, largest: float) -> Vectors:
    """How far ‖q‖² + ‖g‖² − 2⟨q, g⟩ may be from the truth in a precision of this eps.

    Args:
        width: D.
        eps: distance of 1 from the next number.
        query: ‖q‖, (Q,).
        largest: the largest ‖g‖.
    """
    return (width + 8) * eps * (query.astype(np.float64) + largest) ** 2
