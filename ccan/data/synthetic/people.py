"""Who the people are: one frozen set of attributes each, and groups of look-alikes that differ in one of them."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from ccan.data.synthetic.world import WorldConfig

PEOPLE_STREAM, DISTRACTOR_STREAM = 1, 2
GROUP_SIZE = 3

COLOURS: dict[str, tuple[int, int, int]] = {
    "black": (28, 28, 32),
    "charcoal": (62, 64, 70),
    "grey": (128, 130, 134),
    "silver": (186, 190, 196),
    "white": (236, 236, 232),
    "navy": (34, 44, 86),
    "denim": (70, 96, 142),
    "blue": (44, 92, 196),
    "sky": (130, 178, 222),
    "teal": (24, 124, 128),
    "green": (44, 132, 66),
    "olive": (104, 108, 58),
    "lime": (158, 196, 70),
    "yellow": (232, 198, 62),
    "orange": (224, 124, 44),
    "red": (196, 42, 46),
    "maroon": (110, 32, 46),
    "pink": (226, 138, 168),
    "purple": (108, 62, 144),
    "lilac": (176, 156, 210),
    "brown": (104, 70, 46),
    "tan": (184, 152, 108),
    "beige": (218, 204, 176),
}
"""Cloth colours by name → sRGB albedo."""

SKINS = {
    "fair": (242, 208, 184),
    "light": (226, 184, 152),
    "olive": (198, 152, 112),
    "brown": (146, 98, 66),
    "dark": (92, 60, 44),
}
HAIRS = {
    "black": (26, 22, 22),
    "dark brown": (58, 38, 28),
    "brown": (98, 66, 42),
    "auburn": (134, 62, 34),
    "blond": (206, 172, 104),
    "grey": (158, 156, 152),
    "dyed red": (176, 34, 52),
}

_COMMON = ("black", "charcoal", "grey", "navy", "white", "denim", "beige", "brown")
_TOPS = ("t-shirt", "t-shirt", "shirt", "sweater", "hoodie", "jacket", "open jacket", "coat")
_BOTTOMS = ("trousers", "trousers", "trousers", "slim trousers", "shorts", "skirt", "long skirt")
_PATTERNS = ("plain", "plain", "plain", "stripes", "vertical stripes", "checks", "blocks", "logo")
_HAIRSTYLES = ("short", "short", "short", "bald", "curly", "long", "long", "ponytail", "bun")
_HATS = ("none", "none", "none", "none", "none", "cap", "beanie", "sun hat")
_BAGS = ("none", "none", "backpack", "backpack", "shoulder bag", "handbag", "trolley")
_HELD = ("none", "none", "none", "none", "folder", "box", "umbrella", "cup")


@dataclass(frozen=True)
class Person:
    """What makes one identity. Names are for people; colours are keys of the tables above.

    Lengths are in metres; `build` and `shoulders` are factors around 1 on widths.
    """

    height: float
    build: float
    shoulders: float
    skin: str
    hair: str
    hair_colour: str
    beard: bool
    glasses: bool
    hat: str
    hat_colour: str
    top: str
    top_colour: str
    top_pattern: str
    top_colour2: str
    inner_colour: str
    bottom: str
    bottom_colour: str
    bottom_pattern: str
    shoes: str
    shoe_colour: str
    scarf: str
    bag: str
    bag_colour: str
    held: str
    held_colour: str
    cloth: int
    """Seed of the folds and of the logo's figure."""

    def to_dict(self) -> dict[str, Any]:
        """The attributes as plain JSON values."""
        return dataclasses.asdict(self)


@dataclass(frozen=True)
class Citizen:
    """An identity's number, their attributes, and the look-alike group (None = nobody looks like them)."""

    identity: int
    person: Person
    group: str | None
    detail: str | None
    """The one attribute in which the members of the group differ."""


def _choice(rng: np.random.Generator, options: tuple[str, ...]) -> str:
    return options[int(rng.integers(len(options)))]


def _colour(rng: np.random.Generator, common: float, avoid: tuple[str, ...] = ()) -> str:
    """A colour name; with probability `common` one of those that streets are full of."""
    options = _COMMON if rng.random() < common else tuple(COLOURS)
    return _choice(rng, tuple(name for name in options if name not in avoid))


