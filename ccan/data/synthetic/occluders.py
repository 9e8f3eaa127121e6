"""Things that stand before a person: poles, bicycles, boards, bollards. Lengths in metres, axes as in `render`."""

from __future__ import annotations

import itertools

import numpy as np

from ccan.data.synthetic.people import COLOURS
from ccan.data.synthetic.render import Atlas, Solid
from ccan.data.synthetic.wardrobe import plain_atlas
from ccan.data.synthetic.world import Region

OCCLUDERS = ("pole", "bicycle", "board", "bollard")


def _bar(
    a: tuple[float, float, float], b: tuple[float, float, float], width: float, cloth: str
) -> Solid:
    return Solid(a, b, (width,), (width,), cloth)


def _wheel(x: float, radius: float) -> list[Solid]:
    """A ring in the picture plane, as a chain of bars, with two spokes."""
    turns = np.linspace(0, 2 * np.pi, 15)
    points = [
        (x + radius * float(np.cos(u)), radius + radius * float(np.sin(u)), 0.0) for u in turns
    ]
    ring = [_bar(p, q, 0.022, "rubber") for p, q in itertools.pairwise(points)]
    return [
        *ring,
        _bar(points[2], points[9], 0.006, "metal"),
        _bar(points[5], points[12], 0.006, "metal"),
    ]


def _bicycle() -> list[Solid]:
    crank, seat, head = (0.0, 0.3, 0.0), (-0.16, 0.86, 0.0), (0.36, 0.82, 0.0)
    rear, front = (-0.48, 0.33, 0.0), (0.52, 0.33, 0.0)
    tubes = [(crank, seat), (crank, head), (seat, head), (seat, rear), (crank, rear), (head, front)]
    bars = [_bar(p, q, 0.02, "paint") for p, q in tubes]
    saddle = Solid((-0.28, 0.9, 0.0), (-0.06, 0.9, 0.0), (0.035,), (0.05,), "rubber")
    handle = _bar(head, (0.3, 1.02, 0.0), 0.016, "metal")
    return [*bars, saddle, handle, *_wheel(rear[0], rear[1]), *_wheel(front[0], front[1])]


def occluder_solids(kind: str, rng: np.random.Generator) -> tuple[list[Solid], Atlas]:
    """The solids and the atlas of one occluder, standing at the origin."""
    paint = COLOURS[str(rng.choice(list(COLOURS)))]
    colours = {"paint": paint, "rubber": (34, 34, 36), "metal": (150, 152, 156)}
    atlas = plain_atlas(colours, Region.OCCLUDER)
    if kind == "pole":
        width = float(rng.uniform(0.04, 0.09))
        return [_bar((0, 3.0, 0), (0, 0, 0), width, str(rng.choice(["paint", "metal"])))], atlas
    if kind == "bicycle":
        return _bicycle(), atlas
    if kind == "board":
        wide, tall = float(rng.uniform(0.25, 0.4)), float(rng.uniform(0.6, 1.0))
        panel = Solid((0, tall, 0), (0, 0.15, 0), (wide,), (0.04,), "paint", cap=0.05)
        frame = Solid(
            (0, tall - 0.08, 0.02), (0, tall - 0.2, 0.02), (wide * 0.8,), (0.04,), "metal", 0.05
        )
        feet = [_bar((x, 0.2, 0), (x, 0.0, 0.1), 0.02, "rubber") for x in (-wide * 0.7, wide * 0.7)]
        return [panel, frame, *feet], atlas
    post = Solid((0, 0.95, 0), (0, 0, 0), (0.09, 0.1, 0.11), (0.1,), "paint")
    band = Solid((0, 0.82, 0), (0, 0.72, 0), (0.105,), (0.11,), "metal", cap=0.1)
    return [post, band], atlas
