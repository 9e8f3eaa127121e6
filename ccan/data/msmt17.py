"""MSMT17 (Wei et al., CVPR 2018), versions 1 and 2, and its re-pack under Market-1501's names.

    MSMT17_V1/{train,test}/   or   MSMT17_V2/{mask_train_v2,mask_test_v2}/ (faces masked)
    list_{train,val,query,gallery}.txt, lines like `0000/0000_000_01_0303morning_0008_0.jpg 0`: file and identity
    0000_000_01_0303morning_0008_0.jpg = identity, image, camera 1…15, month and day, time of day, …

The identities of the test begin again at 0, and here 0 would be a distractor. So identity n of the training lists is
10000 + n and identity n of the test lists 20000 + n: nobody is taken for another, and file names stay readable.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from ccan.data.listing import contents, locate
from ccan.data.market_style import (
    FOLDERS,
    MarketLayout,
    Scan,
    assemble,
    scan_folders,
    with_official,
)
from ccan.data.records import JUNK, SPLITS, ReIDDataset, Sample, SkippedFile
from ccan.errors import ConfigError, DatasetError

TRAIN_OFFSET = 10_000
TEST_OFFSET = 20_000

NOTICE = "MSMT17 is given for non-commercial research under its authors' licence, and must not be passed on"

OFFICIAL_COUNTS = {
    "train and val": (32_621, 1_041),
    "query": (11_659, 3_060),
    "gallery": (82_161, 3_060),
}
"""Images and identities; 32,621 are the paper's training images."""
OFFICIAL_TRAIN_ALONE = (30_248, 1_041)

EXPECTED_TREE = """\
  ROOT/                     (or the folder MSMT17_V1 or MSMT17_V2 itself)
    MSMT17_V1/              or MSMT17_V2/ with mask_train_v2/ and mask_test_v2/
      train/                0000/0000_000_01_0303morning_0008_0.jpg …
      test/                 0000/0000_000_01_0303morning_0031_1.jpg …
      list_train.txt        0000/0000_000_01_0303morning_0008_0.jpg 0 …
      list_val.txt  list_query.txt  list_gallery.txt
  or bounding_box_train/, query/, bounding_box_test/ with names like 0001_c12_….jpg"""

REPACK = MarketLayout("MSMT17 under Market-1501's names", EXPECTED_TREE, inner=("MSMT17",))

Version = Literal["V1", "V2"]
_FOLDERS: dict[Version, tuple[str, str]] = {
    "V1": ("train", "test"),
    "V2": ("mask_train_v2", "mask_test_v2"),
}
NAME = re.compile(
    r"\d+_\d+_(?P<camera>\d{1,9})_(?P<month>\d\d)(?P<day>\d\d)(?P<daytime>morning|noon|afternoon)_.*",
    re.ASCII,
)
_WRONG_NAME = "the name is not like 0000_000_01_0303morning_0008_0.jpg"
_LINE = re.compile(r"(?P<path>\S.*?)[ \t]+(?P<identity>\d{1,9})", re.ASCII)


@dataclass(frozen=True)
class _Copy:
    """One version on disk: its lists, and the folders that their lines are relative to."""

    lists: Path
    train: Path
    test: Path


def load_msmt17(
    root: str | Path,
    *,
    train_only: bool = False,
    version: Literal["auto", "V1", "V2"] = "auto",
    keep_junk: bool = False,
) -> ReIDDataset:
    """Read MSMT17; month, day and time of day become `Sample.metadata`.

    Args:
        root: the folder above `MSMT17_V1` or `MSMT17_V2`, one of them, or that of the re-pack.
        train_only: leave `list_val.txt` out; by default train and val are trained on, as in the paper.
        version: which to read where both are there.
        keep_junk: keep images of identity -1 of a re-pack in the gallery; the original has none.

    Raises: DatasetError that shows the expected tree, or names the line of a list that cannot be read; ConfigError for
    `train_only` or `version` with a re-pack, which does not say what it was made of.
    """
    root = Path(root)
    copies = find_copies(root)
    if (root / FOLDERS["train"]).is_dir() or (root / "MSMT17" / FOLDERS["train"]).is_dir():
        if train_only or version != "auto":
            raise ConfigError(
                f"{root} is MSMT17 under Market-1501's names, which has no lists: expected neither "
                "train_only nor version; leave them out, or read the original"
            )
        return _load_repack(root, keep_junk)
    chosen = [found for name, found in copies.items() if version in ("auto", name)]
    if not chosen:
        wanted = "" if version == "auto" else f" {version}"
        raise DatasetError(
            f"{root} is not MSMT17{wanted}: found {contents(root)}; pass the folder ROOT of this tree:\n"
            f"{EXPECTED_TREE}"
        )
    if len(chosen) > 1:
        raise DatasetError(
            f"{root} holds MSMT17 V1 and V2; choose one with version=V1 or version=V2"
        )
    return _load_lists(root, chosen[0], train_only)


