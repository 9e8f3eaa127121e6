"""Folders and names as Market-1501 spells them, which many datasets have taken over.

    bounding_box_train/  query/  bounding_box_test/  gt_bbox/ (optional)
    0002_c1s1_000451_03.jpg   0001_c2_f0046182.jpg   0001_c1_1.png   = identity, camera, whatever follows

Only the file's own name is matched, as a whole; a few real files end in `.jpg.jpg`, and cameras may have two digits.
Identity -1 is junk and dropped, 0000 is a distractor and stays in the gallery.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ccan.data.listing import contents, list_images
from ccan.data.records import DISTRACTOR, JUNK, SPLITS, Comparison, ReIDDataset, Sample, SkippedFile
from ccan.errors import DatasetError

FOLDERS = {
    "train": "bounding_box_train",
    "query": "query",
    "gallery": "bounding_box_test",
    "multi_query": "gt_bbox",
}
TEST_WITHOUT_JUNK = "bounding_box_test without junk"
TEST_JUNK = "bounding_box_test, junk alone"

NAME = re.compile(
    r"(?P<identity>-1|\d{1,9})_c(?P<camera>\d{1,9})(?:s\d+)?_.*", re.ASCII | re.DOTALL
)
"""What the whole name of an image is like."""

_WRONG_NAME = "the name is not like 0002_c1s1_000451_03.jpg"


@dataclass(frozen=True)
class MarketLayout:
    """How one dataset of this family is told to people.

    Attributes:
        title: its name in error messages.
        tree: the expected folders, drawn.
        inner: folders that its archive unpacks to; the one above them is accepted as the root, too.
    """

    title: str
    tree: str
    inner: tuple[str, ...] = ()


MARKET_STYLE = MarketLayout(
    "a Market-named folder",
    """\
  ROOT/
    bounding_box_train/     0002_c1s1_000451_03.jpg: identity, camera, anything …
    query/                  0001_c1_a.png …
    bounding_box_test/      0001_c2_b.png, 0000_c1_… (distractor), -1_c1_… (junk) …
    gt_bbox/                (optional, for multi query)""",
)


@dataclass
class Scan:
    """Everything in the folders, junk included, by split; and what was left out."""

    images: dict[str, list[Sample]]
    skipped: list[SkippedFile] = field(default_factory=list[SkippedFile])

    def parts(self) -> dict[str, Sequence[Sample]]:
        """The folders as their authors count them: with the gallery's junk apart, and together."""
        gallery = self.images["gallery"]
        return {
            **{FOLDERS[split]: self.images[split] for split in SPLITS},
            TEST_WITHOUT_JUNK: [sample for sample in gallery if sample.identity != JUNK],
            TEST_JUNK: [sample for sample in gallery if sample.identity == JUNK],
        }


def load_market_style(root: str | Path, *, keep_junk: bool = False) -> ReIDDataset:
    """Read any folder with Market-1501's folders and names (PersonX, RandPerson, your own); no counts are expected.

    Args:
        root: the folder that holds `bounding_box_train`, `query` and `bounding_box_test`.
        keep_junk: keep junk (identity -1) in the gallery, for tools that show it; an evaluation ignores it anyway.

    Raises: DatasetError that shows the expected tree if a folder is missing or holds no image.
    """
    scan = scan_folders(Path(root), MARKET_STYLE)
    return assemble("market-style", Path(root), scan, keep_junk=keep_junk)


def scan_folders(
    root: Path, layout: MarketLayout, required: Collection[str] = ("train", "query", "gallery")
) -> Scan:
    """Read the folders of all splits that are there.

    Raises: DatasetError with the layout's tree if a required one is missing or holds no image.
    """
    base = _base(root, layout, required)
    scan = Scan({split: [] for split in SPLITS})
    for split, name in FOLDERS.items():
        if (base / name).is_dir():
            scan.images[split], skipped = read_folder(base / name)
            scan.skipped += skipped
        if split in required and not scan.images[split]:
            raise _not_this(root, layout, f"{base / name} holds no image with such a name")
    return scan


