"""Exported files compute what the network computes, for any batch, and say what they are; a wrong one is never left."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from ccan import Predictor, load_dataset
from ccan import export as exporting
from ccan.cli import main
from ccan.data.loading import open_image
from ccan.data.transforms import normalize, resize_pixels
from ccan.errors import CheckpointError, ConfigError
from ccan.evaluation import evaluate_features, pairwise_distance
from ccan.export import CHECKED_BATCHES, SUFFIXES, ExportedNetwork, Format, Precision, export
from tests.small import small_predictor, write_checkpoint


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("small") / "model.safetensors")


def pixels_of(predictor: Predictor, count: int) -> np.ndarray:
    size = (count, predictor.config.image_height, predictor.config.image_width, 3)
    return np.random.default_rng(count).integers(0, 256, size, np.uint8)


def run_onnx(path: Path, pixels: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (descriptor,) = session.run(["descriptor"], {"pixels": pixels})
    assert isinstance(descriptor, np.ndarray)
    return descriptor


def test_pixels_are_normalised_inside(tmp_path: Path):
    predictor = small_predictor(tmp_path)
    pixels = pixels_of(predictor, 3)
    network = ExportedNetwork(predictor.model)
    with torch.inference_mode():
        found = network(torch.from_numpy(pixels))
        images = torch.stack([normalize(one) for one in pixels])
        expected = predictor.model(images).descriptor
    assert torch.allclose(found, expected, atol=1e-5)
    assert not torch.allclose(
        network(torch.from_numpy(pixels[..., ::-1].copy())), expected, atol=1e-3
    )


@pytest.mark.slow
@pytest.mark.parametrize("format", SUFFIXES)
@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_a_file_computes_what_the_network_computes(
    format: Format, precision: Precision, checkpoint: Path, tmp_path: Path
):
    path = tmp_path / f"net{SUFFIXES[format]}"
    done = export(checkpoint, path, format, precision)
    assert done.largest_difference <= exporting.TOLERANCE[precision]
    assert done.batches == CHECKED_BATCHES and done.bytes == path.stat().st_size
    predictor = Predictor.from_checkpoint(checkpoint, "cpu")
    pixels = pixels_of(predictor, 7)  # a batch that it was neither traced nor checked with
    with torch.inference_mode():
        expected = ExportedNetwork(predictor.model)(torch.from_numpy(pixels)).numpy()
    if format == "onnx":
        found = run_onnx(path, pixels)
        entry = {one.key: one.value for one in onnx.load(path).metadata_props}["ccan"]
    elif format == "torch":
        extra = {"ccan.json": ""}
        found = torch.export.load(path, extra_files=extra).module()(torch.from_numpy(pixels))
        found, entry = found.detach().numpy(), extra["ccan.json"]
    else:
        again = Predictor.from_checkpoint(path, "cpu")
        with torch.inference_mode():
            found = ExportedNetwork(again.model)(torch.from_numpy(pixels)).numpy()
        entry = None
    assert np.abs(found - expected).max() <= exporting.TOLERANCE[precision]
    assert found.dtype == np.float32
    if entry is not None:
        told = json.loads(entry)
        assert (told["height"], told["width"], told["numbers"]) == (64, 32, 16)
        assert told["precision"] == precision and told["recipe"]["name"] == "small"
    assert [one.name for one in tmp_path.iterdir()] == [path.name], "nothing else is left"


def test_half_precision_halves_the_file(checkpoint: Path, tmp_path: Path):
    sizes = [
        export(checkpoint, tmp_path / f"{p}.safetensors", "safetensors", p).bytes
        for p in ("float32", "float16")
    ]
    assert sizes[1] < 0.75 * sizes[0]


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_the_bundled_model_ranks_alike_in_onnx(
    precision: Precision, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
):
    world = tmp_path / "world"
    words = "--identities 24 --images-per-camera 2 --height 128 --width 64 --splits query gallery"
    assert main(f"synth --out {world} {words} --workers 1".split()) == 0
    dataset = load_dataset("synthetic", world)
    predictor = Predictor.from_checkpoint("demo", "cpu")
    export("demo", tmp_path / "demo.onnx", "onnx", precision)
    original, exported = [], []
    for samples in (dataset.query, dataset.gallery):
        features = predictor.features(samples)
        pixels = np.stack([resize_pixels(open_image(one.path), 128, 64) for one in samples])
        original.append(features)
        exported.append(features.with_features(run_onnx(tmp_path / "demo.onnx", pixels)))
    before, after = evaluate_features(*original), evaluate_features(*exported)
    assert 0.3 < before.mAP < 1
    assert abs(after.mAP - before.mAP) <= 0.001
    if precision == "float32":
        distances, others = (
            pairwise_distance(query.features, gallery.features).numpy()
            for query, gallery in (original, exported)
        )
        order = np.argsort(distances, axis=1, kind="stable")
        steps = np.diff(np.take_along_axis(others, order, axis=1), axis=1)
        assert steps.min() > -1e-4, "only near-ties may change places"


def test_a_file_that_differs_is_never_left(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = tmp_path / "net.safetensors"
    path.write_bytes(b"what was there before")
    real = exporting.ExportedNetwork.forward
    calls = 0

    def drifting(self: ExportedNetwork, pixels: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        calls += 1
        return real(self, pixels) + 0.001 * calls

    monkeypatch.setattr(exporting.ExportedNetwork, "forward", drifting)
    with pytest.raises(
        CheckpointError, match=r"differs from the original by 0\.00\d+ \(expected at most 0\.0001\)"
    ):
        export(checkpoint, path, "safetensors")
    assert path.read_bytes() == b"what was there before"
    assert [one.name for one in tmp_path.iterdir()] == [path.name]


def test_what_cannot_be_exported_is_told(
    checkpoint: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
):
    with pytest.raises(ConfigError, match=r"of format onnx ends in \.onnx, got 'net\.pt'"):
        export(checkpoint, tmp_path / "net.pt", "onnx")
    with pytest.raises(CheckpointError, match="could not write"):
        export(checkpoint, checkpoint / "below-a-file.safetensors", "safetensors")
    assert main(["export", "--out", str(tmp_path / "net.zip")]) == 2
    assert "--out must end in .pt2, .onnx, .safetensors" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ConfigError, match=r'pip install "ccan\[export\]"'):
        export(checkpoint, tmp_path / "net.onnx", "onnx")
    assert list(tmp_path.iterdir()) == []


def test_the_command_says_what_it_did(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    out = tmp_path / "net.safetensors"
    assert main(["export", "--checkpoint", str(checkpoint), "--out", str(out), "--json", "-"]) == 0
    told = capsys.readouterr()
    assert json.loads(told.out)["format"] == "safetensors"
    assert "largest difference from the original" in told.err
