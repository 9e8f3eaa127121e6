"""Every figure of the page as a file: a picture (PNG, SVG) or its numbers (CSV), made anew in the house's figures."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from app import session_figures
from app.components.html import person
from app.images import data_address
from app.selection import Selection
from app.session_figures import DRAWN, Made, pictures
from app.store import Store
from app.views import attention, overview, parts, rank
from ccan.diagnosis.whole import camera_pair_table
from ccan.errors import ConfigError
from ccan.evaluation import Ranking
from ccan.explain.account import CAPTION
from ccan.explain.faithfulness import cell_values
from ccan.explain.maps import Picture
from ccan.figures import (
    camera_pairs_figure,
    cmc_figure,
    map_panels,
    matrix_figure,
    picture_grid,
    precision_figure,
    ranking_strip,
    rendered,
    signed_bars,
    weights_figure,
)
from ccan.tables import Table

KINDS = {
    "png": "image/png",
    "svg": "image/svg+xml",
    "csv": "text/csv",
    "json": "application/json",
}
TYPES = {**KINDS, "html": "text/html"}
_DRAWING = threading.Lock()
"""Matplotlib's fonts are shared by all threads."""


@dataclass(frozen=True)
class Download:
    """A file for the browser."""

    name: str
    kind: str
    data: bytes

    @property
    def address(self) -> str:
        """As a ``data:`` address."""
        return data_address(self.data, TYPES[self.kind])


def save(store: Store, selection: Selection, value: object) -> Download:
    """A figure by its name and ending, ``cmc.png``. Raises: ConfigError for one that there is not."""
    name, _, kind = str(value).partition(".")
    if str(value) == "report.html":
        job = store.found_report(selection.blur)
        if job is None or job.value is None:
            raise ConfigError("there is no finished report of what is tagged now; write it first")
        return Download("report.html", kind, job.value)
    if str(value) == "lesson.html":
        return Download("lesson.html", kind, session_figures.lesson_report(store, selection))
    if name not in FIGURES or kind not in KINDS:
        raise ConfigError(f"there is no figure {str(value)[:40]!r} to save")
    with _DRAWING:
        figure, table = FIGURES[name](store, selection)
        if kind == "csv":
            data = table.to_csv().encode("utf-8")
        elif kind == "json":
            data = json.dumps(table.to_dict(), indent=2, ensure_ascii=False).encode("utf-8")
        else:
            data = rendered(figure, kind)
    about = re.sub(r"[^A-Za-z0-9._-]+", "_", store.name(selection.query))[:60]
    stem = name if name in OF_ALL else f"{name}_{about.rsplit('.', 1)[0]}"
    return Download(f"{stem}.{kind}", kind, data)


def _cmc(store: Store, _: Selection) -> Made:
    cmc = store.report.cmc
    columns = {"rank": np.arange(1, len(cmc) + 1), "queries matched": cmc}
    return cmc_figure(cmc), Table("cmc", columns)


def _camera_pairs(store: Store, _: Selection) -> Made:
    job = store.camera_pairs()
    job.wait(60)
    if job.value is None:
        raise ConfigError("the cameras are still being compared; try again in a moment")
    return camera_pairs_figure(job.value), camera_pair_table(job.value)


def _ap_steps(store: Store, selection: Selection) -> Made:
    if store.is_upload(selection.query):
        raise ConfigError("nobody knows who is on an upload: there is no AP to save")
    found = overview.steps(store, selection.query)
    matches = np.arange(1, len(found.ranks) + 1)
    columns = {"match": matches, "rank": found.ranks, "precision": found.precisions}
    return precision_figure(found.ranks, found.precisions), Table("ap_steps", columns)


def _people(store: Store, selection: Selection) -> Made:
    grid = overview.people(store, selection)
    columns = [f"camera {camera}" for camera in store.cameras]
    pictures = {
        person(identity): {
            f"camera {camera}": store.photo(images[0], selection.blur)
            for camera, images in cameras.items()
        }
        for identity, cameras in grid.items()
    }
    rows = [
        [identity, camera, image]
        for identity, cameras in grid.items()
        for camera, images in cameras.items()
        for image in images
    ]
    table = Table.of_rows("people", ["identity", "camera", "image"], rows)
    return picture_grid(pictures, columns), table


def _behind(store: Store, selection: Selection) -> Made:
    found = store.subset(selection.subset)
    shown = list(found)[: overview.LISTED]
    numbers = {"query": list(found), "AP": list(found.values())}
    return pictures(store, selection, shown), Table("behind", numbers)


def _learned(store: Store, selection: Selection) -> Made:
    slot = store.slot(selection.slot)
    first, second = attention.learned(store, slot)
    halves: dict[str, NDArray[np.float64]] = {
        attention.HALVES[0]: first,
        attention.HALVES[1]: second,
    }
    rows = [
        [name, i, j, float(value)]
        for name, half in halves.items()
        for (i, j), value in np.ndenumerate(half)
    ]
    return weights_figure(halves), Table.of_rows(
        "learned", ["half", "row", "column", "value"], rows
    )


