"""Attention: where the network looks in both images, and what one position has to do with the others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from app.components.html import (
    button,
    camera_name,
    choices,
    empty,
    labelled,
    legend,
    mark_badge,
    panel,
    percent,
    person,
    save_menu,
    tag,
    text,
)
from app.images import jpeg_source
from app.selection import Selection
from app.store import Store
from app.views import help
from ccan.config import ModelConfig
from ccan.errors import CCANError
from ccan.explain.attention import (
    AttentionRecord,
    SlotGeometry,
    SlotMaps,
    attention_slots,
    slot_geometry,
)
from ccan.explain.similarity import CROSS_IMAGE_CAPTION
from ccan.explain.votes import asymmetry, learned_weights, round_trip, split_votes, summarise
from ccan.model.attention import CrossCorrelatedAttention, NonLocalAttention
from ccan.plots import MARKS, Box, ColourScale, overlay

HEIGHT = 460
"""Pixels of the pictures; the page shows them at about two thirds of it."""

ROOT = 0.5
"""Power of the colour scales: a few positions weigh far more than the others."""

PART_NAMES = ("head–shoulder", "upper body", "thighs", "crus–foot")
"""The paper's names of four parts."""

MEANINGS = {
    "added_energy": (
        "Added energy",
        "‖φ(y<sub>i</sub>W<sub>w</sub>)‖: how much attention adds at i (Eq.&nbsp;3)",
    ),
    "gathered_share": (
        "Gathered share",
        "mean over i of A<sub>ij</sub>/MN: what is gathered from j (Eq.&nbsp;1–2)",
    ),
}
LENS_WORDS = {
    "probe": "Probe",
    "votes": "Votes",
    "trip": "Round trip",
    "across": "Across images",
}
HALVES: tuple[str, str] = ("W_α[:MN], of A′", "W_α[MN:], of A′ᵀ")
MATRIX_WORDS = {"A": "A", "C": "A′", "Ct": "A′ᵀ"}


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
        words = (
            "There is no network here, only its features: attention cannot be looked at."
            if store.predictor is None
            else "This network has no attention (neither SS1 nor CC2): nothing to look at."
        )
        return tag(
            "div", help.panel("attention") + empty(words), class_="ccan attention", data_event="ask"
        )
    slot, cell = chosen_cell(store, selection)
    images = sides(store, selection)
    layers = [layers_of(store, selection, role) for role in images]
    scales = scales_of(layers, shared=not selection.own_scale)
    drawn = ""
    for place, (role, image) in enumerate(images.items()):
        photo = store.photo(image, selection.blur)
        panels = "".join(
            _panel(store, layer, photo, scale, cell)
            for layer, scale in zip(layers[place], scales[place], strict=True)
        )
        head = _heading(store, selection, role, image)
        panels = tag("div", panels, class_="panels")
        drawn += tag(
            "section", head + panels + _numbers(store, image, slot), class_="panel", aria_label=role
        )
    return tag(
        "div",
        help.panel("attention")
        + _controls(store, selection, slot)
        + tag("div", drawn, class_="sides")
        + (_learned(store, slot) if selection.lens == "votes" else "")
        + _caption(store, selection, slot, cell),
        class_="ccan attention",
        data_event="ask",
    )


def sides(store: Store, selection: Selection) -> dict[str, str]:
    """The two images: role → id."""
    return {"query": selection.query, "image beside it": store.match(selection)}


def chosen_cell(store: Store, selection: Selection) -> tuple[str, int]:
    """The slot and the position that are looked at; by default where attention changes the query most."""
    slot = store.slot(selection.slot)
    if selection.cell is not None:
        return slot, selection.cell
    return slot, int(np.argmax(store.attention(selection.query).slots[slot].added_energy()))


def slot_title(config: ModelConfig, slot: str) -> str:
    """A slot in words."""
    if slot == "SS1":
        return "SS1"
    part = int(slot.removeprefix("CC2_"))
    name = PART_NAMES[part - 1] if config.parts == len(PART_NAMES) else f"part {part}"
    return f"CC2 {name}"


