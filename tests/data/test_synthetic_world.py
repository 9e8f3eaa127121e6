"""A synthetic world read back: names as Market-1501's, facts as metadata, damaged files as errors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ccan.data import load_dataset
from ccan.data.synthetic import WorldConfig, write_world
from ccan.errors import DatasetError
from tests.data.layouts import facts, market_folders, write


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = market_folders(
        tmp_path / "world",
        ["0002_c1s1_000451_03.jpg", "0007_c3s1_000301_01.jpg"],
        ["0001_c1s1_001051_00.jpg", "0003_c2s1_000001_00.jpg", "0005_c2s1_000001_00.jpg"],
        [
            "0001_c2s1_000301_00.jpg",
            "0003_c1s3_073402_02.jpg",
            "-1_c1s1_1_1.jpg",
            "-1_c2s1_1_1.jpg",
        ],
    )
    write(root / "gt_bbox", ["0001_c1s1_001051_00.jpg", "0001_c1s2_009999_00.jpg"])
    return root


@pytest.fixture
def world(root: Path) -> Path:
    facts = {
        "identities": {},
        "images": {
            "query/0001_c1s1_001051_00.jpg": {
                "identity": 1,
                "camera": 1,
                "split": "query",
                "view": "front",
                "visible": 0.75,
                "box_shift": [0.1, 0.2],
                "occluder": None,
            },
            # the same file name in another folder is another image
            "gt_bbox/0001_c1s1_001051_00.jpg": {"identity": 1, "camera": 1, "view": "back"},
        },
    }
    (root / "attributes.json").write_text(json.dumps(facts))
    return root


def test_what_the_world_knows_becomes_metadata(world: Path):
    dataset = load_dataset("synthetic", world)
    assert dataset.name == "synthetic"
    assert dict(dataset.query[0].metadata) == {"view": "front", "visible": 0.75}
    assert dict(dataset.multi_query[0].metadata) == {"view": "back"}
    assert dict(dataset.query[1].metadata) == {}


def test_there_are_no_official_counts_and_no_licence(world: Path):
    assert load_dataset("synthetic", world).notes == ()


def test_it_is_the_same_reader(world: Path):
    market, synthetic = load_dataset("market1501", world), load_dataset("synthetic", world)
    for split in ("train", "query", "gallery", "multi_query"):
        assert facts(getattr(market, split)) == facts(getattr(synthetic, split))
    kept = load_dataset("synthetic", world, keep_junk=True)
    assert len(kept.gallery) == len(synthetic.gallery) + 2


def test_a_world_of_some_splits_needs_no_others(world: Path):
    for path in (world / "bounding_box_train").iterdir():
        path.unlink()
    (world / "bounding_box_train").rmdir()
    with pytest.raises(DatasetError, match="bounding_box_train missing"):
        load_dataset("synthetic", world)
    (world / "world.json").write_text(json.dumps({"splits": ["query", "gallery"]}))
    dataset = load_dataset("synthetic", world)
    assert (len(dataset.train), len(dataset.query)) == (0, 3)


def test_what_the_generator_writes_is_read_back_whole(tmp_path: Path):
    config = WorldConfig(identities=4, cameras=2, images_per_camera=2, distractors=3, junk=2)
    world = write_world(config, tmp_path / "world", workers=1, progress=False)
    dataset = load_dataset("synthetic", world)
    sizes = [len(part) for part in (dataset.train, dataset.query, dataset.gallery)]
    assert sizes == [2 * 2 * 2, 2 * 2, 2 * 2 + 3]
    assert [skipped.reason for skipped in dataset.skipped] == ["junk (identity -1)"] * 2
    recorded = json.loads((world / "attributes.json").read_text())["images"]
    for sample in (*dataset.train, *dataset.query, *dataset.gallery, *dataset.multi_query):
        known = recorded[f"{sample.path.parent.name}/{sample.path.name}"]
        assert (sample.identity, sample.camera) == (known["identity"], known["camera"])
        assert sample.metadata["view"] == known["view"]
        assert sample.metadata["visible"] == known["visible"]


def test_damaged_attributes_are_named(world: Path):
    (world / "attributes.json").write_text('{"images": ')
    with pytest.raises(DatasetError, match=r"attributes\.json: expected JSON, .*ccan synth"):
        load_dataset("synthetic", world)
    (world / "attributes.json").write_text("[1]")
    with pytest.raises(DatasetError, match=r"expected a JSON object, got list"):
        load_dataset("synthetic", world)


@pytest.mark.parametrize("splits", [None, 5, "query", {"query": 1}, [["query"]], [1]])
def test_splits_that_are_no_list_of_names(world: Path, splits: Any):
    (world / "world.json").write_text(json.dumps({"splits": splits}))
    with pytest.raises(DatasetError, match=r"world\.json: expected a list of names as `splits`"):
        load_dataset("synthetic", world)


@pytest.mark.parametrize("images", [None, [], {"query/a.jpg": None}, {"query/a.jpg": [1]}])
def test_images_that_are_no_object(world: Path, images: Any):
    (world / "attributes.json").write_text(json.dumps({"images": images}))
    with pytest.raises(DatasetError, match=r"attributes\.json: expected `images`"):
        load_dataset("synthetic", world)


def test_json_that_is_nested_too_deep_or_not_text(world: Path):
    for damage in (b"[" * 100_000, b"\xff\xfe\x00"):
        (world / "attributes.json").write_bytes(damage)
        with pytest.raises(DatasetError, match=r"attributes\.json: expected JSON"):
            load_dataset("synthetic", world)
