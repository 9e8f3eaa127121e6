"""What the solids of `body` look like: skin, hair, cloth, patterns, folds and the region of every texel.

A texture is an array (rows along t from top to bottom, columns round φ, 3); φ = 0 is the front, 90° the person's left.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ccan.data.synthetic.body import CROTCH, NECK, WAIST
from ccan.data.synthetic.people import COLOURS, HAIRS, SKINS, Person
from ccan.data.synthetic.render import Atlas, Floats
from ccan.data.synthetic.world import Region

ROWS, ROUND = 64, 72
"""Size of the large textures (torso, head); limbs use half of it round and along."""

_LONG_SLEEVES = ("shirt", "sweater", "hoodie", "jacket", "open jacket", "coat")


def _rgb(name: str, table: dict[str, tuple[int, int, int]] = COLOURS) -> Floats:
    return np.asarray(table[name], np.float32)


def smooth_noise(
    rng: np.random.Generator, shape: tuple[int, int], cells: tuple[int, int]
) -> Floats:
    """Noise in about ±1 that varies over 1/cells of the picture, (rows, columns)."""
    coarse = rng.uniform(-1, 1, cells).astype(np.float32)
    coarse[:, -1] = coarse[:, 0]
    image = Image.fromarray(coarse).resize((shape[1], shape[0]), Image.Resampling.BICUBIC)
    return np.asarray(image, np.float32)


class _Texture:
    """A texture in the making, with its coordinates t (R, 1) and φ in degrees, -180…180 (1, C)."""

    def __init__(self, rows: int, around: int, colour: Floats, region: Region) -> None:
        self.colours = np.empty((rows, around, 3), np.float32)
        self.colours[:] = colour
        self.labels = np.full((rows, around), int(region), np.uint8)
        self.t = ((np.arange(rows, dtype=np.float32) + 0.5) / rows)[:, None]
        degrees = (np.arange(around, dtype=np.float32) + 0.5) * (360 / around)
        self.phi = ((degrees + 180) % 360 - 180)[None, :]

    def paint(self, where: NDArray[np.bool_], colour: NDArray[np.floating]) -> None:
        self.colours[np.broadcast_to(where, self.labels.shape)] = colour

    def darken(self, where: NDArray[np.bool_], factor: float) -> None:
        self.colours[np.broadcast_to(where, self.labels.shape)] *= np.float32(factor)

    def relabel(self, where: NDArray[np.bool_], region: Region) -> None:
        self.labels[np.broadcast_to(where, self.labels.shape)] = int(region)

    def folds(
        self, rng: np.random.Generator, strength: float, cells: tuple[int, int] = (7, 6)
    ) -> None:
        """Light and dark creases, brightest on top."""
        noise = smooth_noise(rng, self.labels.shape, cells)
        self.colours *= 1 + np.float32(strength) * noise[..., None]


def _pattern(texture: _Texture, person: Person, along: float, turns: float) -> None:
    """Paint the top's pattern; `along` and `turns` are the stripes per length and per turn."""
    t, phi, second = texture.t, texture.phi / 360 + 0.5, _rgb(person.top_colour2)
    if person.top_pattern == "stripes":
        texture.paint((t * along) % 1 < 0.45, second)
    elif person.top_pattern == "vertical stripes":
        texture.paint((phi * turns) % 1 < 0.4, second)
    elif person.top_pattern == "checks":
        rows, columns = (t * along) % 1 < 0.5, (phi * turns) % 1 < 0.5
        mixed = (second + _rgb(person.top_colour)) / 2
        texture.paint(rows | columns, mixed)
        texture.paint(rows & columns, second)


def _logo(texture: _Texture, person: Person, rng: np.random.Generator) -> None:
    """A 4×5 figure, mirrored like most emblems, on the chest only."""
    half = rng.random((4, 3)) < 0.6
    half[1:3, 2] = True
    figure = np.concatenate([half, half[:, ::-1]], axis=1)
    t = (texture.t - 0.2) / 0.26
    phi = (texture.phi + 42) / 84
    inside = (t >= 0) & (t < 1) & (phi >= 0) & (phi < 1)
    row = np.clip((t * 4).astype(int), 0, 3)
    column = np.clip((phi * 6).astype(int), 0, 5)
    texture.paint(inside & figure[row, column], _rgb(person.top_colour2))


