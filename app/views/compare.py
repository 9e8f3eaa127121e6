"""Compare: two checkpoints on the same images, query by query: what one has right and the other has not, and where.

“Before” is the checkpoint of `--compare`, “now” the one that all views show.
"""

from __future__ import annotations

from html import escape

import numpy as np

from app.components.charts import scatter_chart, slope_chart
from app.components.html import (
    button,
    choices,
    empty,
    facts,
    pager,
    panel,
    pending,
    percent,
    save_menu,
    tag,
    text,
)
from app.images import jpeg_source
from app.selection import Selection
from app.store import Store
from app.views import help
from app.views.header import subset_words
from app.views.parts import short_strip
from ccan.diagnosis.checkpoints import CheckpointComparison
from ccan.evaluation.comparison import Difference
from ccan.explain.maps import attention_pictures
from ccan.plots import ColourScale, overlay

ROWS, LINES, HEIGHT = 8, 40, 300
SIDES = {"query": "the query", "match": "the image beside it"}
OUTCOME_WORDS = {
    "fixed": "wrong before, right now",
    "broken": "right before, wrong now",
    "both right": "right in both",
    "both wrong": "wrong in both",
}


def show(store: Store, selection: Selection) -> str:
    """The view's HTML."""
    if store.other is None:
        body = panel("Two checkpoints, query by query", _nothing(store))
        return tag("div", help.panel("compare") + body, class_="ccan compare", data_event="act")
    found = store.compared
    left = _scatter(store, selection, found) + _slopes(store, selection, found)
    right = _quadrants(store, selection, found) + _changes(store, selection, found)
    columns = tag("div", left, class_="column") + tag("div", right, class_="column")
    body = tag("div", columns, class_="two") + _side_by_side(store, store.other, selection)
    return tag("div", help.panel("compare") + body, class_="ccan compare", data_event="ask")


def _nothing(store: Store) -> str:
    """What stands here with one checkpoint; beside the bundled one its ablation can be loaded."""
    words = (
        "One checkpoint is loaded. Start with a second one, for example of an ablation: "
        "python app/demo.py --checkpoint FULL --compare WITHOUT_CC2 (with the same --dataset and --data)."
    )
    if not store.has_twin:
        return empty(words)
    job = store.jobs.found("twin")
    if job is not None:
        return pending(job, "the bundled model without attention")
    more = "The bundled model has a twin that was trained in the same way without any attention:"
    load = button("Compare with it", "twin", title="It describes all images first: some seconds")
    return empty(words) + tag(
        "div", text(more, class_="none") + load, class_="controls", style="justify-content:center"
    )


def names(store: Store) -> tuple[str, str]:
    """The two checkpoints, before and now, as short as they can be told apart."""
    pair = [one.checkpoint.replace("\\", "/").rstrip("/") for one in (store.other, store) if one]
    for parts in (1, 2, 3):
        short = ["/".join(one.split("/")[-parts:]) for one in pair]
        if short[0] != short[1]:
            return short[0], short[1]
    return pair[0], pair[-1]


# All queries


def _scatter(store: Store, selection: Selection, found: CheckpointComparison) -> str:
    before, now = names(store)
    place = {int(row): k for k, row in enumerate(found.rows)}
    row = store.query_rows.get(selection.query, -1)
    chosen = None
    if row in place:
        chosen = (float(found.ap_a[place[row]]), float(found.ap_b[place[row]]))
    points = {
        outcome: np.stack([found.ap_a[mask], found.ap_b[mask]], axis=1)
        for outcome in OUTCOME_WORDS
        if (mask := found.outcomes == outcome).any()
    }
    chart = scatter_chart(points, chosen, f"AP before: {before}", f"AP now: {now}", "spot")
    note = (
        "A point is a query; above the line it has become better. Click near a point: its query is shown in every "
        "view. ◆ fixed, ✕ broken at rank 1; ○ as it was; the amber ring is the query."
    )
    return panel(
        "AP of every query, before and now",
        chart + text(note, "p", class_="note"),
        extra=save_menu("ap_scatter"),
    )