def find_copies(root: Path) -> dict[Version, _Copy]:
    """The versions that lie in `root`, in a folder of their name or by themselves; the lists tell where."""
    found: dict[Version, _Copy] = {}
    for version, (train, test) in _FOLDERS.items():
        for base in (root / f"MSMT17_{version}", root):
            lists = next((at for at in (base, root) if (at / "list_query.txt").is_file()), None)
            if lists and (base / train).is_dir() and (base / test).is_dir():
                found[version] = _Copy(lists, base / train, base / test)
                break
    return found


def _load_lists(root: Path, copy: _Copy, train_only: bool) -> ReIDDataset:
    skipped: list[SkippedFile] = []

    def read(split: str, folder: Path, offset: int) -> list[Sample]:
        samples, left_out = _read_list(copy.lists / f"list_{split}.txt", folder, offset)
        skipped.extend(left_out)
        return samples

    parts: dict[str, Sequence[Sample]] = {}
    train = read("train", copy.train, TRAIN_OFFSET)
    if not train_only:
        train += read("val", copy.train, TRAIN_OFFSET)
    parts["train" if train_only else "train and val"] = sorted(train, key=lambda s: s.path)
    parts["query"] = read("query", copy.test, TEST_OFFSET)
    parts["gallery"] = read("gallery", copy.test, TEST_OFFSET)
    train_part, query, gallery = parts.values()
    dataset = ReIDDataset(
        name="msmt17",
        root=root,
        train=tuple(train_part),
        query=tuple(query),
        gallery=tuple(gallery),
        skipped=tuple(skipped),
    )
    official = {"train": OFFICIAL_TRAIN_ALONE, **OFFICIAL_COUNTS}
    return with_official(dataset, parts, {part: official[part] for part in parts}, NOTICE)


def _read_list(listing: Path, folder: Path, offset: int) -> tuple[list[Sample], list[SkippedFile]]:
    """The images of one list, sorted by path, and the lines that lead to none.

    Raises: DatasetError if the list is missing, a line is not `path identity`, or no listed image is there.
    """
    samples: list[Sample] = []
    skipped: list[SkippedFile] = []
    for listed, identity in _lines(listing):
        path, reason = locate(folder, listed)
        facts = NAME.fullmatch(path.name)
        if reason is None and facts:
            samples.append(_sample(path, offset + identity, facts))
        else:
            skipped.append(SkippedFile(path, reason or _WRONG_NAME))
    if not samples:
        first = f", the first reason: {skipped[0].path}: {skipped[0].reason}" if skipped else ""
        raise DatasetError(
            f"{listing}: expected images below {folder}, got none of {len(skipped):,} listed{first}; "
            f"unpack the dataset whole:\n{EXPECTED_TREE}"
        )
    return sorted(samples, key=lambda sample: sample.path), skipped


def _sample(path: Path, identity: int, facts: re.Match[str]) -> Sample:
    when = {"month": int(facts["month"]), "day": int(facts["day"]), "daytime": facts["daytime"]}
    return Sample(path, identity, int(facts["camera"]), when)


def _lines(path: Path) -> list[tuple[str, int]]:
    """File and identity of each line that is not blank. Raises: DatasetError."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        advice = "; or pass train_only=True" if path.name == "list_val.txt" else ""
        raise DatasetError(
            f"{path} is missing; unpack the dataset whole{advice}:\n{EXPECTED_TREE}"
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path}: expected a text file, got {error}") from error
    found: list[tuple[str, int]] = []
    for number, line in enumerate(text.splitlines(), start=1):
        parts = _LINE.fullmatch(line.strip())
        if parts:
            found.append((parts["path"], int(parts["identity"])))
        elif line.strip():
            raise DatasetError(
                f"{path}, line {number}: expected a file and an identity, such as "
                f"`0000/0000_000_01_0303morning_0008_0.jpg 0`, got {line.strip()!r}; mend the list"
            )
    return found


def _load_repack(root: Path, keep_junk: bool) -> ReIDDataset:
    """The re-pack: Market-1501's reader, and identities moved as those of the lists."""
    scan = scan_folders(root, REPACK)
    moved = Scan({split: _moved(split, scan.images[split]) for split in SPLITS}, scan.skipped)
    dataset = assemble("msmt17", root, moved, keep_junk=keep_junk)
    parts = {"train and val": dataset.train, "query": dataset.query, "gallery": dataset.gallery}
    return with_official(dataset, parts, OFFICIAL_COUNTS, NOTICE)


def _moved(split: str, samples: Sequence[Sample]) -> list[Sample]:
    offset = TRAIN_OFFSET if split == "train" else TEST_OFFSET
    return [
        sample if sample.identity == JUNK else replace(sample, identity=offset + sample.identity)
        for sample in samples
    ]