def _torso(person: Person, rng: np.random.Generator) -> _Texture:
    texture = _Texture(ROWS, ROUND, _rgb(person.top_colour), Region.UPPER_BODY)
    t, phi, front = texture.t, texture.phi, np.abs(texture.phi)
    _pattern(texture, person, along=9.0, turns=14.0)
    if person.top_pattern == "blocks":
        texture.paint(t < 0.42, _rgb(person.top_colour2))
    if person.top_pattern == "logo":
        _logo(texture, person, rng)
    skin, inner = _rgb(person.skin, SKINS), _rgb(person.inner_colour)
    if person.top == "open jacket":
        texture.paint(front < 17 + 14 * (1 - t), inner)
        texture.paint((front < 14) & (t < 0.13), skin)
        texture.darken(np.abs(front - 19 - 14 * (1 - t)) < 4, 0.62)
    elif person.top in ("jacket", "coat", "shirt"):
        texture.paint(
            (front < 26 * (1 - t / 0.16)) & (t < 0.16), inner if person.top != "shirt" else skin
        )
        texture.darken((front < 3) & (t > 0.14), 0.55)
        texture.darken(np.abs(front - 30 * (1 - t / 0.17)) < 6 * (t < 0.17), 0.7)
    elif person.top == "t-shirt":
        texture.paint((front < 34) & (t < 0.1), skin)
    elif person.top == "hoodie":
        texture.darken((np.abs(front - 12) < 2.6) & (t > 0.1) & (t < 0.34), 1.45)
        texture.darken((np.abs(t - 0.62) < 0.012) & (front < 40), 0.65)
    texture.darken((t < 0.05) & (t > 0.02), 0.75)
    texture.folds(rng, 0.1)
    texture.folds(rng, 0.07, (12, 4))
    _below_the_top(texture, person)
    if person.bag == "backpack":
        straps = (np.abs(front - 42 + 8 * t) < 6.5) & (t < 0.55) & (t > 0.03)
        texture.paint(straps, _rgb(person.bag_colour) * 0.85)
        texture.relabel(straps, Region.CARRIED)
    if person.bag == "shoulder bag":
        line = 0.08 + 0.56 * (phi + 75) / 150
        line = np.where(np.abs(phi) > 90, 0.08 + 0.56 * (255 - (phi % 360)) / 150, line)
        strap = (np.abs(t - line) < 0.035) & (t < 0.66)
        texture.paint(strap, _rgb(person.bag_colour) * 0.8)
        texture.relabel(strap, Region.CARRIED)
    texture.relabel((t < 0.13) & (texture.labels != Region.CARRIED), Region.HEAD_SHOULDER)
    return texture


def _below_the_top(texture: _Texture, person: Person) -> None:
    """Waist, belt and hem: where the top ends and the bottom begins on the torso."""
    t, bottom = texture.t, _rgb(person.bottom_colour)
    if person.top == "coat":
        texture.relabel(t > 0.93, Region.THIGHS)
        return
    tucked = person.top == "shirt"
    end = (NECK - WAIST) / (NECK - CROTCH) + (0.02 if tucked else 0.2)
    texture.darken((t > end - 0.035) & (t <= end), 0.72)
    texture.paint(t > end, bottom)
    if tucked:
        texture.paint((t > end) & (t < end + 0.05), _rgb("brown") * 0.6)
    texture.darken((np.abs(texture.phi) < 3) & (t > end + 0.06), 0.75)
    texture.relabel(t > 0.93, Region.THIGHS)


