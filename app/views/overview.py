"""Overview: what is loaded, how good the model is, who is in it, and which queries stand behind each figure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from app.components.charts import cmc_chart, heat_table, precision_chart
from app.components.html import button, empty, panel, pending, percent, person, save_menu, tag, text
from app.selection import Selection
from app.store import Store
from app.views import help
from app.views.header import subset_words
from app.views.rank import query_card
from ccan.data.records import DISTRACTOR, JUNK, Sample
from ccan.evaluation import CameraPairs
from ccan.plots import ColourScale

PEOPLE, LISTED = 6, 36
"""Identities that are shown across cameras; queries that are listed behind a figure."""


def show(store: Store, selection: Selection) -> str:
    """The view's HTML."""
    left = _splits(store) + _cmc(store, selection) + camera_table(store)
    right = _people(store, selection) + _steps(store, selection)
    columns = tag("div", left, class_="column") + tag("div", right, class_="column")
    return tag(
        "div",
        help.panel("overview") + _behind(store, selection) + tag("div", columns, class_="two"),
        class_="ccan overview",
        data_event="act",
    )


def _splits(store: Store) -> str:
    """Images, people and cameras of each split."""
    header = "".join(
        text(name, "th", scope="col")
        for name in ("split", "images", "identities", "cameras", "distractors", "junk")
    )
    rows = ""
    for split in ("train", "query", "gallery", "multi_query"):
        samples: Sequence[Sample] = getattr(store.dataset, split)
        if not samples:
            continue
        identities = np.array([sample.identity for sample in samples])
        cameras = {sample.camera for sample in samples}
        counts = (
            len(samples),
            len(set(identities[identities > 0].tolist())),
            len(cameras),
            int((identities == DISTRACTOR).sum()),
            int((identities == JUNK).sum()),
        )
        cells = "".join(text(f"{count:,}", "td", class_="n") for count in counts)
        rows += tag("tr", text(split.replace("_", " "), "th", scope="row") + cells)
    model = _model(store)
    table = tag("table", tag("tr", header) + rows, class_="table")
    return panel("What is loaded", table + model)


def _model(store: Store) -> str:
    if store.predictor is None:
        return tag(
            "p",
            "Features of another model: Overview and Rank work on them; attention and parts need the network.",
            class_="note",
        )
    config = store.predictor.config
    parameters = sum(value.numel() for value in store.predictor.model.parameters())
    attention = ", ".join(name for name in store.slots) or "none"
    words = (
        f"CCAN with {config.parts} parts, input {config.image_height} × {config.image_width}, width "
        f"{config.width_multiplier:g}, {parameters / 1e6:.1f} million parameters; attention: {attention}; "
        f"on {store.predictor.device}."
    )
    return text(words, "p", class_="note")


def _cmc(store: Store, selection: Selection) -> str:
    kind, _, rest = selection.subset.partition(":")
    chosen = int(rest) if kind in ("hit", "miss") else None
    chart = cmc_chart(store.report.cmc, chosen)
    note = (
        "Share of queries whose first match stands at rank k or before. Click a point: the queries whose first match "
        "comes later."
    )
    return panel("CMC", chart + text(note, "p", class_="note"), extra=save_menu("cmc"))


def camera_table(store: Store) -> str:
    """Rank 1 from camera to camera."""
    job = store.camera_pairs()
    job.wait(0.3)
    if job.value is None:
        return panel("From camera to camera", pending(job, "comparing the cameras"))
    pairs: CameraPairs = job.value
    values = 100 * pairs.rank1
    known = values[np.isfinite(values)]
    if not len(known):
        words = (
            "No query has a match in another camera (or no camera is known): nothing to compare."
        )
        return panel("From camera to camera", empty(words))
    scale = ColourScale(float(min(known.min(), 99)), 100.0, "cividis")
    cells = {}
    for i, first in enumerate(pairs.query_cameras.tolist()):
        for j, second in enumerate(pairs.gallery_cameras.tolist()):
            said = (
                f"{int(pairs.queries[i, j])} queries of camera {first} with a match in camera {second}: rank-1 "
                f"{values[i, j]:.1f} %, mAP {100 * pairs.mAP[i, j]:.1f} %"
            )
            cells[i, j] = (f"pair:{first}:{second}", said)
    table = heat_table(
        values,
        [f"c{camera}" for camera in pairs.query_cameras],
        [f"c{camera}" for camera in pairs.gallery_cameras],
        scale,
        "{:.0f}",
        corner="from ↓ to →",
        do=cells,
    )
    note = (
        "Rank-1 (%) when only one camera's images are the gallery; brighter is better, – has no match by the protocol. "
        "Click a cell: its queries, hardest first."
    )
    return panel(
        "From camera to camera",
        tag("div", table, class_="scroll") + text(note, "p", class_="note"),
        extra=save_menu("camera_pairs"),
    )


