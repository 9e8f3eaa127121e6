"""The whole look over a dataset, on pictures of noise."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from ccan.data import load_dataset
from ccan.data.check import Spread, check_dataset
from tests.data.layouts import cuhk03_raw, paint


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """17 people in train, 3 in the test, all as it should be."""
    root = tmp_path / "data_c3"
    seed = 0
    for person in range(21, 38):
        for image in range(5):
            seed += 1
            paint(root / f"bounding_box_train/{person:04d}_c{image % 2 + 1}_{image}.png", seed)
    for person in (1, 2, 3):
        paint(root / f"query/{person:04d}_c1_q.png", 1_000 + person, (7, 13))
        for image in range(person):
            name = f"bounding_box_test/{person:04d}_c2_{image}.png"
            paint(root / name, 2_000 + 10 * person + image, (7 + image, 17))
    return root


def test_a_sound_dataset(root: Path):
    check = check_dataset(load_dataset("market-style", root))
    assert check.ok
    assert check.problems == ()
    assert (check.name, check.root, check.decoded, check.broken) == ("market-style", root, True, {})
    assert list(check.splits) == ["train", "query", "gallery"]
    train, gallery = check.splits["train"], check.splits["gallery"]
    assert (train.images, train.identities, dict(train.cameras)) == (85, 17, {1: 51, 2: 34})
    assert train.images_per_identity == Spread(5, 5, 5)
    assert (train.widths, train.heights) == (Spread(5, 5, 5), Spread(11, 11, 11))
    assert gallery.images_per_identity == Spread(1, 2, 3)
    assert gallery.widths == Spread(7, 7.5, 9)
    assert gallery.heights == Spread(17, 17, 17)


def test_the_text_for_people(root: Path):
    (root / "query" / "Thumbs.db").touch()
    lines = check_dataset(load_dataset("auto", root)).text().splitlines()
    assert lines[0] == f"market-style: {root}"
    words = [line.split() for line in lines]
    assert ["gallery", "6", "3", "1", "1/2/3", "7/7.5/9", "17/17/17"] in words
    assert "images per camera, train: 1: 51, 2: 34" in lines
    assert "skipped 1: not an image (Thumbs.db)" in lines
    assert any(line.startswith("loader: recognised as market-style") for line in lines)
    assert lines[-1] == "ok: 0 errors, 0 warnings, 0 notes"


def test_the_findings_as_json(root: Path):
    shutil.copy(root / "query/0001_c1_q.png", root / "bounding_box_test/0001_c2_copy.png")
    found = json.loads(json.dumps(check_dataset(load_dataset("dukemtmc", root)).to_dict()))
    assert found["ok"] is True
    assert found["splits"]["train"]["cameras"] == {"1": 51, "2": 34}
    assert found["splits"]["query"]["heights"] == {"least": 13, "median": 13, "most": 13}
    assert found["official"][1]["official_images"] == 2_228
    assert found["official"][1]["agrees"] is False
    assert [problem["severity"] for problem in found["problems"]] == ["warning"] * 4
    assert found["problems"][-1]["what"].startswith("1 pictures are in several splits")
    assert found["notes"][0].startswith("DukeMTMC was withdrawn")


def test_broken_images_are_errors_and_no_copies_of_each_other(root: Path):
    for name in ("query/0001_c1_q.png", "bounding_box_test/0002_c2_0.png"):
        (root / name).write_bytes(b"")
    check = check_dataset(load_dataset("market-style", root))
    assert not check.ok
    assert sorted(path.name for path in check.broken) == ["0001_c1_q.png", "0002_c2_0.png"]
    assert [problem.severity for problem in check.problems] == ["error"]
    assert check.problems[0].what.startswith("2 images cannot be decoded, the first: ")
    assert check.splits["query"].images == 3  # they are in the list all the same
    assert check.text().splitlines()[-1] == "not ok: 1 errors, 0 warnings, 0 notes"


def test_without_reading_files(root: Path):
    (root / "query/0001_c1_q.png").write_bytes(b"")
    check = check_dataset(load_dataset("market-style", root), decode=False)
    assert check.ok
    assert (check.decoded, check.broken) == (False, {})
    assert check.splits["query"].widths is None
    assert check.text().endswith("; the image files were not read")


def test_boxes_of_multi_query_are_no_copies_of_queries(root: Path):
    shutil.copytree(root / "query", root / "gt_bbox")
    check = check_dataset(load_dataset("market-style", root))
    assert check.problems == ()
    assert check.splits["multi_query"].images == 3


def test_a_copy_in_train_is_found(root: Path):
    shutil.copy(root / "query/0001_c1_q.png", root / "bounding_box_train/0021_c1_copy.png")
    problems = check_dataset(load_dataset("market-style", root)).problems
    assert [problem.what for problem in problems] == [
        "1 pictures are in several splits",
        "1 pictures are there under two identities",
    ]


def test_the_classic_of_all_toolkits_is_explained(root: Path):
    for path in list((root / "bounding_box_test").iterdir()):
        path.rename(path.with_name(path.name.replace("_c2_", "_c1_")))
    check = check_dataset(load_dataset("market-style", root), decode=False)
    assert not check.ok
    text = check.text()
    assert "single camera: every test image has camera 1" in text
    assert "All query identities do not appear in the gallery" in text


def test_worst_problems_come_first(root: Path):
    (root / "query/0021_c2_q.png").write_bytes((root / "query/0001_c1_q.png").read_bytes())
    problems = check_dataset(load_dataset("market-style", root)).problems
    order = [problem.severity for problem in problems]
    assert order == sorted(order, key=["error", "warning", "note"].index)
    assert set(order) == {"error", "warning"}


def test_query_and_gallery_may_be_the_same_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """CUHK03's classic protocol."""
    monkeypatch.setenv("CCAN_CACHE", str(tmp_path / "cache"))
    root = cuhk03_raw(tmp_path / "data")
    dataset = load_dataset("cuhk03", root, protocol="classic", split=1, progress=False)
    what = [problem.what for problem in check_dataset(dataset).problems]
    assert not any("several splits" in each for each in what)
    assert not any("valid match" in each for each in what)  # the other view is there


def test_no_values_have_no_spread():
    assert Spread.of([]) is None
    assert str(Spread.of([7, 3, 5, 4])) == "3/4.5/7"
