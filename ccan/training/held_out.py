"""Which training images are trained on: all, or all but those of some identities that choose the `best` checkpoint."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from ccan.data.records import ReIDDataset, Sample
from ccan.errors import ConfigError


def hold_out(
    dataset: ReIDDataset, identities: int, seed: int
) -> tuple[tuple[Sample, ...], tuple[Sample, ...], tuple[Sample, ...]]:
    """Split training identities: (train, held-out query, held-out gallery).

    Of each held-out identity the first image of every camera is a query, the rest is gallery.
    Raises: ConfigError unless 2 ≤ identities < all, or 0 = hold nothing out.
    """
    if identities == 0:
        return dataset.train, (), ()
    everyone = dataset.train_identities
    if not 2 <= identities < len(everyone):
        raise ConfigError(
            f"validation_identities must be 0 or between 2 and {len(everyone) - 1} "
            f"(one less than the training identities), got {identities}"
        )
    held = set(np.random.default_rng([seed]).choice(everyone, identities, replace=False).tolist())
    train = tuple(sample for sample in dataset.train if sample.identity not in held)
    query: list[Sample] = []
    gallery: list[Sample] = []
    seen: set[tuple[int, int]] = set()
    cameras = {sample.camera for sample in dataset.train}
    for sample in dataset.train:
        if sample.identity in held:
            view = (sample.identity, sample.camera)
            (gallery if view in seen else query).append(sample)
            seen.add(view)
    found = {(sample.identity, sample.camera) for sample in gallery}
    if not any(
        (one.identity, camera) in found for one in query for camera in cameras - {one.camera}
    ):
        raise ConfigError(
            "no held-out identity has two images in one camera and one in another, so nothing can be "
            "ranked; hold out more identities, or none (validation_identities 0)"
        )
    return train, tuple(query), tuple(gallery)


def fingerprint(samples: Sequence[Sample]) -> str:
    """Hash of a training list: file names and identities, in order."""
    lines = (f"{sample.path.name} {sample.identity}\n" for sample in samples)
    return hashlib.sha256("".join(lines).encode()).hexdigest()[:16]
