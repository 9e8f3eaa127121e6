"""The index on disk: made once, found again, never trusted when it is stale or damaged."""

from __future__ import annotations

import os
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ccan.data.loading import open_image
from ccan.data.records import ReIDDataset, Sample
from ccan.errors import DatasetError
from ccan.evaluation import FeatureSet
from ccan.evaluation.files import save_features
from ccan.explain.embedding import embedding_maps
from ccan.explain.trace import trace
from ccan.explain.weighting import part_vectors
from ccan.files import cache_folder
from ccan.gallery import THUMBNAIL_HEIGHT, GalleryIndex, index_dataset, index_features
from ccan.predictor import Predictor
from tests.small import small_dataset, small_predictor


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> ReIDDataset:
    return small_dataset(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def predictor(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    return small_predictor(tmp_path_factory.mktemp("model"))


def thumbnail(index: GalleryIndex, split: str, row: int) -> Path:
    path = index.thumbnail(split, row)
    assert path is not None
    return path


class Steps:
    """A progress listener that remembers."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, int, str]] = []

    def __call__(self, done: int, total: int, doing: str) -> None:
        self.seen.append((done, total, doing))


def made_anew(index: GalleryIndex, predictor: Predictor, cache: Path) -> bool:
    """Whether asking again does the work again; what comes must be the same either way."""
    steps = Steps()
    again = index_dataset(predictor, index.dataset, cache=cache, progress=steps)
    assert again.folder == index.folder
    torch.testing.assert_close(again.gallery.features, index.gallery.features)
    for row in range(len(again.gallery)):
        assert open_image(thumbnail(again, "gallery", row)).height == THUMBNAIL_HEIGHT
    return bool(steps.seen)


def test_an_index_holds_what_the_predictor_says(
    dataset: ReIDDataset, predictor: Predictor, tmp_path: Path
) -> None:
    steps = Steps()
    index = index_dataset(predictor, dataset, cache=tmp_path, progress=steps)
    assert (len(index.query), len(index.gallery)) == (6, 12)
    expected = predictor.embed([sample.path for sample in dataset.gallery])
    np.testing.assert_allclose(index.gallery.features.numpy(), expected, atol=1e-5)
    assert index.gallery.identities.tolist() == [sample.identity for sample in dataset.gallery]
    assert index.gallery.cameras.tolist() == [sample.camera for sample in dataset.gallery]
    assert index.query.names == tuple(str(sample.path) for sample in dataset.query)
    done, totals, _ = zip(*steps.seen, strict=True)
    assert list(done) == sorted(done) and done[-1] == 36 and set(totals) == {36}
    small = np.asarray(open_image(thumbnail(index, "query", 3)), float)
    original = np.asarray(open_image(dataset.query[3].path), float)
    assert small.shape == (THUMBNAIL_HEIGHT, 110, 3)
    np.testing.assert_allclose(small.mean((0, 1)), original.mean((0, 1)), atol=3)
    assert index.folder is not None
    assert sorted(path.name for path in index.folder.parent.iterdir()) == [index.folder.name]
    assert not made_anew(index, predictor, tmp_path)


def cut_features(folder: Path) -> None:
    path = folder / "features.safetensors"
    path.write_bytes(path.read_bytes()[:-40])


def flip_a_bit(folder: Path) -> None:
    path = folder / "features.safetensors"
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)


def empty_a_thumbnail(folder: Path) -> None:
    (folder / "thumbnails" / "gallery-000002.jpg").write_bytes(b"")


def lose_a_thumbnail(folder: Path) -> None:
    (folder / "thumbnails" / "query-000000.jpg").unlink()


def lose_all_thumbnails(folder: Path) -> None:
    for path in (folder / "thumbnails").iterdir():
        path.unlink()
    (folder / "thumbnails").rmdir()


def lose_features(folder: Path) -> None:
    (folder / "features.safetensors").unlink()


@pytest.mark.parametrize(
    "damage",
    [
        *(cut_features, flip_a_bit, lose_features),
        *(empty_a_thumbnail, lose_a_thumbnail, lose_all_thumbnails),
    ],
)
def test_a_damaged_index_is_made_again(
    dataset: ReIDDataset, predictor: Predictor, tmp_path: Path, damage
) -> None:
    index = index_dataset(predictor, dataset, cache=tmp_path)
    assert index.folder is not None
    damage(index.folder)
    assert made_anew(index, predictor, tmp_path)
    assert not made_anew(index, predictor, tmp_path)


def test_a_file_in_the_place_of_an_index_gives_way(
    dataset: ReIDDataset, predictor: Predictor, tmp_path: Path
) -> None:
    folder = index_dataset(predictor, dataset, cache=tmp_path / "other").folder
    assert folder is not None
    (tmp_path / "indices").mkdir()
    (tmp_path / "indices" / folder.name).write_text("not a folder")
    assert (
        index_dataset(predictor, dataset, cache=tmp_path).folder
        == tmp_path / "indices" / folder.name
    )
    assert (tmp_path / "indices" / folder.name).is_dir()


def test_what_changes_the_result_changes_the_place(
    dataset: ReIDDataset, predictor: Predictor, tmp_path: Path
) -> None:
    places = {index_dataset(predictor, dataset, cache=tmp_path).folder}
    other_model = small_predictor(tmp_path, seed=1)
    places.add(index_dataset(other_model, dataset, cache=tmp_path).folder)
    renamed = replace(dataset.gallery[0], identity=99)
    relabelled = replace(dataset, gallery=(renamed, *dataset.gallery[1:]))
    places.add(index_dataset(predictor, relabelled, cache=tmp_path).folder)
    fewer = replace(dataset, gallery=dataset.gallery[1:])
    places.add(index_dataset(predictor, fewer, cache=tmp_path).folder)
    path = dataset.query[0].path
    state = path.stat()
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns + 1_000_000))
    places.add(index_dataset(predictor, dataset, cache=tmp_path).folder)
    assert len(places) == 5


def test_what_cannot_be_indexed_is_said(
    dataset: ReIDDataset, predictor: Predictor, tmp_path: Path
) -> None:
    with pytest.raises(DatasetError, match="expected query images to index, got none"):
        index_dataset(predictor, replace(dataset, query=()), cache=tmp_path)
    missing = replace(dataset, query=(Sample(tmp_path / "no.jpg", 1, 1),))
    with pytest.raises(DatasetError, match=r"no\.jpg: no such image file"):
        index_dataset(predictor, missing, cache=tmp_path)
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"not an image")
    with pytest.raises(DatasetError, match=r"broken\.jpg: expected a readable image"):
        bad = replace(dataset, query=(Sample(broken, 1, 1),))
        index_dataset(predictor, bad, cache=tmp_path)
    assert list((tmp_path / "indices").iterdir()) == []


def test_two_that_build_at_once_both_succeed(
    dataset: ReIDDataset, predictor: Predictor, tmp_path: Path
) -> None:
    """Both finish before either takes the place: the second must find the first one's index as good as its own."""
    barrier = threading.Barrier(2, timeout=60)
    found: list[GalleryIndex] = []

    def wait_at_the_end(done: int, total: int, _: str) -> None:
        if done == total:
            barrier.wait()

    def build() -> None:
        found.append(index_dataset(predictor, dataset, cache=tmp_path, progress=wait_at_the_end))

    threads = [threading.Thread(target=build) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 2 and found[0].folder == found[1].folder
    assert found[0].folder is not None
    names = [path.name for path in (tmp_path / "indices").iterdir()]
    assert names == [found[0].folder.name]


def test_the_cache_folder_can_be_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CCAN_CACHE", str(tmp_path / "mine"))
    assert cache_folder() == tmp_path / "mine"
    monkeypatch.setenv("CCAN_CACHE", "")
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "ccan"


def test_an_index_holds_what_the_parts_and_the_mirror_say(
    dataset: ReIDDataset, predictor: Predictor, tmp_path: Path
) -> None:
    for _ in range(2):  # as it was made, and as it is read back
        index = index_dataset(predictor, dataset, cache=tmp_path)
        images = torch.stack([predictor.prepare(sample.path) for sample in dataset.gallery])
        expected = part_vectors(embedding_maps(predictor.model), trace(predictor.model, images))
        found = index.vectors("gallery")
        assert index.branches == ("G", "L")
        assert found.parts is not None and found.direction is not None
        assert expected.parts is not None and expected.direction is not None
        np.testing.assert_allclose(found.parts, expected.parts, atol=2e-5)
        np.testing.assert_allclose(found.direction, expected.direction, atol=2e-5)
        some = index.vectors("gallery", [4, 2])
        assert some.parts is not None and some.direction is not None
        np.testing.assert_allclose(some.parts, expected.parts[[4, 2]], atol=2e-5)
        np.testing.assert_allclose(some.direction, expected.direction[[4, 2]], atol=2e-5)
        whole = found.parts.sum(axis=1)
        whole /= np.linalg.norm(whole, axis=1, keepdims=True)
        np.testing.assert_allclose(whole, index.gallery.features[:, 8:], atol=2e-5)
        mirrored = predictor.embed([sample.path for sample in dataset.query], flip=True)
        np.testing.assert_allclose(index.mirrored["query"].features, mirrored, atol=2e-5)
        assert not np.allclose(mirrored, index.query.features, atol=1e-4)


def test_a_cancelled_index_leaves_nothing_behind(
    dataset: ReIDDataset, predictor: Predictor, tmp_path: Path
) -> None:
    for last in (3, 25):  # among the thumbnails, among the features

        def progress(done: int, total: int, doing: str, last: int = last) -> None:
            if done >= last:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            index_dataset(predictor, dataset, cache=tmp_path, progress=progress)
        assert list((tmp_path / "indices").iterdir()) == []
    assert len(index_dataset(predictor, dataset, cache=tmp_path).gallery) == 12


# Features of other models


@pytest.fixture
def features(dataset: ReIDDataset, predictor: Predictor, tmp_path: Path) -> Path:
    index = index_dataset(predictor, dataset, cache=tmp_path / "own")
    path = tmp_path / "features.npz"
    save_features(path, index.query, index.gallery)
    return path


def test_features_alone_are_an_index_without_pictures(features: Path, tmp_path: Path) -> None:
    index = index_features(features, cache=tmp_path / "cache")
    assert (len(index.query), len(index.gallery), index.dataset.name) == (6, 12, "features")
    assert index.folder is None and index.thumbnail("query", 0) is None
    assert index.branches == () and index.mirrored == {}
    assert index.vectors("gallery").parts is None and index.vectors("gallery").direction is None
    assert not (tmp_path / "cache").exists()


def test_features_find_their_pictures_in_a_folder(
    features: Path, dataset: ReIDDataset, tmp_path: Path
) -> None:
    steps = Steps()
    index = index_features(features, dataset.root, cache=tmp_path / "cache", progress=steps)
    assert steps.seen[-1][0] == 18
    small = open_image(thumbnail(index, "gallery", 5))
    assert small.height == THUMBNAIL_HEIGHT and index.samples("gallery")[5].path.is_file()
    again = Steps()
    index_features(features, dataset.root, cache=tmp_path / "cache", progress=again)
    assert again.seen == []
    assert index.folder is not None
    empty_a_thumbnail(index.folder)
    index_features(features, dataset.root, cache=tmp_path / "cache", progress=again)
    assert again.seen != []


def test_a_features_file_reads_no_picture_outside_of_the_folder(
    dataset: ReIDDataset, tmp_path: Path
) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    secret = tmp_path / "secret.png"
    secret.write_bytes(dataset.query[0].path.read_bytes())
    (inside / "a.png").write_bytes(dataset.query[0].path.read_bytes())
    names = ["a.png", "../secret.png", str(secret), "", "..", "none.png"]
    side = FeatureSet(np.eye(6), range(1, 7), [1] * 6, names)
    save_features(tmp_path / "f.npz", side, side)
    with pytest.warns(UserWarning, match="10 of 12 images are not in"):
        index = index_features(tmp_path / "f.npz", inside, cache=tmp_path / "cache")
    shown = [index.thumbnail("query", row) is not None for row in range(6)]
    assert shown == [True, False, False, False, False, False]
    assert all(sample.path.is_relative_to(inside) for sample in index.dataset.query)
    (inside / "a.png").unlink()
    with pytest.raises(DatasetError, match=r"expected the images that f.npz names .*found none"):
        index_features(tmp_path / "f.npz", inside, cache=tmp_path / "cache")
