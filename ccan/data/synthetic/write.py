"""A synthetic world on disk: Market-1501's folders and names, a label map for each image, and what is known of it all.

    bounding_box_train/  query/  bounding_box_test/  gt_bbox/     0002_c1s1_000451_03.jpg: identity, camera, frame, box
    labels/<folder>/<stem>.png                                    palette PNG, values of `Region`
    attributes.json                                               identities and images, all that the generator knows
    world.json                                                    settings, format and splits; written last

Box 00 is a careful hand's (gt_bbox), higher numbers are a detector's. Every image owns a generator derived from
(seed, person, camera, shot), so the bytes do not depend on the number of workers.
"""

from __future__ import annotations

import glob
import json
import os
import shutil
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ccan.data.synthetic.develop import FOLDERS, SPLITS, Split, image_count, units_of
from ccan.data.synthetic.people import citizen
from ccan.data.synthetic.workers import Records, in_processes, in_this_process
from ccan.data.synthetic.world import FORMAT_VERSION, Region, WorldConfig
from ccan.errors import ConfigError, DatasetError
from ccan.files import remove_leftovers

__all__ = ["SPLITS", "Split", "write_world"]


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
    remove_leftovers(out.parent, f".{glob.escape(out.name)}.*.partial")
    partial = out.parent / f".{out.name}.{uuid.uuid4().hex[:8]}.partial"
    units = list(units_of(config, wanted))
    count = min(workers or _available_cores(), max(1, len(units) // 4))
    try:
        for split in wanted:
            (partial / FOLDERS[split]).mkdir(parents=True)
            (partial / "labels" / FOLDERS[split]).mkdir(parents=True)
        images: Records = {}
        total = image_count(config, wanted)
        with tqdm(total=total, unit="image", desc="world", disable=not progress) as bar:
            done = in_processes if count > 1 else in_this_process
            for records in done(config, partial, wanted, units, count):
                images.update(records)
                bar.update(len(records))
        _write_facts(config, partial, wanted, images)
        _move(partial, out, config, wanted)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return out


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


def _write_facts(config: WorldConfig, root: Path, splits: tuple[str, ...], images: Records) -> None:
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
