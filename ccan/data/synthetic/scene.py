"""One moment before a camera: a person in a pose, the street behind, what stands in front, and the boxes drawn round.

A shot is drawn once as a *scene* a third larger than the box, then cut by a well-aligned box and by a detector's box.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ccan.data.synthetic.body import Figure, Pose
from ccan.data.synthetic.camera import Box, Camera, expose, station
from ccan.data.synthetic.occluders import OCCLUDERS, occluder_solids
from ccan.data.synthetic.people import (
    DISTRACTOR_STREAM,
    PEOPLE_STREAM,
    Person,
    citizen,
    stranger,
)
from ccan.data.synthetic.render import Canvas, Floats, View
from ccan.data.synthetic.wardrobe import atlas_of
from ccan.data.synthetic.world import Region, WorldConfig

SHOT_STREAM, JUNK_STREAM = 4, 6
MARGIN = 1.36
"""Height and width of the scene over those of a well-aligned box."""


@dataclass(frozen=True)
class Shot:
    """One rendered moment.

    Attributes:
        colours: (H, W, 3) uint8, the scene before the sensor.
        labels: (H, W) uint8 regions.
        whole: (H, W) bool, the person as if nothing stood in front.
        aligned: the box that a careful hand would draw.
        facts: what is known of the moment, by name.
    """

    colours: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    whole: NDArray[np.bool_]
    aligned: Box
    facts: dict[str, Any]


def shot_of(
    config: WorldConfig, identity: int, camera: int, place: int
) -> tuple[Shot, np.random.Generator]:
    """Shot `place` (from 0) of an identity in a camera, and the generator that its detector's box goes on with."""
    rng = np.random.default_rng([config.seed, SHOT_STREAM, PEOPLE_STREAM, identity, camera, place])
    here, background = station(config, camera)
    return take_shot(config, here, background, citizen(config, identity).person, rng), rng


def stray_shot(
    config: WorldConfig, number: int, junk: bool
) -> tuple[Shot, int, np.random.Generator]:
    """A shot of a person of neither half for distractor or junk image `number`, its camera, its generator."""
    stream = JUNK_STREAM if junk else DISTRACTOR_STREAM
    rng = np.random.default_rng([config.seed, SHOT_STREAM, stream, number])
    camera = 1 + number % config.cameras
    person = stranger(config, 2 * number + int(junk))
    return take_shot(config, *station(config, camera), person, rng), camera, rng


def view_name(azimuth: float) -> str:
    """`front`, `side` or `back` for an azimuth in radians."""
    cosine = np.cos(azimuth)
    return "front" if cosine > np.sqrt(0.5) else "back" if cosine < -np.sqrt(0.5) else "side"


def take_shot(
    config: WorldConfig,
    camera: Camera,
    background: NDArray[np.uint8],
    person: Person,
    rng: np.random.Generator,
    azimuth: float | None = None,
) -> Shot:
    """Draw one person before one camera; `azimuth` fixes the view (radians), else the camera's range decides."""
    height, width = round(config.height * MARGIN), round(config.width * MARGIN)
    if azimuth is None:
        azimuth = camera.azimuth + float(rng.uniform(-1, 1)) * camera.spread
        azimuth += np.pi * float(rng.random() < 0.3)
    azimuth = float(np.mod(azimuth, 2 * np.pi))
    stride = float(rng.uniform(0.45, 1.0)) if rng.random() < 0.75 else float(rng.uniform(0, 0.15))
    pose = Pose(
        phase=float(rng.uniform(0, 2 * np.pi)),
        stride=stride,
        head_turn=float(rng.normal(0, 0.22)),
        arm_bend=float(rng.random() < 0.15) * float(rng.uniform(0.5, 1.3)),
    )
    scale = 0.9 * config.height / person.height
    view = View(
        azimuth=azimuth,
        elevation=float(rng.uniform(*camera.elevation)),
        scale=scale,
        origin=(width * 0.5, height * 0.865),
    )
    canvas = Canvas(height, width)
    canvas.draw(Figure(person, pose).solids, atlas_of(person), view, camera.light)
    whole = canvas.texel > 0
    _bystander(canvas, config, camera, view, rng)
    occluder = _occlude(canvas, config, camera, view, person, rng)
    labels = canvas.labels()
    ground = _window(background, height, width, rng)
    _shadow(ground, view, rng)
    canvas.paint_over(ground)
    np.clip(ground, 0, 255, out=ground)
    hidden = np.count_nonzero(whole & (labels == Region.OCCLUDER)) / max(1, np.count_nonzero(whole))
    facts = {
        "azimuth": round(float(np.degrees(azimuth)), 1),
        "view": view_name(azimuth),
        "elevation": round(float(np.degrees(view.elevation)), 1),
        "gait_phase": round(pose.phase, 3),
        "stride": round(pose.stride, 3),
        "occluder": occluder,
        "occlusion": round(hidden, 4),
    }
    return Shot(ground.astype(np.uint8), labels, whole, _aligned_box(whole, config), facts)


