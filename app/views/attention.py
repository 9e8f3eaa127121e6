"""Attention: where the network looks in the query and in a gallery image, and what one position gathers from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from app.components.html import (
    button,
    camera_name,
    choices,
    labelled,
    legend,
    mark_badge,
    person,
    tag,
    text,
)
from app.selection import Selection
from app.store import Store, jpeg_source
from ccan.config import ModelConfig
from ccan.explain.attention import AttentionRecord, Summary, slot_geometry
from ccan.plots import MARKS, Box, ColourScale, overlay

HEIGHT = 560
"""Pixels of the pictures; the page shows them at about two thirds of it."""

ROOT = 0.5
"""Power of the colour scales: a few positions weigh far more than the others."""

PART_NAMES = ("head–shoulder", "upper body", "thighs", "crus–foot")
"""The paper's names of four parts."""

MEANINGS = {
    "gathered_share": (
        "Gathered share",
        "mean over i of A<sub>ij</sub>/MN: what is gathered from j (Eq.&nbsp;1–2)",
    ),
    "added_energy": (
        "Added energy",
        "‖φ(y<sub>i</sub>W<sub>w</sub>)‖: how much attention adds at i (Eq.&nbsp;3)",
    ),
}
ROW_MEANING = "A<sub>ij</sub>/MN: the weight of j in what i gathers (Eq.&nbsp;2)"


@dataclass(frozen=True)
class Layer:
    """One map over an image, before it has colours.

    Attributes:
        panel: what a click on it means: a position of SS1, or of the part under it (CC2).
        title, meaning: words for people; the meaning is HTML.
        values: the map over the network's input, (H, W).
        box: the framed cell, in pixels of the input, if it belongs to this map.
        here: the map's value at that cell.
        lines: pixel rows where strips begin.
    """

    panel: str
    title: str
    meaning: str
    values: NDArray[np.float32]
    box: Box | None = None
    here: float | None = None
    lines: Sequence[int] = ()


def show(store: Store, selection: Selection) -> str:
    """The view's HTML."""
    if not store.slots:
        return tag(
            "div",
            text("This network has no attention (neither SS1 nor CC2): nothing to look at.", "p"),
            class_="ccan attention empty",
        )
    slot = store.slot(selection.slot)
    match = selection.match or store.nearest(selection.query)
    images = {"query": selection.query, "gallery image": match}
    records = [store.attention(image) for image in images.values()]
    cell = selection.cell
    if cell is None:  # where attention changes the query most
        cell = int(np.argmax(records[0].slots[slot].added_energy()))
    config = store.predictor.config
    layers = [_layers(config, selection.summary, record, slot, cell) for record in records]
    scales = _scales(layers, shared=not selection.own_scale)
    sides = ""
    for place, (role, image) in enumerate(images.items()):
        photo = store.photo(image)
        panels = "".join(
            _panel(store, layer, photo, scale, cell)
            for layer, scale in zip(layers[place], scales[place], strict=True)
        )
        head = _heading(store, selection, role, image)
        panels = tag("div", panels, class_="panels")
        sides += tag("section", head + panels, class_="panel", aria_label=role)
    return tag(
        "div",
        _controls(store, selection, slot)
        + tag("div", sides, class_="sides")
        + _caption(config, slot, cell, slot in store.silent),
        class_="ccan attention",
        data_event="ask",
    )


def slot_title(config: ModelConfig, slot: str) -> str:
    """A slot in words."""
    if slot == "SS1":
        return "SS1"
    part = int(slot.removeprefix("CC2_"))
    name = PART_NAMES[part - 1] if config.parts == len(PART_NAMES) else f"part {part}"
    return f"CC2 {name}"


def _controls(store: Store, selection: Selection, slot: str) -> str:
    config = store.predictor.config
    slots = {name: slot_title(config, name) for name in store.slots}
    maps = {name: words for name, (words, _) in MEANINGS.items()}
    scale = {"0": "shared", "1": "own"}
    return tag(
        "div",
        labelled("Slot", choices("Attention slot", "slot", slots, slot))
        + labelled("Map", choices("Map over the images", "summary", maps, selection.summary))
        + labelled(
            "Scale",
            choices("Colour scale", "own_scale", scale, str(int(selection.own_scale))),
        ),
        class_="controls",
    )


