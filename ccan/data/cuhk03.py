"""CUHK03 (Li et al., CVPR 2014) with detected or labelled boxes, under the new protocol (767/700) or the classic one.

    cuhk03-np/{detected,labeled}/{bounding_box_train,query,bounding_box_test}/0001_c1_1.png        new protocol
    cuhk-03.mat, or cuhk03_release/cuhk-03.mat                                                     classic protocol
        with cuhk03_new_protocol_config_{detected,labeled}.mat beside it, or above it              new protocol

The paper reports both kinds of boxes under the new protocol (Zhong et al., CVPR 2017), which is the standard rule on
given lists. The classic protocol is single shot: query and gallery are the same images, of 100 people.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from ccan.data.cuhk03_mat import (
    Lists,
    extract_images,
    people_of_pairs,
    read_lists,
    read_test_set,
)
from ccan.data.listing import NOT_THERE, contents, list_images
from ccan.data.market_style import (
    FOLDERS,
    MarketLayout,
    assemble,
    overlap_note,
    scan_folders,
    with_official,
)
from ccan.data.options import check_options, options_of
from ccan.data.records import ReIDDataset, Sample, SkippedFile
from ccan.errors import ConfigError, DatasetError

Box = Literal["detected", "labelled"]
Protocol = Literal["new", "classic"]
KEYS: dict[Box, str] = {"detected": "detected", "labelled": "labeled"}
"""The authors' own spelling, in folders and files."""
SPLITS_OF_CLASSIC = 20

LICENCE = "CUHK03 is for research only and must not be redistributed"

OFFICIAL_COUNTS: dict[Box, dict[str, tuple[int, int]]] = {
    "detected": {"train": (7_365, 767), "query": (1_400, 700), "gallery": (5_332, 700)},
    "labelled": {"train": (7_368, 767), "query": (1_400, 700), "gallery": (5_328, 700)},
}
"""Images and identities of the new protocol."""
OFFICIAL_WHOLE: dict[Box, tuple[int, int]] = {
    "detected": (14_097, 1_467),
    "labelled": (14_096, 1_467),
}

EXPECTED_TREE = """\
  ROOT/                     either, for the new protocol …
    cuhk03-np/              (or the folder itself)
      detected/             bounding_box_train/, query/, bounding_box_test/ with 0001_c1_1.png …
      labeled/              the same
  ROOT/                     … or the originals, for both protocols
    cuhk03_release/         (or ROOT itself)
      cuhk-03.mat
    cuhk03_new_protocol_config_detected.mat     (new protocol only)
    cuhk03_new_protocol_config_labeled.mat      (new protocol only)"""

_FILE = re.compile(r"(?P<pair>\d+)_(?P<person>\d+)_(?P<view>\d+)_\d+\.png", re.ASCII)


def load_cuhk03(
    root: str | Path,
    *,
    box: Box = "detected",
    protocol: Protocol = "new",
    split: int = 0,
    keep_junk: bool = False,
    progress: bool = True,
) -> ReIDDataset:
    """Read CUHK03 in one of the paper's settings and compare it with the official counts.

    The images of `cuhk-03.mat` are written once, as PNG files with the same pixels, to the cache folder.

    Args:
        root: a folder as in the module's head; where both are there, `cuhk03-np` serves the new protocol.
        box: boxes of a detector, or drawn by hand.
        protocol: `new`, 767 people for training and 700 for the test; `classic`, 100 for the test.
        split: which of the classic protocol's 20 splits.
        keep_junk: keep images of identity -1 in the gallery of `cuhk03-np`; the original has none.
        progress: whether to show a bar on stderr while images are extracted.

    Raises: DatasetError that shows the expected tree, or says what is wrong with a file; ConfigError for an unknown
    setting.
    """
    check_options("cuhk03", options_of(load_cuhk03), {"box": box, "protocol": protocol})
    last = SPLITS_OF_CLASSIC - 1 if protocol == "classic" else 0
    if not 0 <= split <= last:
        hint = "" if last else "; 0 to 19 are splits of protocol=classic"
        raise ConfigError(f"split must be from 0 to {last}, got {split}{hint}")
    root = Path(root)
    repack = find_repack(root, box)
    if protocol == "new" and repack:
        return _load_repack(root, repack, box, keep_junk)
    mat = find_mat(root)
    if mat is None:
        what = (
            "CUHK03"
            if protocol == "new"
            else "CUHK03 with cuhk-03.mat, which alone has the classic splits"
        )
        raise DatasetError(
            f"{root} is not {what}: found {contents(root)}; pass the folder ROOT of one of these trees:\n"
            f"{EXPECTED_TREE}"
        )
    if protocol == "new":
        return _load_new(root, mat, box, progress)
    return _load_classic(root, mat, box, split, progress)


