"""Layouts recognised by what lies in a folder, and what is said where that fails."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ccan.data import DATASETS, load_dataset, recognise
from ccan.data.recognition import NEEDS
from ccan.errors import ConfigError, DatasetError
from tests.data.layouts import cuhk03_np, duke, market_folders, msmt17, sizes, write

MARKET = (
    ["0002_c1s1_000451_03.jpg", "0007_c3s1_000301_01.jpg"],
    ["0001_c1s1_001051_00.jpg"],
    ["0001_c2s1_000301_00.jpg", "-1_c2s1_000301_00.jpg"],
)


def synthetic(root: Path) -> Path:
    (market_folders(root, *MARKET) / "world.json").write_text("{}")
    return root


def table(root: Path) -> Path:
    write(root / "anna", ["1_a.jpg"])
    write(root / "ben", ["1_a.jpg"])
    (root / "mine.csv").write_text("split,path,identity\ntrain,anna/1_a.jpg,1\n")
    return root


def splits(root: Path) -> Path:
    write(root / "query", ["anna/1_a.jpg"])
    write(root / "gallery", ["anna/2_a.jpg"])
    return root


def people(root: Path) -> Path:
    write(root, ["anna/1_a.jpg", "ben/1_a.jpg", "readme.txt"])
    return root


def msmt_repack(root: Path) -> Path:
    return market_folders(root / "MSMT17", ["0000_c15_1.jpg"], ["0000_c1_1.jpg"], ["0000_c2_1.jpg"])


def cuhk03_original(root: Path) -> Path:
    write(root, ["cuhk03_release/cuhk-03.mat"])
    return root


LAYOUTS: list[tuple[str, Callable[[Path], Path], str]] = [
    ("market1501", lambda at: market_folders(at / "Market-1501-v15.09.15", *MARKET), "0002_c1s1"),
    (
        "market1501",
        lambda at: market_folders(at / "market1501", *MARKET),
        "0002_c1s1_000451_03.jpg",
    ),
    ("market-style", lambda at: market_folders(at, *MARKET), "2 and 1 images"),
    ("dukemtmc", duke, "0002_c1_f0046182.jpg"),
    ("occluded-duke", lambda at: duke(at / "Occluded_Duke"), "0002_c1_f0046182.jpg"),
    ("cuhk03", cuhk03_np, "cuhk03-np, detected and labelled boxes"),
    ("cuhk03", lambda at: cuhk03_np(at) / "cuhk03-np", "cuhk03-np, detected and labelled boxes"),
    ("cuhk03", cuhk03_original, "cuhk-03.mat"),
    ("msmt17", msmt17, "list_query.txt and the folders of V1"),
    ("msmt17", lambda at: msmt17(at, "V2").parent, "list_query.txt and the folders of V2"),
    ("msmt17", msmt_repack, "0000_c15_1.jpg"),
    ("synthetic", synthetic, "world.json"),
    ("csv", table, "mine.csv with the columns path, identity, split"),
    ("csv", lambda at: table(at) / "mine.csv", "mine.csv"),
    ("image-folder", splits, "query, gallery with folders of images"),
    ("image-folder", people, "2 folders of images, anna/ the first"),
]


@pytest.mark.parametrize(("name", "build", "seen"), LAYOUTS)
def test_each_layout_is_recognised(
    tmp_path: Path, name: str, build: Callable[[Path], Path], seen: str
):
    found = recognise(build(tmp_path / "data"))
    assert found is not None
    assert found.name == name
    assert seen in found.seen


@pytest.mark.parametrize(
    ("name", "build"),
    [(name, build) for name, build, _ in LAYOUTS if build is not cuhk03_original],
)
def test_auto_reads_it_under_its_own_name_and_says_so(
    tmp_path: Path, name: str, build: Callable[[Path], Path]
):
    root = build(tmp_path / "data")
    dataset = load_dataset("auto", root)
    named = load_dataset(name, root)
    assert dataset.name == name
    assert dataset.notes[0].startswith(f"recognised as {name} by ")
    assert dataset.notes[1:] == named.notes
    assert (sizes(dataset), dataset.query) == (sizes(named), named.query)


def test_market_and_msmt_are_recognised_by_their_numbers_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    root = market_folders(tmp_path / "data", *MARKET)
    for module, part in (("market1501", "query"), ("msmt17", "train and val")):
        official = {"bounding_box_train": (2, 2), "query": (1, 1), "train and val": (2, 2)}
        others = {name: (7, 7) for name in official if name != part}
        with monkeypatch.context() as patched:
            patched.setattr(f"ccan.data.{module}.OFFICIAL_COUNTS", {**official, **others})
            found = recognise(root)
        assert found is not None and found.name == module


def test_the_archives_folder_below_is_found(tmp_path: Path):
    market_folders(tmp_path / "Market-1501-v15.09.15", *MARKET)
    duke(tmp_path / "elsewhere")
    dataset = load_dataset("auto", tmp_path)
    assert (dataset.name, sizes(dataset)) == ("market1501", (2, 1, 1))


def test_options_reach_the_loader(tmp_path: Path):
    root = msmt17(tmp_path)
    assert len(load_dataset("auto", root, train_only=True).train) == 2
    with pytest.raises(ConfigError, match="'msmt17' has no option box; it has: train_only"):
        load_dataset("auto", root, box="detected")


class TestNotRecognised:
    def test_several_layouts_are_named(self, tmp_path: Path):
        cuhk03_np(msmt17(tmp_path).parent)
        for look in (recognise, lambda root: load_dataset("auto", root)):
            with pytest.raises(
                DatasetError, match=r"fits several layouts: cuhk03 \(.*\); msmt17 \(.*\); name one"
            ):
                look(tmp_path)

    def test_several_archives_in_one_folder(self, tmp_path: Path):
        market_folders(tmp_path / "Market-1501-v15.09.15", *MARKET)
        duke(tmp_path / "DukeMTMC-reID")
        with pytest.raises(DatasetError, match=r"market1501 \(Market.*\); dukemtmc \(Duke"):
            recognise(tmp_path)

    @pytest.mark.parametrize(
        "names",
        [
            [],
            ["a.jpg", "b.jpg"],
            ["photos/a.jpg"],
            ["2023/a.jpg", "2024/a.jpg", "loose.jpg"],
            ["a/notes.txt", "b/notes.txt"],
            ["bounding_box_train/0001_c1_1.jpg", "bounding_box_test/0001_c1_1.jpg"],
            ["MSMT17_V1/a.jpg", "other/a.jpg"],
            ["numbers.csv"],
            ["world.json"],
        ],
    )
    def test_plain_images_and_halves_of_datasets_are_nothing(
        self, tmp_path: Path, names: list[str]
    ):
        write(tmp_path, names)
        assert recognise(tmp_path) is None
        with pytest.raises(DatasetError, match="is no known layout: found ") as raised:
            load_dataset("auto", tmp_path)
        for name, need in NEEDS.items():
            assert f"  {name:<14}{need}" in str(raised.value)

    def test_every_layout_on_disk_says_what_it_needs(self):
        assert NEEDS.keys() == DATASETS.keys() - {"demo"}

    def test_no_folder_at_all(self, tmp_path: Path):
        assert recognise(tmp_path / "nowhere") is None
        with pytest.raises(DatasetError, match="nowhere: there is no such folder; check the path"):
            load_dataset("auto", tmp_path / "nowhere")
        with pytest.raises(ConfigError, match="'auto' is read from a folder; name it"):
            load_dataset("auto")

    def test_a_file_that_is_no_table(self, tmp_path: Path):
        write(tmp_path, ["a.jpg", "b.csv"])
        assert recognise(tmp_path / "a.jpg") is None
        assert recognise(tmp_path / "b.csv") is None
