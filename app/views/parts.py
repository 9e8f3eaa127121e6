"""Parts: what each stream fires at, which strips show the same, what is left without one, and which maps hold."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

import numpy as np
from PIL import Image, ImageDraw

from app.components.charts import heat_table
from app.components.html import (
    button,
    cells,
    choices,
    empty,
    labelled,
    legend,
    mark_badge,
    panel,
    pending,
    percent,
    save_menu,
    tag,
    text,
)
from app.images import jpeg_source
from app.masks import digits_in
from app.selection import Selection
from app.store import Painted, Store
from app.views import help
from app.views.attention import PART_NAMES, sides
from ccan.evaluation import Ranking
from ccan.explain.maps import Picture
from ccan.explain.trace import stream_names
from ccan.plots import ColourScale, overlay

HEIGHT, SMALL = 380, 230
"""Pixels of pictures."""
TOP, CHANNELS = 8, 4
"""Images of a short ranking; channels of a stream."""


def show(store: Store, selection: Selection) -> str:
    """The view's HTML."""
    if store.predictor is None:
        words = "There is no network here, only its features: parts cannot be looked at."
        return tag("div", help.panel("parts") + empty(words), class_="ccan parts", data_event="ask")
    left = _activations(store, selection)
    right = _alignment(store, selection) + _knock_out(store, selection)
    return tag(
        "div",
        help.panel("parts")
        + tag(
            "div",
            tag("div", left, class_="column") + tag("div", right, class_="column"),
            class_="two",
        )
        + _brush(store, selection)
        + _family(store, selection),
        class_="ccan parts",
        data_event="ask",
    )


def stream_title(store: Store, stream: str) -> str:
    """A stream in words."""
    if stream == "G":
        return "G whole image"
    number = int(stream[1:])
    named = store.network.config.parts == len(PART_NAMES)
    return f"{stream} {PART_NAMES[number - 1]}" if named else stream


def chosen_stream(store: Store, selection: Selection) -> str:
    """The stream that is looked at closely. Raises: ConfigError without a network."""
    return selection.part or stream_names(store.network.model)[0]


# What streams fire at


def energy_maps(store: Store, selection: Selection) -> dict[str, dict[str, Picture]]:
    """Role → map → picture: energies of all streams, and of the chosen one alone."""
    stream = chosen_stream(store, selection)
    found = {}
    for role, image in sides(store, selection).items():
        one = store.activations(image)[stream]
        found[role] = dict(store.energy(image)) | {
            f"{stream} energy": one.geometry.to_image(one.energy)
        }
    return found


def _activations(store: Store, selection: Selection) -> str:
    stream = chosen_stream(store, selection)
    streams = {name: stream_title(store, name) for name in store.streams}
    control = labelled("Stream", choices("Stream", "part", streams, stream))
    maps = energy_maps(store, selection)
    names = list(next(iter(maps.values())))
    scales = {name: ColourScale.covering([one[name] for one in maps.values()]) for name in names}
    lines = strip_lines(store)
    rows = ""
    for role, image in sides(store, selection).items():
        photo = store.photo(image, selection.blur)
        figures = ""
        for name in names:
            picture = overlay(photo, maps[role][name], scales[name], height=HEIGHT, lines=lines)
            figures += _figure(picture, name, f"{name} of the {role}")
        one = store.activations(image)[stream]
        scale = ColourScale.covering([one.channel_maps])
        strips = ""
        for channel, values in list(zip(one.channels, one.channel_maps, strict=True))[:CHANNELS]:
            picture = overlay(photo, one.geometry.to_image(values), scale, height=SMALL)
            strips += _figure(picture, f"ch {channel}", f"channel {channel} of {stream}")
        rows += tag(
            "div",
            text(role, class_="label")
            + tag(
                "div", tag("div", figures, class_="row") + tag("div", strips, class_="row small")
            ),
            class_="side",
        )
    keys = "".join(
        tag(
            "div",
            legend(scales[name], f"{escape(name)}: ‖x<sub>r</sub>‖, both images on one scale"),
        )
        for name in names
    )
    note = (
        f"Energy of each stream's last map before GAP; the small pictures are the {CHANNELS} channels of {stream} with "
        "the largest mean, on one scale an image. Lines: where strips begin."
    )
    return panel(
        "What the streams fire at",
        tag("div", control, class_="controls")
        + rows
        + tag("div", keys, class_="row keysrow")
        + text(note, "p", class_="note"),
        extra=save_menu("energy"),
    )