def find_repack(root: Path, box: Box) -> Path | None:
    """The folder of `cuhk03-np` with these boxes."""
    for base in (root, root / "cuhk03-np"):
        for name in dict.fromkeys((KEYS[box], box)):
            if (base / name / FOLDERS["train"]).is_dir():
                return base / name
    return None


def find_mat(root: Path) -> Path | None:
    """The file of the images."""
    places = (root / "cuhk-03.mat", root / "cuhk03_release" / "cuhk-03.mat")
    return next((path for path in places if path.is_file()), None)


def _load_repack(root: Path, folder: Path, box: Box, keep_junk: bool) -> ReIDDataset:
    scan = scan_folders(folder, MarketLayout("cuhk03-np", EXPECTED_TREE))
    dataset = assemble("cuhk03", root, scan, keep_junk=keep_junk)
    return _finished(dataset, box, f"{box} boxes, new protocol, from {folder.name}/")


def _finished(dataset: ReIDDataset, box: Box, remark: str) -> ReIDDataset:
    """With the licence, what was read, and the new protocol's counts."""
    parts = {"train": dataset.train, "query": dataset.query, "gallery": dataset.gallery}
    return with_official(dataset, parts, OFFICIAL_COUNTS[box], LICENCE, remark)


def _load_new(root: Path, mat: Path, box: Box, progress: bool) -> ReIDDataset:
    name = f"cuhk03_new_protocol_config_{KEYS[box]}.mat"
    path = next((path for path in (root / name, mat.parent / name) if path.is_file()), None)
    if path is None:
        raise DatasetError(
            f"{root} has {mat.name}, but not {name}, which says who is trained and tested on; put it there, or "
            f"pass protocol=classic:\n{EXPECTED_TREE}"
        )
    lists = read_lists(path)
    folder = extract_images(mat, KEYS[box], progress=progress)
    there = {image.name for image in list_images(folder)[0]}
    train, query, gallery = (
        [_listed(path, lists, int(place), folder) for place in places]
        for places in (lists.train, lists.query, lists.gallery)
    )
    dataset = ReIDDataset(
        name="cuhk03",
        root=root,
        train=tuple(s for s in train if s.path.name in there),
        query=tuple(s for s in query if s.path.name in there),
        gallery=tuple(s for s in gallery if s.path.name in there),
        skipped=tuple(
            SkippedFile(s.path, NOT_THERE)
            for s in (*train, *query, *gallery)
            if s.path.name not in there
        ),
        notes=overlap_note(train, [*query, *gallery]),
    )
    for split in ("train", "query", "gallery"):
        if not getattr(dataset, split):
            raise DatasetError(
                f"{path}: none of the {split} images is in {mat}; do they belong together?"
            )
    return _finished(dataset, box, f"{box} boxes, new protocol, from {mat.name}")


def _listed(path: Path, lists: Lists, place: int, folder: Path) -> Sample:
    """One image of the new protocol's list. Raises: DatasetError if its name is not one of CUHK03's."""
    name = lists.files[place]
    parts = _FILE.fullmatch(name)
    if parts is None:
        raise DatasetError(f"{path}: expected file names such as 1_001_1_01.png, got {name!r}")
    pair = {"pair": float(parts["pair"])}
    return Sample(folder / name, int(lists.identities[place]), int(lists.cameras[place]), pair)


def _load_classic(root: Path, mat: Path, box: Box, split: int, progress: bool) -> ReIDDataset:
    """People are numbered over the camera pairs, from 1 to 1,467; the two views are cameras 1 and 2."""
    tested = read_test_set(mat, split)
    counts = people_of_pairs(mat, KEYS[box])
    first = [sum(counts[:pair]) for pair in range(len(counts))]
    unknown = [
        (p, n) for p, n in sorted(tested) if not (1 <= p <= len(counts) and 1 <= n <= counts[p - 1])
    ]
    if unknown:
        raise DatasetError(
            f"{mat}: testsets name person {unknown[0][1]} of camera pair {unknown[0][0]}, who is not there"
        )
    train: list[Sample] = []
    test: list[Sample] = []
    for path in list_images(extract_images(mat, KEYS[box], progress=progress))[0]:
        parts = _FILE.fullmatch(path.name)
        if parts is None:
            continue
        pair, person = int(parts["pair"]), int(parts["person"])
        sample = Sample(path, first[pair - 1] + person, int(parts["view"]), {"pair": float(pair)})
        (test if (pair, person) in tested else train).append(sample)
    dataset = ReIDDataset("cuhk03", root, tuple(train), tuple(test), tuple(test))
    remark = (
        f"{box} boxes, classic protocol, split {split} of 0 … {SPLITS_OF_CLASSIC - 1}: single shot, so query and "
        "gallery are the same images"
    )
    parts = {"all images": (*train, *test)}
    return with_official(dataset, parts, {"all images": OFFICIAL_WHOLE[box]}, LICENCE, remark)
