"""Figures of the views that are of many queries: errors, maps, two checkpoints, rounds, runs; and their numbers."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from app import lessons
from app.lessons import Marked
from app.maps import GREY, Mapped, read_lasso
from app.runs import drawn_runs
from app.selection import Selection
from app.store import Store
from app.views import compare, overview, runs
from app.views import map as map_view
from ccan.diagnosis.whole import slice_table
from ccan.errors import ConfigError
from ccan.explain.faithfulness import cell_values
from ccan.figures import (
    ap_scatter_figure,
    counts_figure,
    curves_figure,
    map_panels,
    picture_grid,
    projection_figure,
    signed_bars,
    slopes_figure,
)
from ccan.reports.page import Page
from ccan.tables import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DRAWN = 12
"""Images of a saved strip; its numbers list all that are shown."""
Made: TypeAlias = "tuple[Figure, Table]"


def pictures(store: Store, selection: Selection, shown: Sequence[str]) -> Figure:
    """Images in rows, without an order that means anything."""
    found = {
        f"{1 + start} …": {
            str(k): store.photo(one, selection.blur)
            for k, one in enumerate(shown[start : start + DRAWN], start=1)
        }
        for start in range(0, len(shown), DRAWN)
    }
    return picture_grid(found, [str(k) for k in range(1, min(DRAWN, len(shown)) + 1)])


def _cases(store: Store, selection: Selection) -> Made:
    images = [image for image in store.cases.images() if image in store.query_rows]
    if not images:
        raise ConfigError("nothing is tagged yet")
    return pictures(store, selection, images[: overview.LISTED]), store.cases.table()


def _verdicts(store: Store, selection: Selection) -> Made:
    table = store.cases.verdict_table()
    known = [
        one
        for row in table.rows()
        for one in row[:2]
        if one in store.query_rows or one in store.gallery_rows
    ]
    if not known:
        raise ConfigError("no pair is judged yet")
    return pictures(store, selection, known[: overview.LISTED]), table


def _kinds(store: Store, _: Selection) -> Made:
    table = store.diagnosed().failures.table()
    return counts_figure(table, "kind", "queries"), table


def _hardest(store: Store, selection: Selection) -> Made:
    shown = list(store.subset(selection.subset))[: overview.LISTED]
    return pictures(store, selection, shown), store.diagnosed().hardest


def _slices(store: Store, selection: Selection) -> Made:
    table = slice_table(store.report, selection.slice_by or store.slice_columns[0])
    column, *_ = table.columns
    averages = zip(table.columns[column], table.columns["mAP %"], strict=True)
    return signed_bars({column: {str(v): float(m) for v, m in averages}}, "mAP %"), table


def _confusers(store: Store, _: Selection) -> Made:
    table = store.confusers_table()
    named = Table(
        table.name, {"pair": [f"{a} → {b}" for a, b, *_ in table.rows()], **table.columns}
    )
    return counts_figure(named.head(DRAWN), "pair", "queries"), table


def _hubs(store: Store, selection: Selection) -> Made:
    hubs = store.diagnosed().hubs
    images = [store.gallery_ids[row] for row in hubs.rows.tolist()]
    if not images:
        raise ConfigError("no image stands out: there is no hub")
    return pictures(store, selection, images[: overview.LISTED]), hubs.table()


def _curves(store: Store, selection: Selection) -> Made:
    found = store.runs.all()
    metric = runs.metric_of(selection, found)
    curves = {run.name: run.curve(metric) for run in drawn_runs(selection.curves, found)}
    rows = [[name, *point] for name, one in curves.items() for point in one]
    if not rows:
        raise ConfigError("there is no curve to save: no run has finished an epoch")
    return curves_figure(curves, metric), Table.of_rows("curves", ["run", "epoch", metric], rows)


# Maps


def _map(store: Store, selection: Selection) -> Made:
    mapped = _mapped(store, selection)
    groups = store.groups(mapped, selection.colour)
    shown = map_view.shown_maps(selection, mapped)
    counts = groups.counts()
    most = np.argsort(-counts, kind="stable")[: map_view.LISTED]  # more colours tell nothing
    names = [groups.names[k] if k in most else "others" for k in groups.of.tolist()]
    colours = {groups.names[k]: groups.colours[k] for k in most.tolist()}
    figure = projection_figure(
        {name: mapped.projection.points[name] for name in shown},
        names,
        {name: mapped.projection.trustworthiness[name] for name in shown},
        {**colours, "others": GREY},
    )
    inside = map_view.chosen(selection, mapped)
    columns = {
        "image": mapped.ids,
        "split": mapped.splits,
        "identity": mapped.identities,
        "camera": mapped.cameras,
        selection.colour if selection.colour in ("ap", "failure") else "group": [
            groups.names[k] for k in groups.of.tolist()
        ],
        "in the lasso": np.zeros(len(mapped.ids), int) if inside is None else inside.astype(int),
    }
    positions = mapped.projection.table().columns
    columns |= {name: values for name, values in positions.items() if name != "row"}
    return figure, Table("map", columns, mapped.projection.table().note)


def _mapped(store: Store, selection: Selection) -> Mapped:
    job = store.mapping(selection.whole)
    job.wait(20)
    if job.value is None:
        raise ConfigError(job.error or "the map is still being made; try again soon")
    return job.value


def _lasso(store: Store, selection: Selection) -> Made:
    if not selection.lasso:
        raise ConfigError("nothing is drawn around on the map")
    images = store.lassoed(selection.lasso)
    if not images:
        raise ConfigError("no image lies in the lasso")
    mapped = store.mapped(read_lasso(selection.lasso)[1])
    points = [mapped.place_of[image] for image in images]
    columns = {
        "image": images,
        "split": mapped.splits[points],
        "identity": mapped.identities[points],
        "camera": mapped.cameras[points],
        "tags": [", ".join(store.cases.tags(image)) for image in images],
    }
    return pictures(store, selection, images[: overview.LISTED]), Table("lasso", columns)


# Two checkpoints


def _ap_scatter(store: Store, _: Selection) -> Made:
    found = store.compared
    return ap_scatter_figure(found, compare.names(store)), found.table()


def _slopes(store: Store, selection: Selection) -> Made:
    found = store.compared
    shown = compare.steepest(store, selection, found)
    if not shown:
        raise ConfigError("none of these queries has a match: there is no line to save")
    columns = {
        "query": [store.query_ids[int(found.rows[k])] for k in shown],
        "first match before": found.first_a[shown],
        "first match now": found.first_b[shown],
        "outcome": found.outcomes[shown],
    }
    figure = slopes_figure(found, shown, compare.names(store))
    return figure, Table("slopes", columns)


def _side_by_side(store: Store, selection: Selection) -> Made:
    if store.other is None:
        raise ConfigError("there is no second checkpoint to compare with; start with --compare")
    maps = {
        f"{word}: {name}": values
        for word, one in (("before", store.other), ("now", store))
        for name, values in compare.maps_of(one, selection).items()
    }
    if not maps:
        raise ConfigError("there is no network here, or no picture that it described: no maps")
    photo = store.photo(compare.image_of(store, selection), selection.blur)
    rows = [
        [title, r, c, float(value)]
        for title, values in maps.items()
        for (r, c), value in np.ndenumerate(cell_values(values))
    ]
    return map_panels(photo, maps), Table.of_rows(
        "side_by_side", ["map", "row", "column", "value"], rows
    )


# Rounds of questions


def _lesson(store: Store, selection: Selection) -> Made:
    found = lessons.marked(store, selection.lesson, selection.answers) if selection.lesson else []
    if not found:
        raise ConfigError("no question is answered yet: there is no session to save")
    return lesson_pictures(store, selection, found), lessons.table(store, found)


def lesson_pictures(store: Store, selection: Selection, found: Sequence[Marked]) -> Figure:
    """The images of a session, a question a row."""
    grid = {}
    for number, one in enumerate(found, start=1):
        asked = one.question
        images = {
            "query": asked.query,
            "match": asked.candidates[asked.right],
            "learner": asked.candidates[one.guess],
            "model": asked.candidates[asked.model],
        }
        row = f"{number}: learner {'✓' if one.correct else '✗'}, model {'✓' if one.model_correct else '✗'}"
        grid[row] = {name: store.photo(image, selection.blur) for name, image in images.items()}
    return picture_grid(grid, ["query", "match", "learner", "model"])


def lesson_report(store: Store, selection: Selection) -> bytes:
    """The session as one HTML file. Raises: ConfigError if no question is answered."""
    figure, table = _lesson(store, selection)
    with tempfile.TemporaryDirectory() as folder:
        page = Page("A round of questions", Path(folder))
        page.text(
            f"{store.dataset.name}, checkpoint {Path(store.checkpoint).name}; round {selection.lesson[:80]}"
        )
        page.section("What was asked and answered")
        page.figure(figure, "questions", "Query, match, the learner's choice, the model's.", True)
        page.section("Numbers")
        page.table(table, rows=lessons.PREPARED)
        return page.write().read_bytes()


FIGURES: dict[str, Callable[[Store, Selection], Made]] = {
    "curves": _curves,
    "cases": _cases,
    "verdicts": _verdicts,
    "kinds": _kinds,
    "hardest": _hardest,
    "slices": _slices,
    "confusers": _confusers,
    "hubs": _hubs,
    "map": _map,
    "lasso": _lasso,
    "ap_scatter": _ap_scatter,
    "outcomes": _ap_scatter,
    "slopes": _slopes,
    "side_by_side": _side_by_side,
    "lesson": _lesson,
}
"""By the name that the page sends."""
