"""A synthetic world on disk: Market-1501's folders and names, a label map for each image, and what is known of it all.

    bounding_box_train/  query/  bounding_box_test/  gt_bbox/     0002_c1s1_000451_03.jpg: identity, camera, frame, box
    labels/<folder>/<stem>.png                                    palette PNG, values of `Region`
    attributes.json                                               identities and images, all that the generator knows
    world.json                                                    settings, format and splits; written last

Box 00 is a careful hand's (gt_bbox), higher numbers are a detector's. Every image owns a generator derived from
(seed, person, camera, shot), so the bytes do not depend on the number of workers.
"""

from __future__ import annotations

import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from ccan.data.synthetic.people import citizen
from ccan.data.synthetic.scene import (
    Box,
    Shot,
    cut_labels,
    detector_box,
    expose,
    junk_box,
    shot_of,
    station,
    stray_shot,
)
from ccan.data.synthetic.world import FORMAT_VERSION, Region, WorldConfig
from ccan.errors import ConfigError, DatasetError

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


def write_world(
    config: WorldConfig,
    out: Path,
    *,
    workers: int | None = None,
    progress: bool = True,
    splits: Sequence[str] = SPLITS,
) -> Path:
    """Render a world into `out` and return it; a world that already stands there complete is returned at once.

    Everything is written beside `out` and renamed at the end, so an interrupted run leaves no half world.

    Args:
        config: the world.
        out: a folder that does not exist, is empty, or holds this very world.
        workers: processes; None = one for each available core. They never import torch or the caller's main module.
        progress: whether to show a bar on stderr.
        splits: which of train, query, gallery, gt_bbox to write.

    Raises:
        ConfigError: for an unknown split or workers < 1.
        DatasetError: if `out` holds something else, or a worker fails (full disk, killed).
    """
    out = Path(out)
    wanted = _checked_splits(splits)
    if workers is not None and workers < 1:
        raise ConfigError(f"workers must be at least 1, got {workers}; leave it out for all cores")
    if _already_there(config, out, wanted):
        return out
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.parent / f".{out.name}.{uuid.uuid4().hex[:8]}.partial"
    units = list(_units(config, wanted))
    count = min(workers or _available_cores(), max(1, len(units) // 4))
    try:
        for split in wanted:
            (partial / FOLDERS[split]).mkdir(parents=True)
            (partial / "labels" / FOLDERS[split]).mkdir(parents=True)
        images: dict[str, dict[str, Any]] = {}
        total = _image_count(config, wanted)
        with tqdm(total=total, unit="image", desc="world", disable=not progress) as bar:
            done = _in_processes if count > 1 else _in_this_process
            for records in done(config, partial, wanted, units, count):
                images.update(records)
                bar.update(len(records))
        _write_facts(config, partial, wanted, images)
        _move(partial, out, config, wanted)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return out


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


def _checked_splits(splits: Sequence[str]) -> tuple[str, ...]:
    unknown = sorted(set(splits) - set(SPLITS))
    if unknown or not splits:
        raise ConfigError(f"splits must be some of {', '.join(SPLITS)}, got {list(splits)!r}")
    return tuple(split for split in SPLITS if split in splits)


def _available_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _identity_card(config: WorldConfig, splits: Sequence[str]) -> dict[str, Any]:
    return {"format": FORMAT_VERSION, "config": config.to_dict(), "splits": list(splits)}


def _already_there(config: WorldConfig, out: Path, splits: tuple[str, ...]) -> bool:
    """Whether `out` is this world. Raises: DatasetError if it holds anything else."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return False
    what = "no world.json"
    try:
        card = json.loads((out / "world.json").read_text())
        same = (card["format"], card["config"]) == (FORMAT_VERSION, config.to_dict())
        if same and set(splits) <= set(card["splits"]):
            return True
        what = (
            f"splits {card['splits']}" if same else "a world of other settings or another version"
        )
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise DatasetError(
        f"{out} is not empty and not the world asked for (found {what}); "
        "choose another folder, or delete this one to render anew"
    )


def _move(partial: Path, out: Path, config: WorldConfig, splits: tuple[str, ...]) -> None:
    """Rename into place; another process that finished the same world first is as good."""
    if out.is_dir() and not any(out.iterdir()):
        out.rmdir()
    try:
        partial.rename(out)
    except OSError:
        if not _already_there(config, out, splits):
            raise


def _units(config: WorldConfig, splits: tuple[str, ...]) -> Iterator[Unit]:
    if "train" in splits:
        yield from (("person", identity) for identity in config.train_identities)
    if {"query", "gallery", "gt_bbox"} & set(splits):
        yield from (("person", identity) for identity in config.test_identities)
    if "gallery" in splits:
        yield from (("distractor", number) for number in range(config.distractor_images))
        yield from (("junk", number) for number in range(config.junk_images))


def _image_count(config: WorldConfig, splits: tuple[str, ...]) -> int:
    test, queries = config.test_images, len(config.test_identities) * config.cameras
    sizes = {
        "train": len(config.train_identities) * config.cameras * config.images_per_camera,
        "query": queries,
        "gallery": test - queries + config.distractor_images + config.junk_images,
        "gt_bbox": test,
    }
    return sum(sizes[split] for split in splits)


def _write_facts(
    config: WorldConfig, root: Path, splits: tuple[str, ...], images: dict[str, dict[str, Any]]
) -> None:
    people = {}
    for identity in sorted([*config.train_identities, *config.test_identities]):
        who = citizen(config, identity)
        people[f"{identity:04d}"] = {
            "split": "test" if identity in config.test_identities else "train",
            "lookalike_group": who.group,
            "lookalike_detail": who.detail,
            **who.person.to_dict(),
        }
    facts = {
        "regions": {region.name.lower(): int(region) for region in Region},
        "identities": people,
        "images": {name: images[name] for name in sorted(images)},
    }
    (root / "attributes.json").write_text(json.dumps(facts, indent=1) + "\n")
    card = json.dumps(_identity_card(config, splits), indent=2) + "\n"
    (root / "world.json").write_text(card)


# Work: in this process, or in children that talk JSON lines over pipes. Children run a fresh interpreter instead of
# multiprocessing's spawn, which would import the caller's main module (a Gradio server, say) once more in each.


def _in_this_process(
    config: WorldConfig, root: Path, splits: tuple[str, ...], units: list[Unit], workers: int
) -> Iterator[dict[str, dict[str, Any]]]:
    del workers
    for unit in units:
        yield render_unit(config, root, splits, unit)


def _in_processes(
    config: WorldConfig, root: Path, splits: tuple[str, ...], units: list[Unit], workers: int
) -> Iterator[dict[str, dict[str, Any]]]:
    environment = dict(os.environ, OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")
    environment["PYTHONPATH"] = os.pathsep.join(path or os.getcwd() for path in sys.path)
    command = [sys.executable, "-c", f"from {__name__} import work; work()"]
    lines: queue.Queue[str | None] = queue.Queue()
    children = [
        subprocess.Popen(
            command,
            env=environment,
            text=True,
            encoding="utf-8",
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for _ in range(workers)
    ]
    errors: list[str] = []
    try:
        for place, child in enumerate(children):
            order = {
                "config": config.to_dict(),
                "root": str(root.resolve()),
                "splits": list(splits),
                "units": units[place::workers],
            }
            threading.Thread(
                target=_listen, args=(child, json.dumps(order), lines, errors), daemon=True
            ).start()
        running = workers
        while running:
            line = lines.get()
            if line is None:
                running -= 1
                if errors:
                    raise DatasetError(f"rendering the world failed: {errors[0]}")
            else:
                yield json.loads(line)
    finally:
        for child in children:
            child.kill()
            child.wait()


def _listen(
    child: subprocess.Popen[str], order: str, lines: queue.Queue[str | None], errors: list[str]
) -> None:
    """Give a child its order and pass on its lines, then None; keeps the last line of its complaint."""
    assert child.stdin and child.stdout and child.stderr
    try:
        with child.stdin, child.stdout, child.stderr:
            child.stdin.write(order)
            child.stdin.close()
            for line in child.stdout:
                lines.put(line)
            complaint = child.stderr.read().strip()
        if child.wait() != 0:
            errors.append(complaint.splitlines()[-1] if complaint else f"exit {child.returncode}")
    except (OSError, ValueError) as error:
        errors.append(str(error))
    finally:
        lines.put(None)


def work() -> None:
    """A child's life: read the order from stdin, render its units, print the records of each as a line."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    order = json.load(sys.stdin)
    config, root = WorldConfig.from_dict(order["config"]), Path(order["root"])
    for kind, number in order["units"]:
        records = render_unit(config, root, tuple(order["splits"]), (kind, number))
        print(json.dumps(records), flush=True)


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
    camera_number: int,
    shot: Shot,
    box: Box,
    rng: np.random.Generator,
) -> dict[str, dict[str, Any]]:
    """Write one box of a shot as JPEG and label map; its record by file name."""
    camera, _ = station(config, camera_number)
    image = expose(config, camera, shot, box, rng)
    image.save(root / f"{file}.jpg", quality=int(rng.integers(*camera.quality)))
    labels = cut_labels(config, shot.labels, box)
    picture = Image.fromarray(labels)
    picture.putpalette(_FLAT_PALETTE)
    picture.save(root / "labels" / f"{file}.png", compress_level=1)
    folder = file.partition("/")[0]
    record = {
        "identity": identity,
        "camera": camera.number,
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
