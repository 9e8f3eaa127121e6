"""Pictures of the dataset as a report may show them."""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image, ImageFilter

from ccan.data.loading import open_image
from ccan.data.records import Sample

HEAD = 0.25
"""Share of the height that holds the head: the first of four strips."""


@dataclass(frozen=True)
class Photos:
    """The one place that a report takes its pictures from.

    Attributes:
        blur_faces: whether the head strip of every picture is blurred beyond recognition.
    """

    blur_faces: bool = False

    def of(self, sample: Sample) -> Image.Image:
        """An image of the dataset. Raises: DatasetError if it cannot be read."""
        photo = open_image(sample.path)
        return blurred(photo) if self.blur_faces else photo


def blurred(photo: Image.Image) -> Image.Image:
    """A copy whose top quarter shows no more than some blots of colour."""
    head = (0, 0, photo.width, max(1, round(HEAD * photo.height)))
    strip = photo.crop(head)
    coarse = strip.resize((4, 4), Image.Resampling.BOX).resize(strip.size, Image.Resampling.BICUBIC)
    result = photo.copy()
    result.paste(coarse.filter(ImageFilter.GaussianBlur(photo.width / 16)), head[:2])
    return result