def _quadrants(store: Store, selection: Selection, found: CheckpointComparison) -> str:
    before, now = names(store)
    counts = found.counts()

    def cell(outcome: str) -> str:
        count = counts[outcome]  # type: ignore[index]
        name = f"outcome:{outcome}"
        inside = text(count, "b") + text(OUTCOME_WORDS[outcome], class_="none")
        if not count:
            return tag("td", tag("div", inside, class_="quadrant"))
        pressed = selection.subset == name
        return tag("td", button(inside, "subset", name, pressed=pressed, class_="quadrant"))

    head = text("", "th") + text("now right", "th", scope="col") + text("now wrong", "th")
    rows = tag("tr", head)
    for word, pair in (
        ("before right", ("both right", "broken")),
        ("before wrong", ("fixed", "both wrong")),
    ):
        rows += tag("tr", text(word, "th", scope="row") + "".join(map(cell, pair)))
    paired = found.paired
    p = paired.mcnemar
    verdict = (
        f"{counts['fixed']} queries are fixed and {counts['broken']} broken at rank 1. If both were equally good, "
        f"a split at least as uneven would come by chance in {percent(p)} of cases (McNemar, exact: p = {p:.3g}). "
        "It takes queries for independent; those of one person are not, so the intervals below resample persons."
    )
    numbers = facts(
        [
            (f"before: {escape(before)}", _averages(paired.mAP.a, paired.rank1.a)),
            (f"now: {escape(now)}", _averages(paired.mAP.b, paired.rank1.b)),
            ("mAP, change", _change(paired.mAP)),
            ("rank-1, change", _change(paired.rank1)),
        ]
    )
    return panel(
        "Right at rank 1, before and now",
        tag("table", rows, class_="quadrants") + text(verdict, "p", class_="note") + numbers,
        extra=save_menu("outcomes", ("csv", "json")),
    )


def _averages(mAP: float, rank1: float) -> str:
    return f"mAP <b>{percent(mAP)}</b>, rank-1 <b>{percent(rank1)}</b>"


def _change(one: Difference) -> str:
    found = one.difference
    return (
        f"<b>{100 * found.value:+.1f}</b> points ({100 * found.low:+.1f} to {100 * found.high:+.1f}), "
        f"p = {one.p:.3g}"
    )


def changes(store: Store, selection: Selection, found: CheckpointComparison) -> list[int]:
    """Places among the compared queries of those that one walks through, the largest change of AP first."""
    walked = store.subset(selection.subset)
    change = np.abs(found.ap_b - found.ap_a)
    order = np.argsort(-change, kind="stable").tolist()
    return [k for k in order if store.query_ids[int(found.rows[k])] in walked]


def steepest(store: Store, selection: Selection, found: CheckpointComparison) -> list[int]:
    """The same by how much the rank of the first match changed, as a ratio; the first `LINES` of them."""
    steep = np.abs(np.log(found.first_b / found.first_a))
    return sorted(changes(store, selection, found), key=lambda k: -steep[k])[:LINES]


def _slopes(store: Store, selection: Selection, found: CheckpointComparison) -> str:
    shown = steepest(store, selection, found)
    lines = [
        (
            store.query_ids[int(found.rows[k])],
            int(found.first_a[k]),
            int(found.first_b[k]),
            str(found.outcomes[k]),
        )
        for k in shown
    ]
    before, now = names(store)
    if not lines:
        chart = empty("None of these queries has a match.")
    elif all(first == second for _, first, second, _ in lines):
        chart = empty("The first match of each of these queries stands at the same rank in both.")
    else:
        chart = slope_chart(lines, selection.query, f"before: {before}", f"now: {now}")
    moved = sum(first != second for _, first, second, _ in lines)
    some = f"of {len(lines)} queries" if len(lines) < LINES else f"of the {LINES} that changed most"
    note = f"Rank of the first match {some}, as a ratio; {moved} of them changed. Up is better; click a line."
    return panel(
        f"Rank of the first match: {subset_words(selection.subset)}",
        chart + text(note, "p", class_="note"),
        extra=save_menu("slopes"),
    )


