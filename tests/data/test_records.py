"""The records that every loader fills."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from ccan.data.records import Comparison, ReIDDataset, Sample, SkippedFile


def sample(name: str, identity: int, camera: int) -> Sample:
    return Sample(Path(name), identity, camera)


DATASET = ReIDDataset(
    name="tiny",
    root=Path("folder"),
    train=(sample("a", 30, 1), sample("b", 7, 2), sample("c", 30, 2), sample("d", 11, 1)),
    query=(sample("e", 2, 1),),
    gallery=(sample("f", 2, 2), sample("g", 0, 3), sample("h", 5, 3)),
    skipped=(
        SkippedFile(Path("x"), "not an image"),
        SkippedFile(Path("y"), "junk"),
        SkippedFile(Path("z"), "not an image"),
    ),
    notes=("a remark",),
)


def test_labels_follow_the_sorted_identities():
    assert DATASET.train_identities == (7, 11, 30)
    assert DATASET.train_labels() == [2, 0, 2, 1]


def test_the_order_of_images_does_not_change_a_label():
    reverse = dataclasses.replace(DATASET, train=DATASET.train[::-1])
    assert reverse.train_labels() == DATASET.train_labels()[::-1]


def test_summary_counts_images_identities_and_cameras():
    lines = [line.split() for line in DATASET.summary().splitlines()]
    assert lines[0] == ["tiny:", "folder"]
    assert ["train", "4", "3", "2"] in lines
    assert ["query", "1", "1", "1"] in lines
    assert ["gallery", "3", "3", "2"] in lines
    assert not any(line[0] == "multi_query" for line in lines)
    assert "skipped 2 files: not an image" in DATASET.summary()
    assert "skipped 1 files: junk" in DATASET.summary()
    assert lines[-1] == ["a", "remark"]


def test_multi_query_is_shown_where_there_is_one():
    with_boxes = dataclasses.replace(DATASET, multi_query=DATASET.query)
    assert any(line.startswith("multi_query") for line in with_boxes.summary().splitlines())


def test_records_do_not_change():
    with pytest.raises(dataclasses.FrozenInstanceError):
        DATASET.train[0].identity = 5  # type: ignore[misc]
    assert sample("a", 1, 1).metadata == {}


def test_a_comparison_with_the_official_counts():
    found = Comparison.of("query", DATASET.gallery + DATASET.gallery[:2], (5, 3))
    assert (found.images, found.identities, found.agrees) == (5, 3, True)
    assert not dataclasses.replace(found, official_images=1_007).agrees
    other = dataclasses.replace(found, official_identities=1_009)
    assert not other.agrees
    assert other.text() == "query: 5 images of 3 identities, officially 5 of 1,009"