def _layers(
    config: ModelConfig, summary: Summary, record: AttentionRecord, slot: str, cell: int
) -> list[Layer]:
    """SS1's map, the maps of all parts, and the row of A of the cell."""
    meaning, maps = MEANINGS[summary][1], record.slots[slot]
    box = maps.geometry.box_of(cell)
    grid = maps.gathered_share() if summary == "gathered_share" else maps.added_energy()
    framed = {"box": box, "here": float(grid.flat[cell])}
    layers = []
    if "SS1" in record.slots:
        values = record.slots["SS1"].on_image(summary)
        chosen = framed if slot == "SS1" else {}
        layers.append(Layer("SS1", "SS1, whole image", meaning, values, **chosen))
    if len(record.slots) > len(layers):
        chosen = framed if slot != "SS1" else {}
        lines = sorted({slot_geometry(config, name).top for name in record.slots} - {0})
        values, title = record.parts_on_image(summary), f"CC2, {config.parts} parts"
        layers.append(Layer("CC2", title, meaning, values, lines=lines, **chosen))
    row = maps.gathers_from(cell)
    title = f"{slot_title(config, slot).removeprefix('CC2 ')} gathers from"
    values, itself = maps.gathered_geometry.to_image(row), float(row.flat[cell])
    layers.append(Layer(slot[:3], title, ROW_MEANING, values, box, itself))
    return layers


def _scales(layers: Sequence[Sequence[Layer]], shared: bool) -> list[list[ColourScale]]:
    """A colour scale for each layer of each image; where they are shared, one for a layer of all images."""
    groups = [layers] * len(layers) if shared else [[own] for own in layers]
    return [
        [
            ColourScale.covering([one.values for one in same], power=ROOT)
            for same in zip(*group, strict=True)
        ]
        for group in groups
    ]


def _heading(store: Store, selection: Selection, role: str, image: str) -> str:
    sample = store.sample(image)
    first = tag("b", escape(role.capitalize())) + text(store.name(image), class_="file")
    second = text(
        "an upload: nobody knows who"
        if sample is None
        else f"identity {person(sample.identity)}, camera {camera_name(sample.camera)}"
    )
    if image in store.gallery_rows:
        ranking = store.ranking(selection.query)
        place = int(np.flatnonzero(ranking.order == store.gallery_rows[image])[0])
        mark, position = ranking.marks[place], int(ranking.positions[place])
        where = f"position {position}" if position > 0 else "no position"
        second = (
            mark_badge(mark)
            + text(f"{MARKS[mark].word}, {where}, distance {ranking.distances[place]:.3f}")
            + second
        )
    picture = tag("img", src=store.thumbnail(image), alt="")
    lines = tag("div", tag("p", first) + tag("p", second))
    walk = ""
    if image in store.gallery_rows:
        walk = tag(
            "nav",
            button("‹", "neighbour", -1, title="The next nearer gallery image")
            + button("›", "neighbour", 1, title="The next gallery image of the ranking"),
            aria_label="Choose a gallery image",
        )
    return tag("div", picture + lines + walk, class_="heading")


def _panel(store: Store, layer: Layer, photo: Image.Image, scale: ColourScale, cell: int) -> str:
    """A picture whose cells can be pointed at; `data-grids` tells the browser where they are."""
    picture = overlay(photo, layer.values, scale, height=HEIGHT, box=layer.box, lines=layer.lines)
    slots = [name for name in store.slots if (name == "SS1") == (layer.panel == "SS1")]
    grids = []
    for name in slots:
        place = store.geometry(name)
        grids.append(
            f"{place.top / place.image_height:.6f},{place.bottom / place.image_height:.6f},"
            f"{place.rows},{place.columns}"
        )
    image = tag("img", src=jpeg_source(picture), alt=layer.title, draggable="false")
    canvas = tag(
        "div",
        image + tag("i", class_="hover"),
        class_="canvas",
        data_panel=layer.panel,
        data_grids=";".join(grids),
        data_cell=cell,
        tabindex="0",
        role="button",
        aria_label=f"{layer.title}: click a position, or move it with the arrow keys",
    )
    here = "" if layer.here is None else f"<b>framed: {layer.here:.3g}</b> · "
    return tag(
        "figure", text(layer.title, "figcaption") + canvas + legend(scale, here + layer.meaning)
    )


def _caption(config: ModelConfig, slot: str, cell: int, silent: bool) -> str:
    place = slot_geometry(config, slot)
    row, column = divmod(cell, place.columns)
    words = (
        f"<b>Click a position</b> in any picture (arrow keys move it). Framed: row {row + 1}, column "
        f"{column + 1} of the {place.rows} × {place.columns} positions of {slot_title(config, slot)}, in both images. "
        "The maps show what one real forward computed; cells are nominal (Decision D19), weights are not "
        "normalised and need not sum to 1; colours follow their square root, with the numbers below each bar."
    )
    if slot != "SS1":
        words += (
            " In a part stream Q is the part, Q′ the same strip of the global branch: A = φ([A′, A′ᵀ]W<sub>α</sub>), "
            "A′ = g(q) f(q′)ᵀ."
        )
    if silent:
        words = (
            f"<b>{escape(slot_title(config, slot))} adds nothing to any image in this network</b>: training has worn "
            "its weights down to zero, so its maps are empty. " + words
        )
    return tag("p", words, class_="note")
