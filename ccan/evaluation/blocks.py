"""The gallery ranked for every query, a block of queries at a time: positions of the matches, and nothing else kept.

Letters: Q queries, B of them in a block, G gallery images, P matches of all queries together.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ccan.data.records import JUNK
from ccan.evaluation.feature_set import FeatureSet
from ccan.evaluation.metrics import MatchPositions
from ccan.evaluation.ranking import IdentityIndex, ignored_pairs, match_positions

BlockDistances = Callable[[int, int], Tensor]
"""(start, stop) → distances of these queries to the whole gallery, (B, G), which the caller may overwrite."""


def rank_in_blocks(
    query: FeatureSet, gallery: FeatureSet, distances: BlockDistances, block: int
) -> tuple[MatchPositions, NDArray[np.int64]]:
    """Positions of all matches, and the number of ranked gallery images of each query (Q,).

    Args:
        query, gallery: whose identities, cameras and names say what matches and what is ignored.
        distances: gives a block of distances; which ones is its own affair.
        block: queries in a block; the Q×G matrix never exists.
    """
    index = IdentityIndex(gallery)
    junk = np.flatnonzero(gallery.identities == JUNK)
    owners: list[NDArray[np.int64]] = []
    positions: list[NDArray[np.int64]] = []
    kept = np.full(len(query), len(gallery) - len(junk))
    for start in range(0, len(query), block):
        stop = min(start + block, len(query))
        part = query.select(np.arange(start, stop))
        values = distances(start, stop)  # (B, G)
        row, column = index.pairs(part.identities)
        ignored = ignored_pairs(part, gallery, row, column)
        values[torch.as_tensor(row[ignored]), torch.as_tensor(column[ignored])] = torch.inf
        values[:, torch.as_tensor(junk)] = torch.inf
        own_view = row[ignored & (gallery.identities[column] != JUNK)]
        kept[start:stop] -= np.bincount(own_view, minlength=len(part))
        owners.append(row[~ignored] + start)
        positions.append(match_positions(values, row[~ignored], column[~ignored]))
    owner, position = np.concatenate(owners), np.concatenate(positions)
    ascending = np.lexsort((position, owner))
    return MatchPositions(owner[ascending], position[ascending], len(query)), kept
