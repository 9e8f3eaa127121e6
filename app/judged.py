"""A dataset as it was judged: the evaluation, the queries behind its numbers, failures, and what people say of them.

Nothing here needs the network.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from app.images import Images, Recent
from app.jobs import Job, Jobs
from app.maps import Groups, Mapped, read_lasso
from ccan.cases import Cases, case_file
from ccan.data.records import JUNK
from ccan.diagnosis import (
    Diagnosis,
    DistanceDistributions,
    diagnose,
    distance_distributions,
    hardest_first,
)
from ccan.diagnosis.rankings import NOBODY, all_images
from ccan.errors import CCANError, ConfigError
from ccan.evaluation import CameraPairs, Confidence, EvaluationReport, bootstrap, camera_pairs
from ccan.evaluation.protocol import judge
from ccan.evaluation.slices import CAMERA, Slice, slice_groups, slice_report
from ccan.gallery import GalleryIndex
from ccan.projection import LIMIT, project
from ccan.tables import Table

WAIT = 4.0
"""Seconds that an answer waits for a map from the cache."""


class NotYet(ConfigError):
    """It is being made, and will be there in a while."""


class Judged(Images):
    """Images with their evaluation.

    Args:
        index: a model's view of a dataset.
        report: the evaluation of that index.
        cases: file of tags, notes and verdicts; None = where those of this dataset are kept.
    """

    def __init__(
        self, index: GalleryIndex, report: EvaluationReport, cases: Path | None = None
    ) -> None:
        super().__init__(index)
        self.report, self.dataset = report, index.dataset
        self.cases = Cases(cases or case_file(index.dataset))
        self.gallery_cameras = index.gallery.cameras
        self.cameras: list[int] = np.unique(self.gallery_cameras).tolist()
        self.jobs = Jobs()
        self._subsets: Recent[dict[str, float]] = Recent(64)
        self._tables: Recent[Table] = Recent(8)
        self._groups: Recent[Groups] = Recent(16)
        self._slices: Recent[tuple[Slice, ...]] = Recent(64)

    # The evaluation

    @cached_property
    def by_difficulty(self) -> list[str]:
        """Ids of the queries, hardest first; those without a match last."""
        hardest = hardest_first(self.report).tolist()
        rest = np.flatnonzero(~self.report.valid).tolist()
        return [self.query_ids[row] for row in [*hardest, *rest]]

    @cached_property
    def difficulty(self) -> dict[str, int]:
        """Query → its place among the hardest, from 1."""
        return {query: place for place, query in enumerate(self.by_difficulty, start=1)}

    @cached_property
    def confidence(self) -> Confidence | None:
        """Intervals of mAP and rank 1; None where too few identities count."""
        try:
            return bootstrap(self.report)
        except CCANError:
            return None

    def percentile(self, query: str) -> float:
        """Share of the queries whose AP is lower, in per cent; NaN where the query has no match."""
        ap = self.report.ap[self.query_rows[query]]
        valid = self.report.ap[self.report.valid]
        return float(100 * np.mean(valid < ap)) if ap == ap else np.nan

    def camera_pairs(self) -> Job[CameraPairs]:
        """Rank 1 and mAP from camera to camera."""
        return self.jobs.begin(
            "pairs", lambda _: camera_pairs(self.index.query, self.index.gallery)
        )

    def distributions(self) -> Job[DistanceDistributions]:
        """Distances of all pairs that the protocol counts."""
        return self.jobs.begin(
            "distances", lambda _: distance_distributions(self.index.query, self.index.gallery)
        )

    def subset(self, name: str) -> dict[str, float]:
        """Queries → AP of a named subset, hardest first.

        ``hit:K``, ``miss:K``: the first match stands at rank K or before, or after it; ``pair:A:B``: queries of camera
        A that have a match in camera B, with their AP against that camera's images alone; ``kind:NAME``: failures of
        a kind; ``slice:COLUMN:VALUE``; ``taken:A:B``: queries of identity A that B stands ahead of; ``hub:IMAGE``:
        queries with this wrong image in the head of their ranking; ``tag:NAME``, ``tagged``; ``lasso:LASSO``
        (`app.maps`); "" = all.
        Raises: ConfigError for another name.
        """
        if name.partition(":")[0] in ("tag", "tagged"):  # these change
            return self._subset(name)
        return self._subsets.get_or_make(name, lambda: self._subset(name))

    def _subset(self, name: str) -> dict[str, float]:
        report, order = self.report, self.by_difficulty
        kind, _, rest = name.partition(":")
        try:
            if kind == "pair":
                first, second = map(int, rest.split(":"))
                return self._pair(first, second)
            if kind in self._CHOSEN:
                return self._with_ap(self._CHOSEN[kind](self, rest))
            rank = int(rest) if name else 0
        except NotYet:
            raise
        except (ValueError, KeyError) as error:
            raise ConfigError(f"there is no subset {name[:40]!r}") from error
        if not name:
            chosen = np.ones(len(order), bool)
        elif kind in ("hit", "miss") and rank >= 1:
            hit = report.valid & (report.first_match <= rank)
            chosen = hit if kind == "hit" else report.valid & ~hit
        else:
            raise ConfigError(f"there is no subset {name[:40]!r}")
        return self._with_ap(chosen)

    def _with_ap(self, chosen: NDArray[np.bool_]) -> dict[str, float]:
        rows = [self.query_rows[query] for query in self.by_difficulty]
        return {self.query_ids[row]: float(self.report.ap[row]) for row in rows if chosen[row]}

    def _pair(self, first: int, second: int) -> dict[str, float]:
        rows = np.flatnonzero(self.index.query.cameras == first)
        columns = np.flatnonzero(self.index.gallery.cameras == second)
        if not len(rows) or not len(columns):
            raise ConfigError(f"there is no pair of cameras {first} and {second}")
        cell = judge(self.index.query.select(rows), self.index.gallery.select(columns))
        order = hardest_first(cell).tolist()
        return {self.query_ids[rows[place]]: float(cell.ap[place]) for place in order}

    # Errors

    @property
    def slice_columns(self) -> list[str]:
        """Columns that the queries can be sliced by."""
        return [CAMERA, *self.index.query.metadata]

    @property
    def _branches(self) -> int:
        return 2 if len(self.index.branches) == 2 else 1

    def diagnosis(self) -> Job[Diagnosis]:
        """Failures by kind, confusers, hubs, label suspects: worked out once, beside the page."""

        def work(report: Any) -> Diagnosis:
            report(0, 1, "sorting the failures")
            return diagnose(self.index.query, self.index.gallery, branches=self._branches)

        return self.jobs.begin("diagnosis", work)

    def diagnosed(self) -> Diagnosis:
        """The finished diagnosis. Raises: ConfigError while it is being worked out."""
        job = self.diagnosis()
        job.wait(20)
        if job.value is None:
            raise ConfigError(job.error or "the failures are still being sorted; try again soon")
        return job.value

    def confusers_table(self) -> Table:
        """Who is taken for whom, as a table. Raises: as `diagnosed`."""
        return self._tables.get_or_make("confusers", lambda: self.diagnosed().confusers.table())

    def _of_kind(self, name: str) -> NDArray[np.bool_]:
        return {kind.name: kind.holds for kind in self.diagnosed().failures.kinds}[name]

    def _of_slice(self, name: str) -> NDArray[np.bool_]:
        column, _, value = name.partition(":")
        return dict(slice_groups(self.report, column))[value]

    def _taken(self, name: str) -> NDArray[np.bool_]:
        who, whom = map(int, name.split(":"))
        tops = self.diagnosed().tops
        seen = tops.rows != NOBODY
        theirs = seen & (self.index.gallery.identities[tops.rows] == whom)
        first = np.where(tops.right.any(axis=1), tops.right.argmax(axis=1), tops.rows.shape[1])
        ahead = theirs & (np.arange(tops.rows.shape[1]) < first[:, None])
        return tops.failed & ahead.any(axis=1) & (self.index.query.identities == who)

    def _near_hub(self, image: str) -> NDArray[np.bool_]:
        tops = self.diagnosed().tops
        return ((tops.rows == self.gallery_rows[image]) & ~tops.right).any(axis=1)

    def _tagged(self, tag: str | None) -> NDArray[np.bool_]:
        if tag == "":
            raise ValueError(tag)
        return np.isin(self.query_ids, self.cases.images(tag))

    _CHOSEN: ClassVar[dict[str, Callable[[Any, str], NDArray[np.bool_]]]] = {
        "kind": _of_kind,
        "slice": _of_slice,
        "taken": _taken,
        "hub": _near_hub,
        "tag": _tagged,
        "tagged": lambda self, _: self._tagged(None),
        "lasso": lambda self, rest: np.isin(self.query_ids, self.lassoed(rest)),
    }
    """Kind of a subset → which queries it holds."""

    # Maps

    @property
    def mappable(self) -> int:
        """Number of images that a map of all shows."""
        sides = (self.index.query, self.index.gallery)
        return sum(int((one.identities != JUNK).sum()) for one in sides)

    def mapping(self, whole: bool = False) -> Job[Mapped]:
        """The embedding maps of all images, or of at most `LIMIT` of them; worked out once, kept in the cache."""

        def work(report: Any) -> Mapped:
            images, splits = all_images(self.index.query, self.index.gallery)
            found = project(
                images,
                branches=self._branches,
                limit=None if whole else LIMIT,
                progress=report,
            )
            sides = ((self.query_ids, self.index.query), (self.gallery_ids, self.index.gallery))
            ids = [ids[k] for ids, one in sides for k in np.flatnonzero(one.identities != JUNK)]
            return Mapped(
                found,
                images.with_features(images.features.float()),
                [ids[row] for row in found.rows],
                np.array(splits)[found.rows],
                whole,
            )

        return self.jobs.begin(("map", whole), work)

    def mapped(self, key: str) -> Mapped:
        """The maps of a key. Raises: NotYet while they are being made; ValueError for maps that are not here.

        A map of all images takes minutes, so it is never begun by a key.
        """
        whole = key.startswith("w")
        job = self.jobs.found(("map", True)) if whole else self.mapping()
        if job is None:
            raise ValueError(key)
        job.wait(WAIT)
        if job.error:
            raise ConfigError(job.error)
        if job.value is None:
            raise NotYet("The map is still being made.")
        if job.value.key != key:
            raise ValueError(key)
        return job.value

    def lassoed(self, lasso: str) -> list[str]:
        """Ids of the images in a lasso, queries first. Raises: as `mapped`."""
        mapped = self.mapped(read_lasso(lasso)[1])
        return [mapped.ids[place] for place in np.flatnonzero(mapped.inside(lasso))]

    def groups(self, mapped: Mapped, colour: str) -> Groups:
        """The points of a map by what they are coloured by. Raises: KeyError for another name; as `diagnosed`."""
        make: dict[str, Callable[[], Groups]] = {
            "identity": mapped.by_identity,
            "camera": mapped.by_camera,
            "split": mapped.by_split,
            "ap": lambda: mapped.by_ap(self.report, self.query_rows),
            "failure": lambda: mapped.by_failure(self.diagnosed(), self.query_rows),
        }
        return self._groups.get_or_make((mapped.key, colour), make[colour])

    @cached_property
    def people(self) -> list[str]:
        """Ids of all images with a known person, queries first: the rows of label suspects."""
        sides = ((self.query_ids, self.index.query), (self.gallery_ids, self.index.gallery))
        return [ids[row] for ids, one in sides for row in np.flatnonzero(one.identities > 0)]

    def suspect_pair(self, number: int) -> tuple[str, str]:
        """Ids of the two images of a label suspect by its place in the list. Raises: ValueError for another."""
        suspects = self.diagnosed().suspects.suspects
        if not 0 <= number < len(suspects):
            raise ValueError(number)
        return self.people[suspects[number].first], self.people[suspects[number].second]

    def slices(self, column: str) -> tuple[Slice, ...]:
        """The averages by a column of the queries' metadata."""
        return self._slices.get_or_make(column, lambda: slice_report(self.report, column))

    def known_identity(self, text: str) -> int:
        """An identity of the gallery. Raises: ValueError for what is none."""
        identity = int(text)
        if not (self.index.gallery.identities == identity).any():
            raise ValueError(text)
        return identity
