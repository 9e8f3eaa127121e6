"""The world that the dashboard shows by default: rendered once into the cache folder, read from there ever after.

Its seed is not the one of the world that the bundled model is trained on, so nobody in it has been seen in training.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ccan.data.records import ReIDDataset
from ccan.data.synthetic.world import FORMAT_VERSION, WorldConfig
from ccan.data.synthetic.write import write_world
from ccan.files import cache_folder

DEMO_WORLD = WorldConfig(identities=120, cameras=6, images_per_camera=4, seed=1)
"""As `ccan synth --identities 120 --cameras 6 --images-per-camera 4 --seed 1` writes it."""
DEMO_SPLITS = ("query", "gallery")
"""What is rendered of it: the first start should not take longer than it must."""


def demo_world(cache: Path | None = None, *, progress: bool = True) -> ReIDDataset:
    """The queries and the gallery of the default world; the first call renders it (under a minute on two cores).

    Args:
        cache: where worlds are kept (`ccan.files.cache_folder`).
        progress: whether to show a bar on stderr while it is rendered.

    Raises: DatasetError if the cache folder cannot be written.
    """
    world = cached_world(DEMO_WORLD, DEMO_SPLITS, "demo", cache, progress=progress)
    return replace(world, name="demo")


def cached_world(
    config: WorldConfig,
    splits: Sequence[str],
    name: str,
    cache: Path | None = None,
    *,
    progress: bool = True,
) -> ReIDDataset:
    """A world that is rendered once into the cache folder, under a name and a hash of its settings.

    Args:
        config: the world.
        splits: which of train, query, gallery, gt_bbox; always the same for a name and a world.
        name: what the folder's name begins with.
        cache: where worlds are kept (`ccan.files.cache_folder`).
        progress: whether to show a bar on stderr while it is rendered.

    Raises: DatasetError if the cache folder cannot be written.
    """
    from ccan.data.synthetic_world import load_synthetic

    settings = json.dumps([FORMAT_VERSION, config.to_dict()], sort_keys=True)
    digest = hashlib.sha256(settings.encode()).hexdigest()[:8]
    folder = (cache or cache_folder()) / "worlds" / f"{name}-{digest}"
    return load_synthetic(write_world(config, folder, progress=progress, splits=splits))
