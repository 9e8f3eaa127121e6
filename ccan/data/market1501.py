"""Market-1501 (v15.09.15), and every folder that spells its images the same way.

    bounding_box_train/  query/  bounding_box_test/  gt_bbox/ (optional)
    0002_c1s1_000451_03.jpg = identity, camera, sequence, frame, box; identity -1 is junk, 0000 a distractor

Only the file's own name is matched, as a whole; a few real files end in `.jpg.jpg`, and cameras may have two digits.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ccan.data.records import JUNK, ReIDDataset, Sample, SkippedFile
from ccan.errors import DatasetError

FOLDERS = {
    "train": "bounding_box_train",
    "query": "query",
    "gallery": "bounding_box_test",
    "multi_query": "gt_bbox",
}
INNER_FOLDER = "Market-1501-v15.09.15"

EXPECTED_TREE = """\
  ROOT/                     (or ROOT/Market-1501-v15.09.15/)
    bounding_box_train/     0002_c1s1_000451_03.jpg …
    query/                  0001_c1s1_001051_00.jpg …
    bounding_box_test/      0001_c2s1_000301_00.jpg, 0000_c1s1_…, -1_c1s1_… …
    gt_bbox/                (optional, for multi query)"""

_NAME = re.compile(r"(?P<identity>-1|\d+)_c(?P<camera>\d+)(?:s\d+)?_.*", re.ASCII)
_IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp"})

LICENCE = "Market-1501 is for research only and must not be redistributed"

OFFICIAL_COUNTS = {
    "bounding_box_train": (12_936, 751),
    "query": (3_368, 750),
    "bounding_box_test without junk": (15_913, 751),
    "bounding_box_test, junk alone": (3_819, 1),
    "gt_bbox": (25_259, 1_501),
}
"""Images and identities as the authors publish them; the 751 of the test are 750 people and the distractors' 0."""


def load_market1501(root: str | Path, *, keep_junk: bool = False) -> ReIDDataset:
    """Read Market-1501 and compare it with the official counts; a difference becomes a note.

    Args:
        root: the folder that holds `bounding_box_train`, or the one above it.
        keep_junk: keep junk (identity -1) in the gallery, for tools that show it; an evaluation ignores it anyway.

    Raises: DatasetError that shows the expected tree if a folder is missing or holds no image.
    """
    scan = _scan(Path(root), required=("train", "query", "gallery"))
    dataset = _assemble("market1501", Path(root), scan, keep_junk)
    return replace(dataset, notes=(LICENCE, *_differences(scan), *dataset.notes))


def load_synthetic(root: str | Path, *, keep_junk: bool = False) -> ReIDDataset:
    """Read a synthetic world; what it knows of each image (view, occlusion …) becomes `Sample.metadata`.

    Args:
        root: the folder that `ccan synth` wrote.
        keep_junk: as in `load_market1501`.

    Raises: DatasetError as `load_market1501`, for the splits that the world says it has.
    """
    root = Path(root)
    splits = _read_json(root / "world.json").get("splits", ["train", "query", "gallery"])
    scan = _scan(root, required=[split for split in FOLDERS if split in splits])
    dataset = _assemble("synthetic", root, scan, keep_junk)
    facts = _read_json(root / "attributes.json").get("images", {})
    return replace(
        dataset,
        **{split: _with_metadata(getattr(dataset, split), facts) for split in FOLDERS},
    )


@dataclass
class _Scan:
    """Everything in the folders, junk included, by split; and what was left out."""

    images: dict[str, list[Sample]]
    skipped: list[SkippedFile] = field(default_factory=list)


def _scan(root: Path, required: Collection[str]) -> _Scan:
    base = _base(root, required)
    scan = _Scan({split: [] for split in FOLDERS})
    for split, name in FOLDERS.items():
        if (base / name).is_dir():
            scan.images[split], skipped = _read_folder(base / name)
            scan.skipped += skipped
        if split in required and not scan.images[split]:
            raise _not_market(root, f"{base / name} holds no image with such a name")
    return scan


def _base(root: Path, required: Collection[str]) -> Path:
    """The folder that holds the splits: `root`, or the archive's own folder inside. Raises: DatasetError."""
    if not root.is_dir():
        raise _not_market(root, "there is no such folder")
    if (root / INNER_FOLDER).is_dir() and not (root / FOLDERS["query"]).is_dir():
        return root / INNER_FOLDER
    missing = [FOLDERS[split] for split in required if not (root / FOLDERS[split]).is_dir()]
    if missing:
        present = sorted(entry.name for entry in root.iterdir())
        listing = ", ".join(present[:5]) + (", …" if len(present) > 5 else "")
        raise _not_market(root, f"{', '.join(missing)} missing; found {listing or 'nothing'}")
    return root