def _bystander(
    canvas: Canvas, config: WorldConfig, camera: Camera, view: View, rng: np.random.Generator
) -> None:
    """Now and then somebody else walks behind; they count as background."""
    if rng.random() > 0.12:
        return
    other = stranger(config, int(rng.integers(1 << 20)))
    shift = float(rng.choice([-1, 1]) * rng.uniform(0.4, 0.65)) * view.scale
    behind = View(
        azimuth=float(rng.uniform(0, 2 * np.pi)),
        elevation=view.elevation,
        scale=view.scale * float(rng.uniform(0.7, 0.92)),
        origin=(view.origin[0] + shift, view.origin[1] - 0.06 * config.height),
        depth=-2.0,
    )
    pose = Pose(float(rng.uniform(0, 6.28)), 0.7)
    label = int(Region.BACKGROUND)
    canvas.draw(Figure(other, pose).solids, atlas_of(other), behind, camera.light, label=label)


def _occlude(
    canvas: Canvas,
    config: WorldConfig,
    camera: Camera,
    view: View,
    person: Person,
    rng: np.random.Generator,
) -> str:
    """Put something in front of the person with the configured probability; its name or `none`."""
    if rng.random() >= config.occlusion:
        return "none"
    kind = str(rng.choice(["person", *OCCLUDERS]))
    side = float(rng.choice([-1, 1]))
    label = int(Region.OCCLUDER)
    if kind == "person":
        other = stranger(config, int(rng.integers(1 << 20)))
        shift = side * float(rng.uniform(0.22, 0.42)) * view.scale
        front = View(
            azimuth=float(rng.uniform(0, 2 * np.pi)),
            elevation=view.elevation,
            scale=view.scale * float(rng.uniform(0.98, 1.12)),
            origin=(view.origin[0] + shift, view.origin[1] + 0.05 * config.height),
            depth=2.0,
        )
        pose = Pose(float(rng.uniform(0, 6.28)), 0.7)
        canvas.draw(Figure(other, pose).solids, atlas_of(other), front, camera.light, label=label)
        return kind
    solids, atlas = occluder_solids(kind, rng)
    shift = side * float(rng.uniform(0.0, 0.3)) * view.scale
    front = View(
        azimuth=float(rng.uniform(-0.4, 0.4)),
        elevation=view.elevation,
        scale=view.scale,
        origin=(view.origin[0] + shift, view.origin[1] + 0.03 * config.height),
        depth=2.0,
    )
    canvas.draw(solids, atlas, front, camera.light, label=label)
    return kind


def _window(
    background: NDArray[np.uint8], height: int, width: int, rng: np.random.Generator
) -> Floats:
    """The part of the fixed background that lies behind this person's place."""
    x = int(rng.integers(0, background.shape[1] - width + 1))
    y = int(rng.integers(0, background.shape[0] - height + 1))
    return background[y : y + height, x : x + width].astype(np.float32)