def _controls(store: Store, selection: Selection, slot: str) -> str:
    config = store.network.config
    slots = {name: slot_title(config, name) for name in store.slots}
    maps = {name: words for name, (words, _) in MEANINGS.items()}
    lenses = {
        name: words
        for name, words in LENS_WORDS.items()
        if name != "across" or any(one != "SS1" for one in store.slots)
    }
    found = labelled("Slot", choices("Attention slot", "slot", slots, slot))
    found += labelled(
        "Ask", choices("What is asked of the position", "lens", lenses, selection.lens)
    )
    if selection.lens == "probe":
        found += labelled("Matrix", choices("Matrix", "matrix", MATRIX_WORDS, selection.matrix))
    found += labelled("Map", choices("Map over the images", "summary", maps, selection.summary))
    scale = {"0": "shared", "1": "own"}
    found += labelled(
        "Scale", choices("Colour scale", "own_scale", scale, str(int(selection.own_scale)))
    )
    return tag("div", found + save_menu("attention"), class_="controls")


# The maps


def layers_of(store: Store, selection: Selection, role: str) -> list[Layer]:
    """SS1's map, the maps of all parts, and what the lens shows of the cell; for one of the two images."""
    images = sides(store, selection)
    record = store.attention(images[role])
    slot, cell = chosen_cell(store, selection)
    config = store.network.config
    summary, maps = selection.summary, record.slots[slot]
    box = maps.geometry.box_of(cell)
    grid = maps.gathered_share() if summary == "gathered_share" else maps.added_energy()
    framed = {"box": box, "here": float(grid.flat[cell])}
    meaning, layers = MEANINGS[summary][1], []
    if "SS1" in record.slots:
        values = record.slots["SS1"].on_image(summary)
        chosen = framed if slot == "SS1" else {}
        layers.append(Layer("SS1", "SS1, whole image", meaning, values, **chosen))
    if len(record.slots) > len(layers):
        chosen = framed if slot != "SS1" else {}
        lines = sorted({slot_geometry(config, name).top for name in record.slots} - {0})
        values, title = record.parts_on_image(summary), f"CC2, {config.parts} parts"
        layers.append(Layer("CC2", title, meaning, values, lines=lines, **chosen))
    asked = _LENSES[selection.lens](store, selection, role, record, slot, cell)
    return [*layers, *asked]


def _layer(
    slot: str, title: str, meaning: str, values: NDArray, place: SlotGeometry, box: Box, here: float
) -> Layer:
    return Layer(
        slot[:3], title, meaning, place.to_image(np.asarray(values, np.float32)), box, here
    )


def _probe(
    store: Store, selection: Selection, role: str, record: AttentionRecord, slot: str, cell: int
) -> list[Layer]:
    """Row and column of A, A′ or A′ᵀ at the cell."""
    maps = record.slots[slot]
    row, column, row_place, column_place = _read(maps, selection.matrix, cell)
    words = {
        "A": (
            "gathers from",
            "row i of A/MN: where the framed position gathers from (Eq.&nbsp;2)",
            "gathered by",
            "column i of A/MN: who gathers from the framed position (Eq.&nbsp;2)",
        ),
        "C": (
            "Q → Q′",
            "row i of A′: positions of Q′ that position i of Q fires with (Eq.&nbsp;1)",
            "Q′ → Q",
            "column j of A′: positions of Q that position j of Q′ fires with (Eq.&nbsp;1)",
        ),
        "Ct": (
            "row of A′ᵀ",
            "row j of A′ᵀ: positions of Q that position j of Q′ fires with (Eq.&nbsp;1)",
            "column of A′ᵀ",
            "column i of A′ᵀ: positions of Q′ that position i of Q fires with (Eq.&nbsp;1)",
        ),
    }[selection.matrix]
    nothing = {True: "", False: "; <b>all 0 here</b>"}
    words = (
        words[0],
        words[1] + nothing[bool(row.any())],
        words[2],
        words[3] + nothing[bool(column.any())],
    )
    box = maps.geometry.box_of(cell)
    return [
        _layer(slot, words[0], words[1], row, row_place, box, float(row.flat[cell])),
        _layer(slot, words[2], words[3], column, column_place, box, float(column.flat[cell])),
    ]