def _ranking(store: Store, selection: Selection) -> Made:
    ranking, places = rank.listed(store, selection)
    images = [store.gallery_ids[ranking.order[place]] for place in places]
    shown, drawn = _at(ranking, places), _at(ranking, places[:DRAWN])
    figure = ranking_strip(
        store.photo(selection.query, selection.blur),
        [store.photo(image, selection.blur) for image in images[:DRAWN]],
        drawn,
    )
    gallery = store.index.gallery
    columns = {
        "image": images,
        "mark": list(shown.marks),
        "position": shown.positions,
        "distance": shown.distances,
        "identity": gallery.identities[shown.order],
        "camera": gallery.cameras[shown.order],
        **{
            f"d² of {name}": values for name, values in store.terms(selection.query, images).items()
        },
    }
    return figure, Table("ranking", columns)


def _at(ranking: Ranking, places: NDArray[np.int64]) -> Ranking:
    """Some places of a ranking; its scores stay those of the whole."""
    return replace(
        ranking,
        order=ranking.order[places],
        distances=ranking.distances[places],
        marks=tuple(ranking.marks[place] for place in places),
        positions=ranking.positions[places],
    )


def _account(store: Store, selection: Selection) -> Made:
    found = rank.accounts(store, selection)
    if not found:
        raise ConfigError("features of another model have no account")
    names = rank.rivals(store, selection)
    rows = [
        [name, names[name], term, value]
        for name, one in found.items()
        for term, value in one.items()
    ]
    header = ["which", "image", "term", "squared distance"]
    return signed_bars(found, "squared distance"), Table.of_rows("account", header, rows, CAPTION)


def _attention(store: Store, selection: Selection) -> Made:
    maps = {
        f"{layer.title} ({role})": layer.values
        for role in attention.sides(store, selection)
        for layer in attention.layers_of(store, selection, role)
    }
    return _maps(store, selection, "attention", maps, attention.ROOT)


def _energy(store: Store, selection: Selection) -> Made:
    maps = {
        f"{name} ({role})": values
        for role, own in parts.energy_maps(store, selection).items()
        for name, values in own.items()
    }
    return _maps(store, selection, "energy", maps)


def _family(store: Store, selection: Selection) -> Made:
    found = store.family(selection.query, store.match(selection), selection.target)
    scores, _ = parts.family_scores(store, selection)
    maps = {
        name + (f" {scores[name]:+.3f}" if name in scores else ""): np.maximum(values, 0)
        for name, values in found.items()
    }
    return _maps(store, selection, "family", maps)


def _painted(store: Store, selection: Selection) -> Made:
    if not selection.hidden:
        raise ConfigError("nothing is painted")
    found = store.painted(selection.query, selection.hidden)
    figure = map_panels(parts.covered(store, selection), found.maps)
    rows = []
    for name, ranking in (("before", store.ranking(selection.query)), ("after", found.ranking)):
        for place in range(min(50, len(ranking))):
            image = store.gallery_ids[ranking.order[place]]
            rows.append(
                [name, place + 1, image, ranking.marks[place], float(ranking.distances[place])]
            )
    header = ["ranking", "place", "image", "mark", "distance"]
    return figure, Table.of_rows("painted", header, rows)


def _maps(
    store: Store, selection: Selection, name: str, maps: Mapping[str, Picture], power: float = 1.0
) -> Made:
    """Maps over the query or, where they are of it, the image beside it; their numbers by cells of 8 × 8 pixels."""
    images = attention.sides(store, selection)
    photos = {role: store.photo(image, selection.blur) for role, image in images.items()}
    figure = map_panels(
        photos["query"],
        maps,
        power,
        photos={
            title: photos[role] for title in maps for role in images if title.endswith(f"({role})")
        },
    )
    rows = []
    for title, values in maps.items():
        for (r, c), value in np.ndenumerate(cell_values(values)):
            rows.append([title, r, c, float(value)])
    return figure, Table.of_rows(name, ["map", "row", "column", "value"], rows)


def _alignment(store: Store, selection: Selection) -> Made:
    found = store.alignment(*attention.sides(store, selection).values())
    names = [f"P{k + 1}" for k in range(len(found.similarity))]
    title = "strips, query (rows) and the image beside it"
    rows = [
        [a, b, float(found.similarity[i, j])]
        for i, a in enumerate(names)
        for j, b in enumerate(names)
    ]
    return (
        matrix_figure(found.similarity, names, names, title, (-1, 1)),
        Table.of_rows("alignment", ["query", "beside", "cosine"], rows),
    )


def _knock_out(store: Store, selection: Selection) -> Made:
    found = store.knocked_out(selection.query)
    whole = found["unchanged"].ap
    changes = {name: 100 * (one.ap - whole) for name, one in found.items() if name != "unchanged"}
    rows = [[name, 100 * one.ap, one.first_match] for name, one in found.items()]
    return (
        signed_bars({"without": changes}, "points of AP"),
        Table.of_rows("knock_out", ["without", "AP %", "first match"], rows),
    )


OF_ALL = ("cmc", "camera_pairs", "behind", "learned", *session_figures.FIGURES)
"""Figures that are not of one query."""
FIGURES: dict[str, Callable[[Store, Selection], Made]] = {
    **session_figures.FIGURES,
    "cmc": _cmc,
    "camera_pairs": _camera_pairs,
    "ap_steps": _ap_steps,
    "people": _people,
    "behind": _behind,
    "learned": _learned,
    "ranking": _ranking,
    "account": _account,
    "attention": _attention,
    "energy": _energy,
    "family": _family,
    "painted": _painted,
    "alignment": _alignment,
    "knock_out": _knock_out,
}
"""By the name that the page sends."""
