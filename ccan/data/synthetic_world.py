"""A synthetic world read back: Market-1501's folders and names, and what the generator knows of each image."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ccan.data.market_style import MarketLayout, assemble, scan_folders
from ccan.data.records import SPLITS, ReIDDataset, Sample
from ccan.errors import DatasetError

LAYOUT = MarketLayout(
    "a synthetic world",
    """\
  ROOT/                     as `ccan synth` writes it
    world.json              settings and splits
    attributes.json         what is known of each image
    bounding_box_train/     0002_c1s1_000451_03.jpg …
    query/                  0001_c1s1_001051_00.jpg …
    bounding_box_test/      0001_c2s1_000301_00.jpg, 0000_c1s1_…, -1_c1s1_… …
    gt_bbox/                (optional, for multi query)""",
)

_AGAIN = "write the world anew with `ccan synth`"


def load_synthetic(root: str | Path, *, keep_junk: bool = False) -> ReIDDataset:
    """Read a synthetic world; what it knows of each image (view, occlusion …) becomes `Sample.metadata`.

    Args:
        root: the folder that `ccan synth` wrote.
        keep_junk: keep junk (identity -1) in the gallery, for tools that show it; an evaluation ignores it anyway.

    Raises: DatasetError if a split that the world says it has is missing or empty, or one of its files is damaged.
    """
    root = Path(root)
    required = _splits(root / "world.json")
    scan = scan_folders(root, LAYOUT, required)
    dataset = assemble("synthetic", root, scan, keep_junk=keep_junk)
    facts = _facts(root / "attributes.json")
    found = {split: _with_metadata(getattr(dataset, split), facts) for split in SPLITS}
    return replace(dataset, **found)


def _splits(path: Path) -> list[str]:
    """The splits that a world says it has, without `gt_bbox`, which no evaluation needs."""
    splits = _read_json(path).get("splits", ["train", "query", "gallery"])
    if not isinstance(splits, list) or not all(isinstance(split, str) for split in splits):
        raise DatasetError(
            f"{path}: expected a list of names as `splits`, got {splits!r}; {_AGAIN}"
        )
    return [split for split in SPLITS if split in splits]


def _facts(path: Path) -> Mapping[str, Mapping[str, Any]]:
    """What is known of each image, by `folder/name.jpg`."""
    images = _read_json(path).get("images", {})
    if not isinstance(images, dict) or not all(isinstance(v, dict) for v in images.values()):
        raise DatasetError(f"{path}: expected `images` to be an object of objects; {_AGAIN}")
    return images


def _read_json(path: Path) -> dict[str, Any]:
    """A JSON object, empty if there is no such file. Raises: DatasetError if it is something else."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise DatasetError(f"{path}: expected JSON, got {error}; {_AGAIN}") from error
    if not isinstance(value, dict):
        raise DatasetError(f"{path}: expected a JSON object, got {type(value).__name__}; {_AGAIN}")
    return value


def _with_metadata(
    samples: Iterable[Sample], facts: Mapping[str, Mapping[str, Any]]
) -> tuple[Sample, ...]:
    """The samples with the plain facts of each, found by `folder/name.jpg`; identity and camera they have already."""

    def plain(sample: Sample) -> dict[str, str | float]:
        known = facts.get(f"{sample.path.parent.name}/{sample.path.name}", {})
        return {
            key: value
            for key, value in known.items()
            if key not in ("identity", "camera", "split") and isinstance(value, str | int | float)
        }

    return tuple(replace(sample, metadata=plain(sample)) for sample in samples)


def read_labels(image: str | Path) -> NDArray[np.uint8] | None:
    """The label map of an image of a synthetic world, values of `ccan.data.synthetic.world.Region`, (H, W).

    None for an image that has none, of whatever dataset. Raises: DatasetError for a damaged one.
    """
    from PIL import Image  # lists are read without pictures

    image = Path(image)
    path = image.parent.parent / "labels" / image.parent.name / f"{image.stem}.png"
    if not path.is_file():
        return None
    try:
        with Image.open(path) as opened:
            if opened.mode not in ("P", "L"):
                raise DatasetError(
                    f"{path}: expected a palette picture, got {opened.mode}; {_AGAIN}"
                )
            return np.asarray(opened, dtype=np.uint8)
    except (OSError, ValueError) as error:
        raise DatasetError(f"{path}: expected a label map, got {error}; {_AGAIN}") from error
