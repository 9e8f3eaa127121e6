"""`ccan evaluate`: what the command line asks for is what the library gives."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ccan.cli import main
from ccan.data import load_dataset
from ccan.evaluation import (
    FeatureSet,
    average_query_expansion,
    camera_pairs,
    evaluate_features,
    extract_features,
    pool_multi_query,
    verify,
)
from ccan.evaluation.files import load_features, save_features
from ccan.predictor import Predictor
from ccan.training import fit
from tests.small import write_checkpoint
from tests.training.people import tiny_dataset, tiny_recipe


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six people in three cameras, two frames of each in gt_bbox."""
    root = tmp_path_factory.mktemp("market")
    generator = np.random.default_rng(4)
    folders = {"query": 1, "bounding_box_test": 2, "bounding_box_train": 3, "gt_bbox": 4}
    for identity in range(1, 7):
        colour = generator.integers(40, 200, 3)
        for camera in (1, 2, 3):
            for folder, frame in [*folders.items(), ("gt_bbox", 5)]:
                person = identity + 100 * (folder == "bounding_box_train")
                path = root / folder / f"{person:04d}_c{camera}s1_{frame:06d}_01.png"
                path.parent.mkdir(exist_ok=True)
                noise = generator.integers(-39, 55, (64, 32, 3))
                Image.fromarray((colour + noise).astype(np.uint8)).save(path)
    return root


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_checkpoint(tmp_path_factory.mktemp("model") / "small.safetensors"))


def figures(
    market: Path, checkpoint: str, capsys: pytest.CaptureFixture[str], *words: str
) -> dict[str, Any]:
    """The JSON of `ccan evaluate`."""
    capsys.readouterr()
    common = f"--dataset market-style --checkpoint {checkpoint} --workers 0 --device cpu --json -"
    assert main(["evaluate", "--data", str(market), *common.split(), *words]) == 0
    return json.loads(capsys.readouterr().out)


def embedded(market: Path, checkpoint: str, **settings: Any) -> list[FeatureSet]:
    """Query, gallery and multi-query images as the library describes them."""
    model = Predictor.from_checkpoint(checkpoint, "cpu").model
    dataset = load_dataset("market-style", market)
    lists = (dataset.query, dataset.gallery, dataset.multi_query)
    return [extract_features(model, images, workers=0, **settings) for images in lists]


@pytest.mark.parametrize("pooling", ["mean", "max"])
def test_multi_query(
    market: Path, checkpoint: str, capsys: pytest.CaptureFixture[str], pooling: Any
) -> None:
    words = ("--protocol", "multi-query", "--pooling", pooling)
    found = figures(market, checkpoint, capsys, *words)
    query, gallery, extra = embedded(market, checkpoint)
    pooled = pool_multi_query(query, extra, pooling)
    report = evaluate_features(pooled, gallery.normalized())
    assert found["mAP"] == pytest.approx(report.mAP)
    assert found["features"] == {"multi_query": pooling}


