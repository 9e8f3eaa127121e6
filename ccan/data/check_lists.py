"""What the lists of a dataset say by themselves: sizes, people on both sides, files left out, published counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from ccan.config import DataConfig
from ccan.data.listing import NOT_THERE
from ccan.data.market_style import shared_identities
from ccan.data.problems import Problem, first_few
from ccan.data.records import DISTRACTOR, ReIDDataset, Sample


def problems_of_lists(dataset: ReIDDataset) -> Iterator[Problem]:
    """Everything that can be said without the protocol and without reading an image."""
    yield from _missing_lists(dataset)
    yield from _training(dataset.train)
    yield from _identities(dataset)
    yield from _listed_twice(dataset)
    yield from _left_out(dataset)
    for part in dataset.official:
        if not part.agrees:
            yield Problem(
                "warning",
                part.text(),
                "results will not compare with published ones; look for missing or additional files",
            )


def _listed_twice(dataset: ReIDDataset) -> Iterator[Problem]:
    """Files that stand twice in one list, or under two identities; a query may stand in the gallery, too."""
    twice = [
        path
        for split in ("train", "query", "gallery")
        for path, times in Counter(s.path for s in getattr(dataset, split)).items()
        if times > 1
    ]
    if twice:
        yield Problem(
            "warning",
            f"{len(twice):,} files are listed more than once in a split",
            "each counts as often as it is listed; list it once",
            first_few(twice),
        )
    people: dict[Path, set[int]] = {}
    for sample in (*dataset.train, *dataset.query, *dataset.gallery):
        people.setdefault(sample.path, set()).add(sample.identity)
    torn = [path for path, identities in people.items() if len(identities) > 1]
    if torn:
        yield Problem(
            "error",
            f"{len(torn):,} files are listed under two identities",
            "one of the two is wrong; correct the list",
            first_few(torn),
        )


def problems_of_copies(dataset: ReIDDataset, groups: Sequence[Sequence[Path]]) -> Iterator[Problem]:
    """What groups of files with the same bytes mean."""
    splits: dict[Path, set[str]] = {}
    people: dict[Path, set[int]] = {}
    for split in ("train", "query", "gallery"):
        for sample in getattr(dataset, split):
            splits.setdefault(sample.path, set()).add(split)
            people.setdefault(sample.path, set()).add(sample.identity)
    across = [group for group in groups if len(set[str]().union(*(splits[p] for p in group))) > 1]
    if across:
        yield Problem(
            "warning",
            f"{len(across):,} pictures are in several splits",
            "a copy is found without any recognition; delete one of each",
            first_few(f"{group[0]} = {group[1]}" for group in across),
        )
    torn = [group for group in groups if len(set[int]().union(*(people[p] for p in group))) > 1]
    if torn:
        yield Problem(
            "warning",
            f"{len(torn):,} pictures are there under two identities",
            "one of the two is wrong; correct it or delete both",
            first_few(f"{group[0]} = {group[1]}" for group in torn),
        )


def _missing_lists(dataset: ReIDDataset) -> Iterator[Problem]:
    if not dataset.train:
        yield Problem(
            "note", "there are no training images", "it can be evaluated on, not trained on"
        )
    if not dataset.query and not dataset.gallery:
        yield Problem("note", "there are no test images", "it can be trained on, not evaluated on")
    elif not dataset.query or not dataset.gallery:
        missing = "query" if not dataset.query else "gallery"
        yield Problem(
            "error",
            f"there are no {missing} images, but others to test on",
            "an evaluation needs both; look at the notes of the loader and at what was skipped",
        )


def _training(train: Sequence[Sample]) -> Iterator[Problem]:
    """Against the batches of P identities × K images that training takes by default."""
    if not train:
        return
    defaults = DataConfig()
    wanted, each = defaults.identities_per_batch, defaults.images_per_identity
    images = Counter(sample.identity for sample in train)
    if len(images) < wanted:
        yield Problem(
            "error",
            f"{len(images)} identities in train, but a batch takes {wanted} identities × {each} images",
            f"pass --data.identities-per-batch {max(2, len(images))} or fewer",
        )
    elif len(train) < wanted * each:
        yield Problem(
            "warning",
            f"{len(train)} images in train, fewer than the {wanted * each} of a batch",
            "images are repeated within each batch; smaller batches are honest",
        )
    single = [identity for identity, count in sorted(images.items()) if count == 1]
    if single:
        yield Problem(
            "warning",
            f"{len(single):,} identities of train have one image only",
            "they have no positive but themselves: the triplet loss learns nothing from them",
            first_few(f"identity {identity}" for identity in single),
        )


def _identities(dataset: ReIDDataset) -> Iterator[Problem]:
    both = sorted(shared_identities(dataset.train, (*dataset.query, *dataset.gallery)))
    if both:
        yield Problem(
            "error",
            f"{len(both):,} identities are in train and in the test",
            "results on people seen in training mean little; move them, or give each split numbers of its own if "
            "they are different people",
            first_few(f"identity {identity}" for identity in both),
        )
    nobody = [sample.path.name for sample in dataset.query if sample.identity == DISTRACTOR]
    if nobody:
        yield Problem(
            "warning",
            f"{len(nobody):,} queries have identity 0, which means a distractor",
            "number people from 1",
            first_few(nobody),
        )


def _left_out(dataset: ReIDDataset) -> Iterator[Problem]:
    for reason, advice in (
        ("the name is not like", "if they should be read, rename them"),
        (NOT_THERE, "unpack or copy the dataset whole"),
    ):
        files = [file for file in dataset.skipped if file.reason.startswith(reason)]
        if files:
            yield Problem(
                "warning",
                f"{len(files):,} images were left out: {files[0].reason}",
                advice,
                first_few(file.path.name for file in files),
            )
