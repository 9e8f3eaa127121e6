"""Everything that the page reads, made once: the model, the index, its evaluation. Handlers get ids only.

An id is the image's path below the dataset's root. Uploads are the one thing that comes and goes: they stay in memory,
a few at a time, under ids that cannot be guessed, and are never written anywhere.
"""

from __future__ import annotations

import base64
import io
import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from tqdm import tqdm

from ccan.data import load_dataset, read_options
from ccan.data.loading import open_image
from ccan.data.records import Sample
from ccan.errors import ConfigError, DatasetError
from ccan.evaluation import EvaluationReport, Ranking, evaluate_features, rank_gallery
from ccan.explain.attention import (
    AttentionRecord,
    SlotGeometry,
    silent_slots,
    slot_geometry,
    slot_names,
)
from ccan.gallery import GalleryIndex, index_dataset
from ccan.predictor import Predictor

MAX_UPLOAD_BYTES = 10 * 2**20
UPLOADS_KEPT, RECORDS_KEPT, RANKINGS_KEPT = 32, 32, 64
UPLOAD_HEIGHT = 512
"""Uploads are kept at most this many pixels high."""
_UPLOAD = "upload:"

Value = TypeVar("Value")


@dataclass(frozen=True)
class Upload:
    """A picture that a person brought: nobody knows who is on it."""

    name: str
    photo: Image.Image
    thumbnail: str
    descriptor: NDArray[np.float32]


class Recent(OrderedDict[str, Value]):
    """The newest values by id, from many threads."""

    def __init__(self, kept: int) -> None:
        super().__init__()
        self._kept, self._lock = kept, threading.Lock()

    def get_or_make(self, key: str, make: Callable[[], Value]) -> Value:
        """The value of a key, made where it is missing. Two threads may both make it; one result stays."""
        with self._lock:
            if key in self:
                self.move_to_end(key)
                return self[key]
        value = make()
        with self._lock:
            self[key] = value
            while len(self) > self._kept:
                self.popitem(last=False)
        return value