def _shadow(ground: Floats, view: View, rng: np.random.Generator) -> None:
    """Darken the ground softly beneath the person; in place."""
    x, y = view.origin
    a, b = 0.36 * view.scale, (0.07 + 0.2 * float(np.sin(view.elevation))) * view.scale
    x += float(rng.uniform(-0.1, 0.1)) * view.scale
    top, bottom = max(0, int(y - 2.2 * b)), min(ground.shape[0], int(y + 2.2 * b))
    rows = (np.arange(top, bottom, dtype=np.float32) - np.float32(y)) / np.float32(b)
    columns = (np.arange(ground.shape[1], dtype=np.float32) - np.float32(x)) / np.float32(a)
    fall = np.exp(-(rows**2))[:, None] * np.exp(-(columns**2))
    ground[top:bottom] *= (1 - np.float32(0.5) * fall)[..., None]


def _aligned_box(whole: NDArray[np.bool_], config: WorldConfig) -> Box:
    """A box of the output's aspect around the person, 3 % of the height free above and below."""
    rows, columns = np.flatnonzero(whole.any(axis=1)), np.flatnonzero(whole.any(axis=0))
    tall = float(rows[-1] - rows[0] + 1) * 1.06
    wide = tall * config.width / config.height
    middle = 0.5 * float(columns[0] + columns[-1] + 1)
    centre = 0.5 * float(rows[0] + rows[-1] + 1)
    return _inside(
        (middle - wide / 2, centre - tall / 2, middle + wide / 2, centre + tall / 2), whole
    )


def _inside(box: Box, scene: NDArray[Any]) -> Box:
    """The box shifted, and if need be shrunk, so that it lies inside the scene."""
    height, width = scene.shape[:2]
    wide, tall = min(box[2] - box[0], width), min(box[3] - box[1], height)
    left = float(np.clip(box[0], 0, width - wide))
    upper = float(np.clip(box[1], 0, height - tall))
    return left, upper, left + wide, upper + tall


def detector_box(shot: Shot, config: WorldConfig, rng: np.random.Generator) -> Box:
    """The aligned box with a detector's errors: shifted, scaled, now and then cutting feet or head off."""
    left, upper, right, lower = shot.aligned
    wide, tall = right - left, lower - upper
    strength = config.jitter
    size = float(np.exp(rng.normal(0.015, 0.06) * strength))
    x = (left + right) / 2 + float(rng.normal(0, 0.07)) * wide * strength
    y = (upper + lower) / 2 + float(rng.normal(0, 0.03)) * tall * strength
    if rng.random() < 0.07 * strength:
        cut = float(rng.uniform(0.72, 0.86))
        y += (1 - cut) * tall * (0.5 if rng.random() < 0.3 else -0.5)
        size = cut
    wide, tall = wide * size, tall * size
    return _inside((x - wide / 2, y - tall / 2, x + wide / 2, y + tall / 2), shot.labels)


def junk_box(shot: Shot, config: WorldConfig, rng: np.random.Generator) -> Box:
    """A box that a detector should not have drawn: a fragment of the person, or mostly what is beside."""
    left, upper, right, lower = shot.aligned
    size = float(rng.uniform(0.28, 0.55))
    wide, tall = (right - left) * size, (lower - upper) * size
    x = float(rng.uniform(left - wide / 2, right + wide / 2))
    y = float(rng.uniform(upper, lower))
    return _inside((x - wide / 2, y - tall / 2, x + wide / 2, y + tall / 2), shot.labels)


def photograph(
    config: WorldConfig, camera: int, shot: Shot, box: Box, rng: np.random.Generator
) -> tuple[Image.Image, NDArray[np.uint8]]:
    """The picture and the label map (height, width) that a camera gives of a box."""
    aligned_height = shot.aligned[3] - shot.aligned[1]
    image = expose(config, station(config, camera)[0], shot.colours, box, aligned_height, rng)
    return image, _cut_labels(config, shot.labels, box)


def _cut_labels(config: WorldConfig, labels: NDArray[np.uint8], box: Box) -> NDArray[np.uint8]:
    """The scene's map inside the box, (height, width), nearest pixel."""
    left, upper, right, lower = box
    rows = upper + (np.arange(config.height) + 0.5) * ((lower - upper) / config.height)
    columns = left + (np.arange(config.width) + 0.5) * ((right - left) / config.width)
    return labels[rows.astype(np.intp)[:, None], columns.astype(np.intp)]