def _base(root: Path, layout: MarketLayout, required: Collection[str]) -> Path:
    """The folder that holds the splits: `root`, or the archive's own folder inside. Raises: DatasetError."""
    if not root.is_dir():
        raise _not_this(root, layout, "there is no such folder")
    if not (root / FOLDERS["query"]).is_dir():
        for inner in layout.inner:
            if (root / inner).is_dir():
                return root / inner
    missing = [FOLDERS[split] for split in required if not (root / FOLDERS[split]).is_dir()]
    if missing:
        found = contents(root)
        raise _not_this(root, layout, f"{', '.join(missing)} missing; found {found}")
    return root


def _not_this(root: Path, layout: MarketLayout, problem: str) -> DatasetError:
    above = root.name in FOLDERS.values()
    advice = "pass the folder above it" if above else "pass the folder ROOT of this tree"
    return DatasetError(f"{root} is not {layout.title}: {problem}; {advice}:\n{layout.tree}")


def read_folder(folder: Path) -> tuple[list[Sample], list[SkippedFile]]:
    """Images of one folder in the order of their names, and the other files with the reason."""
    paths, skipped = list_images(folder, NAME, _WRONG_NAME)
    samples: list[Sample] = []
    for path in paths:
        parts = NAME.fullmatch(path.name)
        assert parts is not None  # list_images has matched it
        samples.append(Sample(path, int(parts["identity"]), int(parts["camera"])))
    return samples, skipped


def assemble(name: str, root: Path, scan: Scan, *, keep_junk: bool) -> ReIDDataset:
    """Drop junk, and choose the images for multi query: those of a query's identity and camera."""
    kept: dict[str, list[Sample]] = {split: [] for split in SPLITS}
    junk: list[SkippedFile] = []
    for split, samples in scan.images.items():
        for sample in samples:
            if sample.identity != JUNK or (keep_junk and split == "gallery"):
                kept[split].append(sample)
            else:
                junk.append(SkippedFile(sample.path, "junk (identity -1)"))
    asked = {(s.identity, s.camera) for s in kept["query"]}
    return ReIDDataset(
        name=name,
        root=root,
        train=tuple(kept["train"]),
        query=tuple(kept["query"]),
        gallery=tuple(kept["gallery"]),
        multi_query=tuple(s for s in kept["multi_query"] if (s.identity, s.camera) in asked),
        skipped=(*scan.skipped, *junk),
        notes=overlap_note(kept["train"], [*kept["query"], *kept["gallery"]]),
    )


def shared_identities(train: Iterable[Sample], test: Iterable[Sample]) -> set[int]:
    """People who are in train and in the test; distractors (0) and junk are nobody in particular."""
    seen = {sample.identity for sample in train}
    return (seen & {sample.identity for sample in test}) - {DISTRACTOR, JUNK}


def overlap_note(train: Iterable[Sample], test: Iterable[Sample]) -> tuple[str, ...]:
    """A note if people of the training set are tested on."""
    both = shared_identities(train, test)
    if not both:
        return ()
    return (f"{len(both)} identities are in train and in the test: results on them mean little",)


def with_official(
    dataset: ReIDDataset,
    parts: Mapping[str, Sequence[Sample]],
    official: Mapping[str, tuple[int, int]],
    *remarks: str,
) -> ReIDDataset:
    """The dataset with the published counts beside its own; each difference becomes a note after the remarks.

    Args:
        dataset: what was read.
        parts: samples of each folder or list.
        official: images and identities of each, as published; an optional `gt_bbox` without images is no difference.
        remarks: licence and the like, which come first among the notes.
    """
    compared = tuple(
        Comparison.of(part, parts[part], counts)
        for part, counts in official.items()
        if parts[part] or part != FOLDERS["multi_query"]
    )
    differences = tuple(comparison.text() for comparison in compared if not comparison.agrees)
    notes = (*remarks, *differences, *dataset.notes)
    return replace(dataset, notes=notes, official=compared)
