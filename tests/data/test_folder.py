"""Folders of people: splits on disk or by the rule, cameras or none."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from ccan.data import load_dataset
from ccan.data.folder import camera_of, split_people
from ccan.errors import ConfigError, DatasetError
from tests.data.layouts import facts, folders_listed_backwards, paint, reasons, sizes, write


@pytest.mark.parametrize(
    ("name", "camera"),
    [
        ("3_0001.jpg", 3),
        ("15_a.jpg", 15),
        ("c07_x.png", 7),
        ("Cam2_x.jpg", 2),
        ("camera11_2_3.jpg", 11),
        ("0001.jpg", -1),
        ("img_3_0001.jpg", -1),
        ("20240131_1200.jpg", -1),
        ("a3_1.jpg", -1),
        ("c_1.jpg", -1),
    ],
)
def test_the_camera_is_what_the_name_begins_with(name: str, camera: int):
    assert camera_of(Path("9_folder") / name) == camera


class TestSplits:
    @pytest.fixture
    def root(self, tmp_path: Path) -> Path:
        root = tmp_path / "5_c3"
        write(root / "train", ["zoe/2_b.jpg", "zoe/1_a.jpg", "adam/0001.jpg", "notes.txt"])
        write(root / "query", ["Ben/1_q.jpg", "Ben/Thumbs.db"])
        write(root / "gallery", ["Ben/2_g.jpg", "cleo/3_g.png", "empty/readme.txt"])
        write(root / "extra", ["x/1_a.jpg"])
        return root

    def test_people_are_numbered_by_name_over_all_splits(self, root: Path):
        dataset = load_dataset("image-folder", root)
        assert facts(dataset.train) == [("0001.jpg", 2, -1), ("1_a.jpg", 4, 1), ("2_b.jpg", 4, 2)]
        assert facts(dataset.query) == [("1_q.jpg", 1, 1)]
        assert facts(dataset.gallery) == [("2_g.jpg", 1, 2), ("3_g.png", 3, 3)]
        assert [s.metadata["person"] for s in dataset.gallery] == ["Ben", "cleo"]
        assert (dataset.name, dataset.notes) == ("image-folder", ())

    def test_what_is_left_out(self, root: Path):
        assert reasons(load_dataset("image-folder", root)) == {
            "extra": "not a split: train, query or gallery",
            "notes.txt": "not in a person's folder",
            "Thumbs.db": "not an image",
            "readme.txt": "not an image",
            "empty": "no image in it",
        }

    def test_cameras_can_be_left_unread(self, root: Path):
        dataset = load_dataset("image-folder", root, cameras=False)
        assert {s.camera for s in (*dataset.train, *dataset.query, *dataset.gallery)} == {-1}

    def test_somebody_in_train_and_gallery_is_remarked(self, root: Path):
        write(root / "train", ["cleo/1_a.jpg"])
        notes = load_dataset("image-folder", root).notes
        assert notes == ("1 identities are in train and in the test: results on them mean little",)

    def test_train_alone_or_the_test_alone(self, root: Path):
        (root / "train").rename(root.parent / "train")
        assert sizes(load_dataset("image-folder", root)) == (0, 1, 2)
        assert sizes(load_dataset("image-folder", root.parent)) == (3, 0, 0)

    def test_query_without_gallery(self, root: Path):
        (root / "gallery").rename(root / "galery")
        with pytest.raises(
            DatasetError, match="only one of query and gallery: found extra, galery"
        ):
            load_dataset("image-folder", root)


class TestPeople:
    @pytest.fixture
    def root(self, tmp_path: Path) -> Path:
        for name in ("anna", "ben", "cleo", "dora", "emil"):
            write(tmp_path / name, ["1_b.jpg", "1_a.jpg", "2_a.jpg", "plain.jpg"])
        write(tmp_path, [".hidden/1_a.jpg", "loose.jpg"])
        return tmp_path

    def test_the_rule_worked_by_hand(self, root: Path):
        """40 % of five people: the two whose names have the smallest SHA-256."""
        order = sorted(
            ("anna", "ben", "cleo", "dora", "emil"),
            key=lambda name: hashlib.sha256(name.encode()).hexdigest(),
        )
        dataset = load_dataset("image-folder", root, test_percent=40)
        assert {s.metadata["person"] for s in dataset.gallery} == set(order[:2])
        assert {s.metadata["person"] for s in dataset.train} == set(order[2:])
        assert {s.metadata["person"] for s in dataset.query} == set(order[:2])
        assert sizes(dataset) == (3 * 4, 2 * 3, 2 * 4)
        assert [s.path.name for s in dataset.query[:3]] == ["1_a.jpg", "2_a.jpg", "plain.jpg"]
        assert "2 of 5 people are tested on" in dataset.notes[0]
        assert "no query" not in dataset.notes[0]

    def test_nobody_is_on_both_sides(self, root: Path):
        dataset = load_dataset("image-folder", root)
        assert {s.identity for s in dataset.gallery}.isdisjoint(dataset.train_identities)
        assert {s.identity for s in (*dataset.train, *dataset.gallery)} == {1, 2, 3, 4, 5}

    def test_one_more_person_moves_at_most_one(self):
        names = [f"person {number}" for number in range(101)]
        before = split_people(names, 50)
        after = split_people([*names, "newcomer"], 50)
        assert len(before ^ (after - {"newcomer"})) <= 1

    @pytest.mark.parametrize(("percent", "tested"), [(0, 0), (1, 1), (50, 2), (99, 4), (100, 5)])
    def test_both_sides_get_somebody_unless_told_otherwise(self, percent: int, tested: int):
        assert len(split_people(["a", "b", "c", "d", "e"], percent)) == tested

    def test_queries_without_a_match_are_none(self, tmp_path: Path):
        write(tmp_path / "one camera", ["1_a.jpg", "1_b.jpg"])
        write(tmp_path / "one image", ["a.jpg"])
        write(tmp_path / "two plain", ["a.jpg", "b.jpg"])
        write(tmp_path / "mixed", ["1_a.jpg", "b.jpg"])
        dataset = load_dataset("image-folder", tmp_path, test_percent=100)
        assert [(s.metadata["person"], s.path.name) for s in dataset.query] == [
            ("mixed", "1_a.jpg"),
            ("mixed", "b.jpg"),
            ("two plain", "a.jpg"),
        ]
        assert len(dataset.gallery) == 7

    def test_one_camera_for_all_is_explained(self, tmp_path: Path):
        for name in ("a", "b", "c"):
            write(tmp_path / name, ["1_a.jpg", "1_b.jpg"])
        dataset = load_dataset("image-folder", tmp_path)
        assert dataset.query == ()
        assert "nobody of them was seen by two cameras" in dataset.notes[0]
        assert "cameras=False" in dataset.notes[0]
        assert load_dataset("image-folder", tmp_path, cameras=False).query != ()

    def test_the_order_of_directories_does_not_matter(self, root: Path):
        expected = load_dataset("image-folder", root)
        with folders_listed_backwards():
            assert load_dataset("image-folder", root) == expected

    def test_what_is_left_out(self, root: Path):
        assert reasons(load_dataset("image-folder", root)) == {
            "loose.jpg": "not in a person's folder"
        }

    @pytest.mark.parametrize("percent", [-1, 101])
    def test_a_share_beyond_all(self, root: Path, percent: int):
        with pytest.raises(ConfigError, match=f"test_percent must be from 0 to 100, got {percent}"):
            load_dataset("image-folder", root, test_percent=percent)


def test_a_folder_without_people_shows_the_trees(tmp_path: Path):
    write(tmp_path, ["a.jpg"])
    with pytest.raises(
        DatasetError, match=r"no images in folders of people: found a\.jpg"
    ) as raised:
        load_dataset("image-folder", tmp_path)
    assert "3_0001.jpg" in str(raised.value)
    with pytest.raises(DatasetError, match="found nothing"):
        load_dataset("image-folder", tmp_path / "nowhere")


def test_names_of_market_and_msmt_keep_their_own_camera(tmp_path: Path) -> None:
    """Folders of people often hold copies: the number that such a name begins with is the person's."""
    for split, name in (
        ("train", "0002_c5s1_000451_03.jpg"),
        ("query", "0007_003_15_0303noon_1_0.jpg"),
    ):
        paint(tmp_path / split / name[:4] / name, 1)
    paint(tmp_path / "gallery" / "0007" / "3_x.jpg", 2)
    dataset = load_dataset("image-folder", tmp_path)
    cameras = [s.camera for s in (*dataset.train, *dataset.query, *dataset.gallery)]
    assert cameras == [5, 15, 3]


def test_folders_called_like_junk_and_distractors_are_told(tmp_path: Path) -> None:
    for person in ("-1", "0000", "0002"):
        paint(tmp_path / "train" / person / "1_a.jpg", 3)
    notes = " ".join(load_dataset("image-folder", tmp_path).notes)
    assert "the folder -1 and 0000 is read as a person like any other" in notes