def test_flips_and_the_whole_curve(
    market: Path, checkpoint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    found = figures(market, checkpoint, capsys, "--flip", "--max-rank", "7")
    query, gallery, _ = embedded(market, checkpoint, flip=True)
    report = evaluate_features(query, gallery, max_rank=7)
    assert found["mINP"] == pytest.approx(report.mINP)
    assert found["cmc"] == pytest.approx(report.cmc.tolist()) and len(found["cmc"]) == 7
    assert found["features"] == {"flip": True}


def test_camera_pairs(market: Path, checkpoint: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = figures(market, checkpoint, capsys, "--camera-pairs")["camera_pairs"]
    query, gallery, _ = embedded(market, checkpoint)
    pairs = camera_pairs(query, gallery)
    assert found == pairs.to_dict()
    assert found["query_cameras"] == found["gallery_cameras"] == [1, 2, 3]
    assert found["queries"] == [[0, 6, 6], [6, 0, 6], [6, 6, 0]]
    assert found["mAP"][0][0] is None and found["mAP"][0][1] == pytest.approx(pairs.mAP[0, 1])
    table = pairs.summary().splitlines()
    assert table[0].split()[2:] == ["to", "1", "to", "2", "to", "3"] and "–" in table[1]
    assert f"{100 * pairs.mAP[2, 0]:.2f} (6)" in table[3]


def test_trained_on_one_dataset_and_evaluated_on_another(
    market: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tiny_recipe(epochs=1)
    run = tmp_path / "run"
    fit(recipe, tiny_dataset(tmp_path), run, progress=False, say=lambda _: None)
    found = figures(market, str(run), capsys)
    query, gallery, _ = embedded(market, str(run))
    assert found["mAP"] == pytest.approx(evaluate_features(query, gallery).mAP)
    assert found["valid_queries"] == 18


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ("--by weather", "there is no column 'weather' to average by; there is camera"),
        ("--verify 1.5", "false-match rates from 0 to below 1"),
        ("--verify 0.1 --rerank", "leave out one of both"),
        ("--per-query f.csv", "written as .npz or .json"),
        ("--protocol single-shot --intervals", "leave out --intervals"),
    ],
)
def test_options_are_refused_before_anything_is_embedded(
    market: Path,
    checkpoint: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    words: str,
    text: str,
) -> None:
    def forbidden(*_: object, **__: object) -> None:
        raise AssertionError("images were embedded")

    monkeypatch.setattr("ccan.evaluation.extract_features", forbidden)
    common = f"--data {market} --dataset market-style --checkpoint {checkpoint}"
    assert main(["evaluate", *common.split(), *words.split()]) == 2
    assert text in capsys.readouterr().err


@pytest.fixture()
def unequal(tmp_path: Path) -> tuple[Path, FeatureSet, FeatureSet]:
    """Features of many lengths, so that whoever forgets to normalise is found out."""
    generator = np.random.default_rng(8)
    centres = generator.normal(size=(9, 6)) + 0.5

    def side(images: int, camera: int) -> FeatureSet:
        identities = np.arange(images) % 9
        rows = centres[identities] + generator.normal(scale=0.6, size=(images, 6))
        lengths = generator.uniform(0.3, 3, size=(images, 1))
        return FeatureSet(rows * lengths, identities + 1, np.full(images, camera))

    query, gallery = side(27, 1), side(63, 2)
    save_features(tmp_path / "f.npz", query, gallery)
    return tmp_path / "f.npz", *load_features(tmp_path / "f.npz")


def score(file: Path, capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    capsys.readouterr()
    assert main(["score", str(file), "--json", "-", *words]) == 0
    return json.loads(capsys.readouterr().out)


def test_thresholds_are_of_the_distance_that_is_asked_for(
    unequal: tuple[Path, FeatureSet, FeatureSet], capsys: pytest.CaptureFixture[str]
) -> None:
    file, query, gallery = unequal
    for distance in ("euclidean", "cosine"):
        found = score(file, capsys, "--distance", distance, "--verify", "0.1")["verification"]
        assert found["auc"] == pytest.approx(verify(query, gallery, distance=distance).auc)


def test_augmentation_puts_both_sides_on_one_scale(
    unequal: tuple[Path, FeatureSet, FeatureSet], capsys: pytest.CaptureFixture[str]
) -> None:
    plain = score(unequal[0], capsys, "--distance", "cosine", "--verify", "0.1")
    found = score(unequal[0], capsys, "--augment-gallery", "3", "--verify", "0.1")
    assert found["verification"]["auc"] > plain["verification"]["auc"]


@pytest.mark.parametrize("alpha", [0.0, 5.0])
def test_expansion_uses_its_exponent_and_one_scale(
    unequal: tuple[Path, FeatureSet, FeatureSet], capsys: pytest.CaptureFixture[str], alpha: float
) -> None:
    file, query, gallery = unequal
    found = score(file, capsys, "--expand-query", "4", "--alpha", str(alpha))
    expanded = average_query_expansion(query, gallery, 4, alpha)
    report = evaluate_features(expanded, gallery.normalized())
    assert found["mAP"] == pytest.approx(report.mAP)
    assert report.mAP != evaluate_features(expanded, gallery).mAP
