"""CUHK03: both kinds of boxes, both protocols, the originals and the re-pack; identical pixels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ccan.data import load_dataset
from ccan.data.cuhk03 import OFFICIAL_COUNTS, OFFICIAL_WHOLE, load_cuhk03
from ccan.data.records import Sample
from ccan.errors import ConfigError, DatasetError
from tests.data.layouts import (
    CUHK_PEOPLE,
    CUHK_TESTED,
    cuhk03_lists,
    cuhk03_np,
    cuhk03_raw,
    cuhk_cell,
    cuhk_names,
    facts,
    folders_listed_backwards,
    sizes,
)

BOXES = [("detected", "detected"), ("labelled", "labeled")]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CCAN_CACHE", str(tmp_path / "cache_c3"))
    return tmp_path / "cache_c3"


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    return cuhk03_raw(tmp_path / "1_001_2_c2")


def load(root: Path, **options: Any):
    return load_dataset("cuhk03", root, progress=False, **options)


def pixels(sample: Sample) -> np.ndarray:
    with Image.open(sample.path) as image:
        assert image.mode == "RGB"
        return np.asarray(image)


class TestNewProtocol:
    @pytest.mark.parametrize(("box", "key"), BOXES)
    def test_lists_count_from_one(self, raw: Path, box: str, key: str):
        """Every image of pair 1 is trained on, and no other; identities and views are those of the lists."""
        dataset = load(raw, box=box)
        names = cuhk_names(key)
        assert [s.path.name for s in dataset.train] == [n for n in names if n[0] == "1"]
        assert [s.path.name for s in dataset.query] == [
            n for n in names if n[0] != "1" and n.endswith("_06.png")
        ]
        assert sum(sizes(dataset)) == len(names)
        people = sorted({name[:5] for name in names})
        for sample in (*dataset.train, *dataset.query, *dataset.gallery):
            assert people[sample.identity - 1] == sample.path.name[:5]
            assert sample.camera == int(sample.path.name[6])
            assert sample.metadata == {"pair": float(sample.path.name[0])}
        assert (dataset.name, dataset.skipped) == ("cuhk03", ())

    @pytest.mark.parametrize(("box", "key"), BOXES)
    def test_pixels_are_those_of_the_file_upright(self, raw: Path, box: str, key: str):
        dataset = load(raw, box=box)
        for sample in (*dataset.train, *dataset.query, *dataset.gallery):
            pair, person, _, image = map(int, sample.path.stem.split("_"))
            expected = cuhk_cell(key, pair, person, image)
            assert expected is not None
            assert expected.shape[0] > expected.shape[1]  # people stand
            np.testing.assert_array_equal(pixels(sample), expected)

    def test_the_official_counts_are_compared_and_the_setting_named(self, raw: Path):
        notes = load(raw, box="labelled").notes
        assert "research only" in notes[0]
        assert notes[1] == "labelled boxes, new protocol, from cuhk-03.mat"
        assert notes[2].endswith("officially 7,368 of 767")

    def test_the_official_counts_add_up_to_the_whole(self):
        for box, parts in OFFICIAL_COUNTS.items():
            assert sum(images for images, _ in parts.values()) == OFFICIAL_WHOLE[box][0]
            assert parts["train"][1] + parts["query"][1] == OFFICIAL_WHOLE[box][1]

    def test_an_image_of_the_list_that_the_file_does_not_hold(self, raw: Path):
        path = raw / "cuhk03_new_protocol_config_detected.mat"
        files = np.empty((len(cuhk_names("detected")), 1), object)
        files[:, 0] = cuhk_names("detected")
        files[0, 0] = "1_001_1_05.png"
        cuhk03_lists(path, "detected", filelist=files)
        dataset = load(raw)
        assert [(s.path.name, s.reason) for s in dataset.skipped] == [
            ("1_001_1_05.png", "listed, but not there")
        ]
        assert "1_001_1_01.png" not in {s.path.name for s in dataset.train}

    def test_the_lists_may_lie_beside_the_images(self, raw: Path):
        expected = load(raw).train
        inner = raw / "cuhk03_release"
        for path in raw.glob("*.mat"):
            path.rename(inner / path.name)
        assert load(raw).train == expected
        assert load(inner).train == expected

    def test_without_the_lists(self, raw: Path):
        (raw / "cuhk03_new_protocol_config_labeled.mat").unlink()
        with pytest.raises(DatasetError, match=r"but not cuhk03_new_protocol_config_labeled\.mat"):
            load(raw, box="labelled")
        assert sizes(load(raw, box="detected"))[0] > 0


class TestClassicProtocol:
    @pytest.mark.parametrize(("box", "key"), BOXES)
    def test_the_people_of_the_split_are_tested_on(self, raw: Path, box: str, key: str):
        dataset = load(raw, box=box, protocol="classic", split=1)
        names = cuhk_names(key)
        tested = {f"{pair}_{person:03d}" for pair, person in CUHK_TESTED}
        assert [s.path.name for s in dataset.train] == [n for n in names if n[:5] not in tested]
        assert dataset.query == dataset.gallery
        assert [s.path.name for s in dataset.query] == [n for n in names if n[:5] in tested]

    def test_people_are_numbered_over_the_pairs(self, raw: Path):
        dataset = load(raw, protocol="classic", split=1)
        assert {s.identity for s in dataset.query} == {2, 3 + 1, 3 + 2 + 1 + 2}
        assert {s.identity for s in dataset.train} == {1, 3, 5, 6, 7, 9}
        assert sum(CUHK_PEOPLE) == 9
        for sample in (*dataset.train, *dataset.query):
            assert sample.camera == int(sample.path.name[6])

    def test_every_split_is_its_own(self, raw: Path):
        assert {s.identity for s in load(raw, protocol="classic").query} == {1}
        assert load(raw, protocol="classic", split=19).query[0].identity == 1

    def test_it_says_that_it_is_single_shot_and_counts_the_whole(self, raw: Path):
        notes = load(raw, protocol="classic", split=1).notes
        assert "classic protocol, split 1 of 0 … 19: single shot" in notes[1]
        whole = len(cuhk_names("detected"))
        assert notes[2] == f"all images: {whole} images of 9 identities, officially 14,097 of 1,467"

    def test_it_needs_no_lists_but_the_images(self, raw: Path, tmp_path: Path):
        for path in raw.glob("*.mat"):
            path.unlink()
        assert load(raw, protocol="classic").query
        with pytest.raises(DatasetError, match=r"is not CUHK03 with cuhk-03\.mat, which alone has"):
            load(cuhk03_np(tmp_path / "np"), protocol="classic")

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"protocol": "classic", "split": 20}, "split must be from 0 to 19, got 20"),
            ({"protocol": "classic", "split": -1}, "split must be from 0 to 19, got -1"),
            ({"split": 1}, "split must be from 0 to 0, got 1; 0 to 19 are splits of"),
            (
                {"box": "labeled"},
                "option box of dataset 'cuhk03' must be one of detected, labelled, got 'labeled'",
            ),
            (
                {"protocol": "old"},
                "option protocol of dataset 'cuhk03' must be one of new, classic, got 'old'",
            ),
        ],
    )
    def test_settings_that_are_none(self, raw: Path, options: dict[str, Any], message: str):
        for loader in (load, load_cuhk03):
            with pytest.raises(ConfigError) as raised:
                loader(raw, **options)
            assert message in str(raised.value)


class TestRepack:
    @pytest.mark.parametrize("inside", [False, True])
    def test_market_names(self, tmp_path: Path, inside: bool):
        root = cuhk03_np(tmp_path / "_c3")
        root = root / "cuhk03-np" if inside else root
        dataset = load(root)
        assert facts(dataset.train) == [("0001_c1_1.png", 1, 1), ("0011_c2_2.png", 11, 2)]
        assert facts(dataset.query) == [("0003_c1_1.png", 3, 1)]
        assert facts(dataset.gallery) == [("0003_c2_7.png", 3, 2), ("0005_c1_1.png", 5, 1)]
        assert load(root, box="labelled").gallery[0].path.name == "0003_c2_8.png"
        assert (dataset.name, dataset.root) == ("cuhk03", root)
        assert dataset.notes[1] == "detected boxes, new protocol, from detected/"

    def test_it_is_preferred_to_the_originals(self, raw: Path, cache: Path):
        cuhk03_np(raw)
        assert "detected/" in load(raw).notes[1]
        assert not cache.exists()

    def test_the_order_of_directories_does_not_matter(self, tmp_path: Path):
        expected = load(cuhk03_np(tmp_path))
        with folders_listed_backwards():
            assert load(tmp_path) == expected

    def test_a_foreign_folder_shows_the_trees(self, tmp_path: Path):
        with pytest.raises(DatasetError, match="is not CUHK03: found nothing") as raised:
            load(tmp_path)
        assert "cuhk03-np/" in str(raised.value) and "cuhk-03.mat" in str(raised.value)