def _sleeve(person: Person, rng: np.random.Generator, lower: bool) -> _Texture:
    texture = _Texture(ROWS // 2, ROUND // 2, _rgb(person.top_colour), Region.ARMS)
    if person.top_pattern in ("stripes", "checks"):
        _pattern(texture, person, along=5.0, turns=5.0)
    if person.top_pattern == "blocks" and not lower:
        texture.paint(texture.t < 0.45, _rgb(person.top_colour2))
    texture.folds(rng, 0.16, (6, 4))
    skin = _rgb(person.skin, SKINS)
    if person.top not in _LONG_SLEEVES:
        texture.darken((texture.t > 0.54) & (texture.t < 0.6), 0.7)
        texture.paint(texture.t >= (0.0 if lower else 0.6), skin)
    elif lower:
        texture.darken((texture.t > 0.86) & (texture.t < 0.93), 0.7)
        texture.paint(texture.t >= 0.95, skin)
    return texture


def _leg(person: Person, rng: np.random.Generator, lower: bool) -> _Texture:
    region = Region.CRUS_FOOT if lower else Region.THIGHS
    texture = _Texture(ROWS // 2, ROUND // 2, _rgb(person.bottom_colour), region)
    t, phi, skin = texture.t, texture.phi, _rgb(person.skin, SKINS)
    if person.bottom_pattern == "side stripe" and "skirt" not in person.bottom:
        texture.paint(np.abs(np.abs(phi) - 90) < 16, _rgb("white"))
    elif person.bottom_pattern == "checks":
        texture.darken(((t * 5) % 1 < 0.4) | ((phi / 60) % 1 < 0.4), 0.6)
    texture.folds(rng, 0.14, (7, 4))
    if person.top == "coat" and not lower:
        texture.paint(t < 0.75, _rgb(person.top_colour))
    if person.bottom in ("skirt", "long skirt"):
        covered = {"skirt": (0.85, 0.0), "long skirt": (1.0, 0.5)}[person.bottom][int(lower)]
        texture.paint(t >= covered, skin)
    elif person.bottom == "shorts":
        texture.darken((t > 0.68) & (t < 0.76), 0.7)
        texture.paint(t >= (0.0 if lower else 0.76), skin)
    elif lower:
        texture.darken(t > 0.94, 0.72)
    if lower and person.shoes == "boots":
        texture.paint(t > 0.45, _rgb(person.shoe_colour))
        texture.darken((t > 0.45) & (t < 0.5), 0.7)
    elif lower and person.bottom == "shorts":
        texture.paint(t > 0.84, _rgb("white"))
    return texture


def _head(person: Person) -> _Texture:
    skin, hair = _rgb(person.skin, SKINS), _rgb(person.hair_colour, HAIRS)
    texture = _Texture(ROWS, ROUND, skin, Region.HEAD_SHOULDER)
    t, _phi, front = texture.t, texture.phi, np.abs(texture.phi)
    texture.darken((np.abs(front - 27) < 14) & (np.abs(t - 0.5) < 0.06), 0.72)
    texture.paint((np.abs(front - 27) < 11) & (np.abs(t - 0.41) < 0.022), hair * 0.7)
    texture.paint((np.abs(front - 27) < 7) & (np.abs(t - 0.51) < 0.035), _rgb("white") * 0.85)
    texture.paint((np.abs(front - 26) < 4) & (np.abs(t - 0.515) < 0.035), _rgb("black"))
    texture.darken((front < 8) & (np.abs(t - 0.72) < 0.025), 0.8)
    texture.paint(
        (front < 16) & (np.abs(t - 0.84) < 0.025), skin * np.array([0.78, 0.5, 0.5], np.float32)
    )
    if person.beard:
        bearded = (front < 75) & (t > 0.74) & ~((front < 15) & (np.abs(t - 0.84) < 0.03))
        texture.paint(bearded, 0.55 * hair + 0.3 * skin)
    if person.glasses:
        rim = (np.abs(np.hypot((front - 27) / 15, (t - 0.51) / 0.085) - 1) < 0.28) | (
            (front < 90) & (np.abs(t - 0.49) < 0.018) & ((front > 40) | (front < 13))
        )
        texture.paint(rim, _rgb("black"))
    if person.hair != "bald":
        line = np.interp(front[0], [0, 35, 60, 85, 110, 180], [0.16, 0.17, 0.34, 0.62, 0.9, 0.98])
        texture.paint(t < line[None, :].astype(np.float32), hair)
    return texture


def _plain(
    colour: Floats, region: Region, rng: np.random.Generator | None = None, folds: float = 0.0
) -> _Texture:
    texture = _Texture(ROWS // 2, ROUND // 2, colour, region)
    if rng is not None:
        texture.folds(rng, folds, (6, 7))
    return texture


def _drapery(person: Person, rng: np.random.Generator, coat: bool) -> _Texture:
    """A skirt or a coat tail: vertical folds, a hem, and regions that follow the thighs and the crus."""
    name = person.top_colour if coat else person.bottom_colour
    texture = _Texture(ROWS // 2, ROUND, _rgb(name), Region.THIGHS)
    if coat and person.top_pattern in ("vertical stripes", "checks"):
        _pattern(texture, person, along=8.0, turns=14.0)
    if not coat and person.bottom_pattern == "checks":
        texture.darken(((texture.t * 6) % 1 < 0.4) | ((texture.phi / 30) % 1 < 0.4), 0.6)
    texture.folds(rng, 0.2, (3, 17))
    texture.darken(texture.t > 0.95, 0.75)
    if coat:
        texture.darken(np.abs(texture.phi) < 3, 0.5)
        texture.relabel(texture.t < 0.2, Region.UPPER_BODY)
    elif person.bottom == "long skirt":
        texture.relabel(texture.t > 0.72, Region.CRUS_FOOT)
    return texture


def _shoe(person: Person) -> _Texture:
    texture = _plain(_rgb(person.shoe_colour), Region.CRUS_FOOT)
    if person.shoes == "trainers":
        texture.darken((texture.t > 0.4) & (texture.t < 0.5), 1.3)
    if person.shoes == "flats":
        texture.paint((texture.t > 0.3) & (texture.t < 0.6), _rgb(person.skin, SKINS))
    return texture


@lru_cache(maxsize=64)
def atlas_of(person: Person) -> Atlas:
    """Every texture of a person; the same person always wears the same folds."""
    rng = np.random.default_rng(person.cloth)
    head, crus, carried = Region.HEAD_SHOULDER, Region.CRUS_FOOT, Region.CARRIED
    skin, hair = _rgb(person.skin, SKINS), _rgb(person.hair_colour, HAIRS)
    bag, held = _rgb(person.bag_colour), _rgb(person.held_colour)
    bag_texture = _plain(bag, carried, rng, 0.08)
    bag_texture.darken(np.abs(bag_texture.t - 0.2) < 0.03, 0.6)
    sole = _rgb("white") if person.shoes == "trainers" else _rgb(person.shoe_colour) * 0.5
    hat = _plain(_rgb(person.hat_colour), head, rng, 0.1)
    if person.hat == "beanie":
        hat.darken(hat.t > 0.6, 0.8)
    textures = {
        "torso": _torso(person, rng),
        "upper arm": _sleeve(person, rng, lower=False),
        "forearm": _sleeve(person, rng, lower=True),
        "hand": _plain(skin, Region.ARMS),
        "thigh": _leg(person, rng, lower=False),
        "shin": _leg(person, rng, lower=True),
        "shoe": _shoe(person),
        "sole": _plain(sole, crus),
        "head": _head(person),
        "neck": _plain(skin * np.float32(0.86), head),
        "nose": _plain(skin, head),
        "ear": _plain(skin * np.float32(0.93), head),
        "hair": _plain(hair, head, rng, 0.25),
        "hat": hat,
        "hood": _plain(_rgb(person.top_colour) * np.float32(0.85), head, rng, 0.1),
        "scarf": _plain(_rgb("red" if person.scarf == "none" else person.scarf), head, rng, 0.15),
        "skirt": _drapery(person, rng, coat=False),
        "coat tail": _drapery(person, rng, coat=True),
        "bag": bag_texture,
        "bag pocket": _plain(bag * np.float32(0.8), carried),
        "strap": _plain(bag * np.float32(0.55), carried),
        "held": _plain(held, carried, rng, 0.05),
    }
    return pack(textures)


def pack(textures: dict[str, _Texture]) -> Atlas:
    """Flatten textures into one table of texels."""
    places: dict[str, tuple[int, int, int]] = {}
    start = 0
    for name, texture in textures.items():
        rows, around = texture.labels.shape
        places[name] = (start, rows, around)
        start += rows * around
    colours = np.concatenate([t.colours.reshape(-1, 3) for t in textures.values()])
    labels = np.concatenate([t.labels.reshape(-1) for t in textures.values()])
    return Atlas(np.clip(colours, 0, 255), labels, places)


def plain_atlas(colours: dict[str, tuple[int, int, int]], region: Region) -> Atlas:
    """An atlas of one-coloured textures, for poles, bicycles and boards."""
    table = {
        name: _Texture(1, 1, np.asarray(rgb, np.float32), region) for name, rgb in colours.items()
    }
    return pack(table)
