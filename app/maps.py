"""The embedding maps as the page draws them: points on a grid of whole numbers, their groups, and what a lasso holds.

A lasso is a text, ``MAP:KEY:VERTICES``: which map, a checksum of its points, and its corners, four hexadecimal digits
each way. Browser and server test the same whole numbers by the same rule, so both see the same images in it.
"""

from __future__ import annotations

import base64
import colorsys
import zlib
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.components.html import camera_name, person
from ccan.diagnosis import Diagnosis
from ccan.evaluation import EvaluationReport, FeatureSet
from ccan.plots import ColourScale
from ccan.projection import Projection, place

GRID = 65535
"""Points lie on whole numbers from 0 to this, each way."""
CORNERS_LEAST, CORNERS_MOST = 3, 64
GREY = "#b9bfc8"
COLOURS = (
    *("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"),
    *("#8c6d31", "#7b61c4", "#5f6b7a", "#b5651d", "#4b8b3b", "#a03070"),
)
COLOURINGS = {
    "identity": "identity",
    "camera": "camera",
    "ap": "AP",
    "failure": "failure",
    "split": "split",
}
"""By what points are coloured → in words."""
DISTRACTOR, QUERY = 0, "query"


@dataclass(frozen=True)
class Groups:
    """Points by what they share.

    Attributes:
        names, colours: of each group.
        of: (n,) uint16, the group of each point.
    """

    names: list[str]
    colours: list[str]
    of: NDArray[np.uint16]

    def counts(self, among: NDArray[np.bool_] | None = None) -> NDArray[np.int64]:
        """Points of each group, of all or of some."""
        return np.bincount(self.of if among is None else self.of[among], minlength=len(self.names))


