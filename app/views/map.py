"""Map: every image as a point near those that the network finds alike; what a lasso holds can be looked at and tagged.

`assets/map.js` draws what stands in `data-map`; the points themselves go to the browser once.
"""

from __future__ import annotations

import json
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.components.html import (
    button,
    camera_name,
    choices,
    empty,
    field,
    labelled,
    pager,
    panel,
    pending,
    percent,
    person,
    queries,
    save_menu,
    switch,
    tag,
    text,
)
from app.jobs import Job
from app.maps import COLOURINGS, Groups, Mapped
from app.selection import Selection
from app.store import Store
from app.views import help
from ccan.projection import JOINT, LIMIT, estimated_seconds

LISTED, PICTURES = 12, 24
"""Groups of the legend, and images of a page of the lasso."""
ALL_MAPS = {"": "side by side", "G": "G", "L": "L", JOINT: "joint"}


def show(store: Store, selection: Selection) -> str:
    """The view's HTML."""
    job = store.mapping(selection.whole)
    job.wait(1.0)
    if job.value is None:
        body = panel("Map of the embeddings", _waiting(store, selection, job))
    else:
        body = _drawn(store, selection, job.value)
    return tag("div", help.panel("map") + body, class_="ccan map", data_event="act")


def _waiting(store: Store, selection: Selection, job: Job[Mapped]) -> str:
    note = (
        "t-SNE places every image near those that the network finds alike: for G, L and both together, from one start. "
        "It is made once for each checkpoint and kept."
    )
    part = "Show a part of the images meanwhile; the map goes on being made"
    back = button(part, "whole", 0) if selection.whole else ""
    return pending(job, "the map") + text(note, "p", class_="note") + back


def _drawn(store: Store, selection: Selection, mapped: Mapped) -> str:
    groups, waits = _groups(store, selection, mapped)
    inside = chosen(selection, mapped)
    plot = _plot(store, selection, mapped) + _lasso(store, selection, mapped, inside)
    side = _legend(selection, groups, inside, waits) + _focus(store, selection, mapped)
    return tag(
        "div",
        tag("div", plot, class_="column") + tag("div", side, class_="column"),
        class_="mapped",
    )


def _groups(store: Store, selection: Selection, mapped: Mapped) -> tuple[Groups, str]:
    """The groups that are drawn; while the failures are being sorted, another colouring and the reason."""
    if selection.colour == "failure":
        job = store.diagnosis()
        job.wait(0.3)
        if job.value is None:
            return store.groups(mapped, "split"), pending(job, "the failures")
    return store.groups(mapped, selection.colour), ""


def chosen(selection: Selection, mapped: Mapped) -> NDArray[np.bool_] | None:
    """Which points the lasso holds; None without one of this map."""
    try:
        return mapped.inside(selection.lasso)
    except ValueError:
        return None


def shown_maps(selection: Selection, mapped: Mapped) -> list[str]:
    """The maps that are drawn."""
    return [selection.maps] if selection.maps in mapped.maps else mapped.maps


def focused(selection: Selection) -> str:
    """Id of the image whose neighbours are drawn: the one that was clicked, else the query."""
    return selection.focus or selection.query


# The drawing


def state(store: Store, selection: Selection, mapped: Mapped) -> dict[str, Any]:
    """What `map.js` draws, by numbers of points; -1 = not among them."""

    def number(image: str) -> int:
        return mapped.place_of.get(image, -1)

    focus = number(focused(selection))
    spokes = {name: mapped.neighbours(name, focus) for name in mapped.maps if focus >= 0}
    job = store.diagnosis() if selection.colour == "failure" else None
    return {
        "key": mapped.key,
        "maps": shown_maps(selection, mapped),
        "colour": "split" if job and job.value is None else selection.colour,
        "trust": selection.trust,
        "lasso": selection.lasso if chosen(selection, mapped) is not None else "",
        "focus": focus,
        "spokes": spokes,
        "query": number(selection.query),
        "match": number(store.match(selection)),
        "placed": store.placed(selection.query, mapped),
        "blur": selection.blur,
    }


