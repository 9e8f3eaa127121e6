"""MSMT17: both versions and the re-pack; identities of the test that begin again at 0; lists with every flaw."""

from __future__ import annotations

from pathlib import Path

import pytest

from ccan.data import load_dataset
from ccan.data.msmt17 import OFFICIAL_COUNTS, OFFICIAL_TRAIN_ALONE
from ccan.errors import ConfigError, DatasetError
from tests.data.layouts import (
    MSMT_LISTS,
    facts,
    folders_listed_backwards,
    market_folders,
    msmt17,
    reasons,
    sizes,
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A copy whose very path has cameras and identities in it."""
    root = tmp_path / "0007_001_09_c3"
    msmt17(root)
    return root


class TestLists:
    @pytest.mark.parametrize("version", ["V1", "V2"])
    @pytest.mark.parametrize("above", [True, False])
    def test_both_versions_from_their_folder_or_the_one_above(
        self, tmp_path: Path, version: str, above: bool
    ):
        base = msmt17(tmp_path / "_c3", version)
        dataset = load_dataset("msmt17", base.parent if above else base)
        assert facts(dataset.train) == [
            ("0000_000_01_0303morning_0008_0.jpg", 10_000, 1),
            ("0000_001_14_1113afternoon_0009_0.jpg", 10_000, 14),
            ("0002_003_15_0302noon_0508_1.jpg", 10_002, 15),
        ]
        assert facts(dataset.query) == [
            ("0000_002_01_0303noon_1_2.jpg", 20_000, 1),
            ("0001_000_02_0303morning_0031_1.jpg", 20_001, 2),
        ]
        assert [(s.identity, s.camera) for s in dataset.gallery] == [
            (20_000, 12),
            (20_001, 5),
            (20_003, 12),
        ]
        assert all(s.path.is_file() for s in (*dataset.train, *dataset.query, *dataset.gallery))
        assert (dataset.name, dataset.skipped) == ("msmt17", ())

    def test_nobody_of_the_test_is_in_train_or_a_distractor_or_junk(self, root: Path):
        dataset = load_dataset("msmt17", root)
        test = {sample.identity for sample in (*dataset.query, *dataset.gallery)}
        train = set(dataset.train_identities)
        assert test.isdisjoint(train)
        assert min(test | train) > 0
        assert dataset.train_labels() == [0, 0, 1]

    def test_what_the_name_says_of_the_time(self, root: Path):
        metadata = [dict(sample.metadata) for sample in load_dataset("msmt17", root).train]
        assert metadata == [
            {"month": 3, "day": 3, "daytime": "morning"},
            {"month": 11, "day": 13, "daytime": "afternoon"},
            {"month": 3, "day": 2, "daytime": "noon"},
        ]

    def test_train_alone_on_request(self, root: Path):
        dataset = load_dataset("msmt17", root, train_only=True)
        assert sizes(dataset) == (2, 2, 3)
        assert any(
            "train: 2 images of 2 identities, officially 30,248 of 1,041" in note
            for note in dataset.notes
        )
        (root / "MSMT17_V1" / "list_val.txt").unlink()
        assert load_dataset("msmt17", root, train_only=True) == dataset
        with pytest.raises(DatasetError, match=r"list_val\.txt is missing; .*train_only=True"):
            load_dataset("msmt17", root)

    def test_lists_beside_the_version_and_a_mark_at_the_start_of_a_file(self, root: Path):
        expected = load_dataset("msmt17", root)
        for path in (root / "MSMT17_V1").glob("list_*.txt"):
            (root / path.name).write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
            path.unlink()
        assert load_dataset("msmt17", root).train == expected.train

    def test_the_order_of_directories_and_lists_does_not_matter(self, root: Path):
        expected = load_dataset("msmt17", root)
        for split, lines in MSMT_LISTS.items():
            text = "\n".join(f"{path} {identity}" for path, identity in reversed(lines))
            (root / "MSMT17_V1" / f"list_{split}.txt").write_text(text)
        with folders_listed_backwards():
            assert load_dataset("msmt17", root) == expected

    def test_the_licence_and_the_counts_are_noted(self, root: Path):
        notes = load_dataset("msmt17", root).notes
        assert "licence" in notes[0]
        assert notes[1].startswith("train and val: 3 images of 2 identities, officially 32,621")
        assert notes[3] == "gallery: 3 images of 3 identities, officially 82,161 of 3,060"
        assert not any("http" in note for note in notes)

    def test_the_official_counts_are_those_of_the_paper(self):
        assert sum(images for images, _ in OFFICIAL_COUNTS.values()) == 126_441
        assert OFFICIAL_TRAIN_ALONE[0] < OFFICIAL_COUNTS["train and val"][0]


class TestFlaws:
    def test_listed_files_that_are_not_there_or_no_images(self, root: Path):
        path = root / "MSMT17_V1" / "list_gallery.txt"
        more = [
            "0009/0009_000_01_0303noon_0_0.jpg 9",
            "../train/0000/0000_999_01_0303morning_0008_0.jpg 0",
            "0000/Thumbs.db 0",
            "0000/0000_c3.jpg 0",
        ]
        (root / "MSMT17_V1" / "test" / "0000" / "0000_c3.jpg").touch()
        path.write_text(path.read_text() + "\n".join(more))
        dataset = load_dataset("msmt17", root)
        assert len(dataset.gallery) == 3
        assert reasons(dataset) == {
            "0009_000_01_0303noon_0_0.jpg": "listed, but not there",
            "0000_999_01_0303morning_0008_0.jpg": "listed, but leads out of its folder",
            "Thumbs.db": "not an image",
            "0000_c3.jpg": "the name is not like 0000_000_01_0303morning_0008_0.jpg",
        }

    def test_a_name_with_more_behind_it_and_backslashes(self, root: Path):
        test = root / "MSMT17_V1" / "test" / "0000"
        (test / "0000_004_03_0303noon_0_0_mask.JPG").touch()
        (root / "MSMT17_V1" / "list_query.txt").write_text(
            "0000\\0000_004_03_0303noon_0_0_mask.JPG\t0"
        )
        assert facts(load_dataset("msmt17", root).query) == [
            ("0000_004_03_0303noon_0_0_mask.JPG", 20_000, 3)
        ]

    @pytest.mark.parametrize("line", ["0000/a.jpg", "0000/a.jpg x", "0000/a.jpg -1", "7", "a 1 b"])
    def test_a_line_that_cannot_be_read_is_named(self, root: Path, line: str):
        path = root / "MSMT17_V1" / "list_val.txt"
        path.write_text(f"0000/0000_001_14_1113afternoon_0009_0.jpg 0\n\n{line}\n")
        with pytest.raises(DatasetError, match=r"list_val\.txt, line 3: expected a file and an"):
            load_dataset("msmt17", root)

    def test_a_list_that_is_not_text(self, root: Path):
        (root / "MSMT17_V1" / "list_train.txt").write_bytes(b"\xff\xfe\x00\x81")
        with pytest.raises(DatasetError, match=r"list_train\.txt: expected a text file"):
            load_dataset("msmt17", root)

    def test_a_list_of_which_nothing_is_there(self, root: Path):
        (root / "MSMT17_V1" / "list_query.txt").write_text("0000/no.jpg 0\n")
        with pytest.raises(DatasetError, match=r"got none of 1 listed, .*no\.jpg: listed, but not"):
            load_dataset("msmt17", root)
        (root / "MSMT17_V1" / "list_query.txt").write_text("\n")
        with pytest.raises(DatasetError, match="got none of 0 listed; unpack"):
            load_dataset("msmt17", root)

    def test_a_foreign_folder_shows_the_tree(self, tmp_path: Path):
        with pytest.raises(DatasetError, match="is not MSMT17: found nothing") as raised:
            load_dataset("msmt17", tmp_path)
        assert "0000_000_01_0303morning_0008_0.jpg" in str(raised.value)
        with pytest.raises(DatasetError, match="is not MSMT17"):
            load_dataset("msmt17", tmp_path / "nowhere")

    def test_two_versions_in_one_folder(self, root: Path):
        msmt17(root, "V2")
        with pytest.raises(DatasetError, match="V1 and V2; choose one with version=V1"):
            load_dataset("msmt17", root)
        assert "mask_test_v2" in str(load_dataset("msmt17", root, version="V2").query[0].path)
        assert "/test/" in load_dataset("msmt17", root, version="V1").query[0].path.as_posix()

    def test_a_version_that_is_not_there(self, root: Path):
        with pytest.raises(DatasetError, match="is not MSMT17 V2: found MSMT17_V1"):
            load_dataset("msmt17", root, version="V2")


class TestRepack:
    @pytest.fixture
    def repack(self, tmp_path: Path) -> Path:
        return market_folders(
            tmp_path / "_c3",
            ["0000_c15_0000.jpg", "0001_c1_0001.jpg"],
            ["0000_c2_0000.jpg"],
            ["0000_c14_0000.jpg", "-1_c1_0000.jpg"],
        )

    def test_names_of_market_and_identities_as_from_the_lists(self, repack: Path):
        dataset = load_dataset("msmt17", repack)
        assert facts(dataset.train) == [
            ("0000_c15_0000.jpg", 10_000, 15),
            ("0001_c1_0001.jpg", 10_001, 1),
        ]
        assert facts(dataset.query) == [("0000_c2_0000.jpg", 20_000, 2)]
        assert facts(dataset.gallery) == [("0000_c14_0000.jpg", 20_000, 14)]
        assert reasons(dataset)["-1_c1_0000.jpg"] == "junk (identity -1)"
        assert "licence" in dataset.notes[0]
        assert dataset.notes[1].startswith("train and val: 2 images of 2 identities, officially")

    def test_junk_keeps_its_number(self, repack: Path):
        gallery = load_dataset("msmt17", repack, keep_junk=True).gallery
        assert [sample.identity for sample in gallery] == [-1, 20_000]

    @pytest.mark.parametrize("options", [{"train_only": True}, {"version": "V1"}])
    def test_it_cannot_leave_val_out(self, repack: Path, options: dict[str, object]):
        with pytest.raises(ConfigError, match="has no lists: expected neither train_only"):
            load_dataset("msmt17", repack, **options)
