"""Descriptors of many images in steps that outlive an interruption.

The images are worked off in parts; each finished part is one file in a work folder. A part belongs to one model, one
list of images and one set of settings, whose hash it carries: what does not fit, or is damaged, is made again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from tqdm import tqdm

from ccan.data.records import Sample
from ccan.errors import DatasetError
from ccan.evaluation.feature_set import FeatureSet
from ccan.evaluation.features import extract_features, feature_set_of
from ccan.evaluation.files import UNREADABLE
from ccan.files import atomic_path

PART = 2048
"""Images in a part: at worst so many are lost by an interruption."""


@dataclass(frozen=True)
class Extraction:
    """What an extraction gave.

    Attributes:
        features: (N, D) of the N readable images, in the order of the list, with their facts.
        broken: the images that could not be read, in the same order; they have no row.
        resumed: images whose descriptors were there already.
    """

    features: FeatureSet
    broken: tuple[Path, ...]
    resumed: int


def fingerprint(model: nn.Module, samples: Sequence[Sample], *facts: object) -> str:
    """Hash of everything that descriptors depend on: weights, images (path, size, time, identity, camera), facts.

    Raises: DatasetError for an image that is not there.
    """
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode())
    config: Any = getattr(model, "config", None)
    if config is not None:
        digest.update(json.dumps(config.to_dict(), sort_keys=True).encode())
    for name, value in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().float().cpu().contiguous().numpy().tobytes())
    for sample in samples:
        try:
            state = sample.path.stat()
        except OSError as error:
            raise DatasetError(f"{sample.path}: no such image file; check the path") from error
        line = f"{sample.path} {sample.identity} {sample.camera}"
        digest.update(f"{line} {state.st_size} {state.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:24]


def extract_in_parts(
    model: nn.Module,
    samples: Sequence[Sample],
    work: Path,
    *,
    name: str = "images",
    part: int = PART,
    progress: bool = False,
    **settings: Any,
) -> Extraction:
    """`extract_features`, resumable: finished parts are kept in a folder and used again.

    Args:
        model, samples: as in `extract_features`.
        work: folder of the parts; whoever calls removes it when the result is safe.
        name: of this list of images, for the parts' files and the bar.
        part: images in a part.
        progress: show a bar.
        settings: of `extract_features`; `on_broken` is "skip" unless it says otherwise.

    Raises: DatasetError if there is no readable image; as `extract_features`.
    """
    images = list(samples)
    settings = {"on_broken": "skip"} | settings
    key = fingerprint(model, images, part, {k: v for k, v in settings.items() if k != "workers"})
    work.mkdir(parents=True, exist_ok=True)
    parts: list[_Part] = []
    resumed = 0
    with tqdm(total=len(images), desc=name, unit="img", disable=not progress) as bar:
        for start in range(0, len(images), part):
            stop = min(start + part, len(images))
            file = work / f"{name}-{start:09d}.npz"
            found = _read_part(file, key)
            if found is None:
                found = _extract_part(model, images[start:stop], bar.update, settings)
                _write_part(file, key, found)
            else:
                resumed += stop - start
                bar.update(stop - start)
            parts.append(_Part(found.features, found.rows + start))
    rows = np.concatenate([np.empty(0, np.int64), *(one.rows for one in parts)])
    if not len(rows):
        raise DatasetError(
            f"there is no readable image among the {len(images)} of {name}; check the folder or the list"
        )
    features = np.concatenate([one.features for one in parts if len(one.rows)])
    broken = np.setdiff1d(np.arange(len(images)), rows)
    return Extraction(
        feature_set_of(torch.as_tensor(features), [images[int(row)] for row in rows]),
        tuple(images[int(row)].path for row in broken),
        resumed,
    )


class _Part(NamedTuple):
    """Descriptors (n, D) of the readable images of a part, and their places in it (n,)."""

    features: NDArray[np.floating[Any]]
    rows: NDArray[np.int64]


def _extract_part(
    model: nn.Module,
    samples: Sequence[Sample],
    advance: Callable[[int], object],
    settings: Mapping[str, Any],
) -> _Part:
    done = 0

    def report(images: int, _: int) -> None:
        nonlocal done
        advance(images - done)
        done = images

    # A path may stand in the list twice, so images are told apart by their place.
    numbered = [replace(sample, metadata={"place": place}) for place, sample in enumerate(samples)]
    try:
        found = extract_features(model, numbered, progress=report, **settings)
    except DatasetError:
        if settings["on_broken"] == "error" or not _all_broken(samples):
            raise
        advance(len(samples) - done)
        return _Part(np.empty((0, 1), np.float32), np.empty(0, np.int64))
    advance(len(samples) - done)
    return _Part(found.features.numpy(), found.metadata["place"].astype(np.int64))


def _all_broken(samples: Sequence[Sample]) -> bool:
    from ccan.data.loading import find_broken

    return len(find_broken(samples)) == len({sample.path for sample in samples})


def _write_part(file: Path, key: str, part: _Part) -> None:
    with atomic_path(file) as temporary, temporary.open("wb") as opened:
        np.savez(opened, features=part.features, rows=part.rows, key=np.array(key))


def _read_part(file: Path, key: str) -> _Part | None:
    """A finished part, or None if there is none, it is damaged, or it belongs to something else."""
    try:
        with file.open("rb") as opened, np.load(opened, allow_pickle=False) as part:
            if str(part["key"]) != key:
                return None
            return _Part(part["features"], part["rows"])
    except UNREADABLE:
        return None
