"""Folders of your own: one for each person, with images that may begin with the camera's number.

    ROOT/{train,query,gallery}/anna/3_0001.jpg    splits; train alone, or query and gallery alone, will do
    ROOT/anna/3_0001.jpg                          one folder of people, split by the rule of `split_people`
    3_0001.jpg, c3_0001.jpg, cam3_x.png = camera 3; 0002_c3s1_000451_03.jpg and MSMT17's names = camera 3, too;
    any other name, such as 0001.jpg = camera unknown

People are numbered 1, 2, … in the order of their folders' names, over all splits together: the same name is the same
person. The name itself is kept as metadata `person`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ccan.data import market_style, msmt17
from ccan.data.listing import contents, entries, list_images, subfolders
from ccan.data.records import UNKNOWN_CAMERA, ReIDDataset, Sample, SkippedFile
from ccan.errors import ConfigError, DatasetError

SPLIT_FOLDERS = ("train", "query", "gallery")

EXPECTED_TREE = """\
  ROOT/                     either splits …
    train/anna/             3_0001.jpg (camera 3), 0002.jpg (camera unknown) …
    query/ben/              …
    gallery/ben/            …
  ROOT/                     … or people
    anna/                   3_0001.jpg …
    ben/                    …"""

# Up to four digits: 20240131_1200.jpg is a date, not camera 20240131.
_CAMERA = re.compile(r"(?:c|cam|camera)?(?P<camera>\d{1,4})_.*", re.ASCII | re.IGNORECASE)

Images = dict[str, list[Path]]
"""The images of each person, by the name of the folder."""


@dataclass
class _Found:
    """People and their images in each split, and what was left out."""

    splits: dict[str, Images] = field(default_factory=dict[str, Images])
    skipped: list[SkippedFile] = field(default_factory=list[SkippedFile])


def load_image_folder(
    root: str | Path, *, cameras: bool = True, test_percent: int = 50
) -> ReIDDataset:
    """Read folders of people; the module's head shows the names.

    Args:
        root: the folder of the splits, or of the people.
        cameras: read the camera from file names; False gives every image the unknown camera -1.
        test_percent: share of the people who are tested on, in percent, where there are no folders of splits.

    Raises: DatasetError that shows the expected tree if no image is found; ConfigError for a share beyond 0…100.
    """
    root = Path(root)
    if not 0 <= test_percent <= 100:
        raise ConfigError(f"test_percent must be from 0 to 100, got {test_percent}")
    found = _find(root)
    names = sorted({person for images in found.splits.values() for person in images})
    if not names:
        raise DatasetError(
            f"{root} holds no images in folders of people: found {contents(root)}; pass the folder ROOT of "
            f"one of these trees:\n{EXPECTED_TREE}"
        )
    number = {name: place for place, name in enumerate(names, start=1)}

    def samples(images: Mapping[str, Sequence[Path]]) -> tuple[Sample, ...]:
        return tuple(
            Sample(
                path,
                number[person],
                camera_of(path) if cameras else UNKNOWN_CAMERA,
                {"person": person},
            )
            for person in sorted(images)
            for path in images[person]
        )

    splits = {split: samples(images) for split, images in found.splits.items()}
    notes = market_style.overlap_note(
        splits.get("train", ()), [*splits.get("query", ()), *splits.get("gallery", ())]
    )
    notes += _nobodies(names)
    if "" in splits:
        people = split_people(names, test_percent)
        splits = _divide(splits[""], {number[name] for name in people})
        notes = (_rule(len(names), len(people), splits["query"]), *_nobodies(names))
    return ReIDDataset(
        name="image-folder",
        root=root,
        train=splits.get("train", ()),
        query=splits.get("query", ()),
        gallery=splits.get("gallery", ()),
        skipped=tuple(found.skipped),
        notes=notes,
    )


def camera_of(path: Path) -> int:
    """The camera of a file's name, -1 if it tells none.

    A name of Market-1501's or MSMT17's kind has its camera where these have it: people's folders often hold copies.
    """
    for kind in (market_style.NAME, msmt17.NAME, _CAMERA):
        parts = kind.fullmatch(path.name)
        if parts:
            return int(parts["camera"])
    return UNKNOWN_CAMERA


def _nobodies(names: Iterable[str]) -> tuple[str, ...]:
    """A note on folders that are called like Market-1501's junk and distractors."""
    found = sorted({"-1", "0000"} & set(names))
    if not found:
        return ()
    return (
        f"the folder {' and '.join(found)} is read as a person like any other; take junk (-1) and distractors (0000) "
        "out, or list the images in a table (--dataset csv), which knows identities -1 and 0",
    )


