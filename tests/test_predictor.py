"""The seam for people: whatever form an image comes in, the same picture gives the same numbers."""

from __future__ import annotations

import io
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import ccan.predictor as predictor_module
from ccan.data.loading import image_files, open_image
from ccan.data.records import ReIDDataset
from ccan.errors import CheckpointError, DatasetError, ShapeError
from ccan.evaluation import FeatureSet
from ccan.predictor import Predictor, as_image
from tests.small import small_dataset, small_predictor


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> ReIDDataset:
    return small_dataset(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def predictor(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    return small_predictor(tmp_path_factory.mktemp("model"))


def test_every_form_of_an_image_gives_the_same_embedding(
    predictor: Predictor, dataset: ReIDDataset
) -> None:
    path = dataset.query[0].path
    picture = open_image(path)
    forms = [path, str(path), io.BytesIO(path.read_bytes()), picture, np.asarray(picture)]
    rows = predictor.embed(forms)
    assert rows.shape == (5, 16) and rows.dtype == np.float32
    np.testing.assert_allclose(rows, np.repeat(rows[:1], 5, axis=0), atol=1e-6)
    np.testing.assert_allclose(predictor.embed(path), rows[:1], atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(rows[:, :8], axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(rows[:, 8:], axis=1), 1, atol=1e-5)


def test_a_folder_is_embedded_in_the_order_of_its_files(
    predictor: Predictor, dataset: ReIDDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        predictor_module, "BATCH", 5
    )  # 18 images: several batches, the last not full
    rows = predictor.embed(dataset.root)
    paths = image_files(dataset.root)
    assert len(paths) == 18 and paths == sorted(paths)
    np.testing.assert_allclose(rows, predictor.embed(paths), atol=1e-6)
    np.testing.assert_allclose(rows[7:8], predictor.embed(paths[7]), atol=1e-6)


def test_a_folder_without_images_is_refused(predictor: Predictor, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("none here")
    (tmp_path / ".hidden").mkdir()
    Image.new("RGB", (4, 8)).save(tmp_path / ".hidden" / "a.png")
    with pytest.raises(DatasetError, match=r"expected images .*got none"):
        predictor.embed(tmp_path)


def test_an_image_and_its_mirror_are_one_when_flips_are_averaged(
    predictor: Predictor, dataset: ReIDDataset
) -> None:
    picture = np.asarray(open_image(dataset.query[1].path))
    both = [picture, np.ascontiguousarray(picture[:, ::-1])]
    plain, averaged = predictor.embed(both), predictor.embed(both, flip=True)
    assert np.abs(plain[0] - plain[1]).max() > 1e-3
    np.testing.assert_allclose(averaged[0], averaged[1], atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(averaged[:, :8], axis=1), 1, atol=1e-5)


def test_a_turned_photograph_is_set_upright(tmp_path: Path) -> None:
    upright = Image.fromarray(np.arange(6 * 4 * 3, dtype=np.uint8).reshape(6, 4, 3))
    turned = upright.transpose(Image.Transpose.ROTATE_90)
    tag = turned.getexif()
    tag[0x0112] = 6  # the camera says: turn me by 90° clockwise
    path = tmp_path / "turned.png"
    turned.save(path, exif=tag)
    np.testing.assert_array_equal(np.asarray(as_image(path)), np.asarray(upright))
    with Image.open(path) as opened:
        np.testing.assert_array_equal(np.asarray(as_image(opened)), np.asarray(upright))


def test_grey_and_transparent_arrays_are_read() -> None:
    grey = np.full((5, 3), 90, np.uint8)
    assert np.asarray(as_image(grey)).tolist() == np.full((5, 3, 3), 90).tolist()
    clear = np.zeros((5, 3, 4), np.uint8)
    assert (np.asarray(as_image(clear)) == 255).all()


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((4, 4, 3), np.float32),
        np.zeros((4, 4, 2), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
        np.zeros(4, np.uint8),
    ],
)
def test_an_array_that_is_no_image_is_refused(array: np.ndarray) -> None:
    with pytest.raises(ShapeError, match="expected a uint8 array"):
        as_image(array)


def test_what_cannot_be_read_is_named(predictor: Predictor, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no such image file"):
        predictor.embed(tmp_path / "none.jpg")
    with pytest.raises(ShapeError, match="at least one image"):
        predictor.embed([])
    with pytest.raises(CheckpointError, match="expected a checkpoint at"):
        Predictor.from_checkpoint(tmp_path)


def test_features_keep_the_samples(predictor: Predictor, dataset: ReIDDataset) -> None:
    features = predictor.features(dataset.gallery)
    assert features.identities.tolist() == [sample.identity for sample in dataset.gallery]
    expected = predictor.embed([sample.path for sample in dataset.gallery])
    np.testing.assert_allclose(features.features.numpy(), expected, atol=1e-5)


def test_rankings_with_and_without_an_identity(predictor: Predictor, dataset: ReIDDataset) -> None:
    gallery = predictor.features(dataset.gallery)
    query = dataset.query[0]
    unknown = predictor.rank(query.path, gallery)
    assert set(unknown.marks) == {"unknown"} and np.isnan(unknown.ap)
    known = predictor.rank(query.path, gallery, identity=1, camera=1, top=12)
    np.testing.assert_array_equal(known.order, unknown.order)
    truth = {
        row: "ignored"
        if (sample.identity, sample.camera) == (1, 1)
        else "right"
        if sample.identity == 1
        else "wrong"
        for row, sample in enumerate(dataset.gallery)
    }
    assert list(known.marks) == [truth[row] for row in known.order]
    assert known.matches == 2 and 0 < known.ap <= 1


def test_without_cameras_only_the_picture_itself_is_ignored(
    predictor: Predictor, dataset: ReIDDataset
) -> None:
    found = predictor.features(dataset.gallery)
    gallery = FeatureSet(found.features, found.identities, [-1] * len(found), found.names)
    path = dataset.gallery[0].path
    ranking = predictor.rank(path, gallery, identity=1)
    ignored = [
        row for row, mark in zip(ranking.order, ranking.marks, strict=True) if mark == "ignored"
    ]
    assert ignored == [0] and ranking.matches == 3


def test_attention_and_embedding_in_many_threads(
    predictor: Predictor, dataset: ReIDDataset
) -> None:
    """Maps and embeddings of one image do not depend on who else asks at the moment."""
    paths = [sample.path for sample in dataset.query[:3]]
    expected = [predictor.attention(path) for path in paths]
    rows = predictor.embed(paths)
    wrong: list[str] = []

    def look(place: int) -> None:
        for _ in range(4):
            record = predictor.attention(paths[place])
            if not np.array_equal(
                record.slots["CC2_1"].attention, expected[place].slots["CC2_1"].attention
            ):
                wrong.append(f"attention of {place}")

    def embed() -> None:
        for _ in range(8):
            if not np.allclose(predictor.embed(paths), rows, atol=1e-6):
                wrong.append("embedding")

    threads = [threading.Thread(target=look, args=(place,)) for place in range(3)]
    threads += [threading.Thread(target=embed) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert list(expected[0].slots) == ["SS1", "CC2_1", "CC2_2"]
    np.testing.assert_allclose(expected[1].output.descriptor[0], rows[1], atol=1e-6)
