"""Pieces of work of a world, and each as files: JPEG, label map, and the record of what is known of the image."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ccan.data.synthetic.camera import Box, station
from ccan.data.synthetic.scene import (
    Shot,
    detector_box,
    junk_box,
    photograph,
    shot_of,
    stray_shot,
)
from ccan.data.synthetic.world import Region, WorldConfig
from ccan.errors import DatasetError

Split = Literal["train", "query", "gallery", "gt_bbox"]

FOLDERS = {
    "train": "bounding_box_train",
    "query": "query",
    "gallery": "bounding_box_test",
    "gt_bbox": "gt_bbox",
}
SPLITS: tuple[Split, ...] = get_args(Split)

PALETTE = (
    *((30, 30, 34), (120, 120, 126), (230, 159, 0), (86, 180, 233)),
    *((240, 228, 66), (0, 114, 178), (0, 158, 115), (213, 94, 0)),
)
"""Colours of the label maps, by `Region`."""

_FLAT_PALETTE = [channel for colour in PALETTE for channel in colour]

Unit = tuple[str, int]
"""A piece of work: `person`, `distractor` or `junk`, and its number (an identity, or a place among its kind)."""


def units_of(config: WorldConfig, splits: tuple[str, ...]) -> Iterator[Unit]:
    """Everything that has to be rendered for some splits, in a fixed order."""
    if "train" in splits:
        yield from (("person", identity) for identity in config.train_identities)
    if {"query", "gallery", "gt_bbox"} & set(splits):
        yield from (("person", identity) for identity in config.test_identities)
    if "gallery" in splits:
        yield from (("distractor", number) for number in range(config.distractor_images))
        yield from (("junk", number) for number in range(config.junk_images))


def image_count(config: WorldConfig, splits: tuple[str, ...]) -> int:
    """Images that the units of some splits make."""
    test, queries = config.test_images, len(config.test_identities) * config.cameras
    sizes = {
        "train": len(config.train_identities) * config.cameras * config.images_per_camera,
        "query": queries,
        "gallery": test - queries + config.distractor_images + config.junk_images,
        "gt_bbox": test,
    }
    return sum(sizes[split] for split in splits)


def render_unit(
    config: WorldConfig, root: Path, splits: tuple[str, ...], unit: Unit
) -> dict[str, dict[str, Any]]:
    """Write the images and maps of one piece of work; their records by `folder/name.jpg`."""
    kind, number = unit
    if kind != "person":
        return _render_stray(config, root, number, junk=kind == "junk")
    train = number in config.train_identities
    hand = not train and "gt_bbox" in splits
    records: dict[str, dict[str, Any]] = {}
    for camera in range(1, config.cameras + 1):
        for place in range(config.images_per_camera):
            split = "train" if train else "gallery" if place else "query"
            if split not in splits and not hand:
                continue
            frame = 25 * (place + 1 + config.images_per_camera * (number % 97)) + number % 25
            stem = f"{number:04d}_c{camera}s{1 + place % 2}_{frame:06d}"
            shot, rng = shot_of(config, number, camera, place)
            hand_rng = rng.spawn(1)[0]
            if split in splits:
                file = f"{FOLDERS[split]}/{stem}_{place + 1:02d}"
                box = detector_box(shot, config, rng)
                records |= _develop(config, root, file, number, camera, shot, box, rng)
            if hand:
                file, box = f"{FOLDERS['gt_bbox']}/{stem}_00", shot.aligned
                records |= _develop(config, root, file, number, camera, shot, box, hand_rng)
    return records


def _render_stray(
    config: WorldConfig, root: Path, number: int, junk: bool
) -> dict[str, dict[str, Any]]:
    """One distractor (a person of neither half) or one junk image (a fragment, or hardly anybody)."""
    shot, camera, rng = stray_shot(config, number, junk)
    box = junk_box(shot, config, rng) if junk else detector_box(shot, config, rng)
    identity, who = (-1, "-1") if junk else (0, "0000")
    file = f"{FOLDERS['gallery']}/{who}_c{camera}s1_{25 * (number + 1):06d}_01"
    return _develop(config, root, file, identity, camera, shot, box, rng)


def _develop(
    config: WorldConfig,
    root: Path,
    file: str,
    identity: int,
    camera: int,
    shot: Shot,
    box: Box,
    rng: np.random.Generator,
) -> dict[str, dict[str, Any]]:
    """Write one box of a shot as JPEG and label map; its record by file name."""
    image, labels = photograph(config, camera, shot, box, rng)
    quality = int(rng.integers(*station(config, camera)[0].quality))
    image.save(root / f"{file}.jpg", quality=quality)
    picture = Image.fromarray(labels)
    picture.putpalette(_FLAT_PALETTE)
    picture.save(root / "labels" / f"{file}.png", compress_level=1)
    folder = file.partition("/")[0]
    record = {
        "identity": identity,
        "camera": camera,
        "split": next(split for split, name in FOLDERS.items() if name == folder),
        **shot.facts,
        **_shares(shot, labels, box),
    }
    return {f"{file}.jpg": record}


def _shares(shot: Shot, labels: NDArray[np.uint8], box: Box) -> dict[str, Any]:
    """How much of the person the box shows, what fills it, and how far it is from the aligned box.

    `visible`: share of the whole person's pixels that this image shows. `occluder_share`, `person_share`: shares of
    the image. `box_shift`: right and down, in aligned widths and heights. `box_scale`: height over aligned height.
    """
    left, upper, right, lower = (round(edge) for edge in box)
    region = (slice(upper, lower), slice(left, right))
    shown = np.count_nonzero(shot.whole[region] & (shot.labels[region] > Region.OCCLUDER))
    aligned = shot.aligned
    wide, tall = aligned[2] - aligned[0], aligned[3] - aligned[1]
    return {
        "visible": round(shown / max(1, np.count_nonzero(shot.whole)), 4),
        "person_share": round(float(np.mean(labels > Region.OCCLUDER)), 4),
        "occluder_share": round(float(np.mean(labels == Region.OCCLUDER)), 4),
        "box_shift": [
            round((box[0] + box[2] - aligned[0] - aligned[2]) / 2 / wide, 4),
            round((box[1] + box[3] - aligned[1] - aligned[3]) / 2 / tall, 4),
        ],
        "box_scale": round((box[3] - box[1]) / tall, 4),
    }


def load_label_map(image_path: Path) -> NDArray[np.uint8]:
    """The label map of a synthetic image, (H, W) uint8 with values of `Region`. Raises: DatasetError if it has none."""
    image_path = Path(image_path)
    folder = image_path.parent
    path = folder.parent / "labels" / folder.name / f"{image_path.stem}.png"
    try:
        with Image.open(path) as image:
            return np.asarray(image, np.uint8).copy()
    except FileNotFoundError as error:
        raise DatasetError(
            f"{image_path} has no label map, expected {path}; only synthetic worlds have them"
        ) from error
