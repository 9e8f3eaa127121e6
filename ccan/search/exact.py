"""Exact search in this process, over numbers that are mapped from a file or lie in memory.

Letters: Q queries, G gallery images, D numbers of a descriptor, K candidates.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ccan.errors import ProtocolError
from ccan.evaluation.ranking import OFFSET, Facts, full_precision
from ccan.search.interface import Near, Rows, Vectors, Where, rounding, squared_differences

BLOCK_BYTES = 16 * 2**20
"""Of the gallery that is worked on at a time: of this size are all copies that are ever made of it."""
DISTANCE_BYTES = 64 * 2**20
"""Of a block of queries' distances."""

GATHERED = 4
"""Images are gathered from between others if at most one in so many is wanted."""


class ExactEngine:
    """Every query against every image: a matrix product in blocks, and the nearest measured again in float64.

    The product's rounding cannot hide an image: so many candidates are kept that what is left out is farther than the
    last that is found by more than the rounding may be (`Near.floor`).

    Args:
        features: (G, D) float32 or float64; read, never copied as a whole.
        facts: identities and cameras, aligned with them.

    Raises: ProtocolError if the squares of the numbers overflow.
    """

    exact = True
    name = "exact search in this process"

    def __init__(self, features: Tensor, facts: Facts) -> None:
        self.features = features
        self.facts = facts
        self._rows = max(1, BLOCK_BYTES // max(1, features.shape[1] * features.itemsize))
        self.offset: Tensor | None = None
        self._norms, mean = self._norms_and_mean()  # (G,), (D,)
        if not bool(torch.isfinite(4 * self._norms).all()):
            raise ProtocolError(
                f"squared lengths of descriptors must be finite in {features.dtype}; normalise the features"
            )
        squared, mean_norm = float(mean @ mean), float(self._norms.mean(dtype=torch.float64))
        if squared > OFFSET * max(mean_norm - squared, 0.0):
            # Far from zero and near to each other: distances are computed around the mean, or they cancel into noise.
            self.offset = mean.to(features.dtype)
            self._norms, _ = self._norms_and_mean()
        self._largest = float(self._norms.max().double().sqrt()) if len(features) else 0.0

    @property
    def width(self) -> int:
        """D."""
        return self.features.shape[1]

    @property
    def most(self) -> int:
        """G."""
        return len(self.features)

    def close(self) -> None:
        """Nothing is held that would need it."""

    def _norms_and_mean(self) -> tuple[Tensor, Tensor]:
        """‖g‖² in the features' precision, (G,), and their mean in float64, (D,)."""
        norms = torch.empty(len(self.features), dtype=self.features.dtype)
        total = torch.zeros(self.width, dtype=torch.float64)
        for start in range(0, len(self.features), self._rows):
            block = self._moved(self.features[start : start + self._rows])
            norms[start : start + self._rows] = torch.linalg.vector_norm(block, dim=1).square_()
            total += block.sum(dim=0)
        return norms, total / max(1, len(self.features))

    def _moved(self, rows: Tensor) -> Tensor:
        return rows if self.offset is None else rows - self.offset

    def nearest(self, queries: Vectors, count: int, where: Where) -> Near:
        """See `Engine.nearest`; K = count, or as many as are allowed."""
        mask = where.mask(self.facts)
        allowed = np.flatnonzero(mask)
        count = min(count, len(allowed))
        # Reading everything as it lies is faster than gathering, unless few are wanted.
        gathered = None if GATHERED * len(allowed) > len(mask) else torch.as_tensor(allowed)
        forbidden = (
            torch.as_tensor(~mask) if gathered is None and len(allowed) < len(mask) else None
        )
        compared = len(mask) if gathered is None else len(gathered)
        share = max(1, DISTANCE_BYTES // max(1, compared * self.features.itemsize))
        found = [
            self._block(queries[start : start + share], count, gathered, forbidden)
            for start in range(0, len(queries), share)
        ]
        rows, squared, floor = (np.concatenate(parts) for parts in zip(*found, strict=True))
        return Near(rows, squared, floor if count < len(allowed) else np.full(len(rows), np.inf))

    def _block(
        self, queries: Vectors, count: int, gathered: Tensor | None, forbidden: Tensor | None
    ) -> tuple[Rows, Vectors, Vectors]:
        """Rows (B, K), squared distances (B, K) and floor (B,) of B queries."""
        asked = self._moved(torch.as_tensor(queries, dtype=self.features.dtype))
        norms = torch.einsum("qd,qd->q", asked, asked)
        values = self._squared(asked, norms, gathered)  # (B, compared)
        if forbidden is not None:
            values.masked_fill_(forbidden, torch.inf)
        kept = torch.topk(values, count, dim=1, largest=False)
        columns = kept.indices if gathered is None else gathered[kept.indices]
        squared = np.empty(columns.shape, dtype=np.float64)
        for one, chosen in enumerate(columns):  # K vectors at a time, not B·K
            vectors = self.features[chosen].numpy()
            squared[one] = squared_differences(queries[one : one + 1], vectors[None])[0]
        lengths = norms.double().sqrt().numpy()
        slack = rounding(self.width, torch.finfo(asked.dtype).eps, lengths, self._largest)
        last = kept.values[:, -1:].double().amax(dim=1) if count else torch.zeros(len(asked))
        return columns.numpy(), squared, last.numpy() - slack

    def _squared(self, asked: Tensor, norms: Tensor, gathered: Tensor | None) -> Tensor:
        """‖q − g‖² by the product, (B, compared)."""
        compared = len(self.features) if gathered is None else len(gathered)
        values = torch.empty(len(asked), compared, dtype=self.features.dtype)
        with full_precision("cpu"):
            for start in range(0, compared, self._rows):
                part = slice(start, min(start + self._rows, compared))
                chosen = part if gathered is None else gathered[part]
                products = self._moved(self.features[chosen]) @ asked.T  # (rows, B)
                values[:, part] = torch.sub(self._norms[chosen][:, None], products, alpha=2).T
        return values.add_(norms[:, None])
