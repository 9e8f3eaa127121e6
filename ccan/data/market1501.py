"""Market-1501 (v15.09.15; Zheng et al., ICCV 2015), with its optional 500,000 distractors.

bounding_box_train/  query/  bounding_box_test/  gt_bbox/ (optional)  images/ (optional)
0002_c1s1_000451_03.jpg = identity, camera, sequence, frame, box; identity -1 is junk, 0000 a distractor
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ccan.data.listing import list_images
from ccan.data.market_style import (
    FOLDERS,
    TEST_JUNK,
    TEST_WITHOUT_JUNK,
    MarketLayout,
    assemble,
    scan_folders,
    with_official,
)
from ccan.data.records import DISTRACTOR, UNKNOWN_CAMERA, ReIDDataset, Sample
from ccan.errors import DatasetError

INNER_FOLDER = "Market-1501-v15.09.15"

LAYOUT = MarketLayout(
    "Market-1501",
    """\
  ROOT/                     (or ROOT/Market-1501-v15.09.15/)
    bounding_box_train/     0002_c1s1_000451_03.jpg …
    query/                  0001_c1s1_001051_00.jpg …
    bounding_box_test/      0001_c2s1_000301_00.jpg, 0000_c1s1_…, -1_c1s1_… …
    gt_bbox/                (optional, for multi query)
    images/                 (optional, the 500k distractors)""",
    inner=(INNER_FOLDER,),
)

LICENCE = "Market-1501 is for research only and must not be redistributed"

OFFICIAL_COUNTS = {
    "bounding_box_train": (12_936, 751),
    "query": (3_368, 750),
    TEST_WITHOUT_JUNK: (15_913, 751),
    TEST_JUNK: (3_819, 1),
    "gt_bbox": (25_259, 1_501),
}
"""Images and identities as the authors publish them; the 751 of the test are 750 people and the distractors' 0."""


def load_market1501(
    root: str | Path, *, keep_junk: bool = False, distractors: bool | str = False
) -> ReIDDataset:
    """Read Market-1501 and compare it with the official counts; a difference becomes a note.

    Args:
        root: the folder that holds `bounding_box_train`, or the one above it.
        keep_junk: keep junk (identity -1) in the gallery, for tools that show it; an evaluation ignores it anyway.
        distractors: add the 500,000 further distractors to the gallery, as identity 0 of an unknown camera: True for
            the folder `images` beside the others, or the folder's name.

    Raises: DatasetError that shows the expected tree if a folder is missing or holds no image.
    """
    root = Path(root)
    scan = scan_folders(root, LAYOUT)
    dataset = assemble("market1501", root, scan, keep_junk=keep_junk)
    dataset = with_official(dataset, scan.parts(), OFFICIAL_COUNTS, LICENCE)
    if distractors is False:
        return dataset
    return _with_distractors(dataset, "images" if distractors is True else distractors)


def _with_distractors(dataset: ReIDDataset, name: str) -> ReIDDataset:
    """Every image of the folder at the end of the gallery; their names say nothing of a person."""
    splits = dataset.train[0].path.parent.parent
    folder = next((path for path in (splits / name, dataset.root / name) if path.is_dir()), None)
    paths, skipped = list_images(folder) if folder else ([], [])
    if not paths:
        problem = "holds no image" if folder else "is not there"
        raise DatasetError(
            f"distractors were asked for, but {folder or splits / name} {problem}; put them beside "
            f"{FOLDERS['query']}, or name their folder with distractors=NAME"
        )
    more = tuple(Sample(path, DISTRACTOR, UNKNOWN_CAMERA) for path in paths)
    return replace(
        dataset,
        gallery=(*dataset.gallery, *more),
        skipped=(*dataset.skipped, *skipped),
        notes=(*dataset.notes, f"{len(more):,} distractors of {name}/ stand in the gallery"),
    )
