"""The gallery ranked for every query, a block of queries at a time: places of the matches, and nothing else kept.

Letters: Q queries, B of them in a block, G gallery images, P matches, M of them of one query.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ccan.data.records import JUNK
from ccan.evaluation.feature_set import FeatureSet
from ccan.evaluation.metrics import MatchPositions
from ccan.evaluation.ranking import IdentityIndex, Indices, ignored_pairs

BlockDistances = Callable[[int, int], Tensor]
"""(start, stop) → distances of these queries to the whole gallery, (B, G), which the caller may overwrite."""

BLOCK_BYTES = 256 * 2**20
"""Size of a block of distances where nothing else is asked for. A matrix product of few rows is slower: with a quarter
of this, 200 queries at MSMT17's size, by more than a fifth."""


def rank_in_blocks(
    query: FeatureSet, gallery: FeatureSet, distances: BlockDistances, block: int
) -> tuple[MatchPositions, Indices]:
    """Positions of all matches, and the number of ranked gallery images of each query (Q,).

    Args:
        query, gallery: whose identities, cameras and names say what matches and what is ignored.
        distances: gives a block of distances; which ones is its own affair.
        block: queries in a block; the Q×G matrix never exists.
    """
    index = IdentityIndex(gallery)
    junk = np.flatnonzero(gallery.identities == JUNK)
    owners: list[Indices] = []
    positions: list[Indices] = []
    kept = np.full(len(query), len(gallery) - len(junk))
    for start in range(0, len(query), block):
        stop = min(start + block, len(query))
        values = distances(start, stop)  # (B, G)
        row, column = index.pairs(query.identities[start:stop])
        ignored = ignored_pairs(query, gallery, row + start, column)
        values[torch.as_tensor(row[ignored]), torch.as_tensor(column[ignored])] = torch.inf
        values[:, torch.as_tensor(junk)] = torch.inf
        own_view = row[ignored & (gallery.identities[column] != JUNK)]
        kept[start:stop] -= np.bincount(own_view, minlength=stop - start)
        owners.append(row[~ignored] + start)
        positions.append(match_positions(values, row[~ignored], column[~ignored]))
        del values  # or two blocks would be there while the next one is made
    owner, position = np.concatenate(owners), np.concatenate(positions)
    ascending = np.lexsort((position, owner))
    return MatchPositions(owner[ascending], position[ascending], len(query)), kept


def match_positions(distances: Tensor, row: Indices, column: Indices) -> Indices:
    """Exact 1-based place of each match in its row; equal distances rank in gallery order.

    On the CPU each row is sorted apart, in as many threads as torch uses, so that it stays in a core's cache. Images
    to ignore must have been given an infinite distance. The distances are left as they are.

    Shapes: distances (B, G), row (P,) ascending, column (P,) → (P,).
    """
    if distances.device.type != "cpu":
        return places_by_stable_sort(distances, row, column)
    lines: NDArray[np.floating[Any]] = distances.numpy()
    positions = np.empty(len(row), dtype=np.int64)
    owners, starts, counts = np.unique(row, return_index=True, return_counts=True)
    stops = starts + counts
    threads = max(1, min(torch.get_num_threads(), len(owners)))

    def rank_share(first: int) -> None:
        for owner, start, stop in zip(
            owners[first::threads], starts[first::threads], stops[first::threads], strict=True
        ):
            positions[start:stop] = _places(lines[owner], column[start:stop])

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(rank_share, range(threads)))
    return positions


def _places(distances: NDArray[np.floating[Any]], columns: Indices) -> Indices:
    """1-based places of the images `columns` of one query, (G,), (M,) → (M,).

    The *values* are sorted, which NumPy does several times faster than an argsort, and the few matches found by binary
    search. Only a match that shares its value with another image is looked at again, to place it among its equals.
    """
    wanted = distances[columns]
    ascending = np.sort(distances)
    before = np.searchsorted(ascending, wanted)
    through = np.searchsorted(ascending, wanted, side="right")
    for match in np.flatnonzero(through - before > 1):
        before[match] += np.count_nonzero(distances[: columns[match]] == wanted[match])
    return before + 1


def places_by_stable_sort(distances: Tensor, row: Indices, column: Indices) -> Indices:
    """What `match_positions` gives, by one stable sort of the block on its device and one copy back."""
    order = torch.sort(distances, dim=1, stable=True).indices  # (B, G)
    place = torch.empty_like(order, dtype=torch.int32)
    counted = torch.arange(1, order.shape[1] + 1, dtype=torch.int32, device=order.device)
    place.scatter_(1, order, counted.expand_as(order))  # the inverse permutation of each row
    rows, columns = (torch.as_tensor(index).to(order.device) for index in (row, column))
    return place[rows, columns].cpu().numpy().astype(np.int64)
