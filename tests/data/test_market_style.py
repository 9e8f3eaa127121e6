"""Any folder with Market-1501's folders and names."""

from __future__ import annotations

from pathlib import Path

import pytest

from ccan.data import load_dataset
from ccan.errors import DatasetError
from tests.data.layouts import facts, folders_listed_backwards, market_folders, reasons, write


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return market_folders(
        tmp_path / "other_c3",
        ["0013_c17_x.png", "0002_c1s1_a.webp"],
        ["0001_c11_a.jpg.jpg"],
        ["0001_c2_a.TIF", "-1_c1_b.jpg", "0000_c1_b.jpg", "a0001_c2_b.jpg"],
    )


def test_names_cameras_of_two_digits_and_no_official_counts(root: Path):
    dataset = load_dataset("market-style", root)
    assert facts(dataset.train) == [("0002_c1s1_a.webp", 2, 1), ("0013_c17_x.png", 13, 17)]
    assert facts(dataset.query) == [("0001_c11_a.jpg.jpg", 1, 11)]
    assert facts(dataset.gallery) == [("0000_c1_b.jpg", 0, 1), ("0001_c2_a.TIF", 1, 2)]
    assert (dataset.name, dataset.notes, dataset.official) == ("market-style", (), ())
    assert reasons(dataset)["a0001_c2_b.jpg"] == "the name is not like 0002_c1s1_000451_03.jpg"


def test_junk_stays_on_request(root: Path):
    dataset = load_dataset("market-style", root, keep_junk=True)
    assert [sample.identity for sample in dataset.gallery] == [-1, 0, 1]


def test_the_order_of_the_directory_does_not_matter(root: Path):
    expected = load_dataset("market-style", root)
    with folders_listed_backwards():
        assert load_dataset("market-style", root) == expected


def test_an_image_that_is_a_folder_is_not_followed(root: Path):
    (root / "query" / "0001_c1_dir.jpg").mkdir()
    assert reasons(load_dataset("market-style", root))["0001_c1_dir.jpg"] == "not a file"


def test_a_missing_folder_shows_the_tree(tmp_path: Path):
    write(tmp_path / "query", ["0001_c1_a.jpg"])
    with pytest.raises(
        DatasetError,
        match="is not a Market-named folder: bounding_box_train, bounding_box_test missing; found query",
    ):
        load_dataset("market-style", tmp_path)
