"""Where the labels may be wrong, and which images stand in the data twice."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ccan.data.records import DISTRACTOR, UNKNOWN_CAMERA
from ccan.diagnosis.rankings import all_images
from ccan.errors import ConfigError, ShapeError
from ccan.evaluation.feature_set import FeatureSet
from ccan.evaluation.ranking import Distance, DistanceTo
from ccan.tables import Table

BLOCK = 512
NEAR_IN_STREAMS = 3
"""A stream agrees if the other image is among so many nearest of another camera."""
DUPLICATE_SHARE = 0.02
"""Nearer than this share of the median distance to the nearest image: the same picture."""

Values = NDArray[np.float64]


def halves(features: Tensor) -> dict[str, Tensor]:
    """The streams of a descriptor of two branches, (N, 2d) → ``G`` and ``L``, (N, d). Raises: ShapeError if odd."""
    if features.shape[1] % 2:
        raise ShapeError(f"descriptors of two branches have an even width, got {features.shape[1]}")
    one, two = features.chunk(2, dim=1)
    return {"G": one, "L": two}


@dataclass(frozen=True)
class Suspect:
    """Two images under different identities that look like one person.

    Attributes:
        first, second: rows among all images (queries, then gallery, junk left out).
        distance: between them.
        close: nearer than half of all images' nearest match of another camera.
        mutual: each is the other's nearest image of another camera.
        agreeing: share of the streams in which the second is among the first's nearest.
    """

    first: int
    second: int
    distance: float
    close: bool
    mutual: bool
    agreeing: float

    @property
    def strength(self) -> int:
        """How many of close, mutual and all streams agreeing hold, besides being nearest and labelled differently."""
        return self.close + self.mutual + (self.agreeing == 1)


@dataclass(frozen=True)
class Suspects:
    """Label suspects, strongest first, then nearest.

    Attributes:
        suspects: pairs.
        names, splits, identities, cameras: of all images.
        bound: what `close` means.
        streams: names of the streams that were asked.
    """

    suspects: tuple[Suspect, ...]
    names: tuple[str, ...]
    splits: tuple[str, ...]
    identities: NDArray[np.int64]
    cameras: NDArray[np.int64]
    bound: float
    streams: tuple[str, ...]

    def table(self) -> Table:
        """One line a pair."""
        rows = [
            [
                *(self.names[one.first], int(self.identities[one.first])),
                *(self.names[one.second], int(self.identities[one.second])),
                *(one.distance, one.close, one.mutual, one.agreeing, one.strength),
            ]
            for one in self.suspects
        ]
        header = [
            *("image", "identity", "looks like", "its identity", "distance"),
            *("close", "mutual", "streams agreeing", "strength"),
        ]
        note = (
            "Pairs of different identities in which the second image is the nearest of another camera to the first. "
            f"close: nearer than {self.bound:.3f}, the median distance to the nearest match; streams: "
            f"{', '.join(self.streams)}, agreeing if it is among the {NEAR_IN_STREAMS} nearest there; strength 3: all "
            "of it. Look at both images: the same person under two numbers, or a look-alike?"
        )
        return Table.of_rows("label_suspects", header, rows, note)


def label_suspects(
    query: FeatureSet,
    gallery: FeatureSet,
    *,
    streams: Mapping[str, tuple[Tensor, Tensor]] | None = None,
    distance: Distance = "euclidean",
    most: int = 100,
) -> Suspects:
    """Look for identities that may be one person.

    Args:
        query, gallery: junk and distractors are left out.
        streams: name → features of the queries and of the gallery, aligned with them; None = the descriptor alone.
        most: pairs at most.

    Raises: ConfigError if most is below 1; ShapeError for streams of another length.
    """
    if most < 1:
        raise ConfigError(f"most must be at least 1, got {most}")
    for name, sides in (streams or {}).items():
        if [len(side) for side in sides] != [len(query), len(gallery)]:
            raise ShapeError(
                f"expected stream {name!r} to have {len(query)} and {len(gallery)} rows, got "
                f"{len(sides[0])} and {len(sides[1])}"
            )
    people = [one.select(one.identities > DISTRACTOR) for one in (query, gallery)]
    images, splits = all_images(*people)
    nearest, gap, match_gap = _nearest_elsewhere(images, distance)
    bound = (
        float(np.median(match_gap[np.isfinite(match_gap)])) if np.isfinite(match_gap).any() else 0.0
    )
    wrong = (nearest >= 0) & (images.identities[nearest] != images.identities)
    named = {
        name: torch.cat(
            [
                side[torch.as_tensor(one.identities > DISTRACTOR)]
                for side, one in zip(sides, (query, gallery), strict=True)
            ]
        )
        for name, sides in (streams or {"descriptor": (query.features, gallery.features)}).items()
    }
    found: dict[tuple[int, int], Suspect] = {}
    rows = np.flatnonzero(wrong)
    agree = np.mean(
        [_near_in(one, images, rows, nearest[rows], distance) for one in named.values()], axis=0
    )
    for first, agreeing in zip(rows.tolist(), agree.tolist(), strict=True):
        second = int(nearest[first])
        pair = (min(first, second), max(first, second))
        mutual = bool(nearest[second] == first)
        one = Suspect(first, second, float(gap[first]), bool(gap[first] < bound), mutual, agreeing)
        if pair not in found or one.strength > found[pair].strength:
            found[pair] = one
    ordered = sorted(found.values(), key=lambda one: (-one.strength, one.distance))[:most]
    names = images.names or ()
    return Suspects(
        tuple(ordered), names, tuple(splits), images.identities, images.cameras, bound, tuple(named)
    )


def _elsewhere(cameras: NDArray[np.int64], rows: NDArray[np.int64]) -> NDArray[np.bool_]:
    """(B, N) which images another camera took than each of these; where either is unknown, all but the image itself."""
    mine, theirs = cameras[rows][:, None], cameras[None, :]
    elsewhere = (mine != theirs) | (mine == UNKNOWN_CAMERA) | (theirs == UNKNOWN_CAMERA)
    elsewhere[np.arange(len(rows)), rows] = False
    return elsewhere


def _blocks(images: FeatureSet, distance: Distance) -> Iterator[tuple[NDArray[np.int64], Values]]:
    """Rows of a block, and their distances to all images (B, N)."""
    distance_to = DistanceTo(images.features, distance, images.features.dtype)
    for start in range(0, len(images), BLOCK):
        rows = np.arange(start, min(start + BLOCK, len(images)))
        yield rows, distance_to(images.features[rows[0] : rows[-1] + 1]).cpu().numpy()


def _nearest_elsewhere(
    images: FeatureSet, distance: Distance
) -> tuple[NDArray[np.int64], Values, Values]:
    """Of each image: its nearest of another camera (-1 for none), how far, and how far its nearest match is."""
    nearest, gap, match_gap = [], [], []
    for rows, values in _blocks(images, distance):
        values[~_elsewhere(images.cameras, rows)] = np.inf
        place = values.argmin(axis=1)
        least = values[np.arange(len(rows)), place]
        nearest.append(np.where(np.isfinite(least), place, -1))
        gap.append(least)
        values[images.identities[rows][:, None] != images.identities[None, :]] = np.inf
        match_gap.append(values.min(axis=1))
    return tuple(np.concatenate(one) if one else np.empty(0) for one in (nearest, gap, match_gap))  # type: ignore[return-value]


def _near_in(
    values: Tensor,
    images: FeatureSet,
    first: NDArray[np.int64],
    second: NDArray[np.int64],
    distance: Distance,
) -> NDArray[np.bool_]:
    """(F,) whether a stream puts each second among its first's nearest images of other cameras."""
    values = values.double()
    distance_to = DistanceTo(values, distance, torch.float64)
    near = np.zeros(len(first), bool)
    for start in range(0, len(first), BLOCK):
        part = slice(start, start + BLOCK)
        lines = distance_to(values[torch.as_tensor(first[part])]).cpu().numpy()
        own = np.take_along_axis(lines, second[part][:, None], axis=1)
        nearer = (lines < own) & _elsewhere(images.cameras, first[part])
        near[part] = nearer.sum(axis=1) < NEAR_IN_STREAMS
    return near