def _behind(store: Store, selection: Selection) -> str:
    """The queries behind what was clicked."""
    if not selection.subset:
        return ""
    found = store.subset(selection.subset)
    cards = "".join(
        query_card(store, selection, query, found[query]) for query in list(found)[:LISTED]
    )
    more = (
        f" The first {LISTED} are shown; ‹ and › walk through all." if len(found) > LISTED else ""
    )
    kind, _, rest = selection.subset.partition(":")
    other = ""
    if kind in ("hit", "miss"):
        turned = "hit" if kind == "miss" else "miss"
        other = button(
            escape(f"show: {subset_words(f'{turned}:{rest}')}"), "subset", f"{turned}:{rest}"
        )
    rule = "AP against that camera alone" if kind == "pair" else "AP"
    note = f"Hardest first; below each query its {rule}. Click one: every view follows.{more}"
    return panel(
        f"{len(found)} queries: {subset_words(selection.subset)}",
        tag("div", cards, class_="queries wide") + text(note, "p", class_="note"),
        extra=tag(
            "div", other + button("close", "subset", "") + save_menu("behind"), class_="inline"
        ),
    )


def _people(store: Store, selection: Selection) -> str:
    """Some people as each camera sees them, the query's person first."""
    grid = people(store, selection)
    if not grid:
        return panel("People across cameras", empty("No identity is known here."))
    cameras = store.cameras
    head = tag("tr", "<th></th>" + "".join(text(f"camera {c}", "th", scope="col") for c in cameras))
    rows = ""
    for identity, pictures in grid.items():
        cells = ""
        for camera in cameras:
            images = "".join(
                _picture(store, selection, image) for image in pictures.get(camera, [])
            )
            cells += tag("td", images or text("–", class_="none"))
        rows += tag("tr", text(person(identity), "th", scope="row") + cells)
    note = (
        "The query's person and five others, one query (framed, click it) or gallery image a camera. The same clothes "
        "look different under every camera: that is the task."
    )
    table = tag("div", tag("table", head + rows, class_="people"), class_="scroll")
    return panel(
        "People across cameras",
        table + text(note, "p", class_="note"),
        extra=save_menu("people"),
    )


def people(store: Store, selection: Selection) -> dict[int, dict[int, list[str]]]:
    """Identity → camera → one image of it: the query's identity, then others spread over the dataset."""
    identities = store.index.query.identities
    known = np.unique(identities[identities > 0])
    own = store.sample(selection.query)
    first = [own.identity] if own and own.identity > 0 else []
    others = [
        int(known[k])
        for k in np.linspace(0, len(known) - 1, min(PEOPLE, len(known))).round().astype(int)
    ]
    chosen = [*first, *(one for one in others if one not in first)][:PEOPLE]
    grid: dict[int, dict[int, list[str]]] = {}
    for identity in chosen:
        seen: dict[int, list[str]] = {}
        for features, ids in (
            (store.index.query, store.query_ids),
            (store.index.gallery, store.gallery_ids),
        ):
            for row in np.flatnonzero(features.identities == identity):
                seen.setdefault(int(features.cameras[row]), [ids[row]])
        grid[identity] = seen
    return grid


def _picture(store: Store, selection: Selection, image: str) -> str:
    picture = tag("img", src=store.thumbnail(image, selection.blur), alt=store.name(image))
    if image not in store.query_rows:
        return tag("span", picture, class_="still", title=store.name(image))
    return button(
        picture,
        "choose",
        image,
        pressed=image == selection.query,
        title=f"{store.name(image)}: show as query",
    )


@dataclass(frozen=True)
class Steps:
    """AP of one query, match by match.

    Attributes:
        ranks: r_k, the place of each match among the images that count.
        precisions: k / r_k.
        counted: images that count.
    """

    ranks: list[int]
    precisions: list[float]
    counted: int


def steps(store: Store, query: str) -> Steps:
    """The matches of a query's ranking."""
    ranking = store.ranking(query)
    ranks = [
        int(position)
        for position, mark in zip(ranking.positions, ranking.marks, strict=True)
        if mark == "right"
    ]
    precisions = [k / rank for k, rank in enumerate(ranks, start=1)]
    return Steps(ranks, precisions, int((ranking.positions > 0).sum()))


def _steps(store: Store, selection: Selection) -> str:
    title = "AP of the query, step by step"
    if store.is_upload(selection.query):
        return panel(title, empty("Nobody knows who is on an upload: there is no match to count."))
    found = steps(store, selection.query)
    if not found.ranks:
        return panel(title, empty("No image of this person counts for this query."))
    rows = ""
    shown = list(zip(found.ranks, found.precisions, strict=True))
    for k, (rank, precision) in list(enumerate(shown, start=1))[:8]:
        cells = "".join(
            text(value, "td", class_="n") for value in (k, rank, f"{k}/{rank}", f"{precision:.3f}")
        )
        rows += tag("tr", cells)
    if len(shown) > 8:
        rows += tag("tr", f'<td colspan="4" class="none">… {len(shown) - 8} more matches</td>')
    head = "".join(
        text(name, "th", scope="col") for name in ("match k", "rank", "k / rank", "precision")
    )
    total, ap = sum(found.precisions), store.ranking(selection.query).ap
    line = (
        f"AP = ({' + '.join(f'{value:.2f}' for value in found.precisions[:4])}"
        f"{' + …' if len(shown) > 4 else ''}) / {len(shown)} = {total:.3f} / {len(shown)} = <b>{percent(ap)}</b>"
    )
    return panel(
        title,
        precision_chart(found.ranks, found.precisions, found.ranks[-1])
        + tag("table", tag("tr", head) + rows, class_="table all-n")
        + tag("p", line, class_="eq")
        + text(
            "Ranks count the images that the protocol does not ignore; the axis of ranks is logarithmic.",
            "p",
            class_="note",
        ),
        extra=save_menu("ap_steps"),
    )
