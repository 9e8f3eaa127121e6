"""DukeMTMC-reID (Ristani et al. 2016, Zheng et al. 2017) and Occluded-Duke (Miao et al. 2019), which is made of it.

    bounding_box_train/  query/  bounding_box_test/
    0001_c2_f0046182.jpg = identity, camera 1…8, frame

The authors withdrew DukeMTMC in 2019 over the privacy of the people in it. The loaders exist because the paper reports
results on it; they say so each time.
"""

from __future__ import annotations

from pathlib import Path

from ccan.data.market_style import MarketLayout, assemble, scan_folders, with_official
from ccan.data.records import ReIDDataset

_TREE = """\
  ROOT/                     (or ROOT/{inner}/)
    bounding_box_train/     0001_c2_f0046182.jpg …
    query/                  0005_c2_f0046985.jpg …
    bounding_box_test/      0002_c1_f0044158.jpg …"""

DUKE = MarketLayout("DukeMTMC-reID", _TREE.format(inner="DukeMTMC-reID"), inner=("DukeMTMC-reID",))
OCCLUDED_DUKE = MarketLayout(
    "Occluded-Duke",
    _TREE.format(inner="Occluded_Duke"),
    inner=("Occluded_Duke", "Occluded-DukeMTMC-reID"),
)

NOTICE = (
    "DukeMTMC was withdrawn by its authors in 2019 over the privacy of the people in it: "
    "do not pass it on, and consider another dataset for new work"
)

OFFICIAL_COUNTS = {
    "bounding_box_train": (16_522, 702),
    "query": (2_228, 702),
    "bounding_box_test": (17_661, 1_110),
}
"""Images and identities; 408 identities of the gallery are distractors under numbers of their own."""

OFFICIAL_OCCLUDED_COUNTS = {
    "bounding_box_train": (15_618, 702),
    "query": (2_210, 519),
    "bounding_box_test": (17_661, 1_110),
}


def load_dukemtmc(root: str | Path, *, keep_junk: bool = False) -> ReIDDataset:
    """Read DukeMTMC-reID, with the notice of its withdrawal, and compare it with the official counts.

    Args:
        root: the folder that holds `bounding_box_train`, or the one above it.
        keep_junk: keep images of identity -1 in the gallery; the original has none.

    Raises: DatasetError that shows the expected tree if a folder is missing or holds no image.
    """
    scan = scan_folders(Path(root), DUKE)
    dataset = assemble("dukemtmc", Path(root), scan, keep_junk=keep_junk)
    return with_official(dataset, scan.parts(), OFFICIAL_COUNTS, NOTICE)


def load_occluded_duke(root: str | Path, *, keep_junk: bool = False) -> ReIDDataset:
    """Read Occluded-Duke, whose queries are all occluded; as `load_dukemtmc` in everything else."""
    scan = scan_folders(Path(root), OCCLUDED_DUKE)
    dataset = assemble("occluded-duke", Path(root), scan, keep_junk=keep_junk)
    return with_official(dataset, scan.parts(), OFFICIAL_OCCLUDED_COUNTS, NOTICE)
