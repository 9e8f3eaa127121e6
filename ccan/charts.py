"""Charts of results as pictures on disk, by matplotlib; `ccan.plots` draws images and maps."""

from __future__ import annotations

from pathlib import Path

from ccan.errors import ConfigError
from ccan.experiments.ablations import ABLATIONS
from ccan.experiments.report import AblationTable, mean_of
from ccan.files import atomic_path

_OURS, _PAPER, _GRID = "#0072b2", "#d55e00", "#d9dde2"


def save_ablation_chart(table: AblationTable, path: Path) -> None:
    """mAP and rank-1 of every row side by side: a dot for each seed, a bar at their mean, the paper's as a diamond.

    Args:
        table: with at least one finished row.
        path: .png or .svg.

    Raises: ConfigError if matplotlib is missing.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ConfigError(
            'the chart needs matplotlib: pip install "ccan[notebooks]"; the table does not'
        ) from error
    rows = [row for row in table.rows if row.seeds]
    figure = Figure(figsize=(8.4, 1.5 + 0.42 * len(rows)), dpi=120, layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    for axis, title in zip(axes, ("mAP", "rank-1"), strict=True):
        for place, row in enumerate(rows):
            values = row.mAP if title == "mAP" else row.rank1
            axis.plot(values, [place] * len(values), "o", color=_OURS, alpha=0.45, markersize=5)
            axis.plot(mean_of(values), place, "|", color=_OURS, markersize=16, markeredgewidth=2.5)
            axis.annotate(
                f"{mean_of(values):.1f}", (mean_of(values), place), (0, 9), textcoords="offset points",
                ha="center", fontsize=8, color="#3a4048",
            )  # fmt: skip
            if row.paper is not None:
                printed = row.paper[0] if title == "mAP" else row.paper[1]
                axis.plot(printed, place, "D", color=_PAPER, markersize=5, fillstyle="none")
        axis.set_xlabel(f"{title} (%)")
        axis.grid(axis="x", color=_GRID, linewidth=0.8)
        axis.set_axisbelow(True)
        axis.margins(x=0.12)
        axis.spines[["top", "right", "left"]].set_visible(False)
        axis.tick_params(axis="y", length=0)
    axes[0].set_yticks(range(len(rows)), [row.label for row in rows])
    axes[0].set_ylim(len(rows) - 0.5, -0.7)
    figure.suptitle(ABLATIONS[table.name].asks, fontsize=11)
    marks = "dot: one seed; bar: mean" + (
        "; diamond: the paper" if any(row.paper for row in rows) else ""
    )
    figure.supxlabel(f"{table.dataset}, {table.epochs} epochs. {marks}", fontsize=8)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format=path.suffix[1:] or "png")
