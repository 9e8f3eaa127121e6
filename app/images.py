"""The pictures of the page by their ids: those of the dataset, and uploads, which stay in memory for a while.

An id is the image's path below the dataset's root (after ``gallery:`` where a query has the same). An upload is the
one thing that comes and goes: a few are kept at a time, under ids that cannot be guessed, and none is ever written.
"""

from __future__ import annotations

import base64
import io
import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from ccan.data.loading import open_image
from ccan.data.records import Sample
from ccan.errors import DatasetError
from ccan.explain.weighting import PartVectors
from ccan.gallery import GalleryIndex
from ccan.reports.photos import blurred

MAX_UPLOAD_BYTES = 10 * 2**20
UPLOADS_KEPT, BLURRED_KEPT = 32, 2000
UPLOAD_HEIGHT = 512
"""Uploads are kept at most this many pixels high."""
_UPLOAD = "upload:"

Value = TypeVar("Value")


class Recent(OrderedDict[Hashable, Value]):
    """The values that were asked for last, by key, from many threads."""

    def __init__(self, kept: int) -> None:
        super().__init__()
        self._kept, self._lock = kept, threading.Lock()

    def get_or_make(self, key: Hashable, make: Callable[[], Value]) -> Value:
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


@dataclass(frozen=True)
class Described:
    """What the network says of one picture: (D,), (D,) with its mirror, and the parts."""

    descriptor: NDArray[np.float32]
    mirrored: NDArray[np.float32]
    vectors: PartVectors


@dataclass(frozen=True)
class Upload:
    """A picture that a person brought: nobody knows who is on it."""

    name: str
    photo: Image.Image
    described: Described


class Images:
    """Pictures by id.

    Args:
        index: whose images.
    """

    def __init__(self, index: GalleryIndex) -> None:
        self.index = index
        root = index.dataset.root
        self.query_ids = _ids(index.dataset.query, root, "query")
        self.gallery_ids = _ids(index.dataset.gallery, root, "gallery")
        if not set(self.query_ids).isdisjoint(self.gallery_ids):
            self.gallery_ids = [f"gallery:{image}" for image in self.gallery_ids]
        self.query_rows = {id_: row for row, id_ in enumerate(self.query_ids)}
        self.gallery_rows = {id_: row for row, id_ in enumerate(self.gallery_ids)}
        self._uploads: Recent[Upload] = Recent(UPLOADS_KEPT)
        self._blurred: Recent[str] = Recent(BLURRED_KEPT)

    def is_upload(self, image: str) -> bool:
        """Whether an id is an upload's, held or not."""
        return image.startswith(_UPLOAD)

    def place(self, image: str) -> tuple[str, int] | None:
        """Split and row of an indexed image; None for an upload. Raises: DatasetError for an unknown id."""
        if image in self.query_rows:
            return "query", self.query_rows[image]
        if image in self.gallery_rows:
            return "gallery", self.gallery_rows[image]
        self.upload(image)
        return None

    def indexed(self, image: str) -> str:
        """The id itself if it is one of the dataset. Raises: KeyError for another."""
        if image not in self.query_rows and image not in self.gallery_rows:
            raise KeyError(image)
        return image

    def pictured(self, image: str) -> bool:
        """Whether there is a picture of an image, and not a grey card only."""
        place = self.place(image)
        return place is None or self.index.thumbnail(*place) is not None

    def sample(self, image: str) -> Sample | None:
        """The record of an indexed image; None for an upload. Raises: DatasetError for an unknown id."""
        place = self.place(image)
        return None if place is None else self.index.samples(place[0])[place[1]]

    def name(self, image: str) -> str:
        """File name of an image."""
        sample = self.sample(image)
        return self.upload(image).name if sample is None else sample.path.name

    def photo(self, image: str, blur: bool = False) -> Image.Image:
        """The image itself. Raises: DatasetError if it cannot be read."""
        sample = self.sample(image)
        photo = self.upload(image).photo if sample is None else open_image(sample.path)
        return blurred(photo) if blur else photo

    def thumbnail(self, image: str, blur: bool = False) -> str:
        """What goes into ``<img src>``: the picture's own bytes, or a grey card where there is no picture.

        A page of forty new pictures is there three times sooner than by forty requests, and no file is served.
        """
        place = self.place(image)
        path = None if place is None else self.index.thumbnail(*place)
        if place is not None and path is None:
            sample = self.sample(image)
            return grey_card("?" if sample is None else str(sample.identity))
        if blur:
            return self._blurred.get_or_make(image, lambda: self._blurred_thumbnail(image, path))
        return jpeg_source(self.photo(image)) if path is None else data_address(path.read_bytes())

    def _blurred_thumbnail(self, image: str, path: Path | None) -> str:
        return jpeg_source(blurred(self.photo(image) if path is None else open_image(path)))

    def hold(self, name: str, photo: Image.Image, described: Described) -> str:
        """Hold an upload for a while → its id."""
        photo = photo.copy()
        photo.thumbnail((4 * UPLOAD_HEIGHT, UPLOAD_HEIGHT))
        image = _UPLOAD + secrets.token_urlsafe(12)
        self._uploads.get_or_make(image, lambda: Upload(name, photo, described))
        return image

    def upload(self, image: str) -> Upload:
        """An upload that is still held. Raises: DatasetError for every other id."""
        found = self._uploads.get(image)
        if found is None:
            raise DatasetError(
                "this picture is no longer held; upload it again"
                if self.is_upload(image)
                else f"there is no image {image[:80]!r} in this dataset"
            )
        return found


def too_large(name: str, size: int) -> DatasetError:
    """The complaint about an upload of so many bytes."""
    return DatasetError(
        f"{name}: expected at most {MAX_UPLOAD_BYTES // 2**20} MB, got {size / 2**20:.0f} MB; scale it down"
    )


def decode(name: str, data: bytes) -> Image.Image:
    """The picture that somebody sent. Raises: DatasetError if it is no picture, damaged or too large."""
    if len(data) > MAX_UPLOAD_BYTES:
        raise too_large(name, len(data))
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


def data_address(data: bytes, kind: str = "image/jpeg") -> str:
    """The bytes of a file as a ``data:`` address."""
    return f"data:{kind};base64," + base64.b64encode(data).decode("ascii")


def grey_card(words: str) -> str:
    """A grey card with the identity, for an image that there is no picture of."""
    svg = (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 96 192" width="96" height="192">'
        '<rect width="96" height="192" fill="#c9ced6"/><g fill="#8b93a0"><circle cx="48" cy="52" r="16"/>'
        '<path d="M24 84h48v46H62v40H34v-40H24z"/></g><text x="48" y="184" text-anchor="middle" '
        f'font-family="sans-serif" font-size="13" fill="#3b4350">{escape(words)}</text></svg>'
    )
    return data_address(svg.encode("utf-8"), "image/svg+xml")


def _ids(samples: Sequence[Sample], root: Path, split: str) -> list[str]:
    names = [
        sample.path.relative_to(root).as_posix()
        if sample.path.is_relative_to(root)
        else f"{split}/{row}"
        for row, sample in enumerate(samples)
    ]
    unique = len(set(names)) == len(names)
    return names if unique else [f"{split}/{row}" for row in range(len(samples))]
