"""Figures of explanations and diagnoses by matplotlib: the same picture as PNG for a page and as SVG for a paper.

Each function returns a matplotlib Figure made from result objects; nothing is computed here. Colours: Okabe–Ito, with a
word or a sign beside every colour; viridis for maps, with the numbers of its scale.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ccan.errors import ConfigError
from ccan.evaluation import CameraPairs
from ccan.evaluation.ranking import Ranking
from ccan.files import atomic_path
from ccan.plots import MARKS, ColourScale, overlay
from ccan.predictor import ImageLike, as_image
from ccan.tables import Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ccan.diagnosis.checkpoints import CheckpointComparison

FOR, AGAINST, QUIET, INK = "#0072b2", "#d55e00", "#8a9099", "#1c2026"
SERIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
SIGNS = {"right": "✓", "wrong": "✗", "ignored": "–", "unknown": "?"}
DPI = 110

Values = NDArray[np.floating[Any]]


def new_figure(width: float, height: float) -> Figure:
    """An empty figure, inches. Raises: ConfigError if matplotlib is missing."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ConfigError('figures need matplotlib: pip install "ccan[explain]"') from error
    return Figure(figsize=(width, height), dpi=DPI, layout="constrained")


def save_figure(figure: Figure, stem: Path) -> None:
    """Write STEM.png and STEM.svg, each whole or not at all; the SVG keeps text as text."""
    for suffix in (".png", ".svg"):
        with atomic_path(stem.with_name(stem.name + suffix)) as temporary:
            temporary.write_bytes(rendered(figure, suffix[1:]))


def rendered(figure: Figure, kind: str) -> bytes:
    """A figure as the bytes of a `png` or `svg` file."""
    import matplotlib

    buffer = io.BytesIO()
    metadata = {"Date": None} if kind == "svg" else {"Software": None}
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "ccan"}):
        figure.savefig(buffer, format=kind, metadata=metadata)
    return buffer.getvalue()


def ranking_strip(query: ImageLike, gallery: Sequence[ImageLike], ranking: Ranking) -> Figure:
    """The query and the head of its ranking: sign, colour and word say what each image is; below, the distance."""
    figure = new_figure(1.15 * (len(gallery) + 1), 2.9)
    axes = np.atleast_1d(figure.subplots(1, len(gallery) + 1))
    _photo(axes[0], query, "query", INK)
    for place, picture in enumerate(gallery):
        mark, position = ranking.marks[place], int(ranking.positions[place])
        title = f"{SIGNS[mark]} {MARKS[mark].word}" + (f" · {position}" if position > 0 else "")
        _photo(axes[place + 1], picture, title, MARKS[mark].colour)
        axes[place + 1].set_xlabel(f"{ranking.distances[place]:.3f}", fontsize=8)
    return figure


def _photo(axis: Axes, picture: ImageLike, title: str, colour: str) -> None:
    photo = as_image(picture)
    axis.imshow(np.asarray(photo.resize((128, 256))), aspect="auto")
    axis.set_title(title, fontsize=8, color=colour)
    axis.set_xticks([])
    axis.set_yticks([])
    for spine in axis.spines.values():
        spine.set(color=colour, linewidth=2.5)


def map_panels(
    photo: ImageLike,
    maps: Mapping[str, Values],
    power: float = 1.0,
    shared: bool = False,
    photos: Mapping[str, ImageLike] | None = None,
) -> Figure:
    """The photo and maps over it side by side, each with its colour bar; paler where a map does not reach.

    Args:
        maps: title → (H, W); negative values are drawn as 0.
        power: of the colour scale (`ColourScale`).
        shared: one scale for all, for maps of one kind.
        photos: title → another photo that a map is of.
    """
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import PowerNorm

    figure = new_figure(1.75 * (len(maps) + 1), 3.5)
    axes = np.atleast_1d(figure.subplots(1, len(maps) + 1))
    shape = next(iter(maps.values())).shape
    size = (round(384 * shape[1] / shape[0]), 384)
    axes[0].imshow(np.asarray(as_image(photo).resize(size)))
    axes[0].set_title("image", fontsize=9)
    positive = {
        name: np.where(np.isfinite(v), np.maximum(v, 0), np.nan) for name, v in maps.items()
    }
    together = ColourScale.covering(list(positive.values()), power=power)
    for axis, (name, values) in zip(axes[1:], positive.items(), strict=True):
        scale = together if shared else ColourScale.covering([values], power=power)
        under = (photos or {}).get(name, photo)
        axis.imshow(np.asarray(overlay(under, values, scale, height=384)))
        axis.set_title(name, fontsize=9 if len(name) < 14 else 7)
        colours = ScalarMappable(PowerNorm(power, scale.low, scale.high), "viridis")
        bar = figure.colorbar(colours, ax=axis, orientation="horizontal", fraction=0.05, pad=0.02)
        bar.set_ticks([scale.low, scale.high], labels=[f"{scale.low:.2g}", f"{scale.high:.2g}"])
        bar.ax.tick_params(labelsize=7)
    for axis in axes:
        axis.set_xticks([])
        axis.set_yticks([])
    return figure


