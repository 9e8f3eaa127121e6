"""Feature sets take what people have and refuse what has no meaning; extraction keeps order, modes and names."""

from __future__ import annotations

import subprocess
import sys
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
from ccan.errors import ConfigError, DatasetError, ProtocolError, ShapeError
from ccan.evaluation import FeatureSet, extract_features


class TestFeatureSet:
    @pytest.mark.parametrize("make", [torch.tensor, np.array, list])
    def test_takes_tensors_arrays_and_lists(self, make):
        made = FeatureSet(make([[1.0, 2.0], [3.0, 4.0]]), make([5, -1]), make([1, 15]), ["a", "b"])
        assert made.features.tolist() == [[1, 2], [3, 4]]
        assert made.identities.tolist() == [5, -1] and made.identities.dtype == np.int64
        assert made.cameras.tolist() == [1, 15]
        assert made.names == ("a", "b")
        assert len(made) == 2

    def test_dtype_is_kept_and_half_precision_widened(self):
        for given, kept in (
            (torch.float64, torch.float64),
            (torch.float32, torch.float32),
            (torch.float16, torch.float32),
            (torch.bfloat16, torch.float32),
        ):
            assert FeatureSet(torch.ones(2, 3, dtype=given), [1, 2], [1, 1]).features.dtype == kept

    def test_it_does_not_hold_on_to_a_graph(self):
        weights = torch.ones(2, 3, requires_grad=True)
        assert not FeatureSet(weights * 2, [1, 2], [1, 1]).features.requires_grad

    def test_select_by_rows_and_by_mask(self):
        made = FeatureSet(torch.eye(3), [1, 2, 3], [4, 5, 6], list("abc"))
        for rows in ([2, 0], np.array([2, 0]), torch.tensor([2, 0])):
            part = made.select(rows)
            assert part.features.tolist() == [[0, 0, 1], [1, 0, 0]]
            assert (part.identities.tolist(), part.cameras.tolist()) == ([3, 1], [6, 4])
            assert part.names == ("c", "a")
        assert made.select(made.identities > 1).names == ("b", "c")

    def test_numpy_gives_arrays_for_savez(self, tmp_path: Path):
        made = FeatureSet(torch.eye(2), [1, 2], [4, 5], ["a", "b"])
        np.savez(tmp_path / "set.npz", allow_pickle=False, **made.numpy())
        with np.load(tmp_path / "set.npz") as saved:
            again = FeatureSet(**saved)
        assert torch.equal(again.features, made.features) and again.names == made.names
        assert "names" not in FeatureSet(torch.eye(2), [1, 2], [4, 5]).numpy()

    @pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
    def test_values_that_are_not_finite_are_an_error(self, bad: float):
        features = torch.ones(5, 3)
        features[1, 2] = features[4, 0] = bad
        with pytest.raises(
            ProtocolError, match=r"infinity in 2 of 5 rows \(the first is row 1\); look"
        ):
            FeatureSet(features, [1] * 5, [1] * 5)

    def test_lengths_and_shapes(self):
        with pytest.raises(ShapeError, match=r"identities must have shape \(3,\), .* got \(2,\)"):
            FeatureSet(torch.ones(3, 2), [1, 2], [1, 1, 1])
        with pytest.raises(ShapeError, match=r"cameras must have shape \(3,\), .* got \(3, 1\)"):
            FeatureSet(torch.ones(3, 2), [1, 2, 3], [[1], [1], [1]])
        with pytest.raises(ShapeError, match="one entry for each of the 3 rows of features, got 1"):
            FeatureSet(torch.ones(3, 2), [1, 2, 3], [1, 1, 1], ["a"])
        for shape in ((3,), (3, 2, 2), (3, 0)):
            with pytest.raises(ShapeError, match=r"features must have shape \(N, D\)"):
                FeatureSet(torch.ones(shape), [1, 2, 3], [1, 1, 1])

    def test_kinds_of_numbers(self):
        with pytest.raises(
            ProtocolError, match=r"must be floating point, got torch\.int64; convert"
        ):
            FeatureSet([[1, 2]], [1], [1])
        with pytest.raises(ProtocolError, match="identities must be integers, got float64"):
            FeatureSet(torch.ones(1, 2), [1.0], [1])
        with pytest.raises(ProtocolError, match="cameras must be integers, got bool"):
            FeatureSet(torch.ones(1, 2), [1], torch.tensor([True]))

    def test_an_empty_set_is_legal(self):
        assert len(FeatureSet(torch.zeros(0, 4), [], [])) == 0


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
