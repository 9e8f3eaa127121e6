"""The benchmark of the evaluation: it runs, and what it compares with gives the same figures."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ccan.evaluation import evaluate_features, pairwise_distance

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
Import = Callable[[str], Any]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Import:
    """Imports a module of the benchmarks' folder, as the scripts themselves do."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module


def test_the_toolkits_way_gives_the_figures_of_the_evaluation(script: Import):
    galleries = script("galleries")
    size = galleries.Size(41, 307, 13, cameras=3, width=17, distractors=29, scatter=1.0)
    query, gallery = galleries.random_sets(size)
    report = evaluate_features(query, gallery)
    distances = pairwise_distance(query.features, gallery.features).numpy()
    assert 0.2 < report.mAP < 0.9
    for in_python in (True, False):
        mean_ap, cmc = galleries.sort_and_loop(
            distances, query, gallery, shares_in_python=in_python
        )
        assert mean_ap == pytest.approx(report.mAP, abs=1e-6)
        np.testing.assert_allclose(cmc, report.cmc, atol=1e-9)


def test_random_sets_have_the_structure_that_was_asked_for(script: Import):
    galleries = script("galleries")
    market = replace(galleries.MARKET, width=2)
    query, gallery = galleries.random_sets(market)
    assert (len(query), len(gallery)) == (3_368, 15_913)
    assert np.count_nonzero(gallery.identities == 0) == 2_798
    assert set(query.identities) <= set(range(1, 751)) and set(query.cameras) == set(range(1, 7))
    matches = evaluate_features(query, gallery).matches
    assert matches.mean() == pytest.approx(14.74, abs=0.5)  # the real gallery's
    again = galleries.random_sets(market)
    assert all(
        (a.features == b.features).all() for a, b in zip(again, (query, gallery), strict=True)
    )


@pytest.mark.slow
def test_a_small_run_writes_its_results(script: Import, tmp_path: Path):
    bench = script("bench_evaluation")
    bench.main(["--small", "--device", "cpu", "--results", str(tmp_path)])
    report = json.loads((tmp_path / "evaluation_cpu.json").read_text())
    assert report["machine"]["commit"]
    for name, size in bench.SMALL.items():
        part = report["result"][name]
        assert part["size"]["gallery"] == size.gallery
        assert part["ratio"] == pytest.approx(
            part["evaluation_seconds"]["median"] / part["product_seconds"]["median"]
        )
        assert 0 <= part["mib_above_features"] < 100
    market = report["result"]["market1501"]
    for way in ("toolkits_way", "toolkits_way_numpy"):
        assert market[way]["mAP_difference"] < 1e-6
    assert market["reranking"]["figures"]["mAP"] > market["figures"]["mAP"]
    assert [row["gallery"] for row in report["result"]["growth"]["rows"]] == [1_000, 3_000]
    assert (tmp_path / "evaluation_scaling.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize("device", ["cuda:99", "abacus"])
def test_a_device_that_is_not_there_is_told(
    script: Import, capsys: pytest.CaptureFixture[str], device: str
):
    with pytest.raises(SystemExit, match="2"):
        script("bench_evaluation").main(["--device", device])
    assert "nothing was measured" in capsys.readouterr().err


def test_a_small_run_does_not_overwrite_what_was_measured(
    script: Import, capsys: pytest.CaptureFixture[str]
):
    with pytest.raises(SystemExit, match="2"):
        script("bench_evaluation").main(["--small"])
    assert "--small needs --results FOLDER" in capsys.readouterr().err