def signed_bars(series: Mapping[str, Mapping[str, float]], unit: str) -> Figure:
    """Terms side by side: name of a series → term → value; bars to the right and to the left of zero.

    A series whose name ends in “right” or “wrong” has the colour of that mark.
    """
    terms = list(next(iter(series.values())))
    figure = new_figure(7.2, 0.9 + 0.22 * len(terms) * len(series) + 0.1 * len(terms))
    axis = figure.subplots()
    height = 0.8 / len(series)
    marked = {"right": FOR, "wrong": AGAINST}
    others = iter(SERIES[:1] if len(series) == 1 else SERIES[2:])
    colours = [marked.get(name.split()[-1]) or next(others) for name in series]
    for k, (name, values) in enumerate(series.items()):
        places = np.arange(len(terms)) + (k - (len(series) - 1) / 2) * height
        bars = axis.barh(
            places, [values[term] for term in terms], height * 0.92, color=colours[k], label=name
        )
        axis.bar_label(bars, fmt="%.3f", fontsize=7, padding=2)
    axis.set_yticks(range(len(terms)), terms, fontsize=8)
    axis.invert_yaxis()
    axis.axvline(0, color=INK, linewidth=0.8)
    axis.set_xlabel(unit, fontsize=8)
    axis.margins(x=0.14)
    if len(series) > 1:
        axis.legend(fontsize=8, frameon=False)
    return _quiet(figure)


def waterfall_figure(steps: Mapping[str, float], unit: str) -> Figure:
    """How terms add up to their sum, one after the other; blue is positive, vermillion negative."""
    figure = new_figure(7.2, 3.2)
    axis = figure.subplots()
    names, values = list(steps), np.array(list(steps.values()))
    level = np.concatenate([[0.0], np.cumsum(values)])
    for k, value in enumerate(values):
        colour = FOR if value >= 0 else AGAINST
        axis.bar(k, value, bottom=level[k], color=colour, width=0.7)
        axis.text(
            k, max(level[k], level[k + 1]), f"{value:+.3f}", ha="center", va="bottom", fontsize=7
        )
    axis.bar(len(values), level[-1], color=QUIET, width=0.7)
    axis.text(
        len(values), max(level[-1], 0), f"{level[-1]:+.3f}", ha="center", va="bottom", fontsize=7
    )
    axis.set_xticks(range(len(names) + 1), [*names, "sum"], fontsize=8, rotation=20)
    axis.axhline(0, color=INK, linewidth=0.8)
    axis.set_ylabel(unit, fontsize=8)
    axis.margins(y=0.14)
    return _quiet(figure)


def matrix_figure(
    values: Values,
    rows: Sequence[str],
    columns: Sequence[str],
    title: str,
    limits: tuple[float, float],
    fmt: str = "{:.2f}",
) -> Figure:
    """A small matrix with its numbers; cividis between the limits; – where there is none."""
    figure = new_figure(1.4 + 0.62 * len(columns), 1.1 + 0.42 * len(rows))
    axis = figure.subplots()
    drawn = axis.imshow(
        np.ma.masked_invalid(values), cmap="cividis", vmin=limits[0], vmax=limits[1], aspect="auto"
    )
    middle = (limits[0] + limits[1]) / 2
    for (row, column), value in np.ndenumerate(values):
        text = "–" if not np.isfinite(value) else fmt.format(value)
        ink = "white" if np.isfinite(value) and value < middle else "black"
        axis.text(column, row, text, ha="center", va="center", fontsize=7, color=ink)
    axis.set_xticks(range(len(columns)), columns, fontsize=8)
    axis.set_yticks(range(len(rows)), rows, fontsize=8)
    axis.set_title(title, fontsize=9)
    figure.colorbar(drawn, ax=axis, fraction=0.05).ax.tick_params(labelsize=7)
    axis.tick_params(length=0)
    axis.grid(False)  # whatever style the caller has set
    return figure


