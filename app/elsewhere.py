"""A second gallery, made by `ccan index`, that the page's queries are looked for in too: of any size, of any engine."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from numpy.typing import NDArray

from app.images import Recent, grey_card, jpeg_source
from app.jobs import Job, Jobs
from ccan.data.loading import open_image
from ccan.errors import CCANError, ShapeError
from ccan.gallery import THUMBNAIL_HEIGHT
from ccan.reports.photos import blurred
from ccan.search import Found, SearchIndex, Views, Where

if TYPE_CHECKING:
    from ccan.predictor import Predictor

TOP, KEPT = 10, 400


@dataclass(frozen=True)
class Asked:
    """What is looked for, as it is remembered.

    Attributes:
        query: id of the query.
        cameras, identities: only these; empty = all.
        own: identity and camera of the query, whose own views the protocol leaves out; None = unknown.
    """

    query: str
    cameras: tuple[int, ...] = ()
    identities: tuple[int, ...] = ()
    own: tuple[int, int] | None = None


class Elsewhere:
    """An index that is open.

    Args:
        index: to be searched.
        predictor: the network that describes queries; None for features of another one.

    Raises: CheckpointError if the index is another network's; ShapeError if its numbers are of another width.
    """

    def __init__(self, index: SearchIndex, predictor: Predictor | None, width: int) -> None:
        if predictor is not None:
            index.check_model(predictor)
        if index.engine.width != width:
            raise ShapeError(
                f"expected an index of {width} numbers an image, as the queries have, got {index.engine.width}; "
                "make it of the same model"
            )
        self.index = index
        self._one_at_a_time = threading.Lock()
        self._pictures: Recent[str] = Recent(KEPT)

    def search(
        self, jobs: Jobs, asked: Asked, descriptor: NDArray | torch.Tensor, name: str | None
    ) -> Job[Found]:
        """The nearest images, worked out beside the page: a large gallery may take its time."""

        def work(report: object) -> Found:
            own = None if asked.own is None else Views.of(*asked.own, name)
            where = Where(asked.cameras or None, asked.identities or None, own)
            with self._one_at_a_time:
                return self.index.search(descriptor, min(TOP, len(self.index)), where)

        return jobs.begin(("elsewhere", asked), work)

    def thumbnail(self, row: int, blur: bool) -> str:
        """What goes into ``<img src>``; a grey card where there is no picture."""
        return self._pictures.get_or_make((row, blur), lambda: self._thumbnail(row, blur))

    def _thumbnail(self, row: int, blur: bool) -> str:
        path = self.index.picture(row)
        try:
            photo = None if path is None else open_image(path)
        except CCANError:
            photo = None
        if photo is None:
            return grey_card(str(self.index.identities[row]))
        photo.thumbnail((4 * THUMBNAIL_HEIGHT, THUMBNAIL_HEIGHT))
        return jpeg_source(blurred(photo) if blur else photo)
