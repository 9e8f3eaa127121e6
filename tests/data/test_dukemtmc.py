"""DukeMTMC-reID and Occluded-Duke: names, official counts, and the notice of the withdrawal."""

from __future__ import annotations

from pathlib import Path

import pytest

from ccan.data import load_dataset
from ccan.data.dukemtmc import OFFICIAL_COUNTS, OFFICIAL_OCCLUDED_COUNTS
from ccan.errors import DatasetError
from tests.data.layouts import CLUTTER, duke, facts, reasons, sizes

NAMES = ("dukemtmc", "occluded-duke")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A copy whose very path looks like a file name."""
    return duke(tmp_path / "run-2024_c3" / "0009_c9_f1")


@pytest.mark.parametrize("name", NAMES)
def test_identities_and_cameras_come_from_the_files_own_name(root: Path, name: str):
    dataset = load_dataset(name, root)
    assert (dataset.name, dataset.root) == (name, root)
    assert facts(dataset.train) == [
        ("0002_c1_f0046182.jpg", 2, 1),
        ("0002_c2_f0000001.jpg", 2, 2),
        ("0011_c8_f0000002.jpg", 11, 8),
    ]
    assert facts(dataset.query) == [("0003_c5_f0000007.jpg", 3, 5), ("0005_c2_f0046985.jpg", 5, 2)]
    assert [sample.identity for sample in dataset.gallery] == [3, 5, 7]
    assert reasons(dataset) == dict.fromkeys(CLUTTER, "not an image")


@pytest.mark.parametrize("name", NAMES)
def test_the_withdrawal_is_said_first_and_no_address_is_given(root: Path, name: str):
    notes = load_dataset(name, root).notes
    assert "withdrawn by its authors in 2019" in notes[0]
    assert not any("http" in note or "www" in note for note in notes)


def test_differences_from_the_official_counts(root: Path):
    notes = "\n".join(load_dataset("dukemtmc", root).notes)
    assert "bounding_box_train: 3 images of 2 identities, officially 16,522 of 702" in notes
    assert "query: 2 images of 2 identities, officially 2,228 of 702" in notes
    assert "bounding_box_test: 3 images of 3 identities, officially 17,661 of 1,110" in notes
    occluded = "\n".join(load_dataset("occluded-duke", root).notes)
    assert "query: 2 images of 2 identities, officially 2,210 of 519" in occluded


def test_the_official_counts_are_those_of_the_paper():
    """Table 1 of the paper: 36,411 images of 1,404 people and 408 distractor identities."""
    assert sum(images for images, _ in OFFICIAL_COUNTS.values()) == 36_411
    assert OFFICIAL_COUNTS["bounding_box_test"][1] == 702 + 408
    assert OFFICIAL_OCCLUDED_COUNTS["bounding_box_test"] == OFFICIAL_COUNTS["bounding_box_test"]


def test_no_difference_no_remark(root: Path, monkeypatch: pytest.MonkeyPatch):
    here = {"bounding_box_train": (3, 2), "query": (2, 2), "bounding_box_test": (3, 3)}
    monkeypatch.setattr("ccan.data.dukemtmc.OFFICIAL_COUNTS", here)
    dataset = load_dataset("dukemtmc", root)
    assert len(dataset.notes) == 1
    assert [part.agrees for part in dataset.official] == [True, True, True]


@pytest.mark.parametrize(
    ("name", "inner"), [("dukemtmc", "DukeMTMC-reID"), ("occluded-duke", "Occluded_Duke")]
)
def test_the_folder_above_is_accepted(root: Path, name: str, inner: str):
    root.rename(root.parent / inner)
    assert sizes(load_dataset(name, root.parent)) == (3, 2, 3)


@pytest.mark.parametrize(
    ("name", "title"), [("dukemtmc", "DukeMTMC-reID"), ("occluded-duke", "Occluded-Duke")]
)
def test_a_foreign_folder_shows_the_tree(tmp_path: Path, name: str, title: str):
    with pytest.raises(DatasetError, match=f"is not {title}: .* missing; found nothing") as raised:
        load_dataset(name, tmp_path)
    assert "0001_c2_f0046182.jpg" in str(raised.value)
