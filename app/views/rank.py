"""Rank: choose a query, see the gallery in the order of distance with what the protocol says of each image, and why.

The view has two pieces: what one sets (the queries, filters, switches, sliders), and what comes of it. While a slider
is dragged only the second is drawn anew.
"""

from __future__ import annotations

from html import escape

import numpy as np
from numpy.typing import NDArray

from app.actions import query_list
from app.components.charts import mini_bars
from app.components.html import (
    bars,
    button,
    camera_name,
    choices,
    empty,
    facts,
    labelled,
    mark_badge,
    pager,
    panel,
    pending,
    percent,
    person,
    person_number,
    save_menu,
    slider,
    tag,
    text,
)
from app.images import MAX_UPLOAD_BYTES
from app.selection import SHOWN_LEAST, SHOWN_MOST, WEIGHT_MOST, Selection
from app.store import PLAIN, Store
from app.views import help
from ccan.evaluation import Mark, Ranking
from ccan.explain.account import CAPTION, branch_sums
from ccan.plots import MARKS

PAGE_SIZE = 30


def show_controls(store: Store, selection: Selection) -> str:
    """The queries, and what one sets."""
    order = tag("div", _scoring(store, selection), class_="controls") + _weights(store, selection)
    return tag(
        "div",
        help.panel("rank")
        + panel("Order by", order, class_="settings")
        + panel(
            "Show", tag("div", _filters(store, selection), class_="controls"), class_="settings"
        )
        + panel("Queries", _picker(store, selection) + _uploaders(store), class_="picker"),
        class_="ccan rank-controls",
        data_event="act",
    )


def show_results(store: Store, selection: Selection) -> str:
    """The ranking under these settings, and why the chosen image stands where it does."""
    body = _summary(store, selection) + _waiting(store, selection) + _strip(store, selection)
    return tag(
        "div",
        panel("Ranked gallery", body, extra=save_menu("ranking"))
        + _elsewhere(store, selection)
        + _why(store, selection),
        class_="ccan rank",
        data_event="act",
    )


# The queries


