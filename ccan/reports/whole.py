"""The two reports: chosen queries from all sides, and what goes wrong in a whole dataset."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ccan.diagnosis import CheckpointComparison, Diagnosis, diagnose, hardest_first, rank_all
from ccan.diagnosis.rankings import NOBODY, TopRankings
from ccan.errors import ConfigError, DatasetError
from ccan.explain.embedding import embedding_maps
from ccan.explain.parts import align_parts
from ccan.explain.trace import GLOBAL, trace
from ccan.figures import (
    camera_pairs_figure,
    cmc_figure,
    counts_figure,
    distances_figure,
    projection_figure,
)
from ccan.gallery import SPLITS, GalleryIndex
from ccan.predictor import Predictor
from ccan.projection import Projection, project
from ccan.reports.case import gallery_grams, prepared, study_case, write_case
from ccan.reports.page import Page
from ccan.reports.photos import Photos
from ccan.tables import Table

Say = Callable[[str], None]


@dataclass(frozen=True)
class ReportOptions:
    """What a report shows.

    Attributes:
        out: folder, made if it is not there; its `report.html` is replaced.
        top: images of a ranking strip.
        interactive: plotly figures too.
        blur_faces: blur the head strip of every picture.
        checkpoint: what the model is called.
    """

    out: Path
    top: int = 8
    interactive: bool = False
    blur_faces: bool = False
    checkpoint: str = "demo"

    def page(self, title: str) -> Page:
        """The empty page; figures and tables of an earlier report in the folder are removed.

        Raises: ConfigError if top is below 1, or the folder holds something else than an earlier report.
        """
        if self.top < 1:
            raise ConfigError(f"--top must be at least 1, got {self.top}")
        made = {"report.html", "cases", "tables", "figures"}
        if self.out.is_dir() and (found := {entry.name for entry in self.out.iterdir()} - made):
            raise ConfigError(
                f"{self.out} holds {min(found)}, which is no report's; choose an empty folder"
            )
        for name in ("cases", "tables", "figures"):
            shutil.rmtree(self.out / name, ignore_errors=True)
        return Page(title, self.out, self.interactive)


def choose_queries(index: GalleryIndex, names: Sequence[str], hardest: int) -> list[int]:
    """Rows of the named queries (file names), then the hardest so many. Raises: DatasetError for an unknown name."""
    known = {sample.path.name: row for row, sample in enumerate(index.dataset.query)}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise DatasetError(
            f"there is no query {unknown[0]!r} in {index.dataset.name}; a query is called for example {min(known)!r}"
        )
    from ccan.evaluation import evaluate_features

    report = evaluate_features(index.query, index.gallery)
    rows = [known[name] for name in names]
    order = hardest_first(report)[: max(0, hardest)].tolist()
    return rows + [row for row in order if row not in rows]


def write_explanations(
    predictor: Predictor,
    index: GalleryIndex,
    rows: Sequence[int],
    options: ReportOptions,
    *,
    remarks: Mapping[int, Sequence[str]] | None = None,
    say: Say = print,
) -> Path:
    """Study some queries and write their report → its path.

    Args:
        rows: of the index's queries, at least one.
        remarks: row → what people have said about it, a paragraph each.

    Raises: ConfigError without a query or for a folder that holds something else.
    """
    if not rows:
        raise ConfigError(
            "expected at least one query to explain, got none; name some or raise --hardest"
        )
    page = options.page(f"CCAN: {len(rows)} queries explained")
    _introduce(page, predictor, index, options)
    tops = rank_all(index.query, index.gallery, top=max(10, options.top))
    _write_cases(
        page,
        predictor,
        index,
        rows,
        tops_of=(tops, None),
        options=options,
        say=say,
        remarks=remarks,
    )
    return page.write()


def write_diagnosis(
    predictor: Predictor,
    index: GalleryIndex,
    options: ReportOptions,
    *,
    cases: int = 3,
    by: Sequence[str] | None = None,
    comparison: CheckpointComparison | None = None,
    with_map: bool = True,
    say: Say = print,
) -> tuple[Path, Diagnosis]:
    """Diagnose a dataset and write its report → its path, and what was found.

    Args:
        cases: how many of the hardest failed queries are studied in full.
        by: columns to slice by; None = all that there are.
        comparison: with another checkpoint, to be shown too.
        with_map: whether t-SNE maps are made.

    Raises: as `diagnose`; ConfigError for a folder that holds something else.
    """
    page = options.page(f"CCAN: diagnosis of {index.dataset.name}")
    branches = 2 if predictor.model.global_branch is not None and predictor.model.streams else 1
    made = shift = None
    if predictor.model.streams:
        say("looking for shifted parts in the failed queries …")
        sides = [stream_features(index, split) for split in SPLITS]
        made = {name: (sides[0][name], sides[1][name]) for name in sides[0]}
        shift = shifts_of_failures(predictor, index)
    say("diagnosing …")
    found = diagnose(
        index.query,
        index.gallery,
        branches=branches,
        streams=made,
        shift=shift,
        by=by,
        top=max(10, options.top),
    )
    _introduce(page, predictor, index, options)
    page.lines(found.summary())
    _write_findings(page, found)
    if comparison is not None:
        page.section("Two checkpoints")
        page.table(comparison.table())
    if with_map:
        say("making t-SNE maps …")
        _write_map(page, index, found, project(index.query, branches=branches))
    rows = [row for row in hardest_first(found.report).tolist() if found.tops.failed[row]][:cases]
    _write_cases(
        page,
        predictor,
        index,
        rows,
        tops_of=(found.tops, found),
        options=options,
        say=say,
    )
    return page.write(), found


def _introduce(
    page: Page, predictor: Predictor, index: GalleryIndex, options: ReportOptions
) -> None:
    page.text(
        f"Checkpoint {options.checkpoint}; dataset {index.dataset.name}: {len(index.query)} queries, "
        f"{len(index.gallery)} gallery images. Network: {predictor.config.parts} parts, input "
        f"{predictor.config.image_height}×{predictor.config.image_width}."
        + (" Head strips are blurred." if options.blur_faces else "")
    )


def _write_cases(
    page: Page,
    predictor: Predictor,
    index: GalleryIndex,
    rows: Sequence[int],
    *,
    tops_of: tuple[TopRankings, Diagnosis | None],
    options: ReportOptions,
    say: Say,
    remarks: Mapping[int, Sequence[str]] | None = None,
) -> None:
    tops, found = tops_of
    grams = gallery_grams(index, rows)
    photos = Photos(options.blur_faces)
    for place, (row, own) in enumerate(zip(rows, grams, strict=True)):
        say(f"case {place + 1} of {len(rows)}: {index.dataset.query[row].path.name}")
        case = study_case(predictor, index, row, tops, own)
        write_case(page, photos, index, case, options.top, found.failures.of(row) if found else [])
        for remark in (remarks or {}).get(row, ()):
            page.text(remark)


def _write_findings(page: Page, found: Diagnosis) -> None:
    """Figures and tables of the diagnosis, in the order in which one reads them."""
    tables = {table.name: table for table in found.tables()}
    page.section("The figures")
    page.figure(
        cmc_figure(found.report.cmc),
        "figures/cmc",
        "CMC: share of queries whose first match stands at rank k or before.",
    )
    cmc = {"rank": np.arange(1, len(found.report.cmc) + 1), "queries matched": found.report.cmc}
    Table("cmc", cmc, "Share of queries whose first match stands at this rank or before.").save(
        page.folder / "tables"
    )
    page.section("Failures")
    page.figure(
        counts_figure(tables["failure_kinds"], "kind", "queries"),
        "figures/kinds",
        "Failed queries by kind; one may have several.",
    )
    page.table(tables["failure_kinds"])
    page.heading("Hardest queries")
    page.table(tables["hardest_queries"])
    page.section("Cameras")
    page.figure(
        camera_pairs_figure(found.pairs),
        "figures/cameras",
        "Rank 1 against the images of one camera at a time.",
    )
    page.table(tables["camera_pairs"])
    page.section("Who is taken for whom")
    for title, name in (
        ("Confusers", "confusers"),
        ("Hubs", "hubs"),
        ("Label suspects", "label_suspects"),
        ("Duplicates", "duplicates"),
    ):
        page.heading(title)
        page.table(tables[name])
    page.section("Same person or not")
    thresholds = tables["thresholds"]
    lines = dict(
        zip(
            thresholds.columns["chosen for"].tolist(),
            thresholds.columns["threshold"].tolist(),
            strict=True,
        )
    )
    pairwise = found.distances
    page.figure(
        distances_figure(pairwise.edges, pairwise.genuine, pairwise.impostor, lines),
        "figures/distances",
        "Distances of the pairs that the protocol counts, and thresholds.",
    )
    page.table(thresholds)
    tables["distances"].save(page.folder / "tables")
    page.section("Slices")
    for table in found.slices:
        page.heading(table.name.replace("_", " "))
        page.table(table)


def _write_map(page: Page, index: GalleryIndex, found: Diagnosis, maps: Projection) -> None:
    page.section("Map of the queries")
    right = np.where(found.tops.failed, "✗ rank 1 wrong", "✓ rank 1 right")
    groups = right[maps.rows].tolist()
    page.figure(
        projection_figure(maps.points, groups, maps.trustworthiness),
        "figures/map",
        "t-SNE of the queries' embeddings, all maps from one start. Near points are near in the embedding as far as "
        "the trustworthiness goes; distances between groups and their sizes mean nothing.",
    )
    maps.table().save(page.folder / "tables")
    if page.interactive:
        import plotly.graph_objects as go

        figure = go.Figure()
        names = np.array([sample.path.name for sample in index.dataset.query])[maps.rows]
        for group, colour in (("✓ rank 1 right", "#0072b2"), ("✗ rank 1 wrong", "#d55e00")):
            own = np.array(groups) == group
            x, y = maps.points["joint"][own].T
            figure.add_scatter(
                x=x, y=y, mode="markers", name=group, text=names[own], hoverinfo="text",
                marker={"color": colour},
            )  # fmt: skip
        figure.update_xaxes(visible=False)  # places mean nothing by themselves
        figure.update_yaxes(visible=False)
        figure.update_layout(template="plotly_white", height=560, title="joint embedding")
        page.plotly(figure, "The joint map; point at a query for its name.")


def stream_features(index: GalleryIndex, split: str) -> dict[str, Tensor]:
    """What every stream says of a split's images, at unit length: f_G, and B_s p_s of each part; stream → (N, d)."""
    vectors, found = index.vectors(split), {}
    if vectors.direction is not None:
        found[GLOBAL] = torch.from_numpy(vectors.direction).float()
    if vectors.parts is not None:
        shares = functional.normalize(torch.from_numpy(vectors.parts[:, :-1]).float(), dim=2)
        found |= {f"P{part + 1}": share for part, share in enumerate(shares.unbind(1))}
    return found


def shifts_of_failures(predictor: Predictor, index: GalleryIndex) -> np.ndarray:
    """By how many strips each failed query lies lower than its nearest true match; 0 for all others, (Q,)."""
    shifts = np.zeros(len(index.query), np.int64)
    model = predictor.model
    if len(model.streams) < 2:
        return shifts
    tops, maps = rank_all(index.query, index.gallery, top=1), embedding_maps(model)
    for row in np.flatnonzero(tops.failed & (tops.nearest_right != NOBODY)):
        pair = (index.dataset.query[row], index.dataset.gallery[tops.nearest_right[row]])
        mine, other = (trace(model, prepared(predictor, one.path)) for one in pair)
        shifts[row] = align_parts(model, maps, mine, other).shift
    return shifts