def picture_grid(grid: Mapping[str, Mapping[str, ImageLike]], columns: Sequence[str]) -> Figure:
    """Pictures in named rows and columns: row → column → picture; a column that a row lacks stays empty."""
    figure = new_figure(0.9 * len(columns) + 0.6, 1.6 * len(grid) + 0.3)
    axes = np.atleast_2d(figure.subplots(len(grid), len(columns), squeeze=False))
    for axis, column in zip(axes[0], columns, strict=True):
        axis.set_title(column, fontsize=8)
    for row, (name, pictures) in zip(axes, grid.items(), strict=True):
        for axis, column in zip(row, columns, strict=True):
            axis.axis("off")
            if column in pictures:
                photo = as_image(pictures[column]).resize((128, 256))
                axis.imshow(np.asarray(photo), aspect="auto")
        row[0].text(-0.15, 0.5, name, transform=row[0].transAxes, ha="right", fontsize=8)
    return figure


def weights_figure(matrices: Mapping[str, Values]) -> Figure:
    """Learned matrices side by side on one scale around zero."""
    figure = new_figure(3.4 * len(matrices) + 0.6, 3.4)
    axes = np.atleast_1d(figure.subplots(1, len(matrices)))
    limit = max(float(np.abs(values).max()) for values in matrices.values())
    picture = None
    for axis, (name, values) in zip(axes, matrices.items(), strict=True):
        picture = axis.imshow(values, cmap="cividis", vmin=-limit, vmax=limit)
        axis.set_title(name, fontsize=9)
        axis.tick_params(labelsize=7)
        axis.grid(False)
    if picture is not None:
        figure.colorbar(picture, ax=list(axes), fraction=0.04)
    return figure


def camera_pairs_figure(pairs: CameraPairs) -> Figure:
    """Rank 1 from camera to camera, in per cent."""
    values = 100 * pairs.rank1
    return matrix_figure(
        values,
        [f"c{camera}" for camera in pairs.query_cameras],
        [f"c{camera}" for camera in pairs.gallery_cameras],
        "rank-1 (%), from (rows) to (columns)",
        (float(values[np.isfinite(values)].min(initial=99)), 100.0),
        "{:.0f}",
    )


def counts_figure(table: Table, name: str, count: str) -> Figure:
    """Bars of a column of counts, a bar for each row that has one."""
    rows = [
        (label, int(value))
        for label, value in zip(table.columns[name], table.columns[count], strict=True)
        if str(value).lstrip("-").isdigit()
    ]
    figure = new_figure(6.4, 0.8 + 0.3 * max(1, len(rows)))
    axis = figure.subplots()
    bars = axis.barh([label for label, _ in rows], [value for _, value in rows], color=FOR)
    axis.bar_label(bars, fontsize=8, padding=2)
    axis.invert_yaxis()
    axis.set_xlabel(count, fontsize=8)
    return _quiet(figure)


def curves_figure(curves: Mapping[str, Sequence[tuple[int, float]]], metric: str) -> Figure:
    """Curves over epochs, name → (epoch, value)."""
    figure = new_figure(7.2, 3.4)
    axis = figure.subplots()
    for name, points in curves.items():
        axis.plot(
            *zip(*points, strict=True), marker=".", linewidth=1.4, label=name
        ) if points else None
    axis.set_xlabel("epoch", fontsize=8)
    axis.set_ylabel(metric.replace("_", " "), fontsize=8)
    axis.legend(fontsize=7, frameon=False)
    return _quiet(figure)


def distances_figure(
    edges: Values, genuine: NDArray[Any], impostor: NDArray[Any], thresholds: Mapping[str, float]
) -> Figure:
    """Shares of the pairs of one person and of two by distance, and thresholds as lines."""
    figure = new_figure(7.2, 3.0)
    axis = figure.subplots()
    for counts, label, colour in ((genuine, "one person", FOR), (impostor, "two people", AGAINST)):
        axis.stairs(counts / max(1, counts.sum()), edges, fill=True, alpha=0.35, color=colour)
        axis.stairs(counts / max(1, counts.sum()), edges, color=colour, linewidth=1.4, label=label)
    for k, (name, place) in enumerate(thresholds.items()):
        axis.axvline(
            place,
            color=INK,
            linewidth=0.9,
            linestyle=("-", "--", "-.", ":")[k % 4],
            label=f"{name}: {place:.2f}",
        )
    axis.set_xlabel("distance", fontsize=8)
    axis.set_ylabel("share of the pairs", fontsize=8)
    axis.legend(fontsize=7, frameon=False)
    return _quiet(figure)


