"""Market-1501's layout with every quirk of real copies, on generated folders of empty or tiny files."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pytest
from PIL import Image

from ccan.data import load_dataset
from ccan.data.market1501 import OFFICIAL_COUNTS
from ccan.data.records import ReIDDataset, Sample, SkippedFile
from ccan.errors import ConfigError, DatasetError

TRAIN = ["0007_c3s1_000301_01.jpg", "0002_c1s1_000451_03.jpg", "0002_c2s1_000776_01.jpg"]
QUERY = ["1488_c1s5_000001_00.jpg.jpg", "0001_c1s1_001051_00.jpg", "0003_c15s1_000001_00.jpg"]
GALLERY = [
    "0001_c2s1_000301_00.jpg",
    "0003_c2s3_073402_02.jpg",
    "-1_c1s1_000401_03.jpg",
    "0000_c4s6_027904_04.jpg",
    "1488_c6s3_089067_01.jpg.jpg",
    "-1_c5s2_000001_05.jpg",
]
GT_BBOX = [
    "0001_c1s1_001051_00.jpg",  # the query's identity and camera
    "0001_c1s2_009999_00.jpg",  # the same, another sequence
    "0001_c2s1_000301_00.jpg",  # another camera
    "0002_c1s1_000451_00.jpg",  # a training identity
    "1488_c1s5_000001_00.jpg.jpg",
    "0003_c1s1_000001_00.jpg",  # c1 is not c15
]
CLUTTER = {
    "Thumbs.db": "not an image",
    ".DS_Store": "not an image",
    "readme.txt": "not an image",
    "._0001_c1s1_001051_00.jpg": "the name is not like 0002_c1s1_000451_03.jpg",
    "person_0001_c1s1_001051_00.jpg": "the name is not like 0002_c1s1_000451_03.jpg",
    "0001c1s1.jpg": "the name is not like 0002_c1s1_000451_03.jpg",
    "-2_c1s1_000401_03.jpg": "the name is not like 0002_c1s1_000451_03.jpg",
}


def write(folder: Path, names: Iterable[str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).touch()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A copy whose very path looks like a file name, so that matching on paths would go wrong."""
    root = tmp_path / "run-2024_c3" / "-1_c9s1_market"
    write(root / "bounding_box_train", [*TRAIN, *CLUTTER])
    write(root / "query", QUERY)
    write(root / "bounding_box_test", [*GALLERY, *CLUTTER])
    write(root / "gt_bbox", GT_BBOX)
    return root


def facts(samples: Iterable[Sample]) -> list[tuple[str, int, int]]:
    return [(sample.path.name, sample.identity, sample.camera) for sample in samples]


class TestNames:
    def test_identities_and_cameras_come_from_the_files_own_name(self, root: Path):
        dataset = load_dataset("market1501", root)
        assert facts(dataset.train) == [
            ("0002_c1s1_000451_03.jpg", 2, 1),
            ("0002_c2s1_000776_01.jpg", 2, 2),
            ("0007_c3s1_000301_01.jpg", 7, 3),
        ]
        assert facts(dataset.query) == [
            ("0001_c1s1_001051_00.jpg", 1, 1),
            ("0003_c15s1_000001_00.jpg", 3, 15),
            ("1488_c1s5_000001_00.jpg.jpg", 1488, 1),
        ]
        assert (dataset.name, dataset.root) == ("market1501", root)

    def test_distractors_stay_and_junk_goes(self, root: Path):
        gallery = load_dataset("market1501", root).gallery
        assert [(s.identity, s.camera) for s in gallery] == [(0, 4), (1, 2), (3, 2), (1488, 6)]

    def test_junk_stays_on_request_but_never_in_train(self, root: Path):
        write(root / "bounding_box_train", ["-1_c2s1_000001_00.jpg"])
        write(root / "query", ["-1_c2s1_000001_00.jpg"])
        dataset = load_dataset("market1501", root, keep_junk=True)
        assert [s.identity for s in dataset.gallery] == [-1, -1, 0, 1, 3, 1488]
        assert -1 not in {s.identity for s in (*dataset.train, *dataset.query)}
        junk = [s.path.parent.name for s in dataset.skipped if s.reason == "junk (identity -1)"]
        assert sorted(junk) == ["bounding_box_train", "query"]

    def test_what_is_no_image_is_skipped_with_its_reason(self, root: Path):
        (root / "query" / "0001_c1s1_folder.jpg").mkdir()
        skipped = load_dataset("market1501", root).skipped
        train = {s.path.name: s.reason for s in skipped if s.path.parent.name.endswith("train")}
        assert train == CLUTTER
        counts = Counter(s.reason for s in skipped)
        assert counts["junk (identity -1)"] == 2
        assert counts["not a file"] == 1
        assert counts["not an image"] == 6

    def test_upper_case_suffix_and_png(self, root: Path):
        write(root / "query", ["0005_c1s1_000001_00.JPG", "0006_c1_000001.png"])
        assert {5, 6} <= {sample.identity for sample in load_dataset("market1501", root).query}

    def test_the_order_of_the_directory_does_not_matter(
        self, root: Path, monkeypatch: pytest.MonkeyPatch
    ):
        expected = load_dataset("market1501", root)
        scandir = os.scandir

        class Reversed:
            def __init__(self, path: Path) -> None:
                with scandir(path) as entries:
                    self.entries = sorted(entries, key=lambda entry: entry.name, reverse=True)

            def __enter__(self):
                return iter(self.entries)

            def __exit__(self, *_: object) -> None: ...

        monkeypatch.setattr(os, "scandir", Reversed)
        assert load_dataset("market1501", root) == expected

    @pytest.mark.parametrize("split", ["train", "query", "gallery"])
    def test_paths_lead_to_the_files(self, root: Path, split: str):
        assert all(
            sample.path.is_file() for sample in getattr(load_dataset("market1501", root), split)
        )


