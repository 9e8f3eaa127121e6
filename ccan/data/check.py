"""A dataset looked over before training: what it holds, how it compares, what is wrong and what to do about it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from ccan.data.check_lists import problems_of_copies, problems_of_lists
from ccan.data.check_matches import problems_of_matches
from ccan.data.image_files import ImageFile, read_files, same_contents
from ccan.data.problems import EXAMPLES, Problem, first_few
from ccan.data.records import SPLITS, UNKNOWN_CAMERA, Comparison, ReIDDataset, Sample, SkippedFile


@dataclass(frozen=True)
class Spread:
    """Least, median and greatest of some numbers."""

    least: float
    median: float
    most: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread | None:
        """The spread of the values, None of no values."""
        numbers = sorted(values)
        return cls(numbers[0], median(numbers), numbers[-1]) if numbers else None

    def __str__(self) -> str:
        return f"{self.least:g}/{self.median:g}/{self.most:g}"


@dataclass(frozen=True)
class SplitFacts:
    """What one list holds.

    Attributes:
        images: their number.
        identities: different identities, distractors as one.
        cameras: images of each camera, by its number; -1 unknown.
        images_per_identity: spread over identities.
        widths, heights: pixels of the images that could be decoded; None if they were not read.
    """

    images: int
    identities: int
    cameras: Mapping[int, int]
    images_per_identity: Spread | None
    widths: Spread | None = None
    heights: Spread | None = None


@dataclass(frozen=True)
class DatasetCheck:
    """The findings of `check_dataset`.

    Attributes:
        name, root, notes: of the dataset.
        splits: facts of each list that is not empty.
        skipped: files that the loader left out, by reason: how many, and the first few.
        broken: images that cannot be decoded, with the reason.
        official: comparison with the published counts.
        problems: what is wrong, the worst first.
        decoded: whether the image files were read at all.
    """

    name: str
    root: Path
    notes: tuple[str, ...]
    splits: Mapping[str, SplitFacts]
    skipped: Mapping[str, tuple[int, tuple[Path, ...]]]
    broken: Mapping[Path, str]
    official: tuple[Comparison, ...]
    problems: tuple[Problem, ...]
    decoded: bool

    @property
    def ok(self) -> bool:
        """Whether there is no problem of severity "error"."""
        return not any(problem.severity == "error" for problem in self.problems)

    def to_dict(self) -> dict[str, Any]:
        """The findings as plain JSON values."""
        return {
            "name": self.name,
            "root": str(self.root),
            "ok": self.ok,
            "decoded": self.decoded,
            "notes": list(self.notes),
            "splits": {
                name: {**asdict(facts), "cameras": {str(c): n for c, n in facts.cameras.items()}}
                for name, facts in self.splits.items()
            },
            "skipped": {
                reason: {"files": count, "examples": [str(path) for path in first]}
                for reason, (count, first) in self.skipped.items()
            },
            "broken": {str(path): reason for path, reason in self.broken.items()},
            "official": [{**asdict(part), "agrees": part.agrees} for part in self.official],
            "problems": [
                {**asdict(problem), "examples": list(problem.examples)} for problem in self.problems
            ],
        }

    def text(self) -> str:
        """The findings for people: a table, what was left out, the problems, and a verdict."""
        lines = [f"{self.name}: {self.root}", *self._table(), *self._cameras()]
        lines += [f"official: {part.text()}" for part in self.official]
        for reason, (count, first) in self.skipped.items():
            more = ", …" if count > len(first) else ""
            lines.append(f"skipped {count:,}: {reason} ({', '.join(p.name for p in first)}{more})")
        lines += [f"loader: {note}" for note in self.notes]
        lines += [problem.text() for problem in self.problems]
        return "\n".join([*lines, self._verdict()])

    def _table(self) -> list[str]:
        head = ("split", "images", "ids", "cameras", "images per id", "width", "height")
        rows = [head] + [
            (
                name,
                f"{facts.images:,}",
                f"{facts.identities:,}",
                str(len(facts.cameras.keys() - {UNKNOWN_CAMERA}) or "unknown"),
                *(str(s or "–") for s in (facts.images_per_identity, facts.widths, facts.heights)),
            )
            for name, facts in self.splits.items()
        ]
        widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
        return [
            "  ".join(
                cell.rjust(width) if column else cell.ljust(width)
                for column, (cell, width) in enumerate(zip(row, widths, strict=True))
            )
            for row in rows
        ] + ["(spreads are least/median/most)"]

    def _cameras(self) -> list[str]:
        named = {UNKNOWN_CAMERA: "unknown"}
        return [
            f"images per camera, {name}: "
            + ", ".join(
                f"{named.get(camera, camera)}: {n:,}" for camera, n in facts.cameras.items()
            )
            for name, facts in self.splits.items()
        ]

    def _verdict(self) -> str:
        count = Counter(problem.severity for problem in self.problems)
        found = f"{count['error']} errors, {count['warning']} warnings, {count['note']} notes"
        unread = "" if self.decoded else "; the image files were not read"
        return f"{'ok' if self.ok else 'not ok'}: {found}{unread}"


def check_dataset(
    dataset: ReIDDataset, *, decode: bool = True, progress: bool = False
) -> DatasetCheck:
    """Look a dataset over.

    Args:
        dataset: as a loader gave it.
        decode: read every image file, for broken ones, sizes, and copies of one picture in several splits.
        progress: show bars on stderr.
    """
    lists: dict[str, tuple[Sample, ...]] = {
        split: samples for split in SPLITS if (samples := getattr(dataset, split))
    }
    files: dict[Path, ImageFile] = {}
    broken: dict[Path, str] = {}
    problems = [*problems_of_matches(dataset), *problems_of_lists(dataset)]
    if decode:
        paths = [sample.path for samples in lists.values() for sample in samples]
        files = read_files(paths, progress=progress)
        broken = {path: file.problem for path, file in files.items() if file.problem}
        if broken:
            problems.append(_broken_problem(broken))
        # Boxes of multi query may well be the queries themselves: they are no copies.
        ranked = dict.fromkeys(s.path for s in (*dataset.train, *dataset.query, *dataset.gallery))
        whole = [path for path in ranked if path not in broken]
        problems += problems_of_copies(dataset, same_contents(whole, progress=progress))
    order = ("error", "warning", "note")
    return DatasetCheck(
        name=dataset.name,
        root=dataset.root,
        notes=dataset.notes,
        splits={split: _facts(samples, files) for split, samples in lists.items()},
        skipped=_by_reason(dataset.skipped),
        broken=broken,
        official=dataset.official,
        problems=tuple(sorted(problems, key=lambda problem: order.index(problem.severity))),
        decoded=decode,
    )


def _facts(samples: tuple[Sample, ...], files: Mapping[Path, ImageFile]) -> SplitFacts:
    read = [files[s.path] for s in samples if s.path in files and not files[s.path].problem]
    per_identity = Counter(sample.identity for sample in samples)
    return SplitFacts(
        images=len(samples),
        identities=len(per_identity),
        cameras=dict(sorted(Counter(sample.camera for sample in samples).items())),
        images_per_identity=Spread.of(per_identity.values()),
        widths=Spread.of(file.width for file in read),
        heights=Spread.of(file.height for file in read),
    )


def _by_reason(skipped: Iterable[SkippedFile]) -> dict[str, tuple[int, tuple[Path, ...]]]:
    found: dict[str, list[Path]] = {}
    for file in skipped:
        found.setdefault(file.reason, []).append(file.path)
    return {
        reason: (len(paths), tuple(paths[:EXAMPLES])) for reason, paths in sorted(found.items())
    }


def _broken_problem(broken: Mapping[Path, str]) -> Problem:
    return Problem(
        "error",
        f"{len(broken):,} images cannot be decoded, the first: {next(iter(broken.values()))}",
        "copy them again or delete them; training and evaluation stop at them",
        first_few(path.name for path in broken),
    )