def _read(
    maps: SlotMaps, matrix: str, cell: int
) -> tuple[NDArray, NDArray, SlotGeometry, SlotGeometry]:
    """Row and column of a matrix at a cell as maps, and where their positions lie."""
    if matrix == "A":
        place = maps.gathered_geometry
        return maps.gathers_from(cell), maps.gathered_by(cell), place, maps.geometry
    shape = (maps.geometry.rows, maps.geometry.columns)
    of_target = maps.correlation[cell].reshape(shape)  # over Q′
    of_source = maps.co_fires_with(cell)  # over Q
    if matrix == "C":
        return of_target, of_source, maps.source_geometry, maps.geometry
    return of_source, of_target, maps.geometry, maps.source_geometry


def _votes(
    store: Store, selection: Selection, role: str, record: AttentionRecord, slot: str, cell: int
) -> list[Layer]:
    """Row i of A before φ, as the vote of A′ and the vote of its transpose."""
    maps = record.slots[slot]
    if not has_votes(store, slot):
        return []
    split = split_votes(attention_of(store, slot), maps)
    box, place = maps.geometry.box_of(cell), maps.gathered_geometry
    shape = (place.rows, place.columns)
    layers = []
    for title, votes, letter in (
        ("vote of A′", split.forward, "A′W<sub>α</sub>[:MN]"),
        ("vote of A′ᵀ", split.backward, "A′ᵀW<sub>α</sub>[MN:]"),
    ):
        row = votes[cell].reshape(shape)
        against = float(np.abs(row[row < 0]).sum() / max(np.abs(row).sum(), 1e-24))
        meaning = (
            f"row i of {letter}: what speaks for gathering there, before φ; {percent(against)} of it "
            "speaks against and is drawn as 0"
        )
        layers.append(
            _layer(slot, title, meaning, np.maximum(row, 0), place, box, float(row.flat[cell]))
        )
    return layers


def attention_of(store: Store, slot: str) -> NonLocalAttention:
    """The attention module of a slot."""
    return attention_slots(store.network.model)[slot]


def has_votes(store: Store, slot: str) -> bool:
    """Whether the slot weighs A′ by W_α; Fig. 2's baseline takes it as it is (Decision D18)."""
    return isinstance(attention_of(store, slot), CrossCorrelatedAttention)


