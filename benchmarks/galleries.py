"""Random galleries of the size and structure of real ones, and the published toolkits' way of ranking them.

Letters: Q queries, G gallery images, D numbers of a descriptor.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from ccan.evaluation import FeatureSet


@dataclass(frozen=True)
class Size:
    """How much there is of everything. Who is seen by which camera is drawn at random."""

    queries: int
    gallery: int
    identities: int
    cameras: int
    width: int
    """D."""
    distractors: int = 0
    """Gallery images of nobody else's identity, one of each."""
    scatter: float = 3.3
    """Standard deviation of an image around its person, who has 1 in each of the D numbers."""


MARKET = Size(3_368, 15_913, 750, cameras=6, width=2_048, distractors=2_798)
MSMT17 = Size(11_659, 82_161, 3_060, cameras=15, width=2_048)


def random_sets(size: Size, device: torch.device | str = "cpu") -> tuple[FeatureSet, FeatureSet]:
    """Query and gallery, the same for the same size: every person a random point, their images scattered around it."""
    draw, noise = np.random.default_rng(1), torch.Generator().manual_seed(1)
    centres = torch.randn(size.identities + size.distractors, size.width, generator=noise)
    sets: list[FeatureSet] = []
    for count, distractors in ((size.queries, 0), (size.gallery, size.distractors)):
        persons = draw.integers(0, size.identities, count)
        persons[:distractors] = size.identities + np.arange(distractors)
        identities = np.where(persons < size.identities, persons + 1, 0)
        features = torch.randn(count, size.width, generator=noise).mul_(size.scatter)
        for rows in torch.arange(count).split(4096):
            features[rows] += centres[persons[rows]]
        cameras = draw.integers(1, size.cameras + 1, count)
        sets.append(FeatureSet(features.to(device), identities, cameras))
    return sets[0], sets[1]


def sort_and_loop(
    distances: NDArray[np.float32],
    query: FeatureSet,
    gallery: FeatureSet,
    *,
    shares_in_python: bool = True,
    max_rank: int = 50,
) -> tuple[float, NDArray[np.float64]]:
    """mAP and CMC in the way of the well-known toolkits: one argsort of everything, then query by query in Python.

    Written anew from their rules: images of the query's identity and camera are dropped from its list, precision is
    averaged over the matches (rank sum), and a query without a match does not count. Unstable where distances tie.

    Args:
        distances: (Q, G).
        query, gallery: identities and cameras.
        shares_in_python: divide the matches so far by the place in a Python loop over the gallery, as the published
            ones do; otherwise by NumPy.
        max_rank: length of the CMC.
    """
    order = np.argsort(distances, axis=1)  # (Q, G)
    right = gallery.identities[order] == query.identities[:, None]
    hits: list[NDArray[np.bool_]] = []
    precisions: list[float] = []
    for row in range(len(query)):
        own_view = gallery.cameras[order[row]] == query.cameras[row]
        found = right[row][~(right[row] & own_view)]
        if not found.any():
            continue
        counted = found.cumsum()
        hits.append(counted[:max_rank] > 0)
        if shares_in_python:
            shares = np.array([count / (place + 1) for place, count in enumerate(counted)])
        else:
            shares = counted / np.arange(1, len(found) + 1)
        precisions.append(float((shares * found).sum() / counted[-1]))
    return float(np.mean(precisions)), np.mean(hits, axis=0)