class TestMultiQuery:
    def test_all_boxes_of_a_querys_identity_and_camera(self, root: Path):
        assert [s.path.name for s in load_dataset("market1501", root).multi_query] == [
            "0001_c1s1_001051_00.jpg",
            "0001_c1s2_009999_00.jpg",
            "1488_c1s5_000001_00.jpg.jpg",
        ]

    def test_gt_bbox_is_optional(self, root: Path):
        for path in (root / "gt_bbox").iterdir():
            path.unlink()
        (root / "gt_bbox").rmdir()
        dataset = load_dataset("market1501", root)
        assert dataset.multi_query == ()
        assert not any("gt_bbox" in note for note in dataset.notes)


class TestRoot:
    def test_the_folder_above_is_accepted(self, root: Path):
        inner = root.parent / "Market-1501-v15.09.15"
        root.rename(inner)
        dataset = load_dataset("market1501", inner.parent)
        assert len(dataset.train) == 3
        assert dataset.root == inner.parent
        assert dataset.train == load_dataset("market1501", str(inner)).train

    def test_a_folder_that_is_missing_shows_the_tree(self, tmp_path: Path):
        with pytest.raises(DatasetError, match="there is no such folder") as raised:
            load_dataset("market1501", tmp_path / "nowhere")
        for name in (
            "bounding_box_train/",
            "query/",
            "bounding_box_test/",
            "gt_bbox/",
            "0002_c1s1",
        ):
            assert name in str(raised.value)

    def test_an_empty_folder_and_a_foreign_one(self, tmp_path: Path):
        with pytest.raises(DatasetError, match="query, bounding_box_test missing; found nothing"):
            load_dataset("market1501", tmp_path)
        write(tmp_path, ["a.txt", "b.txt"])
        with pytest.raises(
            DatasetError, match=r"missing; found a\.txt, b\.txt; pass the folder ROOT"
        ):
            load_dataset("market1501", tmp_path)

    @pytest.mark.parametrize("name", ["bounding_box_train", "query", "bounding_box_test"])
    def test_one_split_is_missing_or_has_no_image(self, root: Path, name: str):
        for path in (root / name).iterdir():
            path.unlink()
        (root / name / "Thumbs.db").touch()
        with pytest.raises(DatasetError, match=f"{name} holds no image with such a name") as raised:
            load_dataset("market1501", root)
        assert "0002_c1s1_000451_03.jpg" in str(raised.value)
        (root / name / "Thumbs.db").unlink()
        (root / name).rmdir()
        with pytest.raises(DatasetError, match=f"is not Market-1501: {name} missing; found "):
            load_dataset("market1501", root)

    def test_a_split_instead_of_the_root(self, root: Path):
        with pytest.raises(DatasetError, match="pass the folder above it"):
            load_dataset("market1501", root / "bounding_box_train")


