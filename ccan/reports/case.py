"""One query from all sides: its ranking, where the network looked, why the order is so, and what would change it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ccan.data.synthetic.world import Region
from ccan.data.synthetic_world import read_labels
from ccan.diagnosis.rankings import NOBODY, TopRankings
from ccan.errors import ShapeError
from ccan.evaluation import Ranking, rank_gallery
from ccan.explain.account import CAPTION, DistanceAccount, accounts_of, waterfall
from ccan.explain.attention import record_of
from ccan.explain.counterfactual import Effect, counterfactuals
from ccan.explain.embedding import EmbeddingMaps, embedding_maps
from ccan.explain.maps import Picture, image_maps
from ccan.explain.parts import PartAlignment, align_parts
from ccan.explain.trace import Trace, trace
from ccan.explain.votes import round_trip, summarise
from ccan.explain.weighting import (
    QueryGrams,
    gram_matrices,
    query_grams,
    repairing_parts,
    without_each_part,
)
from ccan.figures import map_panels, matrix_figure, ranking_strip, signed_bars, waterfall_figure
from ccan.files import atomic_path
from ccan.gallery import GalleryIndex
from ccan.model.fast import fast_for_inference
from ccan.model.network import CCAN
from ccan.predictor import Predictor
from ccan.reports.page import Page
from ccan.reports.photos import Photos
from ccan.tables import Table

SHOWN_MAPS = (
    "SS1 added",
    "CC2 added",
    "G gradcam++",
    "parts gradcam++",
    "G energy",
    "parts energy",
)
"""Maps on the page; the others are in the case's .npz."""


@dataclass(frozen=True)
class CaseStudy:
    """What was found about one query.

    Attributes:
        row: of the index's queries.
        ranking: its whole ranking.
        right, wrong: rows of the gallery, the nearest of each kind; -1 where there is none.
        maps: name → (H, W), of similarity with the nearest right image (or the nearest wrong one).
        accounts: ``nearest right``, ``nearest wrong`` → account of the distance.
        alignment: the same → which strips show the same.
        effects: change → what it does to the ranking.
        removed: stream → ranking of the whole gallery without it; empty where that was not asked for.
        round_trips: slot → share of the correlation that comes home.
    """

    row: int
    ranking: Ranking
    right: int
    wrong: int
    maps: Mapping[str, Picture]
    accounts: Mapping[str, DistanceAccount]
    alignment: Mapping[str, PartAlignment]
    effects: Mapping[str, Effect]
    removed: Mapping[str, Ranking]
    round_trips: Mapping[str, float]


def prepared(predictor: Predictor, path: Path) -> Tensor:
    """An image of the dataset as the network takes it, (1, 3, H, W), where the network is."""
    return predictor.prepare(path)[None].to(predictor.device)


def study_case(
    predictor: Predictor,
    index: GalleryIndex,
    row: int,
    tops: TopRankings,
    grams: QueryGrams | None = None,
) -> CaseStudy:
    """Study one query of an index.

    Args:
        row: of the index's queries.
        tops: of the index.
        grams: of this query and the whole gallery (`gallery_grams`), for what is removed.

    Raises: ShapeError for a row that is not there or a query that nothing is ranked for.
    """
    if not 0 <= row < len(index.query):
        raise ShapeError(f"expected a query row in 0…{len(index.query) - 1}, got {row}")
    right, wrong = int(tops.nearest_right[row]), int(tops.nearest_wrong[row])
    others = {"nearest right": right, "nearest wrong": wrong}
    others = {name: other for name, other in others.items() if other != NOBODY}
    if not others:
        raise ShapeError(f"query {row} has no image in the gallery that counts")
    sample, query = index.dataset.query[row], index.query.select([row])
    model = predictor.model
    maps, image = embedding_maps(model), prepared(predictor, sample.path)
    mine = trace(model, image)
    images = {
        name: prepared(predictor, index.dataset.gallery[k].path) for name, k in others.items()
    }
    theirs = {name: trace(model, other) for name, other in images.items()}
    record = record_of(model.config, mine.output, mine.slots)
    return CaseStudy(
        row,
        rank_gallery(query, index.gallery),
        right,
        wrong,
        image_maps(fast_for_inference(model), image, next(iter(images.values()))),
        {name: accounts_of(maps, mine, other)[0] for name, other in theirs.items()},
        _alignments(model, maps, mine, theirs),
        counterfactuals(
            model, image, index.gallery, identity=sample.identity, camera=sample.camera
        ),
        {} if grams is None else without_each_part(grams, query, index.gallery),
        {slot: round_trip(found).share for slot, found in record.slots.items()},
    )