class Store:
    """The dashboard's data.

    Args:
        predictor: the model.
        index: its view of a dataset.
        report: the evaluation of that index.
        checkpoint: what the model is called on the page.
    """

    def __init__(
        self, predictor: Predictor, index: GalleryIndex, report: EvaluationReport, checkpoint: str
    ) -> None:
        self.predictor, self.index, self.report = predictor, index, report
        self.checkpoint = checkpoint
        self.dataset = index.dataset
        self.query_ids = _ids(self.dataset.query, self.dataset.root, "query")
        self.gallery_ids = _ids(self.dataset.gallery, self.dataset.root, "gallery")
        self.query_rows = {id_: row for row, id_ in enumerate(self.query_ids)}
        self.gallery_rows = {id_: row for row, id_ in enumerate(self.gallery_ids)}
        self.gallery_cameras = np.array([sample.camera for sample in self.dataset.gallery])
        self.cameras: list[int] = np.unique(self.gallery_cameras).tolist()
        self.slots = slot_names(predictor.config)
        self.silent = silent_slots(predictor.model)
        self._uploads: Recent[Upload] = Recent(UPLOADS_KEPT)
        self._records: Recent[AttentionRecord] = Recent(RECORDS_KEPT)
        self._rankings: Recent[Ranking] = Recent(RANKINGS_KEPT)

    @classmethod
    def open(
        cls,
        checkpoint: str | Path = "demo",
        dataset: str = "demo",
        data: Path | None = None,
        options: Sequence[str] = (),
        *,
        cache: Path | None = None,
        progress: bool = True,
    ) -> Store:
        """Load the model, read the dataset, index and evaluate it; the first time takes longest.

        Raises: CCANError of any kind, for people to read.
        """
        predictor = Predictor.from_checkpoint(checkpoint)
        samples = load_dataset(dataset, data, **read_options(dataset, options))
        with _Bar(progress) as bar:
            index = index_dataset(predictor, samples, cache=cache, progress=bar.update)
        report = evaluate_features(index.query, index.gallery)
        return cls(predictor, index, report, str(checkpoint))

    # Images

    def is_upload(self, image: str) -> bool:
        """Whether an id is an upload's, held or not."""
        return image.startswith(_UPLOAD)

    def sample(self, image: str) -> Sample | None:
        """The record of an indexed image; None for an upload. Raises: DatasetError for an unknown id."""
        if image in self.query_rows:
            return self.dataset.query[self.query_rows[image]]
        if image in self.gallery_rows:
            return self.dataset.gallery[self.gallery_rows[image]]
        self._upload(image)
        return None

    def name(self, image: str) -> str:
        """File name of an image."""
        sample = self.sample(image)
        return self._upload(image).name if sample is None else sample.path.name

    def photo(self, image: str) -> Image.Image:
        """The image itself."""
        sample = self.sample(image)
        return self._upload(image).photo if sample is None else open_image(sample.path)

    def thumbnail(self, image: str) -> str:
        """What goes into ``<img src>``: the picture's own bytes.

        A page of forty new pictures is there three times sooner than by forty requests, and no file is served.
        """
        for split, rows in (("query", self.query_rows), ("gallery", self.gallery_rows)):
            if image in rows:
                return data_address(self.index.thumbnail(split, rows[image]).read_bytes())
        return self._upload(image).thumbnail

    def add_upload(self, name: str, data: bytes) -> str:
        """Embed a picture and hold it for a while → its id. Raises: DatasetError if it is no picture or too large."""
        if len(data) > MAX_UPLOAD_BYTES:
            raise too_large(name, len(data))
        photo = _decode(name, data)
        descriptor = self.predictor.embed(photo)[0]
        photo.thumbnail((4 * UPLOAD_HEIGHT, UPLOAD_HEIGHT))
        upload = Upload(name, photo, jpeg_source(photo), descriptor)
        return_id = _UPLOAD + secrets.token_urlsafe(12)
        self._uploads.get_or_make(return_id, lambda: upload)
        return return_id

    def _upload(self, image: str) -> Upload:
        found = self._uploads.get(image)
        if found is None:
            raise DatasetError(
                "this picture is no longer held; upload it again"
                if self.is_upload(image)
                else f"there is no image {image[:80]!r} in this dataset"
            )
        return found

    # What the model and the protocol say

    def ranking(self, query: str) -> Ranking:
        """The whole ranked gallery of a query, with marks; those of an upload are unknown."""

        def rank() -> Ranking:
            if self.is_upload(query):
                return rank_gallery(self._upload(query).descriptor, self.index.gallery)
            if query not in self.query_rows:
                raise DatasetError(f"there is no query {query[:80]!r} in this dataset")
            row = self.index.query.select([self.query_rows[query]])
            return rank_gallery(row, self.index.gallery)

        return self._rankings.get_or_make(query, rank)

    def nearest(self, query: str) -> str:
        """The first ranked gallery image that counts."""
        ranking = self.ranking(query)
        return self.gallery_ids[ranking.order[int(np.argmax(ranking.positions > 0))]]

    def attention(self, image: str) -> AttentionRecord:
        """The maps of every slot for an image."""
        return self._records.get_or_make(image, lambda: self.predictor.attention(self.photo(image)))

    def slot(self, slot: str) -> str:
        """A slot by its name; "" = the first. Raises: ConfigError without any attention."""
        if not self.slots:
            raise ConfigError("this network has no attention to look at")
        return slot or self.slots[0]

    def geometry(self, slot: str) -> SlotGeometry:
        """Where the positions of a slot lie; "" = the first slot. Raises: ConfigError without any attention."""
        return slot_geometry(self.predictor.config, self.slot(slot))

    def positions(self, slot: str) -> int:
        """Number of positions of a slot."""
        geometry = self.geometry(slot)
        return geometry.rows * geometry.columns

    @cached_property
    def by_difficulty(self) -> list[str]:
        """Ids of the queries, lowest AP first; those without a match last."""
        return [self.query_ids[row] for row in np.argsort(self.report.ap, kind="stable")]


def too_large(name: str, size: int) -> DatasetError:
    """The complaint about an upload of so many bytes."""
    return DatasetError(
        f"{name}: expected at most {MAX_UPLOAD_BYTES // 2**20} MB, got {size / 2**20:.0f} MB; scale it down"
    )


def _decode(name: str, data: bytes) -> Image.Image:
    file = io.BytesIO(data)
    file.name = name
    try:
        return open_image(file)
    except DatasetError as error:
        if isinstance(error.__cause__, UnidentifiedImageError):
            raise DatasetError(
                f"{name}: expected a readable image (JPEG, PNG, WebP …), got a file of another kind"
            ) from error
        raise


def jpeg_source(picture: Image.Image) -> str:
    """A picture as a ``data:`` address."""
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=88)
    return data_address(file.getvalue())


def data_address(jpeg: bytes) -> str:
    """The bytes of a JPEG file as a ``data:`` address."""
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode("ascii")


def _ids(samples: Sequence[Sample], root: Path, split: str) -> list[str]:
    return [
        sample.path.relative_to(root).as_posix()
        if sample.path.is_relative_to(root)
        else f"{split}/{row}"
        for row, sample in enumerate(samples)
    ]


class _Bar:
    """A progress bar that appears with the first step, so that nothing is shown where nothing is to do."""

    def __init__(self, wanted: bool) -> None:
        self.wanted = wanted
        self.bar: Any = None

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.close()

    def update(self, done: int, total: int, doing: str) -> None:
        if self.bar is None:
            self.bar = tqdm(total=total, unit="step", disable=not self.wanted)
        self.bar.set_description(doing, refresh=False)
        self.bar.update(done - self.bar.n)
