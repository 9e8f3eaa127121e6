"""Which dataset a folder is, judged by what lies in it; the name alone settles only what the contents leave open."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ccan.data import cuhk03, dukemtmc, folder, market1501, msmt17, table
from ccan.data.listing import contents, entries, list_images, subfolders
from ccan.data.market_style import FOLDERS
from ccan.errors import DatasetError

NEEDS = {
    "market1501": "bounding_box_train/, query/, bounding_box_test/ with 0002_c1s1_000451_03.jpg, and the official "
    "number of images or a folder named like Market-1501",
    "dukemtmc": "the same folders with 0001_c2_f0046182.jpg",
    "occluded-duke": "as dukemtmc, with the official number of images or a folder named like Occluded-Duke",
    "cuhk03": "cuhk-03.mat, or detected/ or labeled/ as in cuhk03-np",
    "msmt17": "list_query.txt … with train/ and test/, or mask_train_v2/ and mask_test_v2/",
    "synthetic": "world.json, as `ccan synth` writes it",
    "market-style": "bounding_box_train/, query/, bounding_box_test/ with names like 0001_c2_….jpg",
    "csv": "a .csv file whose first line has path, identity and split",
    "image-folder": "train/, query/, gallery/ with a folder for each person, or two such folders or more and no "
    "loose images",
}
"""What each layout is recognised by."""

_MARKET_NAME = re.compile(r"(-1|\d{4})_c\ds\d_\d{6}_\d\d\..+", re.ASCII)
_DUKE_NAME = re.compile(r"\d{4}_c\d_f\d+\..+", re.ASCII)


@dataclass(frozen=True)
class Recognition:
    """A layout that a folder fits.

    Attributes:
        name: the loader's name.
        seen: what it was recognised by, for people.
    """

    name: str
    seen: str


def recognise(root: str | Path) -> Recognition | None:
    """The layout of a folder (or CSV file), or None if it is none that is known.

    Raises: DatasetError if it fits several, which it names.
    """
    root = Path(root)
    found = [
        *_synthetic(root),
        *_market_family(root),
        *_cuhk03(root),
        *_msmt17(root),
        *_table(root),
    ]
    if len(found) > 1:
        raise DatasetError(
            f"{root} fits several layouts: {'; '.join(f'{each.name} ({each.seen})' for each in found)}; name one of "
            "them, or pass the folder of one dataset"
        )
    return found[0] if found else next(_people(root), None)


def recognise_or_explain(root: str | Path) -> Recognition:
    """As `recognise`. Raises: DatasetError that lists what each layout would need, if it is none."""
    root = Path(root)
    if not root.exists():
        raise DatasetError(f"{root}: there is no such folder; check the path")
    found = recognise(root)
    if found is None:
        needs = "\n".join(f"  {name:<14}{need}" for name, need in NEEDS.items())
        raise DatasetError(
            f"{root} is no known layout: found {contents(root)}; pass the folder of a dataset, or name its layout. "
            f"What each is recognised by:\n{needs}"
        )
    return found


def _is_market_family(folder: Path) -> bool:
    return all((folder / FOLDERS[split]).is_dir() for split in ("train", "query", "gallery"))


def _synthetic(root: Path) -> Iterator[Recognition]:
    if (root / "world.json").is_file() and (root / FOLDERS["query"]).is_dir():
        yield Recognition("synthetic", "world.json")


def _market_family(root: Path) -> Iterator[Recognition]:
    """What shares Market-1501's folders: told apart by file names, numbers of images, then the folder's name."""
    if (root / "world.json").is_file():
        return
    if _is_market_family(root):
        yield _market_kind(root)
        return
    inner = {
        "market1501": market1501.LAYOUT.inner,
        "dukemtmc": dukemtmc.DUKE.inner,
        "occluded-duke": dukemtmc.OCCLUDED_DUKE.inner,
        "msmt17": msmt17.REPACK.inner,
    }
    for name, folders in inner.items():
        for each in folders:
            if _is_market_family(root / each):
                yield Recognition(name, f"{each}/{FOLDERS['train']}/")


def _market_kind(root: Path) -> Recognition:
    train, query = (
        [path.name for path in list_images(root / FOLDERS[split])[0]]
        for split in ("train", "query")
    )
    title = re.sub(r"[^a-z0-9]", "", root.resolve().name.lower())

    def is_copy(official: dict[str, tuple[int, int]], parts: tuple[str, str], word: str) -> bool:
        counts = tuple(official[part][0] for part in parts)
        return word in title or len(train) == counts[0] or len(query) == counts[1]

    folders = (FOLDERS["train"], FOLDERS["query"])
    name = "market-style"
    if 2 * sum(bool(_DUKE_NAME.fullmatch(each)) for each in train) > len(train):
        occluded = is_copy(dukemtmc.OFFICIAL_OCCLUDED_COUNTS, folders, "occluded")
        name = "occluded-duke" if occluded else "dukemtmc"
    elif is_copy(msmt17.OFFICIAL_COUNTS, ("train and val", "query"), "msmt17"):
        name = "msmt17"
    elif any(map(_MARKET_NAME.fullmatch, train)) and is_copy(
        market1501.OFFICIAL_COUNTS, folders, "market1501"
    ):
        name = "market1501"
    example = f" with {train[0]}" if train else ""
    counts = f"{len(train):,} and {len(query):,} images"
    return Recognition(name, f"{folders[0]}/ and {folders[1]}/{example}, {counts}")


def _cuhk03(root: Path) -> Iterator[Recognition]:
    mat = cuhk03.find_mat(root)
    boxes = [box for box in cuhk03.KEYS if cuhk03.find_repack(root, box)]
    if mat or boxes:
        yield Recognition("cuhk03", mat.name if mat else f"cuhk03-np, {' and '.join(boxes)} boxes")


def _msmt17(root: Path) -> Iterator[Recognition]:
    versions = msmt17.find_copies(root)
    if versions:
        yield Recognition("msmt17", f"list_query.txt and the folders of {' and '.join(versions)}")


def _table(root: Path) -> Iterator[Recognition]:
    files = [root] if root.is_file() and root.suffix.lower() == ".csv" else table.tables(root)
    fitting = [path.name for path in files if set(table.NEEDED) <= _header(path)]
    if fitting:
        yield Recognition(
            "csv", f"{' and '.join(fitting)} with the columns {', '.join(table.NEEDED)}"
        )


def _header(path: Path) -> set[str]:
    """Columns of a CSV file, none if it cannot be read."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as stream:
            return {
                cell.strip().lower() for cell in next(csv.reader([stream.readline(10_000)]), [])
            }
    except (OSError, UnicodeDecodeError, csv.Error):
        return set()


def _people(root: Path) -> Iterator[Recognition]:
    """The layout that many a folder fits, and so the last that is thought of."""
    splits = [split for split in folder.SPLIT_FOLDERS if (root / split).is_dir()]
    if "train" in splits or {"query", "gallery"} <= set(splits):
        if any(list_images(person)[0] for split in splits for person in subfolders(root / split)):
            yield Recognition("image-folder", f"{', '.join(splits)} with folders of images")
        return
    foreign = {*FOLDERS.values(), "MSMT17_V1", "MSMT17_V2", "mask_train_v2"}
    names = {name for name, _ in entries(root)}
    people = [each.name for each in subfolders(root) if list_images(each)[0]]
    if len(people) > 1 and not names & foreign and not list_images(root)[0]:
        yield Recognition(
            "image-folder", f"{len(people):,} folders of images, {people[0]}/ the first"
        )