def split_people(names: Iterable[str], test_percent: int) -> set[str]:
    """The people who are tested on: the first `test_percent` % of the names in the order of their SHA-256.

    The order is nobody's choice, the same on every machine, and a further person moves at most one of the others. With
    two people or more, and a share between 0 and 100, both sides get somebody.
    """
    order = sorted(
        names, key=lambda name: hashlib.sha256(name.encode(errors="surrogateescape")).digest()
    )
    count = round(len(order) * test_percent / 100)
    if 0 < test_percent < 100 and len(order) > 1:
        count = min(max(count, 1), len(order) - 1)
    return set(order[:count])


def _find(root: Path) -> _Found:
    """Splits by name, or the one split `` of a folder of people."""
    found = _Found()
    folders = {folder.name: folder for folder in subfolders(root)}
    if "train" in folders or {"query", "gallery"} <= folders.keys():
        bases = {split: folders.pop(split) for split in SPLIT_FOLDERS if split in folders}
        found.skipped += [
            SkippedFile(path, "not a split: train, query or gallery") for path in folders.values()
        ]
    else:
        bases = {"": root}
    for split, base in bases.items():
        found.splits[split], skipped = _people(base)
        found.skipped += skipped
    if (
        found.splits.keys() & {"query", "gallery"}
        and not {"query", "gallery"} <= found.splits.keys()
    ):
        raise DatasetError(
            f"{root} has only one of query and gallery: found {contents(root)}; an evaluation needs "
            f"both:\n{EXPECTED_TREE}"
        )
    return found


def _people(base: Path) -> tuple[Images, list[SkippedFile]]:
    images: Images = {}
    skipped = [
        SkippedFile(base / name, "not in a person's folder")
        for name, is_file in entries(base)
        if is_file
    ]
    for folder in subfolders(base):
        paths, left_out = list_images(folder)
        skipped += left_out
        if paths:
            images[folder.name] = paths
        else:
            skipped.append(SkippedFile(folder, "no image in it"))
    return images, skipped


def _divide(samples: Sequence[Sample], tested: set[int]) -> dict[str, tuple[Sample, ...]]:
    """Train, query and gallery of one folder of people.

    The gallery holds every image of the people tested on. Their queries are the first image of each camera (of unknown
    cameras, the first image), as far as the protocol leaves it a match: an image of another or an unknown camera.
    """
    test = [sample for sample in samples if sample.identity in tested]
    seen: dict[int, list[int]] = {}
    for sample in test:
        seen.setdefault(sample.identity, []).append(sample.camera)
    queries: dict[tuple[int, int], Sample] = {}
    for sample in test:
        others = list(seen[sample.identity])
        others.remove(sample.camera)
        if any(
            UNKNOWN_CAMERA in (camera, sample.camera) or camera != sample.camera
            for camera in others
        ):
            queries.setdefault((sample.identity, sample.camera), sample)
    return {
        "train": tuple(sample for sample in samples if sample.identity not in tested),
        "query": tuple(queries.values()),
        "gallery": tuple(test),
    }


def _rule(people: int, tested: int, queries: Sequence[Sample]) -> str:
    rule = (
        f"split by the SHA-256 of folder names: {tested} of {people} people are tested on, with the first image "
        "of each camera as a query and all of their images in the gallery"
    )
    if tested and not queries:
        rule += (
            "; nobody of them was seen by two cameras, so there is no query: pass cameras=False if the numbers "
            "that file names begin with are no cameras"
        )
    return rule
