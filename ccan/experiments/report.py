"""What an ablation found, as a table: mean and spread over seeds, paired differences, cost, the paper's figure."""

from __future__ import annotations

import csv
import io
import math
import statistics
from dataclasses import dataclass
from typing import Any

from ccan.evaluation import PairedComparison, compare
from ccan.experiments.ablations import ABLATIONS, AblationName, Variant
from ccan.experiments.sweep import Sweep

SAME_DATA = "market1501"
"""The dataset of the paper's ablations; on any other its figures are not printed beside ours."""


@dataclass(frozen=True)
class Row:
    """One variant of an ablation. Shares are in per cent.

    Attributes:
        label: of the variant.
        mAP, rank1: of each finished seed.
        seeds: the finished seeds; none where the variant has not been run.
        against: this row compared with the ablation's reference row on their common seeds, query by query; None for
            the reference row itself or where one of both is missing.
        parameters, gflop: of the network, one image forward.
        images_per_second: median training speed, over seeds too.
        paper: the paper's (mAP, rank-1), where the data is the same.
    """

    label: str
    seeds: tuple[int, ...]
    mAP: tuple[float, ...]
    rank1: tuple[float, ...]
    against: PairedComparison | None
    parameters: int | None
    gflop: float | None
    images_per_second: float | None
    paper: tuple[float, float] | None


@dataclass(frozen=True)
class AblationTable:
    """The rows of an ablation with its question."""

    name: AblationName
    rows: tuple[Row, ...]
    dataset: str
    epochs: int

    @property
    def finished(self) -> int:
        """Rows that have at least one seed."""
        return sum(bool(row.seeds) for row in self.rows)

    def to_csv(self) -> str:
        """The table as CSV text, one line a row."""
        text = io.StringIO()
        writer = csv.DictWriter(text, list(_csv_values(self.rows[0])), lineterminator="\n")
        writer.writeheader()
        writer.writerows(_csv_values(row) for row in self.rows)
        return text.getvalue()

    def texts(self) -> tuple[list[str], list[list[str]]]:
        """Header and rows, as they are printed for people; `note` says what the columns are."""
        with_paper = any(row.paper is not None for row in self.rows)
        head = [
            "",
            "seeds",
            "mAP",
            "rank-1",
            "Δ mAP (95 %)",
            "p",
            "parameters",
            "GFLOP",
            "images/s",
        ]
        head += ["paper: mAP", "rank-1"] if with_paper else []
        return head, [_texts_of(row, with_paper) for row in self.rows]

    def note(self) -> str:
        """What was run, and what the columns are."""
        return (
            f"{self.dataset}, {self.epochs} epochs. mAP and rank-1 in per cent: mean ± standard deviation over "
            f"seeds. Δ mAP: points against “{ABLATIONS[self.name].against}” on the seeds that both have, with an "
            "interval over resampled identities; p: paired permutation test of identities. Both take these very "
            "trainings as given, so that the spread over seeds comes on top. GFLOP: one image forward, "
            "multiplications and additions both counted. images/s: training."
        )

    def to_markdown(self) -> str:
        """The table with its question and what the columns mean, as Markdown text."""
        ablation = ABLATIONS[self.name]
        head, rows = self.texts()
        lines = [f"**{ablation.asks}** ({ablation.source})", "", f"| {' | '.join(head)} |"]
        lines += ["|" + "---|" * len(head), *(f"| {' | '.join(row)} |" for row in rows)]
        return "\n".join([*lines, "", self.note(), ""])


def ablation_table(sweep: Sweep, name: AblationName) -> AblationTable:
    """The rows of an ablation from what is finished; unfinished rows are empty."""
    ablation = ABLATIONS[name]
    reference = ablation.variant(ablation.against)
    rows = tuple(_row(sweep, variant, reference) for variant in ablation.variants)
    return AblationTable(name, rows, sweep.dataset, sweep.base.train.epochs)


def _row(sweep: Sweep, variant: Variant, reference: Variant) -> Row:
    seeds = sweep.seeds_of(variant)
    results = [sweep.result(variant, seed) for seed in seeds]
    common = [seed for seed in seeds if seed in sweep.seeds_of(reference)]
    comparison = None
    if variant is not reference and common:
        comparison = compare(sweep.per_query(reference, common), sweep.per_query(variant, common))
    speeds = [result["images_per_second"] for result in results]
    return Row(
        label=variant.label,
        seeds=tuple(seeds),
        mAP=tuple(100 * result["figures"]["mAP"] for result in results),
        rank1=tuple(100 * result["figures"]["rank1"] for result in results),
        against=comparison,
        parameters=results[0]["parameters"] if results else None,
        gflop=results[0]["gflop"] if results else None,
        images_per_second=statistics.median(speeds) if speeds else None,
        paper=variant.paper if sweep.dataset == SAME_DATA else None,
    )


def mean_of(values: tuple[float, ...]) -> float:
    """The mean; NaN of nothing."""
    return statistics.fmean(values) if values else math.nan


def spread_of(values: tuple[float, ...]) -> float | None:
    """Standard deviation between seeds (n - 1); None for fewer than two."""
    return statistics.stdev(values) if len(values) > 1 else None


def _texts_of(row: Row, with_paper: bool) -> list[str]:
    def figure(values: tuple[float, ...]) -> str:
        if not values:
            return "–"
        spread = spread_of(values)
        return f"{mean_of(values):.1f}" + ("" if spread is None else f" ± {spread:.1f}")

    change, p = "–", "–"
    if row.against is not None:
        found = row.against.mAP.difference
        change = f"{100 * found.value:+.1f} ({100 * found.low:+.1f} … {100 * found.high:+.1f})"
        p = f"{row.against.mAP.p:.3f}"
    cost = ["–", "–", "–"]
    if row.parameters is not None and row.gflop is not None and row.images_per_second is not None:
        cost = [f"{row.parameters:,}", f"{row.gflop:.3f}", f"{row.images_per_second:.0f}"]
    paper = [f"{value:.1f}" for value in row.paper] if row.paper else ["–", "–"]
    return [
        row.label,
        str(len(row.seeds)),
        figure(row.mAP),
        figure(row.rank1),
        change,
        p,
        *cost,
        *(paper if with_paper else []),
    ]


def _csv_values(row: Row) -> dict[str, Any]:
    """One line of the CSV, unrounded; empty where nothing was measured."""
    found = None if row.against is None else row.against.mAP
    return {
        "variant": row.label,
        "seeds": " ".join(map(str, row.seeds)),
        "mAP": mean_of(row.mAP) if row.mAP else None,
        "mAP_sd": spread_of(row.mAP),
        "rank1": mean_of(row.rank1) if row.rank1 else None,
        "rank1_sd": spread_of(row.rank1),
        "mAP_difference": None if found is None else 100 * found.difference.value,
        "mAP_difference_low": None if found is None else 100 * found.difference.low,
        "mAP_difference_high": None if found is None else 100 * found.difference.high,
        "p": None if found is None else found.p,
        "fixed": None if row.against is None else row.against.fixed,
        "broken": None if row.against is None else row.against.broken,
        "parameters": row.parameters,
        "gflop": row.gflop,
        "images_per_second": row.images_per_second,
        "paper_mAP": row.paper[0] if row.paper else None,
        "paper_rank1": row.paper[1] if row.paper else None,
    }
