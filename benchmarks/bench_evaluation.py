"""Evaluation beside the bare matrix product: time, memory, growth with the gallery, and re-ranking.

    python benchmarks/bench_evaluation.py [--device cuda] [--small --results FOLDER]

Features are random (`galleries.py`), of the size and structure of Market-1501 and MSMT17. At Market's size the way of
the toolkits, a sort of everything and a loop over the queries, is measured beside. Memory is that of a process of its
own, above the features. On CUDA all is measured there, and the figures are compared with those of the CPU.
Results: benchmarks/results/evaluation_<device>.json and, from the CPU, evaluation_scaling.png.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from galleries import MARKET, MSMT17, Size, random_sets, sort_and_loop
from measuring import (
    RESULTS,
    commit,
    peak_memory,
    reset_peak_memory,
    seconds_of,
    spread,
    write_result,
)

from ccan.device import choose_device
from ccan.errors import ConfigError
from ccan.evaluation import (
    EvaluationReport,
    FeatureSet,
    ReRanking,
    evaluate_features,
    pairwise_distance,
)
from ccan.evaluation.blocks import BLOCK_BYTES, rank_in_blocks

SIZES = {"market1501": MARKET, "msmt17": MSMT17}
SMALL = {
    "market1501": Size(53, 499, 23, cameras=6, width=61, distractors=83, scatter=1.5),
    "msmt17": Size(97, 997, 41, cameras=15, width=61, scatter=1.5),
}
GROWING = Size(200, 1_000, 57, cameras=6, width=256)
"""What the gallery of the growth curve begins with; D and Q are small, so that a million images fit."""


def product(query: torch.Tensor, gallery: torch.Tensor) -> None:
    """query @ gallery.T and nothing else; in blocks as the evaluation's, where the whole would be larger than one."""
    rows = max(1, BLOCK_BYTES // (len(gallery) * query.itemsize))
    for part in query.split(rows):
        part @ gallery.T


def side_by_side(
    query: FeatureSet, gallery: FeatureSet, device: torch.device, repeats: int
) -> dict[str, Any]:
    """Seconds of the bare product and of the whole evaluation, in turns, and their ratio."""
    works = {
        "product": lambda: product(query.features, gallery.features),
        "evaluation": lambda: evaluate_features(query, gallery),
    }
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(repeats):
        for name, work in works.items():
            warmup = int(turn == 0)
            seconds[name] += seconds_of(work, repeats=1, warmup=warmup, device=device)
    result: dict[str, Any] = {f"{name}_seconds": spread(taken) for name, taken in seconds.items()}
    medians = [result[f"{name}_seconds"]["median"] for name in ("evaluation", "product")]
    return result | {"ratio": medians[0] / medians[1]}


def ranking_alone(
    query: FeatureSet, gallery: FeatureSet, device: torch.device, repeats: int
) -> dict[str, float]:
    """Seconds from a matrix of distances to the places of all matches."""
    distances = pairwise_distance(query.features, gallery.features)  # (Q, G)

    def rank() -> None:
        # Ignored pairs are overwritten in the matrix itself, with the same infinity each time.
        rank_in_blocks(query, gallery, lambda start, stop: distances[start:stop], len(query))

    return spread(seconds_of(rank, repeats=repeats, device=device))


def toolkits_way(
    query: FeatureSet, gallery: FeatureSet, *, shares_in_python: bool
) -> dict[str, Any]:
    """Seconds of the sort of everything and the loop, on ready distances; and how far the figures are from ours."""
    ours = evaluate_features(query, gallery)
    distances = pairwise_distance(query.features, gallery.features).cpu().numpy()
    found: list[Any] = []
    seconds = seconds_of(
        lambda: found.append(
            sort_and_loop(distances, query, gallery, shares_in_python=shares_in_python)
        ),
        repeats=1,
        warmup=0,
    )
    mean_ap, cmc = found[0]
    return {
        "seconds": seconds[0],
        "mAP_difference": abs(mean_ap - ours.mAP),
        "cmc_difference": float(np.abs(cmc - ours.cmc).max()),
    }


def figures(report: EvaluationReport) -> dict[str, float]:
    """The averages that two evaluations are compared by."""
    return {"mAP": report.mAP, "mINP": report.mINP, "rank1": report.rank(1)}


def from_the_cpu(
    query: FeatureSet, gallery: FeatureSet, report: EvaluationReport, rerank: ReRanking | None
) -> dict[str, float]:
    """Largest differences between a report and that of the same features on the CPU."""
    there = evaluate_features(query.to("cpu"), gallery.to("cpu"), rerank=rerank)
    averages = {name: abs(value - figures(there)[name]) for name, value in figures(report).items()}
    return averages | {"cmc": float(np.abs(report.cmc - there.cmc).max())}


def reranking(
    query: FeatureSet, gallery: FeatureSet, device: torch.device, repeats: int
) -> dict[str, Any]:
    """Seconds of an evaluation with re-ranking, and what it does to the figures."""
    reports: list[EvaluationReport] = []
    seconds = seconds_of(
        lambda: reports.append(evaluate_features(query, gallery, rerank=ReRanking())),
        repeats=repeats,
        warmup=int(device.type == "cuda"),
        device=device,
    )
    result: dict[str, Any] = {
        "seconds": spread(seconds),
        "settings": asdict(ReRanking()),
        "figures": figures(reports[-1]),
    }
    if device.type == "cuda":
        result["from_the_cpu"] = from_the_cpu(query, gallery, reports[-1], ReRanking())
    return result


def growth(device: torch.device, galleries: list[int], repeats: int) -> list[dict[str, Any]]:
    """The same queries against larger and larger galleries; the toolkits' way up to 100,000 images."""
    rows: list[dict[str, Any]] = []
    for images in galleries:
        size = replace(GROWING, gallery=images, identities=images * GROWING.identities // 1000)
        query, gallery = random_sets(size, device)
        row = {"gallery": images} | side_by_side(query, gallery, device, repeats)
        if images <= 100_000:
            row["toolkits_seconds"] = toolkits_way(query, gallery, shares_in_python=True)["seconds"]
        rows.append(row)
    return rows


def memory_above_features(name: str, small: bool, device: torch.device, rerank: bool) -> float:
    """MiB that an evaluation needs at most beside the features, measured in a process of its own."""
    command = [sys.executable, __file__, "--memory-of", name, "--device", str(device)]
    command += ["--small"] * small + ["--rerank"] * rerank
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    return float(done.stdout.split()[-1])


def print_memory(size: Size, device: torch.device, rerank: ReRanking | None) -> None:
    """What the process of its own does."""
    # What is loaded and built once, threads included, is not the evaluation's.
    evaluate_features(*random_sets(SMALL["market1501"], device), rerank=rerank)
    query, gallery = random_sets(size, device)
    reset_peak_memory(device)
    before = peak_memory(device)
    evaluate_features(query, gallery, rerank=rerank)
    print(peak_memory(device) - before)


def at_size(name: str, small: bool, device: torch.device) -> dict[str, Any]:
    """One dataset's size; at Market-1501's also the ranking alone, the toolkits' way and re-ranking."""
    size = (SMALL if small else SIZES)[name]
    print(f"{name}: {size}", flush=True)
    query, gallery = random_sets(size, device)
    report = evaluate_features(query, gallery)
    result: dict[str, Any] = {
        "size": asdict(size),
        "features_mib": (size.queries + size.gallery) * size.width * 4 / 2**20,
        "matches_a_query": float(report.matches[report.valid].mean()),
        "figures": figures(report),
        "mib_above_features": memory_above_features(name, small, device, rerank=False),
    }
    if device.type == "cuda":
        result["from_the_cpu"] = from_the_cpu(query, gallery, report, None)
    if name == "msmt17":
        return result | side_by_side(query, gallery, device, 2 if small else 3)
    result |= side_by_side(query, gallery, device, 2 if small else 5)
    result["ranking_seconds"] = ranking_alone(query, gallery, device, 5)
    result["toolkits_way"] = toolkits_way(query, gallery, shares_in_python=True)
    result["toolkits_way_numpy"] = toolkits_way(query, gallery, shares_in_python=False)
    memory = memory_above_features(name, small, device, rerank=True)
    reranked = reranking(query, gallery, device, 2)
    return result | {"reranking": reranked | {"mib_above_features": memory}}


def measure(device: torch.device, small: bool) -> dict[str, Any]:
    """Everything, one after the other."""
    result: dict[str, Any] = {name: at_size(name, small, device) for name in SIZES}
    print("growth with the gallery", flush=True)
    galleries = [1_000, 3_000] if small else [10**3, 10**4, 10**5, 3 * 10**5, 10**6]
    rows = growth(device, galleries, 1 if small else 3)
    return result | {"growth": {"size": asdict(GROWING), "rows": rows}}


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Seconds against the size of the gallery, both logarithmic."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4), layout="constrained")
    axes = figure.subplots()
    lines = [
        ("toolkits' sort and loop, without the product", lambda row: row.get("toolkits_seconds")),
        ("whole evaluation", lambda row: row["evaluation_seconds"]["median"]),
        ("bare matrix product", lambda row: row["product_seconds"]["median"]),
    ]
    for label, value in lines:
        points = [(row["gallery"], value(row)) for row in rows if value(row) is not None]
        axes.loglog(*zip(*points, strict=True), "o-", label=label)
    axes.set_xlabel("images in the gallery")
    axes.set_ylabel(f"seconds for {GROWING.queries} queries of width {GROWING.width}")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=120)


def main(arguments: list[str] | None = None) -> dict[str, Any] | None:
    parser = argparse.ArgumentParser(description="Time and memory of the evaluation.")
    parser.add_argument("--device", default="cpu", help="auto, cpu, cuda, cuda:1")
    parser.add_argument(
        "--small", action="store_true", help="tiny galleries, to see that it runs; needs --results"
    )
    parser.add_argument("--results", type=Path, help="folder of the results")
    parser.add_argument("--memory-of", choices=SIZES, help=argparse.SUPPRESS)
    parser.add_argument("--rerank", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args(arguments)
    try:
        device = choose_device(asked.device)
    except ConfigError as error:
        parser.error(f"nothing was measured: {error}")
    if asked.memory_of:
        sizes = SMALL if asked.small else SIZES
        return print_memory(sizes[asked.memory_of], device, ReRanking() if asked.rerank else None)
    if asked.small and asked.results is None:
        parser.error("--small needs --results FOLDER: it must not overwrite what was measured")
    folder = asked.results or RESULTS
    commit()
    result = measure(device, asked.small)
    report = write_result(f"evaluation_{device.type}", result, device, folder)
    if device.type == "cpu":
        draw(result["growth"]["rows"], folder / "evaluation_scaling.png")
    print(json.dumps(report, indent=2))
    return report


if __name__ == "__main__":
    main()