def _not_market(root: Path, problem: str) -> DatasetError:
    above = root.name in FOLDERS.values()
    advice = "pass the folder above it" if above else "pass the folder ROOT of this tree"
    return DatasetError(f"{root} is not Market-1501: {problem}; {advice}:\n{EXPECTED_TREE}")


def _read_folder(folder: Path) -> tuple[list[Sample], list[SkippedFile]]:
    """Images of one folder in the order of their names, and the other files with the reason."""
    samples: list[Sample] = []
    skipped: list[SkippedFile] = []
    with os.scandir(folder) as entries:
        found = sorted((entry.name, entry.is_file()) for entry in entries)
    for name, is_file in found:
        path, parts = folder / name, _NAME.fullmatch(name)
        if not is_file:
            skipped.append(SkippedFile(path, "not a file"))
        elif path.suffix.lower() not in _IMAGE_SUFFIXES:
            skipped.append(SkippedFile(path, "not an image"))
        elif parts is None:
            skipped.append(SkippedFile(path, "the name is not like 0002_c1s1_000451_03.jpg"))
        else:
            samples.append(Sample(path, int(parts["identity"]), int(parts["camera"])))
    return samples, skipped


def _assemble(name: str, root: Path, scan: _Scan, keep_junk: bool) -> ReIDDataset:
    """Drop junk, and choose the images for multi query: those of a query's identity and camera."""
    kept = {split: [s for s in scan.images[split] if s.identity != JUNK] for split in FOLDERS}
    junk = [s for split in FOLDERS for s in scan.images[split] if s.identity == JUNK]
    if keep_junk:
        kept["gallery"] = scan.images["gallery"]
        junk = [s for s in junk if s.path.parent.name != FOLDERS["gallery"]]
    asked = {(s.identity, s.camera) for s in kept["query"]}
    return ReIDDataset(
        name=name,
        root=root,
        train=tuple(kept["train"]),
        query=tuple(kept["query"]),
        gallery=tuple(kept["gallery"]),
        multi_query=tuple(s for s in kept["multi_query"] if (s.identity, s.camera) in asked),
        skipped=(*scan.skipped, *(SkippedFile(s.path, "junk (identity -1)") for s in junk)),
        notes=_overlap(kept),
    )


def _overlap(kept: Mapping[str, list[Sample]]) -> tuple[str, ...]:
    """A note if people of the training set are tested on; distractors (0) are nobody in particular."""
    seen = {s.identity for s in kept["train"]}
    tested = {s.identity for split in ("query", "gallery") for s in kept[split]}
    both = seen & tested - {0, JUNK}
    if not both:
        return ()
    return (f"{len(both)} identities are in train and in the test: results on them mean little",)


def _differences(scan: _Scan) -> list[str]:
    """One note for each folder whose counts are not the official ones; no gt_bbox at all is no difference."""
    gallery = scan.images["gallery"]
    found: dict[str, Iterable[Sample]] = {
        "bounding_box_train": scan.images["train"],
        "query": scan.images["query"],
        "bounding_box_test without junk": [s for s in gallery if s.identity != JUNK],
        "bounding_box_test, junk alone": [s for s in gallery if s.identity == JUNK],
        "gt_bbox": scan.images["multi_query"],
    }
    notes: list[str] = []
    for name, samples in found.items():
        identities = [sample.identity for sample in samples]
        counts = (len(identities), len(set(identities)))
        if counts != OFFICIAL_COUNTS[name] and (identities or name != "gt_bbox"):
            images, people = OFFICIAL_COUNTS[name]
            notes.append(
                f"{name}: {counts[0]:,} images of {counts[1]:,} identities, "
                f"officially {images:,} of {people:,}"
            )
    return notes


def _read_json(path: Path) -> dict[str, Any]:
    """A JSON object, empty if there is no such file. Raises: DatasetError if it is something else."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise DatasetError(
            f"{path}: expected JSON, got {error}; write the world anew with `ccan synth`"
        ) from error
    if not isinstance(value, dict):
        raise DatasetError(f"{path}: expected a JSON object, got {type(value).__name__}")
    return value


def _with_metadata(
    samples: Iterable[Sample], facts: Mapping[str, Mapping[str, Any]]
) -> tuple[Sample, ...]:
    """The samples with the plain facts of each, found by `folder/name.jpg`; identity and camera they have already."""

    def plain(sample: Sample) -> dict[str, str | float]:
        known = facts.get(f"{sample.path.parent.name}/{sample.path.name}", {})
        return {
            key: value
            for key, value in known.items()
            if key not in ("identity", "camera", "split") and isinstance(value, str | int | float)
        }

    return tuple(replace(sample, metadata=plain(sample)) for sample in samples)
