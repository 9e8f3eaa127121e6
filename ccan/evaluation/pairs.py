"""Every pair of a query and a gallery image that the protocol counts, as distances, a block of queries at a time.

A *genuine* pair shows one person, an *impostor* pair two. Letters: B queries of a block, G gallery images.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ccan.data.records import JUNK
from ccan.evaluation.blocks import BLOCK_BYTES
from ccan.evaluation.feature_set import FeatureSet
from ccan.evaluation.ranking import Distance, DistanceTo, IdentityIndex, ignored_pairs

Values = NDArray[np.floating[Any]]


class CountedPairs:
    """Distances of all counted pairs, a block of queries at a time; as often as one likes, always the same."""

    def __init__(
        self, query: FeatureSet, gallery: FeatureSet, distance: Distance, block: int | None
    ) -> None:
        self.query = query.select(query.identities != JUNK)
        self.gallery = gallery.select(gallery.identities != JUNK)
        self.index = IdentityIndex(self.gallery)
        self.distance_to = DistanceTo(self.gallery.features, distance, query.features.dtype)
        itemsize = self.distance_to.norms.itemsize
        self.block = block or max(1, BLOCK_BYTES // (max(1, len(self.gallery)) * itemsize))
        self.empty: Values = np.empty(0, self.distance_to.norms.cpu().numpy().dtype)

    def blocks(self) -> Iterator[tuple[Values, Values]]:
        """Genuine and impostor distances of each block, both one-dimensional and the caller's own."""
        for start in range(0, len(self.query), self.block):
            part = self.query.select(np.arange(len(self.query))[start : start + self.block])
            values: Values = self.distance_to(part.features).cpu().numpy()  # (B, G)
            row, column = self.index.pairs(part.identities)
            ignored = ignored_pairs(part, self.gallery, row, column)
            genuine = values[row[~ignored], column[~ignored]]
            impostor = np.ones(values.shape, dtype=np.bool_)
            impostor[row, column] = False
            yield genuine, values[impostor]

    def nth_impostor(self, n: int) -> np.floating[Any]:
        """The impostor distance that n others precede, by counting: 16 bits are found in every pass.

        Floating point numbers that are not negative are ordered like the whole numbers that their bits spell.
        """
        whole = np.dtype(f"u{self.empty.itemsize}")
        width = 8 * whole.itemsize
        found = 0
        for shift in range(width - 16, -1, -16):
            counts = np.zeros(2**16, np.int64)
            for _, others in self.blocks():
                bits = (others + 0).view(whole)  # + 0 turns -0 into 0
                if shift < width - 16:
                    bits = bits[bits >> (shift + 16) == found]
                digits = (bits >> shift) & 0xFFFF
                counts += np.bincount(digits.astype(np.int64), minlength=2**16)
            reached = np.cumsum(counts)
            digit = int(np.searchsorted(reached, n, side="right"))
            n -= int(reached[digit] - counts[digit])
            found = (found << 16) | digit
        return np.array([found], whole).view(self.empty.dtype)[0]
