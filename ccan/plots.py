"""Pictures from result objects: maps over images with their colour scale, and ranked lists with their marks.

Pillow and NumPy only. Colours can be told apart by colour-blind readers: cividis or viridis for maps (one scale for all
that is compared, with its numbers), Okabe–Ito for marks, which differ in shape and word too. The functions return PIL
images at twice the usual size of the page, so that they stay sharp on dense screens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from ccan.errors import ShapeError
from ccan.evaluation.ranking import Mark, Ranking
from ccan.explain.attention import AttentionRecord, Summary
from ccan.predictor import ImageLike, as_image

Palette = Literal["cividis", "viridis"]
Box = tuple[float, float, float, float]
"""(left, top, right, bottom) in pixels of the network's input."""

_ANCHORS: dict[Palette, str] = {
    "cividis": "00224e 002e6a 1a386f 32436d 434e6c 535a6d 61656f 6f7073 7d7c78 8b8778 9a9376 aaa073 bbad6d ccba64 "
    "ddc858 efd748 fee838",
    "viridis": "440154 48186a 472d7b 424086 3b528b 33638d 2c728e 26828e 21918c 1f9f88 27ad81 3dbc74 5cc863 81d34d "
    "aadc32 d5e21a fde725",
}
_PAPER, _INK, _QUIET = (255, 255, 255), (28, 32, 38), (110, 116, 124)


@dataclass(frozen=True)
class MarkStyle:
    """How a mark is told from the others: by colour, sign and word."""

    colour: str
    sign: str
    word: str


MARKS: dict[Mark, MarkStyle] = {
    "right": MarkStyle("#0072b2", "✓", "right"),
    "wrong": MarkStyle("#d55e00", "✗", "wrong"),
    "ignored": MarkStyle("#7d838b", "–", "ignored"),
    "unknown": MarkStyle("#b0b5bc", "?", "unknown"),
}
"""Okabe–Ito blue and vermillion, and two greys."""


