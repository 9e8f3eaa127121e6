"""`ccan extract`: from a dataset, a folder or a picture to a file that `ccan score` reads."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ccan.cli import main
from ccan.evaluation import evaluate_features
from ccan.evaluation.files import load_feature_set, load_features
from ccan.predictor import Predictor
from tests.small import write_checkpoint

FOLDERS = {"query": "query", "gallery": "bounding_box_test"}


@pytest.fixture()
def checkpoint(tmp_path: Path) -> str:
    return str(write_checkpoint(tmp_path / "small.safetensors"))


@pytest.fixture()
def market(tmp_path: Path) -> Path:
    """Four people in two cameras, in Market-1501's layout, with one training image."""
    root = tmp_path / "market"
    generator = np.random.default_rng(11)
    for identity in range(1, 5):
        colour = generator.integers(40, 200, 3)
        for camera in (1, 2):
            for folder, frame in (
                ("query", 1),
                ("bounding_box_test", 2),
                ("bounding_box_train", 3),
            ):
                person = identity + 100 * (folder == "bounding_box_train")
                path = root / folder / f"{person:04d}_c{camera}s1_{frame:06d}_01.jpg"
                path.parent.mkdir(parents=True, exist_ok=True)
                noise = generator.integers(0, 50, (64, 32, 3))
                Image.fromarray((colour + noise).astype(np.uint8)).save(path)
    return root