def strip_lines(store: Store) -> list[int]:
    """Pixel rows of the input where strips begin."""
    config = store.network.config
    if not config.local_branch:
        return []
    return [config.image_height * k // config.parts for k in range(1, config.parts)]


def _figure(picture: Image.Image, title: str, alt: str, below: str = "") -> str:
    image = tag("img", src=jpeg_source(picture), alt=alt)
    return tag("figure", text(title, "figcaption", title=title) + image + below)


# Which strips show the same


def _alignment(store: Store, selection: Selection) -> str:
    title = "Strip against strip"
    if len([one for one in store.streams if one != "G"]) < 2:
        return panel(title, empty("This network has fewer than two parts to compare."))
    images = sides(store, selection)
    found = store.alignment(*images.values())
    names = [f"P{k + 1}" for k in range(len(found.similarity))]
    best = [(row, int(column)) for row, column in enumerate(found.assignment)]
    table = heat_table(
        found.similarity,
        [f"query {name}" for name in names],
        names,
        ColourScale(-1, 1, "cividis"),
        "{:+.2f}",
        corner="↓ query, beside →",
        marked=best,
    )
    note = (
        "Cosine of what the streams make of the strips, −1 to 1, brighter is more alike; framed: the best one-to-one "
        "assignment. Off the diagonal a stream sees a strip that it was not trained on."
    )
    return panel(
        title,
        tag("div", table, class_="scroll")
        + text(found.reading().capitalize().rstrip(".") + ".", "p", class_="verdict")
        + text(note, "p", class_="note"),
        extra=save_menu("alignment"),
    )


# What is left without a stream


def _knock_out(store: Store, selection: Selection) -> str:
    title = "Without one stream"
    if store.is_upload(selection.query):
        return panel(title, empty("Nobody knows who is on an upload: there is no AP to compare."))
    found = store.knocked_out(selection.query)
    if len(found) < 2:
        return panel(title, empty("This network has one stream only."))
    whole = found["unchanged"]
    rows = ""
    for name, ranking in found.items():
        change = 100 * (ranking.ap - whole.ap)
        words = "–" if change != change else f"{change:+.1f}"
        repaired = name != "unchanged" and whole.first_match > 1 and ranking.first_match == 1
        cells = (
            text(percent(ranking.ap), "td", class_="n")
            + text("" if name == "unchanged" else words, "td", class_="n")
            + text(ranking.first_match if ranking.matches else "–", "td", class_="n")
            + text("repairs the query" if repaired else "", "td")
        )
        shown = "as it is" if name == "unchanged" else f"without {stream_title(store, name)}"
        try_it = ""
        if name != "unchanged":
            try_it = button(
                "in Rank", "reset_weights", f"-{name}", title=f"Set the weight of {name} to 0"
            )
        rows += tag("tr", text(shown, "th", scope="row") + cells + tag("td", try_it))
    head = "".join(
        text(name, "th", scope="col") for name in ("", "AP", "points", "first match", "", "")
    )
    note = (
        "The stream counts no longer, for the query and for the whole gallery (weight 0). What remains of G without it "
        "is nothing, of L the other parts and the bias."
    )
    return panel(
        title,
        tag("table", tag("tr", head) + rows, class_="table") + text(note, "p", class_="note"),
        extra=save_menu("knock_out"),
    )


# The brush


def _brush(store: Store, selection: Selection) -> str:
    rows, columns = store.mask_shape
    photo = store.photo(selection.query, selection.blur)
    config = store.network.config
    ratio = config.image_width / config.image_height
    picture = photo.resize((round(HEIGHT * ratio), HEIGHT), Image.Resampling.BICUBIC)
    canvas = tag(
        "div",
        tag("img", src=jpeg_source(picture), alt="the query", draggable="false")
        + tag("div", cells(store.mask(selection.hidden)), class_="cells", aria_hidden="true"),
        class_="brush",
        data_mask=selection.hidden or "0" * digits_in(*store.mask_shape),
        data_rows=rows,
        data_columns=columns,
        tabindex="0",
        role="application",
        aria_label="Paint what the network shall not see: drag, or move with the arrow keys and press space",
    )
    strips = "".join(
        button(f"strip {k}", "paint", f"strip {k}", title=f"Hide strip {k}")
        for k in range(1, config.parts + 1)
    )
    tools = tag("div", strips + button("clear", "paint", "", title="Hide nothing"), class_="inline")
    if not selection.hidden:
        words = (
            "Drag over the query: what you paint is hidden from the network, and the ranking moves."
        )
        result = text(words, "p", class_="empty")
    else:
        found = store.painted(selection.query, selection.hidden)
        result = _painted(store, selection, found, picture.size)
    note = (
        "Hidden cells hold the mean colour of the training images (0 after normalisation); gallery images stay as they "
        "are. Space paints a cell by keyboard."
    )
    return panel(
        "Hide something from the network",
        tag(
            "div",
            tag("div", canvas + tools, class_="easel") + tag("div", result, class_="outcome"),
            class_="painting",
        )
        + text(note, "p", class_="note"),
        extra=save_menu("painted") if selection.hidden else "",
    )


def _painted(store: Store, selection: Selection, found: Painted, size: tuple[int, int]) -> str:
    before = store.ranking(selection.query)
    words = f"The embedding moved by {found.moved:.3f}."
    if not store.is_upload(selection.query) and before.ap == before.ap:
        words += (
            f" AP {percent(before.ap)} → <b>{percent(found.ranking.ap)}</b>, first match at {before.first_match} → "
            f"<b>{found.ranking.first_match}</b>."
        )
    strips = short_strip(store, selection, "before", before) + short_strip(
        store, selection, "after", found.ranking
    )
    photo = covered(store, selection)
    whole, figures = store.energy(selection.query), ""
    for name, values in found.maps.items():
        scale = ColourScale.covering([values, whole[name]])
        picture = overlay(photo, values, scale, height=SMALL)
        figures += _figure(picture, f"{name} after", f"{name} with the painted cells hidden")
    return tag("p", words, class_="verdict") + strips + tag("div", figures, class_="row small")


def covered(store: Store, selection: Selection) -> Image.Image:
    """The query with its painted cells grey."""
    photo = store.photo(selection.query, selection.blur).copy()
    draw, mask = ImageDraw.Draw(photo), store.mask(selection.hidden)
    rows, columns = mask.shape
    for r, c in zip(*np.nonzero(mask), strict=True):
        box = (c * photo.width / columns, r * photo.height / rows)
        end = ((c + 1) * photo.width / columns, (r + 1) * photo.height / rows)
        draw.rectangle((*box, *end), fill=(124, 116, 104))
    return photo


def short_strip(store: Store, selection: Selection, title: str, ranking: Ranking) -> str:
    """The head of a ranking, small."""
    cards = ""
    counted = np.flatnonzero(ranking.positions > 0)[:TOP]
    for place in counted:
        image, mark = store.gallery_ids[ranking.order[place]], ranking.marks[place]
        picture = tag("img", src=store.thumbnail(image, selection.blur), alt="")
        cards += button(
            tag("span", mark_badge(mark), class_="cardhead") + picture,
            "match",
            image,
            title=f"{mark}, distance {ranking.distances[place]:.3f}: {store.name(image)}",
            class_=f"card {mark}",
        )
    return tag(
        "div", text(title, class_="label") + tag("div", cards, class_="shortstrip"), class_="short"
    )


# Grad-CAM and its family


def family_scores(store: Store, selection: Selection) -> tuple[Mapping[str, float], str]:
    """Faithfulness by map, and of what it is the mean: of this query where it was measured, else of the model."""
    match = store.match(selection)
    job = store.jobs.found(("faithfulness", selection.query, match))
    if job is not None and job.value is not None and selection.target == "similarity":
        return job.value, "this query"
    if selection.target == "similarity":
        return {name: score for name, (score, _) in store.trust.items()}, "the model"
    return {}, ""


def _family(store: Store, selection: Selection) -> str:
    match = store.match(selection)
    pictures = store.family(selection.query, match, selection.target)
    scores, of = family_scores(store, selection)
    photo = store.photo(selection.query, selection.blur)
    rows = ""
    for side in ("G", "parts"):
        own = {name: values for name, values in pictures.items() if name.startswith(f"{side} ")}
        figures = ""
        for name, values in own.items():
            seen = np.maximum(values, 0)
            picture = overlay(photo, seen, ColourScale.covering([seen]), height=SMALL)
            score = _faithful(store, scores, name, of)
            figures += _figure(
                picture, name.removeprefix(f"{side} "), f"{name} of the query", score
            )
        if figures:
            rows += tag("div", text(side, class_="label") + figures, class_="row family")
    targets = {
        "similarity": "similarity to the image beside it",
        "identity": "likeliest training identity",
    }
    control = labelled(
        "Explains", choices("What Grad-CAM explains", "target", targets, selection.target)
    )
    job = store.jobs.found(("faithfulness", selection.query, match))
    state = ""
    if selection.target == "similarity" and not store.is_upload(selection.query):
        if job is None:
            state = button(
                "Measure on this query",
                "measure",
                "",
                title="Hides what each map names, little by little; some seconds",
            )
        elif job.value is None:
            state = pending(job, "measuring on this query")
    rivals = ""
    if scores:
        rivals = (
            f" Faithfulness on {of}: (area under insertion − under deletion) / 2 of the retrieval margin, in units of "
            f"the distance; a blind order {scores.get('random', 0):+.3f}, the centre of the image "
            f"{scores.get('centre', 0):+.3f}."
        )
    else:
        rivals = (
            " Nobody has measured these maps for this score."
            if selection.target == "identity"
            else " Nobody has measured this model's maps: ccan trust --out RUN/trust does, or measure on this query."
        )
    note = (
        "Each map on its own scale, brighter speaks more for the score; what speaks against it is drawn as 0. Tapped "
        f"one stage before the last map.{rivals}"
    )
    return panel(
        "Grad-CAM and its family, on the query",
        tag("div", control + state, class_="controls") + rows + text(note, "p", class_="note"),
        extra=save_menu("family"),
    )


def _faithful(store: Store, scores: Mapping[str, float], name: str, of: str) -> str:
    if name not in scores:
        return text("not measured", class_="faith none")
    score, rivals = scores[name], max(scores.get("centre", 0.0), scores.get("random", 0.0))
    kind, sign = ("good", "✓") if score > rivals else ("weak", "○")
    if score <= scores.get("random", 0.0):
        kind, sign = "bad", "✗"
    hint = {
        "good": "above a blind order and above the centre of the image",
        "weak": "not above both rivals: a blind order and the centre of the image",
        "bad": "not above a blind order: this map misleads",
    }[kind]
    verdict = store.trust[name][1] if of == "the model" and name in store.trust else hint
    return text(f"{sign} {score:+.3f}", class_=f"faith {kind}", title=verdict)
