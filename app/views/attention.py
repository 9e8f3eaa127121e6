"""Attention: where the network looks in the query and in a gallery image, and what one position gathers from."""

from __future__ import annotations

from html import escape

import numpy as np
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
from ccan.explain.attention import AttentionRecord, SlotMaps, slot_geometry
from ccan.plots import MARKS, ColourScale, overlay

HEIGHT = 560
"""Pixels of the pictures; the page shows them at about two thirds of it."""

PART_NAMES = ("head–shoulder", "upper body", "thighs", "crus–foot")
"""The paper's names of four parts."""

MEANINGS = {
    "gathered_share": (
        "Gathered share",
        "mean over i of A<sub>ij</sub>/MN: how much of position j all positions gather (Eq. 1–2)",
    ),
    "added_energy": (
        "Added energy",
        "‖φ(y<sub>i</sub>W<sub>w</sub>)‖: how strongly attention changes position i (Eq. 3)",
    ),
}
ROW_MEANING = "A<sub>ij</sub>/MN: the weight with which position i gathers position j (Eq. 2)"


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
    records = {role: store.attention(image) for role, image in images.items()}
    cell = _cell(selection, records["query"].slots[slot])
    scales = _scales(selection, slot, cell, list(records.values()))
    sides = "".join(
        _side(store, selection, role, image, records[role], slot, cell, scales[place])
        for place, (role, image) in enumerate(images.items())
    )
    return tag(
        "div",
        _controls(store, selection, slot)
        + tag("div", sides, class_="sides")
        + _caption(store.predictor.config, slot, cell),
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


def _cell(selection: Selection, maps: SlotMaps) -> int:
    """The chosen cell, or the one that attention changes most."""
    return int(np.argmax(maps.added_energy())) if selection.cell is None else selection.cell


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


def _scales(
    selection: Selection, slot: str, cell: int, records: list[AttentionRecord]
) -> list[dict[str, ColourScale]]:
    """Colour scales of each record's panels: one for both images, or each its own."""
    groups = [[record] for record in records] if selection.own_scale else [records]
    found = [
        {
            "SS1": _covering(group, ["SS1"], selection),
            "CC2": _covering(group, [name for name in group[0].slots if name != "SS1"], selection),
            "row": ColourScale.covering(
                [record.slots[slot].gathers_from(cell) for record in group], "viridis"
            ),
        }
        for group in groups
    ]
    return found if selection.own_scale else found * len(records)


def _covering(
    records: list[AttentionRecord], slots: list[str], selection: Selection
) -> ColourScale:
    return ColourScale.covering(
        [
            record.slots[slot].on_image(selection.summary)
            for record in records
            for slot in slots
            if slot in record.slots
        ]
    )


def _side(
    store: Store,
    selection: Selection,
    role: str,
    image: str,
    record: AttentionRecord,
    slot: str,
    cell: int,
    scales: dict[str, ColourScale],
) -> str:
    """One image: SS1's map, the parts' maps, and the row of A of the cell."""
    photo = store.photo(image)
    meaning = MEANINGS[selection.summary][1]
    config, place = store.predictor.config, record.slots[slot].geometry
    panels = ""
    if "SS1" in record.slots:
        box = place.box_of(cell) if slot == "SS1" else None
        picture = overlay(
            photo,
            record.slots["SS1"].on_image(selection.summary),
            scales["SS1"],
            height=HEIGHT,
            box=box,
        )
        panels += _panel(
            store, "SS1", "SS1, whole image", picture, cell, legend(scales["SS1"], meaning)
        )
    if len(record.slots) > ("SS1" in record.slots):
        box = place.box_of(cell) if slot != "SS1" else None
        lines = sorted({slot_geometry(config, name).top for name in record.slots} - {0})
        picture = overlay(
            photo,
            record.parts_on_image(selection.summary),
            scales["CC2"],
            height=HEIGHT,
            box=box,
            lines=lines,
        )
        title = f"CC2, {config.parts} parts"
        panels += _panel(store, "CC2", title, picture, cell, legend(scales["CC2"], meaning))
    maps = record.slots[slot]
    row = maps.gathered_geometry.to_image(maps.gathers_from(cell))
    picture = overlay(photo, row, scales["row"], height=HEIGHT, box=place.box_of(cell))
    panel = "SS1" if slot == "SS1" else "CC2"
    title = f"{slot_title(config, slot)}: gathers from"
    panels += _panel(store, panel, title, picture, cell, legend(scales["row"], ROW_MEANING))
    head = _heading(store, selection, role, image)
    return tag(
        "section", head + tag("div", panels, class_="panels"), class_="panel", aria_label=role
    )


def _heading(store: Store, selection: Selection, role: str, image: str) -> str:
    sample = store.sample(image)
    first = tag("b", escape(role.capitalize())) + text(store.name(image), class_="file")
    second = ""
    if sample is not None:
        second += text(f"identity {person(sample.identity)}, camera {camera_name(sample.camera)}")
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


def _panel(
    store: Store, panel: str, title: str, picture: Image.Image, cell: int, scale: str
) -> str:
    """A picture whose cells can be pointed at; `data-grids` tells the browser where they are."""
    slots = [name for name in store.slots if (name == "SS1") == (panel == "SS1")]
    grids = []
    for name in slots:
        place = store.geometry(name)
        grids.append(
            f"{place.top / place.image_height:.6f},{place.bottom / place.image_height:.6f},"
            f"{place.rows},{place.columns}"
        )
    image = tag("img", src=jpeg_source(picture), alt=title, draggable="false")
    canvas = tag(
        "div",
        image + tag("i", class_="hover"),
        class_="canvas",
        data_panel=panel,
        data_grids=";".join(grids),
        data_cell=cell,
        tabindex="0",
        role="button",
        aria_label=f"{title}: click a position, or move it with the arrow keys",
    )
    return tag("figure", text(title, "figcaption") + canvas + scale)


def _caption(config: ModelConfig, slot: str, cell: int) -> str:
    place = slot_geometry(config, slot)
    row, column = divmod(cell, place.columns)
    words = (
        f"<b>Click a position</b> in any picture (arrow keys move it). Framed: row {row + 1}, column "
        f"{column + 1} of the {place.rows} × {place.columns} positions of {slot_title(config, slot)}, in both images. "
        "The maps show what one real forward computed; cells are nominal (Decision D19), weights are not "
        "normalised and need not sum to 1."
    )
    if slot != "SS1":
        words += (
            " In a part stream Q is the part, Q′ the same strip of the global branch: A = φ([A′, A′ᵀ]W<sub>α</sub>), "
            "A′ = g(q) f(q′)ᵀ."
        )
    return tag("p", words, class_="note")