def cmc_figure(cmc: Values) -> Figure:
    """Share of queries whose first match stands at rank k or before."""
    figure = new_figure(4.6, 2.8)
    axis = figure.subplots()
    ranks = np.arange(1, min(20, len(cmc)) + 1)
    axis.plot(ranks, 100 * cmc[: len(ranks)], "o-", color=FOR, markersize=3)
    axis.set_xticks(ranks[::2] if len(ranks) > 10 else ranks)
    axis.set_xlabel("rank", fontsize=8)
    axis.set_ylabel("queries matched (%)", fontsize=8)
    return _quiet(figure)


def precision_figure(ranks: Sequence[int], precisions: Sequence[float]) -> Figure:
    """Precision at each match of one query's ranking; their mean is its AP."""
    figure = new_figure(4.6, 2.6)
    axis = figure.subplots()
    axis.vlines(ranks, 0, precisions, color=QUIET, linewidth=1)
    axis.plot(ranks, precisions, "o", color=FOR, markersize=4)
    axis.set_xscale("log")
    axis.set_ylim(0, 1.05)
    axis.set_xlabel("rank of the match", fontsize=8)
    axis.set_ylabel("precision", fontsize=8)
    return _quiet(figure)


def projection_figure(
    maps: Mapping[str, Values],
    groups: Sequence[str],
    trust: Mapping[str, float],
    colours: Mapping[str, str] | None = None,
) -> Figure:
    """t-SNE maps side by side; a colour and a shape for each group, the colours by name where they are given."""
    figure = new_figure(3.4 * len(maps), 3.7)
    axes = np.atleast_1d(figure.subplots(1, len(maps)))
    names = sorted(set(groups))
    which = np.array(groups)
    for axis, (name, points) in zip(axes, maps.items(), strict=True):
        for k, group in enumerate(names):
            own = points[which == group]
            colour = (colours or {}).get(group, SERIES[k % 6])
            axis.scatter(*own.T, 8, color=colour, marker="os^vDP"[k % 6], label=group, lw=0)
        axis.set_title(f"{name} (trustworthiness {trust[name]:.2f})", fontsize=9)
        axis.set_xticks([])
        axis.set_yticks([])
    axes[-1].legend(fontsize=7, markerscale=1.6)
    return figure


OUTCOME_STYLE = {
    "both right": (QUIET, "o"),
    "both wrong": (QUIET, "s"),
    "broken": (AGAINST, "x"),
    "fixed": (FOR, "D"),
}


def ap_scatter_figure(found: CheckpointComparison, names: tuple[str, str]) -> Figure:
    """AP of every query under two checkpoints, a and b; above the line b is better."""
    figure = new_figure(4.4, 4.2)
    axis = figure.subplots()
    axis.plot([0, 100], [0, 100], color=QUIET, linewidth=1, linestyle="--")
    for outcome, (colour, sign) in OUTCOME_STYLE.items():
        own = found.outcomes == outcome
        label = f"{outcome} ({int(own.sum())})"
        axis.scatter(
            100 * found.ap_a[own], 100 * found.ap_b[own], 14, color=colour, marker=sign, label=label
        )
    axis.set_xlabel(f"AP (%), {names[0]}", fontsize=8)
    axis.set_ylabel(f"AP (%), {names[1]}", fontsize=8)
    axis.set_title(f"McNemar p = {found.paired.mcnemar:.3g}", fontsize=9)
    axis.legend(fontsize=7, frameon=False)
    return _quiet(figure)


def slopes_figure(
    found: CheckpointComparison, shown: Sequence[int], names: tuple[str, str]
) -> Figure:
    """Rank of the first match of some queries under two checkpoints; 1 on top."""
    figure = new_figure(4.4, 4.2)
    axis = figure.subplots()
    for k in shown:
        colour, _ = OUTCOME_STYLE[str(found.outcomes[k])]
        line = "--" if found.outcomes[k] == "broken" else "-"
        ranks = (found.first_a[k], found.first_b[k])
        axis.plot((0, 1), ranks, color=colour, linewidth=1, linestyle=line)
    axis.set_yscale("log")
    axis.invert_yaxis()
    axis.set_xticks((0, 1), names, fontsize=8)
    axis.set_ylabel("rank of the first match", fontsize=8)
    return _quiet(figure)


def _quiet(figure: Figure) -> Figure:
    for axis in figure.axes:
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(labelsize=8)
    return figure
