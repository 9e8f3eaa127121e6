"""Extraction in parts: equal to one pass, in the list's order, and resumed without doing anything twice."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ccan.data.records import ReIDDataset, Sample
from ccan.errors import DatasetError
from ccan.evaluation import FeatureSet, extract_features, extraction
from ccan.evaluation.extraction import extract_in_parts, fingerprint
from ccan.model import CCAN
from tests.small import small_dataset, small_predictor


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> CCAN:
    return small_predictor(tmp_path_factory.mktemp("model")).model


@pytest.fixture()
def dataset(tmp_path: Path) -> ReIDDataset:
    return small_dataset(tmp_path / "images")


class Counted:
    """`extract_features`, and how many images it was given in all."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.images = 0
        self.stop_after = stop_after

    def __call__(self, model: CCAN, samples: Sequence[Sample], **settings: Any) -> FeatureSet:
        if self.stop_after is not None and self.images >= self.stop_after:
            raise KeyboardInterrupt
        self.images += len(samples)
        return extract_features(model, samples, **settings)


def run(
    model: CCAN, samples: Sequence[Sample], work: Path, **settings: Any
) -> extraction.Extraction:
    return extract_in_parts(model, samples, work, part=5, workers=0, **settings)


def test_parts_are_one_pass(model: CCAN, dataset: ReIDDataset, tmp_path: Path) -> None:
    samples = [replace(one, metadata={"view": "side"}) for one in dataset.gallery]
    found = run(model, samples, tmp_path / "work")
    whole = extract_features(model, samples, workers=0)
    torch.testing.assert_close(found.features.features, whole.features, atol=1e-6, rtol=0)
    np.testing.assert_array_equal(found.features.identities, whole.identities)
    assert found.features.names == tuple(str(one.path) for one in samples)
    assert set(found.features.metadata["view"]) == {"side"}
    assert (found.broken, found.resumed) == ((), 0)


def test_an_interrupted_extraction_goes_on(
    model: CCAN, dataset: ReIDDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples, work = dataset.gallery, tmp_path / "work"
    monkeypatch.setattr(extraction, "extract_features", Counted(stop_after=10))
    with pytest.raises(KeyboardInterrupt):
        run(model, samples, work)
    counted = Counted()
    monkeypatch.setattr(extraction, "extract_features", counted)
    found = run(model, samples, work)
    assert (found.resumed, counted.images) == (10, len(samples) - 10)
    whole = extract_features(model, samples, workers=0)
    torch.testing.assert_close(found.features.features, whole.features, atol=1e-6, rtol=0)


def cut_a_part(work: Path, images: list[Path]) -> None:
    part = sorted(work.iterdir())[1]
    part.write_bytes(part.read_bytes()[:200])


def empty_a_part(work: Path, images: list[Path]) -> None:
    sorted(work.iterdir())[1].write_bytes(b"")


def lose_a_part(work: Path, images: list[Path]) -> None:
    sorted(work.iterdir())[1].unlink()


@pytest.mark.parametrize("damage", [cut_a_part, empty_a_part, lose_a_part])
def test_a_damaged_part_is_made_again(
    model: CCAN,
    dataset: ReIDDataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    damage: Callable[[Path, list[Path]], None],
) -> None:
    samples, work = dataset.gallery, tmp_path / "work"
    first = run(model, samples, work)
    damage(work, [one.path for one in samples])
    counted = Counted()
    monkeypatch.setattr(extraction, "extract_features", counted)
    again = run(model, samples, work)
    assert counted.images == 5 and again.resumed == len(samples) - 5
    torch.testing.assert_close(again.features.features, first.features.features)


def test_nothing_is_resumed_for_another_model_list_or_setting(
    model: CCAN, dataset: ReIDDataset, tmp_path: Path
) -> None:
    samples, work = dataset.gallery, tmp_path / "work"
    other = small_predictor(tmp_path, seed=3).model
    for kind, given, settings in (
        (model, samples, {}),
        (other, samples, {}),
        (other, samples[::-1], {}),
        (other, samples[::-1], {"flip": True}),
    ):
        assert run(kind, given, work, **settings).resumed == 0
    assert run(other, samples[::-1], work, flip=True).resumed == len(samples)


def test_a_changed_image_has_another_fingerprint(model: CCAN, dataset: ReIDDataset) -> None:
    before = fingerprint(model, dataset.query)
    path = dataset.query[0].path
    path.write_bytes(path.read_bytes() + b" ")
    assert fingerprint(model, dataset.query) != before


def test_a_missing_image_is_named(model: CCAN, dataset: ReIDDataset) -> None:
    dataset.query[1].path.unlink()
    with pytest.raises(DatasetError, match=f"{dataset.query[1].path.name}: no such image file"):
        fingerprint(model, dataset.query)


def test_broken_images_are_listed_and_the_order_is_kept(
    model: CCAN, dataset: ReIDDataset, tmp_path: Path
) -> None:
    samples = [*dataset.gallery[:7], dataset.gallery[2], *dataset.gallery[7:]]  # one stands twice
    for place in (0, 6, 9):
        samples[place].path.write_bytes(b"no picture")
    with pytest.warns(UserWarning, match="left out images that cannot be read"):
        found = run(model, samples, tmp_path / "work")
    kept = [one for place, one in enumerate(samples) if place not in (0, 6, 9)]
    assert found.broken == tuple(samples[place].path for place in (0, 6, 9))
    assert found.features.names == tuple(str(one.path) for one in kept)
    np.testing.assert_array_equal(found.features.identities, [one.identity for one in kept])
    torch.testing.assert_close(found.features.features[1], found.features.features[5])
    assert run(model, samples, tmp_path / "work").broken == found.broken


def test_a_part_of_broken_images_only_is_passed_over(
    model: CCAN, dataset: ReIDDataset, tmp_path: Path
) -> None:
    for sample in dataset.gallery[5:10]:
        sample.path.write_bytes(b"no picture")
    with pytest.warns(UserWarning, match="left out"):
        found = run(model, dataset.gallery, tmp_path / "work")
    assert len(found.broken) == 5 and len(found.features) == len(dataset.gallery) - 5


def test_without_any_readable_image_there_is_an_error(
    model: CCAN, dataset: ReIDDataset, tmp_path: Path
) -> None:
    for sample in dataset.query:
        sample.path.write_bytes(b"no picture")
    with (
        pytest.warns(UserWarning, match="left out"),
        pytest.raises(DatasetError, match="no readable image among the 6 of images"),
    ):
        run(model, dataset.query, tmp_path / "work")


def test_broken_images_end_the_work_where_that_is_asked_for(
    model: CCAN, dataset: ReIDDataset, tmp_path: Path
) -> None:
    dataset.query[3].path.write_bytes(b"no picture")
    with pytest.raises(DatasetError, match="images that cannot be read"):
        run(model, dataset.query, tmp_path / "work", on_broken="error")