@dataclass(frozen=True)
class ColourScale:
    """Numbers → colours; the ends take what lies beyond them.

    Attributes:
        low, high: the numbers of the first and the last colour.
        palette: `cividis` or `viridis`.
        power: a number stands at the share ((x - low) / (high - low)) ** power of the colours; 1 = linear, 0.5 spreads
            small numbers, as a few large weights beside many small ones need it.
    """

    low: float
    high: float
    palette: Palette = "viridis"
    power: float = 1.0

    @classmethod
    def covering(
        cls,
        maps: Sequence[NDArray[np.floating[Any]]],
        palette: Palette = "viridis",
        power: float = 1.0,
    ) -> ColourScale:
        """From 0 to the largest finite value of all maps: one scale for all that is compared."""
        largest = max((float(np.nanmax(values)) for values in maps if values.size), default=0.0)
        return cls(0.0, largest if largest > 0 else 1.0, palette, power)

    def share(self, values: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
        """Where each value stands among the colours, 0 … 1; NaN stands at 0."""
        linear = (np.nan_to_num(values, nan=self.low) - self.low) / (self.high - self.low)
        return np.clip(linear, 0, 1) ** self.power

    def value(self, share: float) -> float:
        """The number that stands at a share of the colours."""
        return self.low + (self.high - self.low) * share ** (1 / self.power)

    def paint(self, values: NDArray[np.floating[Any]]) -> NDArray[np.uint8]:
        """Any shape (…) → uint8 (…, 3); NaN is painted as the lowest value."""
        return self.colours(self.share(values))

    def colours(self, share: NDArray[np.floating[Any]]) -> NDArray[np.uint8]:
        """Shares 0 … 1 of the colours, any shape (…) → uint8 (…, 3)."""
        anchors = _anchors(self.palette)
        places = np.linspace(0, 1, len(anchors))
        channels = [np.interp(share, places, anchors[:, channel]) for channel in range(3)]
        return np.stack(channels, axis=-1).round().astype(np.uint8)

    def stops(self, count: int = 9) -> list[str]:
        """Colours as ``#rrggbb`` at equal steps along the colours, for a legend."""
        return [
            "#" + bytes(colour.tolist()).hex() for colour in self.colours(np.linspace(0, 1, count))
        ]

    def ticks(self) -> list[str]:
        """The numbers at the beginning, the middle and the end of the colours, to three significant digits."""
        return [f"{self.value(share):.3g}" for share in (0, 0.5, 1)]


def _anchors(palette: Palette) -> NDArray[np.float64]:
    return np.array([list(bytes.fromhex(colour)) for colour in _ANCHORS[palette].split()], float)


def overlay(
    image: ImageLike,
    values: NDArray[np.floating[Any]],
    scale: ColourScale,
    *,
    height: int = 512,
    strength: tuple[float, float] = (0.4, 0.8),
    box: Box | None = None,
    lines: Sequence[int] = (),
) -> Image.Image:
    """A map over the greyed image, cell by cell; where the map is NaN only the image shows, paler.

    Args:
        image: the picture, of any size.
        values: the map over the network's input, (H, W).
        scale: its colours.
        height: of the result in pixels; the width follows from the map.
        strength: share of the map's colour at its lowest and highest; the rest is the image.
        box: a cell to frame.
        lines: pixel rows of the input to draw a line at (borders of strips).

    Raises: ShapeError if the map is not (H, W).
    """
    if values.ndim != 2:
        raise ShapeError(f"expected a map (H, W) over the image, got {values.shape}")
    size = (round(height * values.shape[1] / values.shape[0]), height)
    photo = as_image(image).resize(size, Image.Resampling.BICUBIC)
    grey = np.asarray(photo.convert("L"), np.float32)[:, :, None]
    rows = np.arange(size[1]) * values.shape[0] // size[1]
    columns = np.arange(size[0]) * values.shape[1] // size[0]
    large = values[rows[:, None], columns[None, :]]
    share = scale.share(large)[:, :, None]
    alpha = strength[0] + (strength[1] - strength[0]) * share
    coloured = alpha * scale.colours(share[:, :, 0]) + (1 - alpha) * grey
    pale = 150 + 0.4 * grey
    mixed = np.where(np.isfinite(large)[:, :, None], coloured, pale)
    picture = Image.fromarray(mixed.round().astype(np.uint8))
    zoom = height / values.shape[0]
    draw = ImageDraw.Draw(picture)
    for line in lines:
        draw.line([(0, line * zoom), (size[0], line * zoom)], fill=_PAPER, width=2)
    if box is not None:
        _frame(draw, [edge * zoom for edge in box], size)
    return picture


def framed(image: ImageLike, box: Box | None, shape: tuple[int, int], height: int) -> Image.Image:
    """The image itself in the proportions of the network's input ``shape`` (H, W), with a cell framed."""
    size = (round(height * shape[1] / shape[0]), height)
    photo = as_image(image).resize(size, Image.Resampling.BICUBIC)
    if box is not None:
        zoom = height / shape[0]
        _frame(ImageDraw.Draw(photo), [edge * zoom for edge in box], size)
    return photo


def _frame(draw: ImageDraw.ImageDraw, edges: Sequence[float], size: tuple[int, int]) -> None:
    """A white frame between two dark ones: seen on any ground."""
    left, top = max(2, round(edges[0])), max(2, round(edges[1]))
    right, bottom = min(size[0] - 3, round(edges[2])), min(size[1] - 3, round(edges[3]))
    for grow, colour in ((2, _INK), (1, _PAPER), (0, _PAPER), (-1, _INK)):
        draw.rectangle([left - grow, top - grow, right + grow, bottom + grow], outline=colour)


def attention_figure(
    image: ImageLike,
    record: AttentionRecord,
    summary: Summary = "gathered_share",
    height: int = 512,
) -> Image.Image:
    """The image, SS1's map and the maps of all parts beside each other, each with its (square-root) colour scale.

    Raises: ShapeError if the network has no attention at all.
    """
    if not record.slots:
        raise ShapeError("expected a network with attention, got one without SS1 and CC2")
    maps: dict[str, NDArray[np.float32]] = {}
    if "SS1" in record.slots:
        maps["SS1"] = record.slots["SS1"].on_image(summary)
    if len(record.slots) > len(maps):
        maps["CC2, all parts"] = record.parts_on_image(summary)
    shape = next(iter(maps.values())).shape
    photo = framed(image, None, (shape[0], shape[1]), height)
    panels: list[tuple[str, Image.Image, ColourScale | None]] = [("image", photo, None)]
    for title, values in maps.items():
        scale = ColourScale.covering([values], power=0.5)
        panels.append((title, overlay(image, values, scale, height=height), scale))
    return _panels(panels)


def _panels(panels: Sequence[tuple[str, Image.Image, ColourScale | None]]) -> Image.Image:
    """Pictures of one height in a row, titles above, scales below."""
    gap, head, foot = 24, 34, 54
    width = sum(picture.width for _, picture, _ in panels) + gap * (len(panels) + 1)
    sheet = Image.new("RGB", (width, panels[0][1].height + head + foot), _PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(18)
    left = gap
    for title, picture, scale in panels:
        draw.text((left, 8), title, _INK, font)
        sheet.paste(picture, (left, head))
        if scale is not None:
            _legend(sheet, scale, left, head + picture.height + 8, picture.width)
        left += picture.width + gap
    return sheet


def _legend(sheet: Image.Image, scale: ColourScale, left: int, top: int, width: int) -> None:
    colours = scale.colours(np.linspace(0, 1, width))
    sheet.paste(Image.fromarray(np.repeat(colours[None], 12, axis=0)), (left, top))
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(15)
    low, _, high = scale.ticks()
    draw.text((left, top + 16), low, _INK, font)
    draw.text((left + width, top + 16), high, _INK, font, anchor="ra")


def ranking_figure(
    query: ImageLike, gallery: Sequence[ImageLike], ranking: Ranking, height: int = 256
) -> Image.Image:
    """The query and its ranked images in a row: marks as frame, sign and colour, distances below.

    Args:
        query: its picture.
        gallery: the picture of each entry of the ranking, in its order.
        ranking: as `rank_gallery` gives it, cut to what shall be shown.
        height: of the pictures in pixels.

    Raises: ShapeError if there is not one picture for each entry.
    """
    if len(gallery) != len(ranking):
        raise ShapeError(
            f"expected a picture for each of the {len(ranking)} entries, got {len(gallery)}"
        )
    gap, head, foot, width = 16, 34, 30, height // 2
    size = (2 * gap + (width + gap) * (len(gallery) + 1), head + height + foot)
    sheet = Image.new("RGB", size, _PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(17)
    draw.text((gap, 8), "query", _INK, font)
    sheet.paste(as_image(query).resize((width, height)), (gap, head))
    for place, picture in enumerate(gallery):
        left = 3 * gap + width + place * (width + gap)
        style = MARKS[ranking.marks[place]]
        sheet.paste(as_image(picture).resize((width, height)), (left, head))
        edges = (left - 4, head - 4, left + width + 3, head + height + 3)
        draw.rectangle(edges, outline=style.colour, width=4)
        draw_mark(draw, (left + 14, 17), 11, ranking.marks[place])
        position = int(ranking.positions[place])
        draw.text((left + width, 8), str(position) if position > 0 else "", _QUIET, font, "ra")
        draw.text((left, head + height + 8), f"{ranking.distances[place]:.3f}", _INK, font)
    return sheet


def draw_mark(
    draw: ImageDraw.ImageDraw, centre: tuple[float, float], radius: float, mark: Mark
) -> None:
    """A disc with the mark's sign, drawn as strokes (no font needs to have the sign)."""
    x, y = centre
    draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=MARKS[mark].colour)
    unit, width = radius / 2, max(2, round(radius / 5))
    strokes: dict[Mark, list[list[tuple[float, float]]]] = {
        "right": [[(-1, 0.1), (-0.3, 0.8), (1, -0.8)]],
        "wrong": [[(-0.8, -0.8), (0.8, 0.8)], [(-0.8, 0.8), (0.8, -0.8)]],
        "ignored": [[(-0.9, 0), (0.9, 0)]],
        "unknown": [
            [(-0.6, -0.5), (-0.2, -1), (0.4, -0.9), (0.6, -0.4), (0, 0.1), (0, 0.4)],
            [(0, 0.8), (0, 1.1)],
        ],
    }
    for stroke in strokes[mark]:
        draw.line([(x + a * unit, y + b * unit) for a, b in stroke], fill=_PAPER, width=width)