def extract(*words: object) -> int:
    return main(["extract", *map(str, words), "--workers", "0", "--device", "cpu"])


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_a_dataset_goes_to_a_file_that_score_reads(
    market: Path,
    checkpoint: str,
    tmp_path: Path,
    suffix: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / f"features{suffix}"
    words = ("--dataset", "market-style", "--checkpoint", checkpoint, "--out", out)
    assert extract(market, *words) == 0
    query, gallery = load_features(out)
    assert (len(query), len(gallery), query.features.shape[1]) == (8, 8, 16)
    assert query.names is not None and Path(query.names[0]).name == "0001_c1s1_000001_01.jpg"
    assert not list(tmp_path.glob(".*")), "the work folder is gone"
    capsys.readouterr()
    assert main(["score", str(out), "--json", "-"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["mAP"] == pytest.approx(evaluate_features(query, gallery).mAP)


def test_auto_recognises_a_dataset_and_takes_anything_else_as_pictures(
    market: Path, checkpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert extract(market, "--checkpoint", checkpoint, "--out", tmp_path / "a.npz") == 0
    assert len(load_features(tmp_path / "a.npz")[0]) == 8
    capsys.readouterr()
    assert extract(market / "query", "--checkpoint", checkpoint, "--out", tmp_path / "b.npz") == 0
    assert "8 plain images" in capsys.readouterr().out
    plain = load_feature_set(tmp_path / "b.npz")
    assert len(plain) == 8 and set(plain.cameras) == {-1}
    np.testing.assert_allclose(
        plain.features, load_features(tmp_path / "a.npz")[0].features, atol=1e-6
    )


def test_folders_of_pictures_without_splits_are_all_embedded(
    market: Path, checkpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for split in ("query", "bounding_box_test"):
        (market / split).rename(tmp_path / "market" / f"album {split}")
    (market / "bounding_box_train").rename(tmp_path / "elsewhere")
    assert extract(market, "--checkpoint", checkpoint, "--out", tmp_path / "all.npz") == 0
    assert "16 plain images" in capsys.readouterr().out


def test_one_picture_and_one_split(market: Path, checkpoint: str, tmp_path: Path) -> None:
    picture = next((market / "query").iterdir())
    assert extract(picture, "--checkpoint", checkpoint, "--out", tmp_path / "one.npz") == 0
    assert len(load_feature_set(tmp_path / "one.npz")) == 1
    words = ("--checkpoint", checkpoint, "--out", tmp_path / "train.npz", "--split", "train")
    assert extract(market, *words) == 0
    assert set(load_feature_set(tmp_path / "train.npz").identities) == {101, 102, 103, 104}


def test_features_on_standard_output(
    market: Path, checkpoint: str, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    assert extract(market, "--checkpoint", checkpoint, "--out", "-") == 0
    said = capfdbinary.readouterr()
    with np.load(io.BytesIO(said.out), allow_pickle=False) as arrays:
        assert arrays["query_features"].shape == (8, 16)
    assert b"wrote -" in said.err


def test_half_precision_and_flips(market: Path, checkpoint: str, tmp_path: Path) -> None:
    words = ("--checkpoint", checkpoint, "--precision", "float16", "--flip")
    assert extract(market / "query", *words, "--out", tmp_path / "half.npz") == 0
    with np.load(tmp_path / "half.npz", allow_pickle=False) as arrays:
        assert arrays["features"].dtype == np.float16
        half = arrays["features"].astype(np.float32)
    predictor = Predictor.from_checkpoint(checkpoint, "cpu")
    expected = predictor.embed(market / "query", flip=True)
    np.testing.assert_allclose(half, expected, atol=1e-3)
    assert np.abs(half - predictor.embed(market / "query")).max() > 0.01


def test_half_precision_holds_for_query_and_gallery(
    market: Path, checkpoint: str, tmp_path: Path
) -> None:
    words = ("--checkpoint", checkpoint, "--precision", "float16", "--out", tmp_path / "f.npz")
    assert extract(market, *words) == 0
    with np.load(tmp_path / "f.npz", allow_pickle=False) as arrays:
        kinds = {arrays[f"{side}_features"].dtype for side in ("query", "gallery")}
    assert kinds == {np.dtype(np.float16)}


def test_broken_images_are_listed_and_left_out(
    market: Path, checkpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = sorted((market / "query").iterdir())[2]
    broken.write_bytes(b"no picture")
    words = (market / "query", "--checkpoint", checkpoint, "--out", tmp_path / "f.npz")
    with pytest.warns(UserWarning, match="left out"):
        assert extract(*words) == 0
    assert f"left out, not readable: {broken}" in capsys.readouterr().out
    assert len(load_feature_set(tmp_path / "f.npz")) == 7
    assert extract(*words, "--broken-images", "error") == 2
    assert broken.name in capsys.readouterr().err


def test_finished_parts_are_used_after_an_interruption(
    market: Path,
    checkpoint: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def full(*_: object) -> None:
        raise OSError("no space left on device")

    words = (market, "--checkpoint", checkpoint, "--out", tmp_path / "f.npz")
    with monkeypatch.context() as patch:
        patch.setattr("ccan.evaluation.files.save_features", full)
        assert extract(*words) == 2
    assert "no space left" in capsys.readouterr().err and not (tmp_path / "f.npz").exists()
    assert extract(*words) == 0
    assert "8 of 8 query images were embedded before" in capsys.readouterr().out
    predictor = Predictor.from_checkpoint(checkpoint, "cpu")
    query = load_features(tmp_path / "f.npz")[0]
    assert query.names is not None
    np.testing.assert_allclose(query.features, predictor.embed(list(query.names)), atol=1e-6)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ("--out f.txt", "features are kept as .npz or .safetensors"),
        ("--out f.npz --split multi_query", "has no multi_query images"),
        ("--out f.npz --dataset images --options split=3", "plain images have no loader's options"),
        ("--out f.npz --dataset nothing", "dataset must be auto or one of"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_embedded(
    market: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: str, text: str
) -> None:
    arguments = words.replace("f.", f"{tmp_path}/f.").split()
    assert main(["extract", str(market), *arguments]) == 2
    assert text in capsys.readouterr().err


def test_a_missing_source_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert extract(tmp_path / "nowhere", "--out", tmp_path / "f.npz") == 2
    said = capsys.readouterr()
    assert "nowhere: there is no such folder or image" in said.err and "plain" not in said.out