def learned(store: Store, slot: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Both halves of W_α of a slot. Raises: ShapeError for an attention without it."""
    return learned_weights(attention_of(store, slot))


def _learned(store: Store, slot: str) -> str:
    """W_α of a slot as two pictures; the same for every image."""
    if not has_votes(store, slot):
        return ""
    halves = learned(store, slot)
    limit = max(float(np.abs(half).max()) for half in halves)
    scale, figures = ColourScale(-limit, limit, "cividis"), ""
    for half, title in zip(halves, HALVES, strict=True):
        picture = Image.fromarray(scale.paint(half)).resize((300, 300), Image.Resampling.NEAREST)
        figures += tag(
            "figure", text(title, "figcaption") + tag("img", src=jpeg_source(picture), alt=title)
        )
    words = "row j: the position voted from; column: the position voted for. Learned once, the same for every image."
    body = tag("div", figures, class_="row learned") + legend(scale, words)
    return panel(
        f"What {slot_title(store.network.config, slot)} has learned to vote",
        body,
        extra=save_menu("learned"),
    )


def _trip(
    store: Store, selection: Selection, role: str, record: AttentionRecord, slot: str, cell: int
) -> list[Layer]:
    """Where the correlation comes home."""
    maps = record.slots[slot]
    found = round_trip(maps)
    meaning = (
        "(P R)<sub>ii</sub>: share of what leaves position i by A′ that comes back to it by A′ᵀ; mean "
        f"{percent(found.share)}, an even spread would give {percent(1 / maps.correlation.shape[1])}"
    )
    box = maps.geometry.box_of(cell)
    here = float(found.by_position.flat[cell])
    return [_layer(slot, "comes home", meaning, found.by_position, maps.geometry, box, here)]


def _across(
    store: Store, selection: Selection, role: str, record: AttentionRecord, slot: str, cell: int
) -> list[Layer]:
    """Where the query's part co-fires with the other image's strip."""
    if slot == "SS1":
        return []
    images = sides(store, selection)
    try:
        found = store.across(images["query"], images["image beside it"])[slot]
    except (CCANError, KeyError):
        return []
    place = store.geometry(slot)
    box = place.box_of(cell)
    if role == "query":
        values, title = found.from_gallery(cell), "fires with it"
        meaning = (
            "positions of the query that the framed position of the other image fires with (A′)"
        )
        where = found.geometry if found.query_is_target else found.source_geometry
    else:
        values, title = found.from_query(cell), "answers the query"
        meaning = "positions here that the framed position of the query fires with (A′)"
        where = found.source_geometry if found.query_is_target else found.geometry
    return [_layer(slot, title, meaning, values, where, box, float(values.flat[cell]))]


_LENSES: dict[str, Callable[..., list[Layer]]] = {
    "probe": _probe,
    "votes": _votes,
    "trip": _trip,
    "across": _across,
}


def scales_of(layers: Sequence[Sequence[Layer]], shared: bool) -> list[list[ColourScale]]:
    """A colour scale for each layer of each image; where they are shared, one for a layer of all images."""
    groups = [layers] * len(layers) if shared else [[own] for own in layers]
    return [
        [
            ColourScale.covering([one.values for one in same], power=ROOT)
            for same in zip(*group, strict=True)
        ]
        for group in groups
    ]


# Words and pictures


def _numbers(store: Store, image: str, slot: str) -> str:
    """A slot's attention of one image in a few numbers."""
    maps = store.attention(image).slots[slot]
    energy = summarise(maps.added_energy())
    spread = "–" if energy.spread != energy.spread else f"{energy.spread:.2f}"
    pairs = [
        ("entropy", f"{energy.entropy:.2f} nats" if energy.entropy == energy.entropy else "–"),
        ("spread", f"{spread} of 1"),
        ("comes home", percent(round_trip(maps).share)),
        ("A asymmetry", f"{asymmetry(maps.attention):.2f} of 2"),
    ]
    if has_votes(store, slot):
        share = split_votes(attention_of(store, slot), maps).backward_share().mean()
        pairs.append(("vote of A′ᵀ", percent(float(share))))
    rows = "".join(f"<div><dt>{escape(name)}</dt><dd>{value}</dd></div>" for name, value in pairs)
    return tag("dl", rows, class_="facts numbers")


def _heading(store: Store, selection: Selection, role: str, image: str) -> str:
    sample = store.sample(image)
    first = tag("b", escape(role.capitalize())) + text(store.name(image), class_="file")
    second = text(
        "an upload: nobody knows who"
        if sample is None
        else f"identity {person(sample.identity)}, camera {camera_name(sample.camera)}"
    )
    if image in store.gallery_rows:
        ranking = store.ranking(selection.query, selection.scoring)
        place = int(np.flatnonzero(ranking.order == store.gallery_rows[image])[0])
        mark, position = ranking.marks[place], int(ranking.positions[place])
        where = f"position {position}" if position > 0 else "no position"
        second = (
            mark_badge(mark)
            + text(f"{MARKS[mark].word}, {where}, distance {ranking.distances[place]:.3f}")
            + second
        )
    picture = tag("img", src=store.thumbnail(image, selection.blur), alt="")
    lines = tag("div", tag("p", first) + tag("p", second))
    walk = ""
    if role != "query":
        walk = tag(
            "nav",
            button("‹", "neighbour", -1, title="The next nearer gallery image ([)")
            + button("›", "neighbour", 1, title="The next gallery image of the ranking (])"),
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


def _caption(store: Store, selection: Selection, slot: str, cell: int) -> str:
    config = store.network.config
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
    if selection.lens == "across":
        words += f" {escape(CROSS_IMAGE_CAPTION)}"
        if slot == "SS1":
            words += " <b>SS1 sees one image alone: choose a part.</b>"
    if selection.lens == "votes" and not has_votes(store, slot):
        words += " <b>Non-local attention takes A′ as it is: there is no vote to split.</b>"
    if slot in store.silent:
        words = (
            f"<b>{escape(slot_title(config, slot))} adds nothing to any image in this network</b>: training has worn "
            "its weights down to zero, so its maps are empty. " + words
        )
    return tag("p", words, class_="note")
