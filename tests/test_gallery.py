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
from ccan.files import cache_folder
from ccan.gallery import THUMBNAIL_HEIGHT, GalleryIndex, index_dataset
from ccan.predictor import Predictor
from tests.small import small_dataset, small_predictor


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> ReIDDataset:
    return small_dataset(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def predictor(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    return small_predictor(tmp_path_factory.mktemp("model"))


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
        assert open_image(again.thumbnail("gallery", row)).height == THUMBNAIL_HEIGHT
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
    thumbnail = np.asarray(open_image(index.thumbnail("query", 3)), float)
    original = np.asarray(open_image(dataset.query[3].path), float)
    assert thumbnail.shape == (THUMBNAIL_HEIGHT, 110, 3)
    np.testing.assert_allclose(thumbnail.mean((0, 1)), original.mean((0, 1)), atol=3)
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
    damage(index.folder)
    assert made_anew(index, predictor, tmp_path)
    assert not made_anew(index, predictor, tmp_path)


def test_a_file_in_the_place_of_an_index_gives_way(
    dataset: ReIDDataset, predictor: Predictor, tmp_path: Path
) -> None:
    folder = index_dataset(predictor, dataset, cache=tmp_path / "other").folder
    (tmp_path / "indices").mkdir()
    (tmp_path / "indices" / folder.name).write_text("not a folder")
    assert index_dataset(predictor, dataset, cache=tmp_path).folder.is_dir()


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
    assert [path.name for path in (tmp_path / "indices").iterdir()] == [found[0].folder.name]


def test_the_cache_folder_can_be_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CCAN_CACHE", str(tmp_path / "mine"))
    assert cache_folder() == tmp_path / "mine"
    monkeypatch.setenv("CCAN_CACHE", "")
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "ccan"