def _plot(store: Store, selection: Selection, mapped: Mapped) -> str:
    several = len(mapped.maps) > 1
    names = {name: words for name, words in ALL_MAPS.items() if not name or name in mapped.maps}
    controls = (
        labelled("Embedding", choices("Embedding", "maps", names, selection.maps)) * several
        + labelled("Colour", choices("Colour", "colour", COLOURINGS, selection.colour))
        + switch(
            "Trust",
            "trust",
            selection.trust,
            "Fade the points whose true neighbours this map has not kept beside them",
        )
    )
    body = tag("div", controls, class_="controls")
    body += tag(
        "div",
        class_="mapplot several" if len(shown_maps(selection, mapped)) > 1 else "mapplot",
        data_map=json.dumps(state(store, selection, mapped)),
        role="group",
        aria_label=f"map of {len(mapped.ids)} images; those that it leads to are buttons beside and below",
    )
    words = (
        "Draw a lasso, or click a point; the wheel zooms, a double click takes the lasso away. Larger points are "
        "queries; ○ is the query that all views show, □ the image beside it. Lines lead to the true "
        f"nearest {mapped.projection.neighbours[mapped.maps[0]].shape[1]} of the clicked image, in the embedding of "
        "each map. Distances between far groups, sizes of groups and empty space mean nothing."
    )
    if store.is_upload(selection.query):
        words += (
            " ◇ is your picture: a map has no formula for what it has not seen, so its place is a guess, the mean of "
            "its nearest neighbours' places."
        )
    return panel(
        f"Map of {len(mapped.ids):,} images",
        body + text(words, "p", class_="note"),
        extra=tag("div", _size(store, selection, mapped) + save_menu("map"), class_="inline"),
    )


def _size(store: Store, selection: Selection, mapped: Mapped) -> str:
    """A way to all images, or back to a part of them."""
    if store.mappable <= LIMIT:
        return ""
    if selection.whole:
        return button(f"{LIMIT:,} of them", "whole", 0)
    minutes = estimated_seconds(store.mappable, len(mapped.maps)) / 60
    return button(
        f"all {store.mappable:,}", "whole", 1, title=f"the first time about {minutes:.0f} minutes"
    )


# What stands beside it


def _legend(
    selection: Selection, groups: Groups, chosen: NDArray[np.bool_] | None, waits: str
) -> str:
    """Groups with their counts, which follow the lasso."""
    totals = groups.counts()
    counts = totals if chosen is None else groups.counts(chosen)
    many = len(groups.names) > LISTED
    order = np.argsort(-counts, kind="stable") if many else np.arange(len(groups.names))
    present = [int(k) for k in order if totals[k] and (counts[k] or not many)]
    rows = ""
    for k in present[:LISTED]:
        share = f"{counts[k]:,} / {totals[k]:,}" if chosen is not None else f"{totals[k]:,}"
        key = text("●", style=f"color:{groups.colours[k]}")
        rows += tag("li", key + text(groups.names[k]) + text(share, class_="n"))
    more = len(present) - LISTED
    if more > 0:
        rows += tag("li", text(f"and {more:,} more", class_="none"))
    if chosen is not None:
        total = f"{int(chosen.sum()):,} / {len(chosen):,}"
        rows += tag("li", text("in the lasso") + text(total, class_="n"), class_="sum")
    title, note = f"By {COLOURINGS[selection.colour]}", ""
    if waits:
        title = "By split, until the failures are sorted"
    elif selection.colour == "failure":
        words = "A query that fits several rules counts once here, by the first of them."
        note = text(words, "p", class_="note")
    return panel(title, waits + tag("ul", rows, class_="groups") + note)


