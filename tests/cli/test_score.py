"""`ccan score`: features of any origin in, the figures of every protocol out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ccan.cli import main
from ccan.evaluation import FeatureSet, evaluate_features
from ccan.evaluation.files import save_features


def people(seed: int, images: int, offset: int = 0) -> FeatureSet:
    """Images of 11 identities in 3 cameras; features lie near their identity's."""
    centres = np.random.default_rng(5).normal(size=(11, 7))
    generator = np.random.default_rng(seed)
    identities = np.arange(images) % 11
    features = centres[identities] + generator.normal(scale=0.9, size=(images, 7))
    cameras = np.arange(images) // 11 % 3 + 1
    names = [f"{offset + number}.jpg" for number in range(images)]
    view = np.where(np.arange(images) % 2, "front", "back")
    return FeatureSet(
        features.astype(np.float32), identities + 1, cameras, names, {"view": view.tolist()}
    )


@pytest.fixture()
def sides() -> tuple[FeatureSet, FeatureSet]:
    return people(0, 22), people(1, 99, offset=100)


@pytest.fixture()
def file(sides: tuple[FeatureSet, FeatureSet], tmp_path: Path) -> Path:
    save_features(tmp_path / "features.npz", *sides)
    return tmp_path / "features.npz"


def figures(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    """What `ccan score … --json -` puts on standard output."""
    capsys.readouterr()
    assert main(["score", *words, "--json", "-"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("ap", ["rank-sum", "trapezoid"])
@pytest.mark.parametrize("distance", ["euclidean", "squared_euclidean", "cosine"])
def test_the_figures_are_the_librarys(
    sides: tuple[FeatureSet, FeatureSet],
    file: Path,
    capsys: pytest.CaptureFixture[str],
    ap: Any,
    distance: Any,
) -> None:
    found = figures(capsys, str(file), "--ap", ap, "--distance", distance)
    assert found == evaluate_features(*sides, ap=ap, distance=distance).to_dict()
    keys = ["mAP", "mINP", "rank1", "rank5", "rank10", "rank20", "valid_queries", "conventions"]
    assert list(found) == keys
    assert found["conventions"]["ap"] == ap and 0.3 < found["mAP"] < 0.95


def test_a_foreign_file_with_junk_rows_is_judged_as_the_loader_would(
    sides: tuple[FeatureSet, FeatureSet], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    query, gallery = sides
    path = tmp_path / "foreign.npz"
    arrays = {
        "query_features": query.features.numpy().astype(np.float64),
        "query_ids": query.identities.astype(np.int32),
        "query_cameras": query.cameras,
        # The junk rows are each query itself, so that counting them would change every figure.
        "gallery_features": np.concatenate([query.features, gallery.features]).astype(np.float64),
        "gallery_ids": np.concatenate([np.full(len(query), -1), gallery.identities]),
        "gallery_cameras": np.concatenate([query.cameras, gallery.cameras]),
    }
    np.savez(path, allow_pickle=False, **arrays)
    with pytest.warns(UserWarning, match="22"):
        found = figures(capsys, str(path))
    assert found["mAP"] == pytest.approx(evaluate_features(query, gallery).mAP, abs=1e-6)


def test_slices_intervals_and_thresholds_come_with_the_figures(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--by", "camera", "view", "--intervals", "--verify", "0.01", "0.1"]
    found = figures(capsys, str(file), *words)
    assert {one["value"] for one in found["slices"]["view"]} == {"front", "back"}
    assert sum(one["queries"] for one in found["slices"]["camera"]) == 22
    low, high = (found["intervals"]["mAP"][key] for key in ("low", "high"))
    assert low < found["mAP"] < high
    assert 0.5 < found["verification"]["auc"] < 1
    strict, loose = found["verification"]["thresholds"]
    assert strict["threshold"] < loose["threshold"]


@pytest.mark.parametrize(
    ("words", "changed"),
    [
        ("--rerank", "conventions"),
        ("--expand-query 3", "features"),
        ("--augment-gallery 3 --alpha 0", "features"),
    ],
)
def test_what_was_done_to_the_ranking_is_said_in_the_figures(
    file: Path, capsys: pytest.CaptureFixture[str], words: str, changed: str
) -> None:
    plain, found = figures(capsys, str(file)), figures(capsys, str(file), *words.split())
    assert found["mAP"] != plain["mAP"]
    assert found[changed] != plain.get(changed)


def test_single_shot_gives_a_curve_and_its_rule(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    classic = figures(capsys, str(file), "--protocol", "single-shot")
    toolkit = figures(capsys, str(file), "--protocol", "single-shot", "--rule", "toolkit")
    assert 0 < classic["rank1"] <= classic["rank5"] <= 1
    assert classic["conventions"] != toolkit["conventions"]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ("--protocol multi-query", "multi-query asks with further images"),
        ("--protocol single-shot --rerank --by camera", "leave out --rerank, --by"),
        ("--by weather", "there is no column 'weather' to average by; there is camera, view"),
        ("--json - --per-query -", "2 results are to go to standard output"),
    ],
)
def test_what_cannot_be_is_said_plainly(
    file: Path, capsys: pytest.CaptureFixture[str], words: str, text: str
) -> None:
    assert main(["score", str(file), *words.split()]) == 2
    assert text in capsys.readouterr().err


def test_a_file_that_is_no_features_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.savez(tmp_path / "other.npz", features=np.zeros((3, 2)))
    assert main(["score", str(tmp_path / "other.npz")]) == 2
    assert "query_features" in capsys.readouterr().err
