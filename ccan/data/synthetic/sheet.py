"""A contact sheet of a world: its own pictures, their label maps, strays, and look-alikes side by side."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ccan.data.synthetic.develop import PALETTE
from ccan.data.synthetic.people import citizen
from ccan.data.synthetic.scene import (
    Shot,
    detector_box,
    junk_box,
    photograph,
    shot_of,
    stray_shot,
)
from ccan.data.synthetic.world import Region, WorldConfig
from ccan.errors import ConfigError

_HEIGHT, _WIDTH, _GAP, _TEXT = 160, 80, 3, 16
_PAPER, _INK = (250, 250, 248), (40, 40, 44)

Cell = tuple[str, Image.Image]
"""A caption and a picture."""


def contact_sheet(config: WorldConfig, rows: int = 6, columns: int = 12) -> Image.Image:
    """Pictures of a world as a person would leaf through them. Nothing is written to disk.

    The first `rows` rows are test identities, columns running over cameras and then over further images of each;
    below stand images beside their label maps, gallery strays (distractors, junk), and groups of look-alikes with
    the detail that they differ in.

    Raises: ConfigError unless rows ≥ 1 and 4 ≤ columns ≤ cameras × images_per_camera.
    """
    most = config.cameras * config.images_per_camera
    if rows < 1 or not 4 <= columns <= most:
        raise ConfigError(
            "a sheet needs rows ≥ 1 and 4 ≤ columns ≤ cameras × images_per_camera = "
            f"{most}, got rows={rows}, columns={columns}"
        )
    people = _unlike_people(config, rows)
    sheet = _Sheet(columns)
    sheet.heading("People of the test half, one a row; every column is another image of them")
    for identity in people:
        sheet.row([_image(config, identity, column) for column in range(columns)])
    sheet.heading("Label maps: " + ", ".join(r.name.lower().replace("_", " ") for r in Region))
    sheet.legend()
    pairs = [_with_labels(config, people[i % len(people)], 3 * i + 1) for i in range(columns // 2)]
    sheet.row([cell for pair in pairs for cell in pair])
    sheet.heading("In the gallery too: distractors (people of neither half) and junk (bad boxes)")
    half = columns // 2
    sheet.row([_stray(config, i, junk=i >= half) for i in range(columns)])
    sheet.heading("Look-alikes: same row, same group; they differ in one detail")
    for group in _lookalikes(config, rows=2, each=columns // 3):
        sheet.row(group)
    return sheet.image()


class _Sheet:
    """Rows of captioned pictures from top to bottom."""

    def __init__(self, columns: int) -> None:
        self.width = columns * (_WIDTH + _GAP) + _GAP
        self.strips: list[Image.Image] = []
        self.font = ImageFont.load_default(11)

    def _strip(self, height: int) -> tuple[Image.Image, ImageDraw.ImageDraw]:
        strip = Image.new("RGB", (self.width, height), _PAPER)
        self.strips.append(strip)
        return strip, ImageDraw.Draw(strip)

    def heading(self, text: str) -> None:
        _, draw = self._strip(_TEXT + 8)
        draw.text((_GAP + 1, 8), text, fill=_INK, font=self.font)

    def legend(self) -> None:
        """A colour bar of the regions, in the order of their values."""
        _, draw = self._strip(10)
        wide = (self.width - 2 * _GAP) / len(PALETTE)
        for region, colour in enumerate(PALETTE):
            left = _GAP + region * wide
            draw.rectangle([left, 1, left + wide - 2, 8], fill=colour)

    def row(self, cells: Sequence[Cell]) -> None:
        strip, draw = self._strip(_HEIGHT + _TEXT)
        for column, (caption, picture) in enumerate(cells):
            left = _GAP + column * (_WIDTH + _GAP)
            strip.paste(picture.resize((_WIDTH, _HEIGHT), Image.Resampling.LANCZOS), (left, 0))
            draw.text((left + 1, _HEIGHT), caption, fill=_INK, font=self.font)

    def image(self) -> Image.Image:
        whole = Image.new("RGB", (self.width, sum(s.height for s in self.strips)), _PAPER)
        top = 0
        for strip in self.strips:
            whole.paste(strip, (0, top))
            top += strip.height
        return whole


def _unlike_people(config: WorldConfig, count: int) -> list[int]:
    """Test identities, one of each look-alike group at most, as far as the world has them."""
    seen: set[str] = set()
    chosen = []
    for identity in config.test_identities:
        group = citizen(config, identity).group
        if group is None or group not in seen:
            chosen.append(identity)
        seen |= {group} if group else set()
    return chosen[:count]


def _shot(
    config: WorldConfig, identity: int, number: int
) -> tuple[Shot, int, Image.Image, Image.Image]:
    """Image `number` of an identity counted over cameras first: shot, camera, picture, coloured label map."""
    place, camera = divmod(number % (config.cameras * config.images_per_camera), config.cameras)
    shot, rng = shot_of(config, identity, camera + 1, place)
    box = detector_box(shot, config, rng)
    picture, labels = photograph(config, camera + 1, shot, box, rng)
    return shot, camera + 1, picture, Image.fromarray(np.asarray(PALETTE, np.uint8)[labels])


def _image(config: WorldConfig, identity: int, number: int) -> Cell:
    shot, camera, picture, _ = _shot(config, identity, number)
    return f"cam {camera} {shot.facts['view']}", picture


def _with_labels(config: WorldConfig, identity: int, number: int) -> tuple[Cell, Cell]:
    shot, camera, picture, labels = _shot(config, identity, number)
    return (f"cam {camera} {shot.facts['view']}", picture), ("regions", labels)


def _stray(config: WorldConfig, number: int, junk: bool) -> Cell:
    shot, camera, rng = stray_shot(config, number, junk)
    box = junk_box(shot, config, rng) if junk else detector_box(shot, config, rng)
    picture, _ = photograph(config, camera, shot, box, rng)
    return ("junk -1" if junk else "distractor"), picture


def _lookalikes(config: WorldConfig, rows: int, each: int) -> list[list[Cell]]:
    """Rows of groups, `each` images of every member; none where the world is too small to have a group."""
    groups: dict[str, list[int]] = {}
    for identity in config.test_identities:
        group = citizen(config, identity).group
        if group is not None:
            groups.setdefault(group, []).append(identity)
    cells = []
    for members in list(groups.values())[:rows]:
        row = []
        for identity in members:
            who = citizen(config, identity)
            value = getattr(who.person, who.detail or "")
            for number in range(each):
                caption = f"{identity:04d}" if number else str(value)
                row.append((caption, _image(config, identity, number)[1]))
        cells.append(row)
    return cells