def _alignments(
    model: CCAN, maps: EmbeddingMaps, mine: Trace, theirs: Mapping[str, Trace]
) -> dict[str, PartAlignment]:
    if len(model.streams) < 2:
        return {}
    return {name: align_parts(model, maps, mine, other) for name, other in theirs.items()}


def gallery_grams(index: GalleryIndex, rows: Sequence[int]) -> list[QueryGrams]:
    """What removing parts needs of some queries and the whole gallery."""
    if not rows:
        return []
    gallery = index.vectors("gallery")
    grams = None if gallery.parts is None else gram_matrices(gallery.parts)
    return [query_grams(index.vectors("query", [row]), gallery, grams) for row in rows]


def write_case(
    page: Page, photos: Photos, index: GalleryIndex, case: CaseStudy, top: int, kinds: Sequence[str]
) -> None:
    """Put a case on the page, and its figures and numbers into its folder."""
    sample = index.dataset.query[case.row]
    folder = f"cases/{case.row:05d}"
    page.section(f"Query {sample.path.name}")
    state = (
        "right"
        if case.ranking.first_match == 1
        else f"wrong; first match at {case.ranking.first_match}"
    )
    page.text(
        f"Identity {sample.identity}, camera {sample.camera}; AP {100 * case.ranking.ap:.1f} %, rank 1 {state}"
        + (f"; {', '.join(kinds)}" if kinds else "")
        + "."
    )
    photo = photos.of(sample)
    head = rank_gallery(index.query.select([case.row]), index.gallery, top=top)
    pictures = [photos.of(index.dataset.gallery[int(k)]) for k in head.order]
    page.figure(
        ranking_strip(photo, pictures, head),
        f"{folder}/ranking",
        "The query and its ranked gallery: ✓ right, ✗ wrong, – ignored by the protocol; below, the distance.",
        photos=True,
    )
    page.heading("Where it looked")
    shown = {name: case.maps[name] for name in SHOWN_MAPS if name in case.maps}
    reference = "nearest right" if case.right != NOBODY else "nearest wrong"
    trips = ", ".join(f"{slot} {100 * share:.0f} %" for slot, share in case.round_trips.items())
    page.figure(
        map_panels(photo, shown),
        f"{folder}/maps",
        "Each map on its own scale, brighter = more. added: how strongly attention changed a position; gradcam++: for "
        f"the similarity to the {reference} image; energy: strength of the last maps."
        + (f" Correlation that comes home (round trip): {trips}." if trips else "")
        + " How far such maps may be believed: `ccan trust`.",
        photos=True,
    )
    page.table(summary_table(shown, read_labels(sample.path)), folder)
    _write_order(page, folder, case)
    _write_what_if(page, folder, case)
    _save_numbers(page.folder / folder, case)


def summary_table(maps: Mapping[str, Picture], labels: NDArray[np.uint8] | None) -> Table:
    """Each map in a few numbers; its shares on the regions of a label map, in per cent, where there is one."""
    found = {
        name: summarise(np.maximum(values, 0), labels, Region) for name, values in maps.items()
    }
    regions = list(next((one.regions for one in found.values() if one.regions), {}))
    header = ["map", "spread", "centre x", "centre y", *(f"{region} %" for region in regions)]
    rows = [
        [name, one.spread, *one.centroid, *(100 * one.regions.get(r, np.nan) for r in regions)]
        for name, one in found.items()
    ]
    note = (
        "spread: entropy of a map over that of an even one (1 = everywhere alike); its centre in pixels of the "
        "network's input"
        + ("; share of its mass on each region of the label map." if regions else ".")
    )
    return Table.of_rows("maps", header, rows, note)