def _picker(store: Store, selection: Selection) -> str:
    """A page of the list of queries."""
    ids = query_list(store, selection)
    pages = max(1, -(-len(ids) // PAGE_SIZE))
    here = ids.index(selection.query) // PAGE_SIZE if selection.query in ids else 0
    page = min(here if selection.page is None else selection.page, pages - 1)
    head = tag(
        "div",
        choices(
            "Order of the queries",
            "order",
            {"name": "By name", "hardest": "Hardest"},
            selection.order,
        )
        + pager("page", page, pages, "Previous page", "Next page"),
        class_="pickerhead",
    )
    cards = "".join(
        query_card(store, selection, query, float(store.report.ap[store.query_rows[query]]))
        for query in ids[page * PAGE_SIZE : (page + 1) * PAGE_SIZE]
    )
    return head + tag("div", cards, class_="queries")


def query_card(store: Store, selection: Selection, query: str, ap: float) -> str:
    """A query with its AP (of whatever ranking), to be chosen."""
    sample = store.dataset.query[store.query_rows[query]]
    hint = f"{sample.path.name}: identity {person(sample.identity)}, camera {camera_name(sample.camera)}, "
    picture = tag("img", src=store.thumbnail(query, selection.blur), alt="")
    return button(
        picture + text(percent(ap), class_="ap"),
        "choose",
        query,
        pressed=query == selection.query,
        title=f"{hint}AP {percent(ap)}",
    )


def _uploaders(store: Store) -> str:
    if store.predictor is None:
        return text(
            "A picture of your own needs the network; here are its features only.",
            "p",
            class_="note",
        )
    limit = MAX_UPLOAD_BYTES // 2**20
    return _uploader(
        "query",
        "Your own query",
        f"drop, paste or choose a picture of one person (up to {limit} MB; it is not kept)",
    ) + _uploader("match", "Compare with", "a second picture beside the query: the same person?")


def _uploader(as_: str, title: str, words: str) -> str:
    browse = tag("input", type="file", accept="image/*", aria_label=f"{title}: choose a picture")
    return tag(
        "label",
        browse + text(title, "b") + text(words),
        class_="uploader",
        data_upload=as_,
        data_limit=MAX_UPLOAD_BYTES,
    )


# What one sets


def _filters(store: Store, selection: Selection) -> str:
    count = slider(
        "Number of images",
        "shown",
        selection.shown,
        bounds=(SHOWN_LEAST, SHOWN_MOST),
        step=5,
    )
    cameras = button("all", "camera", "all", pressed=not selection.cameras) + "".join(
        button(camera_name(number), "camera", number, pressed=number in selection.cameras)
        for number in store.cameras
    )
    identity = tag(
        "input",
        type="text",
        inputmode="numeric",
        size=6,
        placeholder="all",
        value="" if selection.identity is None else selection.identity,
        data_do="identity",
        aria_label="Show one identity only",
    )
    marks = {"all": "all", "right": "✓ right", "wrong": "✗ wrong"}
    ignored = {"1": "shown", "0": "hidden"}
    return (
        labelled("Images", count)
        + labelled("Cameras", tag("div", cameras, class_="choices", role="group"))
        + labelled("Identity", identity)
        + labelled("Marks", choices("Marks that are shown", "verdict", marks, selection.verdict))
        + labelled(
            "Ignored", choices("Ignored images", "ignored", ignored, str(int(selection.ignored)))
        )
    )


def _scoring(store: Store, selection: Selection) -> str:
    switch = {"0": "off", "1": "on"}
    found = ""
    if store.can_flip:
        found += labelled(
            "Flip", choices("Average with the mirror", "flip", switch, str(int(selection.flip)))
        )
    if not store.is_upload(selection.query):
        found += labelled(
            "Re-rank",
            choices("k-reciprocal re-ranking", "rerank", switch, str(int(selection.rerank))),
        )
    on = selection.threshold is not None
    asked = choices(
        "Same person or not", "threshold", {"off": "off", "on": "on"}, "on" if on else "off"
    )
    if selection.threshold is not None:
        ranking = store.ranking(selection.query, selection.scoring)
        asked += slider(
            "Threshold of the distance",
            "threshold",
            selection.threshold,
            bounds=(0, float(np.ceil(20 * ranking.distances[-1]) / 20)),
            step=0.005,
            live=True,
        )
    return found + labelled("Same person?", asked)


def _weights(store: Store, selection: Selection) -> str:
    if len(store.streams) < 2:
        return ""
    weights = selection.weights or (1.0,) * len(store.streams)
    sliders = "".join(
        labelled(
            stream,
            slider(
                f"Weight of {stream}",
                "weigh",
                value,
                bounds=(0, WEIGHT_MOST),
                step=0.1,
                key=stream,
                live=True,
            )
            + button("only", "reset_weights", stream, title=f"{stream} alone")
            + button("none", "reset_weights", f"-{stream}", title=f"Leave {stream} out"),
        )
        for stream, value in zip(store.streams, weights, strict=True)
    )
    reset = button("all 1", "reset_weights", "", pressed=not selection.weights)
    head = tag("div", text("Weights", class_="label") + reset, class_="control")
    return tag("div", head + sliders, class_="controls weights", role="group")


# What comes of it


def _waiting(store: Store, selection: Selection) -> str:
    if not selection.rerank or store.is_upload(selection.query):
        return ""
    job = store.reranking(selection.flip)
    if job.value is not None:
        return ""
    return pending(job, "re-ranking is being worked out, until then the plain order stands")


def _summary(store: Store, selection: Selection) -> str:
    """What the ranking is worth, and what the marks mean."""
    query = selection.query
    ranking = store.ranking(query, selection.scoring)
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
        plain = store.ranking(query)
        ap = f"<b>{percent(ranking.ap)}</b>"
        if selection.scoring != PLAIN and ranking.ap == ranking.ap:
            change = 100 * (ranking.ap - plain.ap)
            ap += f" ({change:+.1f} points; plain {percent(plain.ap)})"
        figures = [
            ("AP", ap),
            ("first match at", first),
            (
                "last match at",
                str(round(ranking.matches / ranking.inp)) if ranking.matches else "–",
            ),
            ("matches", str(ranking.matches)),
            *figures,
        ]
    figures += _accepted(store, selection, ranking)
    met: tuple[Mark, ...] = ("right", "wrong", "ignored")
    keys = "".join(
        tag("span", mark_badge(mark) + escape(MARKS[mark].word), class_="key")
        for mark in (met if store.sample(query) else ("unknown", "ignored"))
    )
    left = text(words, "p", class_="verdict") + facts(figures)
    return tag("div", tag("div", left) + tag("div", keys, class_="keys"), class_="summary")


def _accepted(store: Store, selection: Selection, ranking: Ranking) -> list[tuple[str, str]]:
    """What the threshold would accept, of this query and of all pairs."""
    if selection.threshold is None:
        return []
    near = ranking.distances <= selection.threshold
    marks = np.array(ranking.marks)
    right, wrong = (int((near & (marks == mark)).sum()) for mark in ("right", "wrong"))
    found = [
        (
            "accepted",
            f"{right} right, {wrong} wrong"
            if store.sample(selection.query)
            else str(int(near.sum())),
        )
    ]
    if selection.scoring != PLAIN:
        return found
    job = store.distributions()
    if job.value is not None:
        genuine, impostor = job.value.at(selection.threshold)
        found.append(
            ("of all pairs", f"{percent(genuine)} genuine, {100 * impostor:.2g} % impostors")
        )
    return found


def _verdict(ranking: Ranking) -> str:
    if not ranking.matches:
        return "No image of this person counts for this query, so it is left out of every average."
    if ranking.ap == 1:
        return "Every match stands before every wrong image."
    if ranking.first_match == 1:
        return "The nearest image that counts shows this person; some matches stand behind others."
    others = ranking.first_match - 1
    return f"{others} image{'s' * (others > 1)} of other people stand{'s' * (others == 1)} before the first match."


def listed(store: Store, selection: Selection) -> tuple[Ranking, NDArray[np.int64]]:
    """The ranking, and the places in it that pass the filters; positions and marks are those of the whole ranking."""
    ranking = store.ranking(selection.query, selection.scoring)
    passes = np.ones(len(ranking), bool)
    if selection.cameras:
        passes &= np.isin(store.gallery_cameras[ranking.order], selection.cameras)
    if selection.identity is not None:
        passes &= store.index.gallery.identities[ranking.order] == selection.identity
    if not selection.ignored:
        passes &= ranking.positions > 0
    if selection.verdict != "all":
        passes &= np.array([mark == selection.verdict for mark in ranking.marks])
    return ranking, np.flatnonzero(passes)[: selection.shown]


def _strip(store: Store, selection: Selection) -> str:
    """The nearest images that pass the filters."""
    ranking, places = listed(store, selection)
    if not len(places):
        return empty("No image passes these filters.")
    images = [store.gallery_ids[ranking.order[place]] for place in places]
    terms = store.terms(selection.query, images)
    limit = max(
        (float(np.abs(values).max()) for name, values in terms.items() if "bias" not in name),
        default=0.0,
    )
    wrong = first_wrong(ranking)
    chosen = store.match(selection)
    cards = _probe(store, selection, ranking)
    for k, place in enumerate(places):
        own = {name: float(values[k]) for name, values in terms.items()}
        cards += _card(
            store,
            selection,
            ranking,
            int(place),
            chosen,
            wrong,
            mini_bars(own, limit) if own else "",
        )
    unit = (
        "re-ranked distance"
        if selection.rerank and not store.is_upload(selection.query)
        else "distance"
    )
    note = (
        f"Nearest first. Below each image: its {unit} to the query, Δ to the first wrong one, identity and camera; "
        "the number is its position among the images that count."
    )
    if terms:
        note += (
            " Bars: what G and the parts (1 at the top) add to the plain squared distance (up) or take from it (down); "
            "all images on one scale."
        )
    if (
        selection.cameras
        or not selection.ignored
        or selection.identity is not None
        or selection.verdict != "all"
    ):
        note += " Filters hide images; positions, marks and AP stay those of the whole ranking."
    return tag("ol", cards, class_="strip") + text(note, "p", class_="note")


def first_wrong(ranking: Ranking) -> float | None:
    """Distance of the nearest image that is wrong."""
    for mark, distance in zip(ranking.marks, ranking.distances, strict=True):
        if mark == "wrong":
            return float(distance)
    return None


def _probe(store: Store, selection: Selection, ranking: Ranking) -> str:
    """The query itself, before its ranking."""
    query = selection.query
    sample = store.sample(query)
    whose = (
        "upload" if sample is None else f"{person(sample.identity)} · c{camera_name(sample.camera)}"
    )
    head = tag("span", text("query", class_="position"), class_="cardhead")
    picture = tag(
        "img", src=store.thumbnail(query, selection.blur), alt=f"query {store.name(query)}"
    )
    ap = "?" if sample is None else f"AP {percent(ranking.ap)}"
    foot = text(ap, class_="distance") + text(whose, class_="whose")
    return tag("li", tag("div", head + picture + foot, class_="card probe"))


def _card(
    store: Store,
    selection: Selection,
    ranking: Ranking,
    place: int,
    chosen: str,
    wrong: float | None,
    account: str,
) -> str:
    row = int(ranking.order[place])
    image, sample, mark = store.gallery_ids[row], store.dataset.gallery[row], ranking.marks[place]
    position, far = int(ranking.positions[place]), float(ranking.distances[place])
    who, camera = person(sample.identity), camera_name(sample.camera)
    whose = f"{person_number(sample.identity)} · c{camera}"
    number = str(position) if position > 0 else ""
    hint = (
        f"{MARKS[mark].word}{f', position {number}' if number else ''}, distance {far:.3f}, "
        f"identity {who}, camera {camera}: {sample.path.name}"
    )
    picture = tag("img", src=store.thumbnail(image, selection.blur), alt="")
    head = tag("span", mark_badge(mark) + text(number, class_="position"), class_="cardhead")
    delta = "" if wrong is None else text(f"Δ {far - wrong:+.3f}", class_="delta")
    foot = text(f"{far:.3f}", class_="distance") + delta + text(whose, class_="whose")
    same = ""
    if selection.threshold is not None:
        near = far <= selection.threshold
        same = text("same" if near else "other", class_=f"same {'yes' if near else 'no'}")
    card = button(
        head + picture + foot + same + account,
        "match",
        image,
        pressed=image == chosen,
        title=hint,
        class_=f"card {mark}",
    )
    return tag("li", card)


# In another gallery


def _elsewhere(store: Store, selection: Selection) -> str:
    """The nearest images of the gallery that `--gallery` names."""
    other = store.elsewhere
    if other is None:
        return ""
    name = other.index.folder.name if other.index.folder else "memory"
    title, job = f"In the gallery “{name}”", store.found_elsewhere(selection)
    job.wait(0.5)
    if job.value is None:
        return panel(title, pending(job, f"searching {len(other.index):,} images"))
    sample = store.sample(selection.query)
    cards = ""
    for row, far in zip(job.value.rows[0].tolist(), job.value.distances[0].tolist(), strict=True):
        if row < 0:
            break
        who, camera = int(other.index.identities[row]), int(other.index.cameras[row])
        mark = "unknown" if sample is None else "right" if who == sample.identity else "wrong"
        picture = tag("img", src=other.thumbnail(row, selection.blur), alt="")
        head = tag("span", mark_badge(mark), class_="cardhead")
        foot = text(f"{far:.3f}", class_="distance") + text(
            f"{person_number(who)} · c{camera_name(camera)}", class_="whose"
        )
        words = f"{MARKS[mark].word}, distance {far:.3f}: {other.index.names[row]}"
        cards += tag("li", tag("div", head + picture + foot, class_=f"card {mark}", title=words))
    note = (
        f"{other.index.describe()}. By the plain descriptor, with the filters of cameras and identity"
        + (
            "; nobody knows who is on an upload, so nothing is ignored."
            if sample is None
            else "; images of the same person by the same camera are ignored."
        )
    )
    body = (
        tag("ol", cards, class_="strip") if cards else empty("No image there passes the filters.")
    )
    return panel(title, body + text(note, "p", class_="note"))


# Why


def rivals(store: Store, selection: Selection) -> dict[str, str]:
    """The images whose accounts are set against each other: the chosen one, and the nearest right and wrong ones."""
    ranking = store.ranking(selection.query)
    found = {"chosen": store.match(selection)}
    for mark in ("right", "wrong"):
        if mark in ranking.marks:
            found[f"nearest {mark}"] = store.gallery_ids[ranking.order[ranking.marks.index(mark)]]
    return found


def accounts(store: Store, selection: Selection) -> dict[str, dict[str, float]]:
    """The account of each rival: name → term → value; empty for features of another model."""
    found = rivals(store, selection)
    terms = store.terms(selection.query, list(found.values()))
    if not terms:
        return {}
    return {
        name: {term: float(values[k]) for term, values in terms.items()}
        for k, name in enumerate(found)
    }


def _why(store: Store, selection: Selection) -> str:
    found = accounts(store, selection)
    names = rivals(store, selection)
    match = names["chosen"]
    pair = _pair(store, selection, match)
    if not found:
        return panel("The pair", pair)
    limit = max(abs(value) for terms in found.values() for value in terms.values())
    columns = ""
    for name, terms in found.items():
        total = sum(terms.values())
        head = tag(
            "div",
            tag("img", src=store.thumbnail(names[name], selection.blur), alt="")
            + tag(
                "div",
                text(name, "b")
                + text(f"d² = {total:.3f}, d = {total**0.5:.3f}")
                + text(
                    " + ".join(f"{name} {value:.3f}" for name, value in branch_sums(terms).items())
                ),
            ),
            class_="who",
        )
        columns += tag("div", head + bars(terms, limit, f"account of the {name} image"))
    if {"nearest right", "nearest wrong"} <= found.keys():
        steps = {
            term: found["nearest right"][term] - value
            for term, value in found["nearest wrong"].items()
        }
        total = sum(steps.values())
        says = "the wrong image is ahead" if total > 0 else "the right image is ahead"
        head = tag(
            "div",
            tag("div", text("right − wrong", "b") + text(f"sum {total:+.3f}: {says}")),
            class_="who plain",
        )
        columns += tag(
            "div",
            head
            + bars(
                steps,
                max(map(abs, steps.values())),
                "difference of the accounts",
                class_="verdicts",
            ),
        )
    note = (
        f"{CAPTION} G includes its bias. Right − wrong: a positive term speaks for the wrong image."
    )
    return panel(
        "Why here: the squared distance, term by term",
        pair + tag("div", columns, class_="accounts") + text(note, "p", class_="note"),
        extra=save_menu("account"),
    )


def _pair(store: Store, selection: Selection, match: str) -> str:
    """The query and the image beside it: same person or not?"""
    far = store.distance(selection.query, match)
    words = f"Distance of the query and the image beside it: {far:.3f}."
    if selection.threshold is not None:
        verdict = "the same person" if far <= selection.threshold else "two people"
        words += f" Threshold {selection.threshold:.3f}: {verdict}."
    job = store.jobs.found("distances")
    if job is not None and job.value is not None:
        genuine, impostor = job.value.at(far)
        words += (
            f" Of all pairs of one person {percent(genuine)} are at most so far apart, "
            f"of two people {100 * impostor:.2g} %."
        )
    if not store.is_upload(match):
        return text(words, "p", class_="verdict")
    picture = tag("img", src=store.thumbnail(match, selection.blur), alt=store.name(match))
    mine = tag(
        "img", src=store.thumbnail(selection.query, selection.blur), alt=store.name(selection.query)
    )
    return tag("div", mine + picture + text(words, "p", class_="verdict"), class_="pair")
