"""What a re-identification dataset is, independent of how a folder spells it.

Vocabulary (used everywhere): an *identity* is a person, a *camera* a view of the world. Identity -1 is junk and
identity 0 a distractor in Market-1501's convention; camera -1 means unknown.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

JUNK = -1
DISTRACTOR = 0
UNKNOWN_CAMERA = -1
SPLITS = ("train", "query", "gallery", "multi_query")
"""The lists of a dataset, by the names of their attributes."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One image on disk.

    Attributes:
        path: the image file.
        identity: person; -1 junk, 0 distractor (Market-1501's convention).
        camera: camera number as the dataset writes it (Market-1501: 1…6); -1 unknown.
        metadata: anything else that is known of the image, by name (view, occlusion, time of day …).
    """

    path: Path
    identity: int
    camera: int
    metadata: Mapping[str, str | float] = field(default_factory=dict[str, str | float])


@dataclass(frozen=True, slots=True)
class SkippedFile:
    """A file that a loader left out, and why."""

    path: Path
    reason: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """What one part of a copy holds, beside what its authors say that it should.

    Attributes:
        part: the folder, list or split, as people know it.
        images: images found.
        identities: different identities among them.
        official_images: images as the authors publish them.
        official_identities: identities as the authors publish them.
    """

    part: str
    images: int
    identities: int
    official_images: int
    official_identities: int

    @classmethod
    def of(cls, part: str, samples: Iterable[Sample], official: tuple[int, int]) -> Comparison:
        """Count the samples of a part; `official` is its (images, identities)."""
        identities = [sample.identity for sample in samples]
        return cls(part, len(identities), len(set(identities)), *official)

    @property
    def agrees(self) -> bool:
        """Whether both numbers are the official ones."""
        found = (self.images, self.identities)
        return found == (self.official_images, self.official_identities)

    def text(self) -> str:
        """The four numbers in a line for people."""
        return (
            f"{self.part}: {self.images:,} images of {self.identities:,} identities, "
            f"officially {self.official_images:,} of {self.official_identities:,}"
        )


@dataclass(frozen=True)
class ReIDDataset:
    """A re-identification dataset as four lists of samples.

    Attributes:
        name: the loader's name, for example ``market1501``.
        root: the folder it was read from.
        train: training images; identities here never occur in query or gallery.
        query: the probes.
        gallery: what a query is ranked against; junk is dropped unless it was asked for.
        multi_query: further images of the query identities for the multi-query protocol; may be empty.
        skipped: files that were left out, each with its reason.
        notes: remarks of the loader (licence, difference from the official counts).
        official: the comparison with the published counts, part by part; empty where none are published.
    """

    name: str
    root: Path
    train: tuple[Sample, ...]
    query: tuple[Sample, ...]
    gallery: tuple[Sample, ...]
    multi_query: tuple[Sample, ...] = ()
    skipped: tuple[SkippedFile, ...] = ()
    notes: tuple[str, ...] = ()
    official: tuple[Comparison, ...] = ()

    @property
    def train_identities(self) -> tuple[int, ...]:
        """Training identities in sorted order; an identity's place is its class label."""
        return tuple(sorted({sample.identity for sample in self.train}))

    def train_labels(self) -> list[int]:
        """Class label (0 … K-1) of each training sample, in the order of ``train``."""
        label_of = {identity: label for label, identity in enumerate(self.train_identities)}
        return [label_of[sample.identity] for sample in self.train]

    def summary(self) -> str:
        """A table for people: images, identities and cameras of each split."""
        rows = [f"{self.name}: {self.root}", f"{'split':<12}{'images':>8}{'ids':>7}{'cameras':>9}"]
        for split in SPLITS:
            samples: Sequence[Sample] = getattr(self, split)
            if samples or split != "multi_query":
                rows.append(
                    f"{split:<12}{len(samples):>8}{len({s.identity for s in samples}):>7}"
                    f"{len({s.camera for s in samples}):>9}"
                )
        reasons = Counter(skipped.reason for skipped in self.skipped)
        rows += [f"skipped {count} files: {reason}" for reason, count in sorted(reasons.items())]
        return "\n".join([*rows, *self.notes])
