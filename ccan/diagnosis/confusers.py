"""Who is taken for whom, and which gallery images get in everybody's way."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ccan.diagnosis.rankings import NOBODY, TopRankings, names_of
from ccan.evaluation.feature_set import FeatureSet
from ccan.tables import Table


@dataclass(frozen=True)
class Confusers:
    """A directed graph of identities: an edge leads from a query's identity to one that outranks its first match.

    Attributes:
        edges: (identity, taken for) → (queries that it happened to, images that stood ahead).
    """

    edges: dict[tuple[int, int], tuple[int, int]]

    def table(self) -> Table:
        """Edges, most queries first; mutual where the confusion goes both ways."""
        rows = [
            [who, whom, queries, images, (whom, who) in self.edges]
            for (who, whom), (queries, images) in sorted(
                self.edges.items(), key=lambda edge: (-edge[1][0], -edge[1][1], edge[0])
            )
        ]
        note = (
            "Identities that stand ahead of a query's first match, within the head of its ranking. 0 are distractors: "
            "different people under one number."
        )
        header = ["identity", "taken for", "queries", "images ahead", "mutual"]
        return Table.of_rows("confusers", header, rows, note)


def confusers(query: FeatureSet, gallery: FeatureSet, tops: TopRankings) -> Confusers:
    """The graph of the failed queries, as far as the head of each ranking goes."""
    queries: defaultdict[tuple[int, int], set[int]] = defaultdict(set)
    images: Counter[tuple[int, int]] = Counter()
    for row in np.flatnonzero(tops.failed):
        right = tops.right[row]
        ahead = tops.rows[row][: int(right.argmax())] if right.any() else tops.rows[row]
        for image in ahead[ahead != NOBODY]:
            edge = (int(query.identities[row]), int(gallery.identities[image]))
            queries[edge].add(int(row))
            images[edge] += 1
    return Confusers({edge: (len(found), images[edge]) for edge, found in queries.items()})


@dataclass(frozen=True)
class Hubs:
    """Gallery images that appear in too many heads of rankings (hubness).

    Attributes:
        appearances: (G,) in how many heads each image stands; wrong: in how many of these it is wrong.
        top: length of the heads.
        expected, deviation, skewness: of ``appearances``; a skewness well above 0 is hubness.
        rows: gallery rows of the hubs: above expected + 3 deviations, most appearances first.
    """

    appearances: NDArray[np.int64]
    wrong: NDArray[np.int64]
    top: int
    expected: float
    deviation: float
    skewness: float
    rows: NDArray[np.int64]
    names: tuple[str, ...]
    identities: NDArray[np.int64]

    def table(self) -> Table:
        """The hubs."""
        share = self.wrong[self.rows] / np.maximum(self.appearances[self.rows], 1)
        columns = {
            "gallery image": list(self.names),
            "row": self.rows,
            "identity": self.identities,
            "appearances": self.appearances[self.rows],
            "share wrong": share,
        }
        note = (
            f"Gallery images in more top-{self.top} lists than the mean {self.expected:.1f} + 3 × {self.deviation:.1f} "
            f"(deviation); skewness of all counts {self.skewness:.2f}."
        )
        return Table("hubs", columns, note)


def hubs(gallery: FeatureSet, tops: TopRankings) -> Hubs:
    """Count in how many heads each gallery image stands."""
    seen = tops.rows != NOBODY
    size = len(gallery)
    appearances = np.bincount(tops.rows[seen], minlength=size)
    wrong = np.bincount(tops.rows[seen & ~tops.right], minlength=size)
    expected, deviation = float(appearances.mean()), float(appearances.std())
    centred = appearances - expected
    skewness = float((centred**3).mean() / deviation**3) if deviation > 0 else 0.0
    rows = np.flatnonzero(appearances > expected + 3 * deviation) if deviation > 0 else np.arange(0)
    rows = rows[np.argsort(-appearances[rows], kind="stable")]
    return Hubs(
        appearances,
        wrong,
        tops.rows.shape[1],
        expected,
        deviation,
        skewness,
        rows,
        tuple(names_of(gallery, rows)),
        gallery.identities[rows],
    )
