"""Extraction keeps order, modes, names and metadata; broken images are told; mirrors are averaged branch by branch."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from ccan.data.loading import open_image
from ccan.data.records import Sample
from ccan.data.transforms import prepare_image
from ccan.errors import ConfigError, DatasetError
from ccan.evaluation import extract_features
from ccan.evaluation.features import describe, feature_set_of, mirror_average
from ccan.model.network import join_descriptor

HEIGHT, WIDTH = 12, 5


class Averages(nn.Module):
    """Stands in for the network: the descriptor is each channel's mean, times a weight."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.config = SimpleNamespace(image_height=HEIGHT, image_width=WIDTH)
        self.weight = nn.Parameter(torch.full((1,), 2.0, dtype=dtype))
        self.norm = nn.BatchNorm2d(3, dtype=dtype)
        self.sizes: list[tuple[int, ...]] = []

    def forward(self, images: Tensor) -> SimpleNamespace:
        assert not self.training and not self.norm.training
        self.sizes.append(tuple(images.shape))
        return SimpleNamespace(descriptor=images.mean(dim=(2, 3)) * self.weight)


@pytest.fixture
def samples(tmp_path: Path) -> list[Sample]:
    """Seven images of different colours and sizes."""
    found: list[Sample] = []
    for number in range(7):
        path = tmp_path / f"{number}.png"
        Image.new("RGB", (6 + number, 13), (30 * number, 200, 7)).save(path)
        found.append(Sample(path, identity=10 + number, camera=number % 3))
    return found


def expected_features(samples: list[Sample]) -> Tensor:
    pictures = [prepare_image(open_image(sample.path), HEIGHT, WIDTH) for sample in samples]
    return torch.stack([picture.mean(dim=(1, 2)) * 2 for picture in pictures])