@dataclass(frozen=True, eq=False)
class Mapped:
    """Maps of n images.

    Attributes:
        projection: the maps.
        images: the features that they are of, junk left out.
        ids: n ids of images.
        splits: n of ``query`` and ``gallery``.
        whole: whether all images were asked for.
    """

    projection: Projection
    images: FeatureSet
    ids: list[str]
    splits: NDArray[np.str_]
    whole: bool

    @cached_property
    def grid(self) -> dict[str, NDArray[np.uint16]]:
        """Map → (n, 2) points on the grid, y upwards; both ways on one scale."""
        points = self.projection.points
        return {name: self._on_grid(name, points[name]).astype("<u2") for name in points}

    def _on_grid(self, map_: str, places: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
        points = self.projection.points[map_]
        reach = np.ptp(points, axis=0)
        span = float(reach.max()) or 1.0
        middle = GRID * (1 - reach / span) / 2
        return np.rint((places - points.min(axis=0)) / span * GRID + middle).clip(0, GRID)

    def placed(self, descriptor: Any) -> dict[str, list[int]]:
        """Where an image lies that is not on the maps, about: map → its place on the grid."""
        found = {}
        for name in self.maps:
            places = place(self.projection, self.images, descriptor, name)
            found[name] = self._on_grid(name, places)[0].astype(int).tolist()
        return found

    @cached_property
    def key(self) -> str:
        """Checksum of the points; ``w`` or ``p`` before it says whether all images are shown, or a part."""
        value = 0
        for name in sorted(self.grid):
            value = zlib.crc32(self.grid[name].tobytes(), value)
        return ("w" if self.whole else "p") + f"{value:08x}"[:7]

    @property
    def maps(self) -> list[str]:
        """``G``, ``L``, ``joint``, or ``joint`` alone."""
        return list(self.projection.points)

    @cached_property
    def place_of(self) -> dict[str, int]:
        """Id of an image → its number among the points."""
        return {image: point for point, image in enumerate(self.ids)}

    @property
    def identities(self) -> NDArray[np.int64]:
        """(n,)."""
        return self.images.identities[self.projection.rows]

    @property
    def cameras(self) -> NDArray[np.int64]:
        """(n,)."""
        return self.images.cameras[self.projection.rows]

    def inside(self, lasso: str) -> NDArray[np.bool_]:
        """(n,) which points a lasso holds. Raises: ValueError for one of another map, or that is none."""
        name, key, corners = read_lasso(lasso)
        if key != self.key or name not in self.grid:
            raise ValueError(lasso)
        return within(self.grid[name], corners)

    def sent(self) -> dict[str, Any]:
        """What a browser needs of the points, once; arrays as base64."""
        maps = {
            name: {
                "x": packed(points[:, 0]),
                "y": packed(points[:, 1]),
                "trust": self.projection.trustworthiness[name],
                "agreement": packed(np.rint(255 * self.projection.agreement[name]).astype("u1")),
            }
            for name, points in self.grid.items()
        }
        query = packed((self.splits == QUERY).astype("u1"))
        return {"key": self.key, "count": len(self.ids), "maps": maps, "query": query}

    def by_identity(self) -> Groups:
        """By person; neighbours in number differ in hue."""
        known, of = np.unique(self.identities, return_inverse=True)
        colours = [_hue(k) if one > DISTRACTOR else GREY for k, one in enumerate(known.tolist())]
        return Groups([person(one) for one in known.tolist()], colours, of.astype("<u2"))

    def by_camera(self) -> Groups:
        """By camera."""
        known, of = np.unique(self.cameras, return_inverse=True)
        names = [f"camera {camera_name(one)}" for one in known.tolist()]
        return Groups(names, _colours(len(names)), of.astype("<u2"))

    def by_split(self) -> Groups:
        """Queries, gallery, distractors."""
        names = ["query", "gallery", "distractor"]
        of = np.where(self.splits == QUERY, 0, np.where(self.identities == DISTRACTOR, 2, 1))
        return Groups(names, ["#d55e00", "#0072b2", GREY], of.astype("<u2"))

    def by_ap(self, report: EvaluationReport, rows: dict[str, int]) -> Groups:
        """Queries by their AP, in fifths; images of the gallery have none."""
        edges = np.linspace(0, 1, 6)
        names = [f"AP {100 * a:.0f}–{100 * b:.0f} %" for a, b in pairwise(edges)]
        colours = ColourScale(0, 1).stops(len(names))
        ap = np.array([report.ap[rows[one]] if one in rows else np.nan for one in self.ids])
        fifth = np.minimum(4, np.floor(5 * np.nan_to_num(ap)))
        of = np.where(np.isnan(ap), 5, fifth).astype("<u2")
        return Groups([*names, "no AP (gallery, or no match)"], [*colours, GREY], of)

    def by_failure(self, found: Diagnosis, rows: dict[str, int]) -> Groups:
        """Queries by the first rule that their failure fits."""
        kinds = [kind for kind in found.failures.kinds if kind.judged]
        of = np.full(len(self.ids), len(kinds) + 2)
        for point, image in enumerate(self.ids):
            row = rows.get(image)
            if row is not None:
                which = [k for k, kind in enumerate(kinds) if kind.holds[row]]
                fails = bool(found.failures.failed[row])
                of[point] = which[0] + 1 if which else len(kinds) + 1 if fails else 0
        names = ["first image right", *(kind.name for kind in kinds), "other failure", "gallery"]
        colours = ["#9cc7e4", *_colours(len(kinds), start=1), "#5f6b7a", GREY]
        return Groups(names, colours, of.astype("<u2"))

    def neighbours(self, map_: str, point: int) -> list[int]:
        """Numbers of the points that are truly nearest to one, in the embedding that the map shows."""
        return self.projection.neighbours[map_][point].tolist()


def read_lasso(lasso: str) -> tuple[str, str, NDArray[np.int64]]:
    """Map, key and (m, 2) corners of a lasso. Raises: ValueError for a text that is none."""
    name, key, digits = lasso.split(":")
    corners = len(digits) // 8
    whole = len(digits) == 8 * corners and CORNERS_LEAST <= corners <= CORNERS_MOST
    if not whole or not set(digits) <= set("0123456789abcdef"):
        raise ValueError(lasso)
    numbers = [int(digits[k : k + 4], 16) for k in range(0, len(digits), 4)]
    return name, key, np.array(numbers).reshape(-1, 2)


def within(points: NDArray[np.uint16], corners: NDArray[np.int64]) -> NDArray[np.bool_]:
    """(n,) which points (n, 2) a polygon (m, 2) holds, by the even–odd rule; `map.js` does the same."""
    x, y = points[:, 0].astype(np.float64), points[:, 1].astype(np.float64)
    found = np.zeros(len(points), bool)
    for (xi, yi), (xj, yj) in zip(corners, np.roll(corners, 1, axis=0), strict=True):
        if yi != yj:
            found ^= ((yi > y) != (yj > y)) & (x < (xj - xi) * (y - yi) / (yj - yi) + xi)
    return found


def packed(values: NDArray[Any]) -> str:
    """Numbers as base64, in the order of the array."""
    return base64.b64encode(np.ascontiguousarray(values).tobytes()).decode("ascii")


def _colours(count: int, start: int = 0) -> list[str]:
    return [COLOURS[k % len(COLOURS)] for k in range(start, start + count)]


def _hue(number: int) -> str:
    """Colours far apart for neighbouring numbers."""
    light = (0.42, 0.55, 0.66)[number % 3]
    colour = colorsys.hls_to_rgb(number * 0.61803398875 % 1, light, 0.55)
    return "#" + "".join(f"{int(255 * part):02x}" for part in colour)