class TestNotes:
    def test_a_difference_from_the_official_counts_is_reported(self, root: Path):
        notes = "\n".join(load_dataset("market1501", root).notes)
        assert "research only" in notes
        assert "bounding_box_train: 3 images of 2 identities, officially 12,936 of 751" in notes
        assert (
            "bounding_box_test without junk: 4 images of 4 identities, officially 15,913 of 751"
            in notes
        )
        assert "bounding_box_test, junk alone: 2 images of 1 identities" in notes
        assert "query: 3 images of 3 identities, officially 3,368 of 750" in notes
        assert "gt_bbox: 6 images of 4 identities, officially 25,259 of 1,501" in notes

    @pytest.mark.parametrize("keep_junk", [False, True])
    def test_no_difference_no_remark(
        self, root: Path, monkeypatch: pytest.MonkeyPatch, keep_junk: bool
    ):
        here = {
            "bounding_box_train": (3, 2),
            "query": (3, 3),
            "bounding_box_test without junk": (4, 4),
            "bounding_box_test, junk alone": (2, 1),
            "gt_bbox": (6, 4),
        }
        assert here.keys() == OFFICIAL_COUNTS.keys()
        monkeypatch.setattr("ccan.data.market1501.OFFICIAL_COUNTS", here)
        notes = load_dataset("market1501", root, keep_junk=keep_junk).notes
        assert len(notes) == 1 and "research only" in notes[0]

    def test_the_official_counts_add_up_as_published(self):
        test = OFFICIAL_COUNTS["bounding_box_test without junk"][0]
        assert test + OFFICIAL_COUNTS["bounding_box_test, junk alone"][0] == 19_732
        people = OFFICIAL_COUNTS["bounding_box_train"][1] + OFFICIAL_COUNTS["query"][1]
        assert people == OFFICIAL_COUNTS["gt_bbox"][1]

    def test_people_in_train_and_test_are_remarked(self, root: Path):
        write(root / "bounding_box_train", ["0001_c1s1_000001_00.jpg", "0000_c1s1_000001_00.jpg"])
        notes = load_dataset("market1501", root).notes
        assert notes[-1] == "1 identities are in train and in the test: results on them mean little"


class TestDistractors:
    @pytest.fixture
    def many(self, root: Path) -> Path:
        write(root / "images", ["b.jpg", "a.jpg", "0002_c1s1_1_1.jpg", "Thumbs.db", "._a.jpg"])
        return root

    def test_they_join_the_gallery_as_nobody_of_no_camera(self, many: Path):
        plain = load_dataset("market1501", many)
        dataset = load_dataset("market1501", many, distractors=True)
        more = dataset.gallery[len(plain.gallery) :]
        assert facts(more) == [("0002_c1s1_1_1.jpg", 0, -1), ("a.jpg", 0, -1), ("b.jpg", 0, -1)]
        assert dataset.gallery[: len(plain.gallery)] == plain.gallery
        assert dataset.official == plain.official  # the published counts are without them
        assert dataset.notes[-1] == "3 distractors of images/ stand in the gallery"
        skipped = {s.path.name: s.reason for s in dataset.skipped if s.path.parent.name == "images"}
        assert skipped == {"Thumbs.db": "not an image", "._a.jpg": "hidden"}

    def test_another_name_and_the_folder_above(self, many: Path):
        (many / "images").rename(many / "distractors_500k")
        inner = many.rename(many.parent / "Market-1501-v15.09.15")
        dataset = load_dataset("market1501", inner.parent, distractors="distractors_500k")
        assert [s.identity for s in dataset.gallery].count(0) == 3 + 1

    def test_none_there_is_an_error(self, root: Path):
        with pytest.raises(DatasetError, match="images is not there; put them beside query"):
            load_dataset("market1501", root, distractors=True)
        write(root / "images", ["Thumbs.db"])
        with pytest.raises(DatasetError, match="images holds no image"):
            load_dataset("market1501", root, distractors=True)


class TestLoadDataset:
    def test_unknown_name_lists_the_known_ones(self, root: Path):
        with pytest.raises(ConfigError, match=r"one of market1501, .*synthetic, .*got 'market'"):
            load_dataset("market", root)

    def test_unknown_option_lists_the_known_ones(self, root: Path):
        with pytest.raises(
            ConfigError, match="'market1501' has no option junk; it has: keep_junk, distractors"
        ):
            load_dataset("market1501", root, junk=True)

    def test_a_folder_must_be_named(self):
        with pytest.raises(ConfigError, match="'market1501' is read from a folder; name it"):
            load_dataset("market1501")

    def test_a_real_picture_is_not_opened(self, root: Path):
        """Loading reads names only; a damaged picture is the decoder's business."""
        Image.new("RGB", (4, 8)).save(root / "query" / "0009_c1s1_000001_00.jpg")
        dataset = load_dataset("market1501", root)
        assert isinstance(dataset, ReIDDataset)
        assert len(dataset.query) == 4
        assert all(isinstance(skipped, SkippedFile) for skipped in dataset.skipped)