class TestExtraction:
    @pytest.mark.parametrize(("batch_size", "workers"), [(1, 0), (3, 0), (64, 2), (3, 2)])
    def test_order_values_and_facts(self, samples: list[Sample], batch_size: int, workers: int):
        found = extract_features(Averages(), samples, batch_size=batch_size, workers=workers)
        torch.testing.assert_close(found.features, expected_features(samples), atol=1e-5, rtol=0)
        assert found.identities.tolist() == [10, 11, 12, 13, 14, 15, 16]
        assert found.cameras.tolist() == [0, 1, 2, 0, 1, 2, 0]
        assert found.names == tuple(str(sample.path) for sample in samples)
        assert found.features.device.type == "cpu" and not found.features.is_inference()

    def test_modes_of_every_module_are_given_back(self, samples: list[Sample]):
        model = Averages().train()
        model.norm.eval()
        extract_features(model, samples, workers=0)
        assert model.training and not model.norm.training

    def test_modes_are_given_back_after_an_error_too(self, samples: list[Sample]):
        class Failing(Averages):
            def forward(self, images: Tensor) -> SimpleNamespace:
                raise RuntimeError("out of memory")

        model = Failing().train()
        with pytest.raises(RuntimeError, match="out of memory"):
            extract_features(model, samples, workers=0)
        assert model.training

    def test_size_is_the_models_unless_given(self, samples: list[Sample]):
        model = Averages()
        extract_features(model, samples, workers=0, batch_size=7)
        extract_features(model, samples, workers=0, batch_size=7, height=9, width=4)
        assert model.sizes == [(7, 3, HEIGHT, WIDTH), (7, 3, 9, 4)]
        del model.config
        with pytest.raises(ConfigError, match="pass height= and width="):
            extract_features(model, samples, workers=0, height=9)

    def test_float64_and_autocast(self, samples: list[Sample]):
        wide = extract_features(Averages(torch.float64), samples, workers=0)
        assert wide.features.dtype == torch.float64
        model = nn.Sequential(nn.Flatten(), nn.Linear(3 * HEIGHT * WIDTH, 4))

        class Wrapped(Averages):
            def forward(self, images: Tensor) -> SimpleNamespace:
                return SimpleNamespace(descriptor=model(images))

        with torch.no_grad():
            plain = extract_features(Wrapped(), samples, workers=0).features
            mixed = extract_features(
                Wrapped(), samples, workers=0, autocast=torch.bfloat16
            ).features
        assert mixed.dtype == torch.float32
        assert not torch.equal(plain, mixed)
        torch.testing.assert_close(plain, mixed, atol=0.05, rtol=0.05)

    def test_progress_is_told_after_each_batch(self, samples: list[Sample]):
        calls: list[tuple[int, int]] = []
        extract_features(
            Averages(),
            samples,
            workers=0,
            batch_size=3,
            progress=lambda done, total: calls.append((done, total)),
        )
        assert calls == [(3, 7), (6, 7), (7, 7)]

    def test_a_bar_on_request(self, samples: list[Sample], capsys: pytest.CaptureFixture[str]):
        extract_features(Averages(), samples, workers=0)
        assert capsys.readouterr().err == ""
        extract_features(Averages(), samples, workers=0, progress=True)
        assert "7/7" in capsys.readouterr().err

    @pytest.mark.parametrize("workers", [0, 2])
    def test_broken_images_stop_it_and_all_of_them_are_named(
        self, samples: list[Sample], workers: int
    ):
        whole = samples[2].path.read_bytes()
        samples[2].path.write_bytes(whole[: len(whole) // 2])
        samples[5].path.write_bytes(b"")
        with pytest.raises(DatasetError) as raised:
            extract_features(Averages(), samples, batch_size=2, workers=workers)
        message = str(raised.value)
        assert message.startswith("images that cannot be read (2): ")
        assert "2.png" in message and "5.png" in message and "on_broken='skip'" in message
        assert "Traceback" not in message

    @pytest.mark.parametrize("workers", [0, 2])
    def test_broken_images_are_left_out_on_request(self, samples: list[Sample], workers: int):
        samples[2].path.write_bytes(b"")
        with pytest.warns(
            UserWarning, match=r"left out images that cannot be read \(1\): .*2\.png"
        ):
            found = extract_features(
                Averages(), samples, batch_size=2, workers=workers, on_broken="skip"
            )
        rest = samples[:2] + samples[3:]
        torch.testing.assert_close(found.features, expected_features(rest), atol=1e-5, rtol=0)
        assert found.identities.tolist() == [10, 11, 13, 14, 15, 16]

    def test_it_stops_soon_after_a_broken_image(self, samples: list[Sample]):
        model = Averages()
        samples[1].path.write_bytes(b"")
        with pytest.raises(DatasetError, match=r"cannot be read \(1\)"):
            extract_features(model, samples, batch_size=2, workers=0)
        assert [size[0] for size in model.sizes] == [1, 2]  # of four batches

    def test_no_image_at_all(self, samples: list[Sample]):
        with pytest.raises(DatasetError, match="no image to extract features of"):
            extract_features(Averages(), [])
        for sample in samples:
            sample.path.unlink()
        with (
            pytest.warns(UserWarning, match=r"left out images that cannot be read \(7\)"),
            pytest.raises(DatasetError, match="no image to extract"),
        ):
            extract_features(Averages(), samples, on_broken="skip")


def test_metadata_of_the_samples_goes_along(samples: list[Sample], tmp_path: Path):
    samples[1] = replace(samples[1], metadata={"view": "front", "angle": 90})
    samples[4] = replace(samples[4], metadata={"angle": 7.5, "lane": 3})
    samples[5] = replace(samples[5], metadata={"lane": "left"})
    samples[2].path.write_bytes(b"")
    with pytest.warns(UserWarning, match="left out"):
        found = extract_features(Averages(), samples, workers=0, on_broken="skip")
    assert list(found.metadata) == ["view", "angle", "lane"]
    assert found.metadata["view"].tolist() == ["", "front", "", "", "", ""]
    np.testing.assert_array_equal(
        found.metadata["angle"], [np.nan, 90, np.nan, 7.5, np.nan, np.nan]
    )
    assert found.metadata["lane"].tolist() == ["", "", "", "3", "left", ""]
    assert feature_set_of(torch.ones(1, 2), samples[:1]).metadata == {}


class Halves(nn.Module):
    """Two embeddings: the mean colour of the left half and of the right half of an image."""

    def __init__(self, local: bool = True) -> None:
        super().__init__()
        self.config = SimpleNamespace(image_height=HEIGHT, image_width=WIDTH)
        self.weight = nn.Parameter(torch.ones(1))
        self.local = local

    def forward(self, images: Tensor) -> SimpleNamespace:
        left = images[..., : WIDTH // 2].mean(dim=(2, 3)) * 5
        right = images[..., WIDTH // 2 :].mean(dim=(2, 3)) if self.local else None
        return SimpleNamespace(
            global_embedding=left,
            local_embedding=right,
            descriptor=join_descriptor(left, right),
        )


class TestFlip:
    def test_hand_value(self):
        # (1, 0) and (0, 1) average to 45°; (1, 0) and (-0.28, 0.96) to (0.6, 0.8)·0.6.
        plain = torch.tensor([[1.0, 0.0, 1.0, 0.0]])
        mirrored = torch.tensor([[0.0, 1.0, -0.28, 0.96]])
        found = mirror_average(plain, mirrored)
        np.testing.assert_allclose(found, [[0.5**0.5, 0.5**0.5, 0.6, 0.8]], atol=1e-6)
        whole = mirror_average(plain, mirrored, branches=1)
        np.testing.assert_allclose(whole.norm(), 1, atol=1e-6)
        assert not torch.allclose(whole * 2**0.5, found)

    @pytest.mark.parametrize("local", [True, False])
    def test_an_image_and_its_mirror_share_one_descriptor(self, local: bool):
        model = Halves(local)
        generator = torch.Generator().manual_seed(0)
        images = torch.randn(7, 3, HEIGHT, WIDTH, generator=generator)
        found = describe(model, images, flip=True)
        torch.testing.assert_close(found, describe(model, images.flip(3), flip=True))
        for half in found.split(3, dim=1):
            torch.testing.assert_close(half.norm(dim=1), torch.ones(7))
        plain = describe(model, images)
        assert not torch.allclose(found, plain, atol=1e-2)
        assert torch.equal(plain, model(images).descriptor)

    def test_extraction_flips_on_request_only(self, samples: list[Sample]):
        generator = np.random.default_rng(0)
        for sample in samples:
            pixels = generator.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(sample.path)
        pictures = torch.stack([prepare_image(open_image(s.path), HEIGHT, WIDTH) for s in samples])
        model = Halves()
        with torch.no_grad():
            for flip in (False, True):
                found = extract_features(model, samples, workers=0, batch_size=3, flip=flip)
                torch.testing.assert_close(found.features, describe(model, pictures, flip=flip))


def test_the_package_needs_torch_and_numpy_only():
    code = (
        "import sys\n"
        "for name in ('torchvision', 'PIL', 'tqdm', 'scipy', 'sklearn', 'safetensors'):\n"
        "    sys.modules[name] = None\n"
        "import ccan.evaluation as e\n"
        "f = e.FeatureSet([[0.0]], [1], [1])\n"
        "g = e.FeatureSet([[1.0], [2.0]], [2, 1], [2, 2])\n"
        "print(e.evaluate_features(f, g, block=1).mAP)\n"
    )
    root = Path(__file__).resolve().parents[2]
    ran = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert (ran.returncode, ran.stdout.strip()) == (0, "0.5"), ran.stderr