def _write_order(page: Page, folder: str, case: CaseStudy) -> None:
    """Accounts, waterfall, parts."""
    page.heading("Why this order")
    terms = {name: account.terms for name, account in case.accounts.items()}
    page.figure(
        signed_bars(terms, "squared distance"),
        f"{folder}/account",
        "The squared distance, term by term. " + CAPTION,
    )
    rows = [[name, term, value] for name, one in terms.items() for term, value in one.items()]
    Table.of_rows("account", ["image", "term", "squared distance"], rows, CAPTION).save(
        page.folder / folder
    )
    if len(case.accounts) == 2:
        near, far = case.accounts["nearest wrong"], case.accounts["nearest right"]
        steps = waterfall(near, far)
        rows = [[term, value] for term, value in steps.items()]
        Table.of_rows("waterfall", ["term", "d² right − d² wrong"], rows).save(page.folder / folder)
        page.figure(
            waterfall_figure(steps, "d² right − d² wrong"),
            f"{folder}/waterfall",
            "Why the nearest wrong image stands ahead of the nearest right one, or does not: the difference of the two "
            "accounts. A positive term speaks for the wrong image; a positive sum puts it ahead.",
        )
    for name, alignment in case.alignment.items():
        strips = [f"P{k + 1}" for k in range(len(alignment.similarity))]
        page.figure(
            matrix_figure(
                alignment.similarity,
                strips,
                strips,
                f"strips, query (rows) and {name} image",
                (-1, 1),
            ),
            f"{folder}/parts_{name.replace(' ', '_')}",
            f"Cosine of what the streams make of the strips of both images. Reading: {alignment.reading()}",
        )


def _write_what_if(page: Page, folder: str, case: CaseStudy) -> None:
    """Counterfactuals and removals."""
    page.heading("What if")
    header = ["change", "AP %", "change, points", "first match", "moved"]
    rows = [
        [name, 100 * one.ap, 100 * one.ap_change, one.first_match, one.moved]
        for name, one in case.effects.items()
    ]
    page.table(
        Table.of_rows(
            "counterfactuals",
            header,
            rows,
            "The query's forward with something hidden or with its attention changed; the gallery as it is. moved: "
            "distance from the unchanged descriptor.",
        ),
        folder,
        rows=len(rows),
    )
    if case.removed:
        rows = [[name, 100 * one.ap, one.first_match] for name, one in case.removed.items()]
        repairs = repairing_parts(case.removed)
        note = "One stream counts no longer, for the query and the whole gallery. " + (
            f"Rank 1 becomes right without {', or without '.join(repairs)}."
            if repairs
            else "The query is right as it is."
            if case.ranking.first_match == 1
            else "No single stream's removal makes rank 1 right."
        )
        page.table(Table.of_rows("removed", ["without", "AP %", "first match"], rows, note), folder)


def _save_numbers(folder: Path, case: CaseStudy) -> None:
    """Everything of the case as arrays."""
    arrays = {f"map {name}": values for name, values in case.maps.items()}
    arrays |= {f"alignment {name}": one.similarity for name, one in case.alignment.items()}
    arrays |= {f"descriptor {name}": one.descriptor for name, one in case.effects.items()}
    for name, account in case.accounts.items():
        arrays |= {f"account {name} query {k}": v for k, v in account.query_map.items()}
        arrays |= {f"account {name} gallery {k}": v for k, v in account.gallery_map.items()}
    arrays |= {"order": case.ranking.order, "distances": case.ranking.distances}
    with atomic_path(folder / "numbers.npz") as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)
