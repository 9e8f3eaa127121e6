"""The settings of a synthetic world, and the regions that its label maps name."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import IntEnum

from ccan.config import _Group
from ccan.errors import ConfigError

FORMAT_VERSION = 1
"""Raised whenever the same settings would give other pixels."""


class Region(IntEnum):
    """Values of a label map. The last four are the paper's parts (a)–(d), from top to bottom."""

    BACKGROUND = 0
    """Everything that is neither the person nor in front of them, people behind included."""
    OCCLUDER = 1
    """What stands between the camera and the person: poles, bicycles, boards, other people."""
    CARRIED = 2
    """Backpacks, bags, trolleys and whatever is held in a hand."""
    ARMS = 3
    """Upper arms, forearms and hands, sleeves included."""
    HEAD_SHOULDER = 4
    """Part (a): head, hair, hat, neck, scarf and the top of the shoulders."""
    UPPER_BODY = 5
    """Part (b): chest to hip."""
    THIGHS = 6
    """Part (c): hip to knee, skirts and coat tails included."""
    CRUS_FOOT = 7
    """Part (d): knee to sole."""


@dataclass(frozen=True)
class WorldConfig(_Group):
    """Everything that a synthetic world depends on. The same settings give the same bytes on one machine."""

    identities: int = 120
    """People with a number: even numbers train, odd numbers test."""
    cameras: int = 6
    """Cameras, numbered from 1; every identity is seen by each."""
    images_per_camera: int = 4
    """Images of an identity in one camera; in the test half the first is the query."""
    seed: int = 0
    """Owner of all randomness: people, cameras, poses, boxes, noise."""
    height: int = 256
    """Height of the images in pixels."""
    width: int = 128
    """Width of the images in pixels."""
    distractors: int | None = None
    """Gallery images (identity 0000) of people in neither half; None = a fifth of the test images."""
    junk: int | None = None
    """Gallery images (identity -1) of fragments and missed people; None = a fifth of the test images."""
    lookalikes: float = 0.2
    """Share of the identities that live in groups of three who differ in a single detail."""
    occlusion: float = 0.16
    """Share of the images in which something stands in front of the person."""
    jitter: float = 0.8
    """Strength of the box errors; 1 shifts and scales by about 6 % of the height, 0 gives aligned boxes."""
    cast: float = 1.0
    """Strength of the differences of colour, exposure and contrast between and within cameras; 0 = none."""

    def __post_init__(self) -> None:
        whole = {"identities": 2, "cameras": 2, "images_per_camera": 2, "height": 64, "width": 32}
        for name, least in whole.items():
            if getattr(self, name) < least:
                raise ConfigError(f"{name} must be at least {least}, got {getattr(self, name)!r}")
        for name in ("seed", "distractors", "junk"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise ConfigError(f"{name} must be at least 0, got {value!r}")
        for name in ("lookalikes", "occlusion"):
            value = getattr(self, name)
            if not 0.0 <= value <= 1.0:
                raise ConfigError(f"{name} must be a share between 0 and 1, got {value!r}")
        for name in ("jitter", "cast"):
            value = getattr(self, name)
            if not (math.isfinite(value) and 0.0 <= value <= 3.0):
                raise ConfigError(f"{name} must be a strength between 0 and 3, got {value!r}")

    @property
    def train_identities(self) -> range:
        """Identity numbers of the training half."""
        return range(2, self.identities + 1, 2)

    @property
    def test_identities(self) -> range:
        """Identity numbers of the test half."""
        return range(1, self.identities + 1, 2)

    @property
    def test_images(self) -> int:
        """Images of test identities, queries included."""
        return len(self.test_identities) * self.cameras * self.images_per_camera

    @property
    def distractor_images(self) -> int:
        """Number of 0000 images."""
        return self.test_images // 5 if self.distractors is None else self.distractors

    @property
    def junk_images(self) -> int:
        """Number of -1 images."""
        return self.test_images // 5 if self.junk is None else self.junk