def _focus(store: Store, selection: Selection, mapped: Mapped) -> str:
    """The clicked image and its true neighbours."""
    image = focused(selection)
    place = mapped.place_of.get(image)
    if place is None:
        words = (
            "An upload has no true neighbours here; its ranking has (2)."
            if store.is_upload(image)
            else "The query is not among the points that are drawn: junk, or left out to keep the map small."
        )
        return panel("True neighbours", empty(words))
    name = JOINT if selection.maps not in mapped.maps else selection.maps
    kept = mapped.projection.agreement[name][place]
    pictures = "".join(
        _image(store, selection, mapped.ids[other], mapped)
        for other in mapped.neighbours(name, place)
    )
    about = (
        text(store.name(image), class_="file")
        + text(_facts(mapped, place))
        + text(f"this map keeps {percent(float(kept))} of its neighbours", class_="none")
    )
    head = tag("img", src=store.thumbnail(image, selection.blur), alt="") + tag("div", about)
    words = f"True neighbours ({name})"
    return panel(
        words,
        tag("div", head, class_="heading") + tag("div", pictures, class_="queries small"),
    )


def _facts(mapped: Mapped, place: int) -> str:
    identity, camera = int(mapped.identities[place]), int(mapped.cameras[place])
    split = str(mapped.splits[place])
    return f"{split} · {person(identity)} · camera {camera_name(camera)}"


def peek(store: Store, mapped: Mapped, place: int, blur: bool) -> dict[str, Any]:
    """What stands beside the pointer over a point: a picture and lines. Raises: IndexError for another number."""
    if not 0 <= place < len(mapped.ids):
        raise IndexError(place)
    image = mapped.ids[place]
    words = [store.name(image), _facts(mapped, place)]
    row = store.query_rows.get(image)
    if row is not None:
        words.append(f"AP {percent(float(store.report.ap[row]))}")
    kept = mapped.projection.agreement[JOINT][place]
    return {
        "picture": store.thumbnail(image, blur),
        "words": [*words, f"{percent(float(kept))} of its neighbours kept (joint)"],
    }


def _image(store: Store, selection: Selection, image: str, mapped: Mapped) -> str:
    """An image that can be chosen by a click or by key."""
    place = mapped.place_of[image]
    words = _facts(mapped, place)
    picture = tag("img", src=store.thumbnail(image, selection.blur), alt=store.name(image))
    label = text(person(int(mapped.identities[place])), class_="ap")
    return button(picture + label, "dot", place, pressed=image == focused(selection), title=words)


def _lasso(
    store: Store, selection: Selection, mapped: Mapped, chosen: NDArray[np.bool_] | None
) -> str:
    """The images in the lasso, and what can be done with them."""
    if chosen is None:
        words = "Draw around some points: their images come here, to be looked at and tagged."
        return panel("Lasso", empty(words))
    places = np.flatnonzero(chosen)
    asked = int((mapped.splits[places] == "query").sum())
    title = f"Lasso: {len(places):,} / {len(chosen):,} images, {asked:,} of them queries"
    if not len(places):
        return panel(title, empty("No point lies in it.") + button("Take it away", "lasso"))
    pages = max(1, -(-len(places) // PICTURES))
    page = min(selection.sheet, pages - 1)
    shown = places[page * PICTURES : (page + 1) * PICTURES]
    pictures = "".join(_image(store, selection, mapped.ids[k], mapped) for k in shown)
    subset = f"lasso:{selection.lasso}"
    walk = button(
        f"Walk through its {queries(asked)}",
        "subset",
        subset,
        pressed=selection.subset == subset,
    )
    given = "".join(
        button(f"all are tagged “{escape(one)}” ✕", "untag_lasso", one, title="Take this tag away")
        for one in store.cases.common([mapped.ids[k] for k in places])
    )
    turn = pager("sheet", page, pages, "Images before", "Images after")
    controls = (
        walk * bool(asked)
        + field("tag_lasso", "tag all of them (t), Enter", "t")
        + given
        + button("Take it away", "lasso")
    )
    return panel(
        title,
        tag("div", controls, class_="controls") + tag("div", pictures, class_="queries small"),
        extra=tag("div", turn + save_menu("lasso", ("csv", "png")), class_="inline"),
    )
