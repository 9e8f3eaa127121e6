"""Rank: choose a query, see the gallery in the order of distance with what the protocol says of each image."""

from __future__ import annotations

from html import escape

import numpy as np

from app.actions import query_list
from app.components.html import (
    button,
    camera_name,
    choices,
    facts,
    labelled,
    mark_badge,
    percent,
    person,
    person_number,
    tag,
    text,
)
from app.selection import SHOWN_LEAST, SHOWN_MOST, Selection
from app.store import MAX_UPLOAD_BYTES, Store
from ccan.evaluation import Mark, Ranking
from ccan.plots import MARKS

PAGE_SIZE = 30


def show(store: Store, selection: Selection) -> str:
    """The view's HTML."""
    picker = _uploader() + _picker(store, selection)
    results = _summary(store, selection) + _controls(store, selection) + _strip(store, selection)
    return tag(
        "div",
        tag("aside", picker, class_="panel", aria_label="Queries")
        + tag("section", results, class_="panel", aria_label="Ranked gallery"),
        class_="ccan rank",
        data_event="act",
    )


def _picker(store: Store, selection: Selection) -> str:
    """A page of the list of queries."""
    ids = query_list(store, selection)
    pages = -(-len(ids) // PAGE_SIZE)
    here = ids.index(selection.query) // PAGE_SIZE if selection.query in store.query_rows else 0
    page = min(here if selection.page is None else selection.page, pages - 1)
    head = tag(
        "div",
        choices(
            "Order of the queries",
            "order",
            {"name": "By name", "hardest": "Hardest"},
            selection.order,
        )
        + tag(
            "div",
            button("‹", "page", (page - 1) % pages, title="Previous page")
            + text(f"{page + 1} / {pages}")
            + button("›", "page", (page + 1) % pages, title="Next page"),
            class_="pager",
        ),
        class_="pickerhead",
    )
    cards = "".join(
        _query_card(store, query, query == selection.query)
        for query in ids[page * PAGE_SIZE : (page + 1) * PAGE_SIZE]
    )
    return head + tag("div", cards, class_="queries")


def _query_card(store: Store, query: str, chosen: bool) -> str:
    row = store.query_rows[query]
    sample, ap = store.dataset.query[row], float(store.report.ap[row])
    hint = f"{sample.path.name}: identity {person(sample.identity)}, camera {camera_name(sample.camera)}, "
    picture = tag("img", src=store.thumbnail(query), alt="")
    return button(
        picture + text(percent(ap), class_="ap"),
        "choose",
        query,
        pressed=chosen,
        title=f"{hint}AP {percent(ap)}",
    )


def _uploader() -> str:
    limit = MAX_UPLOAD_BYTES // 2**20
    browse = tag("input", type="file", accept="image/*", aria_label="Picture to use as query")
    words = (
        "<b>Your own query</b><span>drop, paste or choose a picture of one person "
        f"(up to {limit} MB; it is not kept)</span>"
    )
    return tag(
        "label",
        browse + words,
        class_="uploader",
        data_upload="upload",
        data_limit=MAX_UPLOAD_BYTES,
    )


def _summary(store: Store, selection: Selection) -> str:
    """What the ranking is worth, and what the marks mean."""
    query, ranking = selection.query, store.ranking(selection.query)
    counted = int(np.count_nonzero(ranking.positions > 0))
    figures = [("ranked", f"{counted:,}"), ("ignored", str(len(ranking) - counted))]
    if store.sample(query) is None:
        words = (
            "Nobody knows who is on an upload: nothing can be right or wrong, and there is no AP. "
            "The gallery stands in the order of distance."
        )
    else:
        words = _verdict(ranking)
        first = str(ranking.first_match) if ranking.matches else "–"
        figures = [("first match at", first), ("matches", str(ranking.matches)), *figures]
    met: tuple[Mark, ...] = ("right", "wrong", "ignored")
    keys = "".join(
        tag("span", mark_badge(mark) + escape(MARKS[mark].word), class_="key")
        for mark in (met if store.sample(query) else ("unknown", "ignored"))
    )
    left = text(words, "p", class_="verdict") + facts(figures)
    return tag("div", tag("div", left) + tag("div", keys, class_="keys"), class_="summary")


def _verdict(ranking: Ranking) -> str:
    if not ranking.matches:
        return "No image of this person counts for this query, so it is left out of every average."
    if ranking.ap == 1:
        return "Every match stands before every wrong image."
    if ranking.first_match == 1:
        return "The nearest image that counts shows this person; some matches stand behind others."
    others = ranking.first_match - 1
    return f"{others} image{'s' * (others > 1)} of other people stand{'s' * (others == 1)} before the first match."


def _controls(store: Store, selection: Selection) -> str:
    slider = tag(
        "input",
        type="range",
        min=SHOWN_LEAST,
        max=SHOWN_MOST,
        step=5,
        value=selection.shown,
        data_do="shown",
        aria_label="Number of images",
    ) + text(selection.shown, "output")
    cameras = button("all", "camera", "all", pressed=not selection.cameras) + "".join(
        button(camera_name(number), "camera", number, pressed=number in selection.cameras)
        for number in store.cameras
    )
    return tag(
        "div",
        labelled("Show", slider)
        + labelled("Cameras", tag("div", cameras, class_="choices", role="group"))
        + labelled(
            "Ignored",
            choices(
                "Ignored images",
                "ignored",
                {"1": "shown", "0": "hidden"},
                str(int(selection.ignored)),
            ),
        ),
        class_="controls",
    )


def _strip(store: Store, selection: Selection) -> str:
    """The nearest images that pass the filters; positions and marks are those of the whole ranking."""
    ranking = store.ranking(selection.query)
    cameras = store.gallery_cameras[ranking.order]
    passes = (
        np.isin(cameras, selection.cameras) if selection.cameras else np.ones(len(ranking), bool)
    )
    if not selection.ignored:
        passes &= ranking.positions > 0
    listed = np.flatnonzero(passes)[: selection.shown]
    if not len(listed):
        return text("No image passes these filters.", "p", class_="empty")
    chosen = selection.match or store.nearest(selection.query)
    cards = _probe(store, selection.query)
    cards += "".join(_card(store, ranking, int(place), chosen) for place in listed)
    hidden = " Filters hide images; positions, marks and AP stay those of the whole ranking."
    note = (
        "Nearest first. Below each image: its distance to the query (Euclidean), identity and camera; "
        "the number is its position among the images that count."
        + (hidden if selection.cameras or not selection.ignored else "")
    )
    return tag("ol", cards, class_="strip") + text(note, "p", class_="note")


def _probe(store: Store, query: str) -> str:
    """The query itself, before its ranking."""
    sample = store.sample(query)
    whose = (
        "upload" if sample is None else f"{person(sample.identity)} · c{camera_name(sample.camera)}"
    )
    head = tag("span", text("query", class_="position"), class_="cardhead")
    picture = tag("img", src=store.thumbnail(query), alt=f"query {store.name(query)}")
    ap = "?" if sample is None else f"AP {percent(store.ranking(query).ap)}"
    foot = text(ap, class_="distance") + text(whose, class_="whose")
    return tag("li", tag("div", head + picture + foot, class_="card probe"))


def _card(store: Store, ranking: Ranking, place: int, chosen: str) -> str:
    row = int(ranking.order[place])
    image, sample, mark = store.gallery_ids[row], store.dataset.gallery[row], ranking.marks[place]
    position, distance = int(ranking.positions[place]), f"{ranking.distances[place]:.3f}"
    who, camera = person(sample.identity), camera_name(sample.camera)
    whose = f"{person_number(sample.identity)} · c{camera}"
    number = str(position) if position > 0 else ""
    hint = (
        f"{MARKS[mark].word}{f', position {number}' if number else ''}, distance {distance}, "
        f"identity {who}, camera {camera}: {sample.path.name}"
    )
    picture = tag("img", src=store.thumbnail(image), alt="")
    head = tag("span", mark_badge(mark) + text(number, class_="position"), class_="cardhead")
    foot = text(distance, class_="distance") + text(whose, class_="whose")
    card = button(
        head + picture + foot,
        "match",
        image,
        pressed=image == chosen,
        title=hint,
        class_=f"card {mark}",
    )
    return tag("li", card)