def _changes(store: Store, selection: Selection, found: CheckpointComparison) -> str:
    order = changes(store, selection, found)
    pages = max(1, -(-len(order) // ROWS))
    page = min(selection.changes, pages - 1)
    rows = ""
    for k in order[page * ROWS : (page + 1) * ROWS]:
        query = store.query_ids[int(found.rows[k])]
        picture = tag("img", src=store.thumbnail(query, selection.blur), alt=store.name(query))
        pressed = query == selection.query
        link = button(picture, "choose", query, pressed=pressed, title="Show in every view")
        change = 100 * float(found.ap_b[k] - found.ap_a[k])
        cells = (
            percent(float(found.ap_a[k])),
            percent(float(found.ap_b[k])),
            f"{change:+.1f}",
            f"{found.first_a[k]} → {found.first_b[k]}",
            OUTCOME_WORDS[str(found.outcomes[k])],
        )
        rows += tag("tr", tag("td", link) + "".join(text(cell, "td") for cell in cells))
    titles = ("query", "AP before", "AP now", "points", "first match", "at rank 1")
    head = "".join(text(name, "th", scope="col") for name in titles)
    turn = pager("changes", page, pages, "Larger changes", "Smaller changes")
    return panel(
        "Largest changes",
        tag("table", tag("tr", head) + rows, class_="table hardest"),
        extra=turn,
    )


# One query


def _side_by_side(store: Store, other: Store, selection: Selection) -> str:
    """The rankings and maps of both models for the query."""
    if store.is_upload(selection.query):
        words = (
            "An upload was described by one of the two models only; choose a query of the dataset."
        )
        return panel("Side by side", empty(words))
    body = ""
    for word, one, name in zip(("before", "now"), (other, store), names(store), strict=True):
        ranking = one.ranking(selection.query)
        about = f"{word}: {name} · AP {percent(ranking.ap)} · first match at {ranking.first_match}"
        strip = short_strip(one, selection, about, ranking)
        body += tag("div", strip + _maps(one, selection), class_="column")
    choice = choices("Maps of", "side", SIDES, selection.side)
    note = (
        "Each map on a scale of its own: two networks have no unit in common. What differs is where they look, not how "
        "much."
    )
    return panel(
        "Side by side",
        tag("div", choice, class_="controls")
        + tag("div", body, class_="two")
        + text(note, "p", class_="note"),
        extra=save_menu("side_by_side"),
    )


def maps_of(store: Store, selection: Selection) -> dict[str, np.ndarray]:
    """Attention's added energy and the streams' energy for the chosen image; nothing without a network."""
    if store.predictor is None:
        return {}
    image = image_of(store, selection)
    if store.is_upload(image):
        return {}
    added = attention_pictures(store.attention(image)) if store.slots else {}
    return {k: v for k, v in added.items() if k.endswith("added")} | store.energy(image)


def image_of(store: Store, selection: Selection) -> str:
    """The image whose maps are compared."""
    return selection.query if selection.side == "query" else store.match(selection)


def _maps(store: Store, selection: Selection) -> str:
    figures, photo = "", None
    for name, values in maps_of(store, selection).items():
        photo = photo or store.photo(image_of(store, selection), selection.blur)
        picture = overlay(photo, values, ColourScale.covering([values]), height=HEIGHT)
        image = tag("img", src=jpeg_source(picture), alt=name)
        figures += tag("figure", text(name, "figcaption") + image)
    if not figures:
        return empty("No network here, or no picture that it described: no maps.")
    return tag("div", figures, class_="row maps")