def draw_person(rng: np.random.Generator) -> Person:
    """One person at random. Colours that would meet on the body differ from each other."""
    slender = bool(rng.random() < 0.5)
    top_colour = _colour(rng, 0.4)
    bottom = _choice(rng, _BOTTOMS if slender else _BOTTOMS[:5])
    bottom_colour = _colour(rng, 0.6, avoid=(top_colour,))
    top = _choice(rng, _TOPS)
    return Person(
        height=round(float(np.clip(rng.normal(1.66 if slender else 1.78, 0.07), 1.5, 2.0)), 3),
        build=round(float(np.clip(rng.normal(1.0, 0.11), 0.8, 1.3)), 3),
        shoulders=round(float(rng.normal(0.93 if slender else 1.06, 0.04)), 3),
        skin=_choice(rng, tuple(SKINS)),
        hair=_choice(rng, _HAIRSTYLES[4:] if slender else _HAIRSTYLES[:6]),
        hair_colour=_choice(rng, tuple(HAIRS)),
        beard=bool(not slender and rng.random() < 0.3),
        glasses=bool(rng.random() < 0.25),
        hat=_choice(rng, _HATS),
        hat_colour=_colour(rng, 0.2),
        top=top,
        top_colour=top_colour,
        top_pattern=_choice(rng, _PATTERNS),
        top_colour2=_colour(rng, 0.2, avoid=(top_colour,)),
        inner_colour=_colour(rng, 0.5, avoid=(top_colour,)),
        bottom=bottom,
        bottom_colour=bottom_colour,
        bottom_pattern="plain" if rng.random() < 0.75 else _choice(rng, ("side stripe", "checks")),
        shoes=_choice(rng, ("trainers", "trainers", "boots", "flats")),
        shoe_colour=_colour(rng, 0.5, avoid=(bottom_colour,)),
        scarf=_colour(rng, 0.1, avoid=(top_colour,)) if rng.random() < 0.12 else "none",
        bag=_choice(rng, _BAGS),
        bag_colour=_colour(rng, 0.3, avoid=(top_colour,)),
        held=_choice(rng, _HELD),
        held_colour=_colour(rng, 0.2, avoid=(top_colour, bottom_colour)),
        cloth=int(rng.integers(1 << 30)),
    )


def _details(person: Person) -> dict[str, tuple[str, ...]]:
    """Attributes that a look-alike may differ in, with the values that would be seen to differ."""
    colours = tuple(
        name for name in COLOURS if name not in (person.top_colour, person.bottom_colour)
    )
    details = {
        "top_colour": colours,
        "bottom_colour": colours,
        "shoe_colour": colours,
        "bag": ("none", "backpack", "shoulder bag", "handbag", "trolley"),
        "hat": ("none", "cap", "beanie", "sun hat"),
        "bottom": ("trousers", "shorts", "skirt", "long skirt"),
        "top_pattern": ("plain", "stripes", "vertical stripes", "checks", "blocks", "logo"),
    }
    if person.hat == "none" and person.hair != "bald":
        details["hair_colour"] = ("black", "auburn", "blond", "grey", "dyed red")
    if person.top_pattern != "plain":
        details["top_colour2"] = colours
    if person.bag in ("backpack", "trolley"):
        details["bag_colour"] = colours
    return details


def draw_group(rng: np.random.Generator, size: int = GROUP_SIZE) -> tuple[str, list[Person]]:
    """The differing attribute and `size` people who share every other one."""
    person = draw_person(rng)
    details = _details(person)
    detail = _choice(rng, tuple(details))
    values = rng.permutation(np.array(details[detail]))[:size]
    return detail, [dataclasses.replace(person, **{detail: str(value)}) for value in values]


def _grouped(block: int, share: float) -> bool:
    """Whether the block of identities is a look-alike group: blocks are spread evenly, the first first."""
    return math.ceil((block + 1) * share) > math.ceil(block * share)


def citizen(config: WorldConfig, identity: int) -> Citizen:
    """The person behind an identity number; look-alikes always live in the same half of the world."""
    half, place = identity % 2, (identity - 1) // 2
    block, member = divmod(place, GROUP_SIZE)
    half_size = len(config.test_identities if half else config.train_identities)
    if _grouped(block, config.lookalikes) and (block + 1) * GROUP_SIZE <= half_size:
        rng = np.random.default_rng([config.seed, PEOPLE_STREAM, half, block])
        detail, members = draw_group(rng)
        name = f"{'test' if half else 'train'}-{block:03d}"
        return Citizen(identity, members[member], name, detail)
    rng = np.random.default_rng([config.seed, PEOPLE_STREAM, half, block, member + 1])
    return Citizen(identity, draw_person(rng), None, None)


def stranger(config: WorldConfig, number: int) -> Person:
    """A person of neither half, for distractor images, bystanders and junk."""
    return draw_person(np.random.default_rng([config.seed, DISTRACTOR_STREAM, number]))