def duplicates_table(
    query: FeatureSet,
    gallery: FeatureSet,
    *,
    share: float = DUPLICATE_SHARE,
    distance: Distance = "euclidean",
    most: int = 200,
) -> Table:
    """Pairs of images, junk left out, that are as good as the same picture; nearest first.

    Args:
        share: of the median distance to the nearest other image, below which two images are one.
        most: pairs at most.

    Raises: ConfigError unless 0 ≤ share < 1.
    """
    if not 0 <= share < 1:
        raise ConfigError(f"share must lie from 0 to below 1, got {share}")
    images, splits = all_images(query, gallery)
    least = np.concatenate(
        [_without_itself(rows, v).min(axis=1) for rows, v in _blocks(images, distance)]
    )
    finite = least[np.isfinite(least)]
    bound = share * float(np.median(finite)) if len(finite) else 0.0
    found: list[tuple[float, int, int]] = []
    for rows, values in _blocks(images, distance):
        line, column = np.nonzero(_without_itself(rows, values) <= bound)
        first = rows[line]
        found += [
            (
                _between(images.features[int(one)], images.features[int(b)], distance),
                int(one),
                int(b),
            )
            for b, one in zip(column, first, strict=True)
            if one < b
        ]
    names = images.names or ()
    lines = [
        [
            *(names[a], splits[a], int(images.identities[a]), int(images.cameras[a])),
            *(names[b], splits[b], int(images.identities[b]), int(images.cameras[b])),
            *(d, images.identities[a] != images.identities[b]),
        ]
        for d, a, b in sorted(found)[:most]
    ]
    header = [
        *("image", "split", "identity", "camera"),
        *("same as", "its split", "its identity", "its camera", "distance", "identities differ"),
    ]
    note = (
        f"Pairs nearer than {bound:.3g}: {100 * share:g} % of the median distance to the nearest image. A pair of a "
        "query and a gallery image of another camera inflates the figures; one with two identities is a label error."
    )
    return Table.of_rows("duplicates", header, [[*map(_plain, row)] for row in lines], note)


def _between(one: Tensor, other: Tensor, distance: Distance) -> float:
    """The distance of two images, (D,) each, by their difference: that of two copies has no digit to lose."""
    if distance == "cosine":
        one, other = (side / side.norm().clamp_min(1e-12) for side in (one, other))
        return float((one - other).square().sum()) / 2
    squared = float((one - other).square().sum())
    return squared if distance == "squared_euclidean" else squared**0.5


def _without_itself(rows: NDArray[np.int64], values: Values) -> Values:
    values = values.copy()
    values[np.arange(len(rows)), rows] = np.inf
    return values


def _plain(value: object) -> object:
    return value.item() if isinstance(value, np.generic) else value
