"""The one seam for people: a path, a picture or an array in; embeddings, rankings and attention maps out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps

from ccan.config import ModelConfig
from ccan.data.loading import image_files, open_image, to_rgb
from ccan.data.records import UNKNOWN_CAMERA, Sample
from ccan.data.transforms import prepare_image
from ccan.device import choose_device
from ccan.errors import ShapeError
from ccan.evaluation.feature_set import FeatureSet
from ccan.evaluation.features import describe, extract_features
from ccan.evaluation.ranking import Ranking, rank_gallery
from ccan.explain.attention import AttentionRecord, record_attention
from ccan.model.network import CCAN
from ccan.training.checkpoint import CheckpointInfo, load_model

BATCH = 64
"""Images in a forward pass of `Predictor.embed`."""

ImageLike = str | Path | BinaryIO | Image.Image | NDArray[Any]
"""A file, an open file, a PIL image, or an array (H, W), (H, W, 3) or (H, W, 4) of uint8."""


class Predictor:
    """A trained CCAN, ready to be asked.

    Args:
        model: the network.
        info: its checkpoint's header.
        device: where it runs.

    Example:
        >>> predictor = Predictor.from_checkpoint("demo")
        >>> predictor.embed("person.jpg").shape
        (1, 512)
    """

    def __init__(
        self, model: CCAN, info: CheckpointInfo, device: torch.device | str = "cpu"
    ) -> None:
        self.device = torch.device(device)
        self.model = model.to(self.device).eval()
        self.info = info

    @classmethod
    def from_checkpoint(cls, checkpoint: str | Path = "demo", device: str = "auto") -> Predictor:
        """Load `demo` (the bundled model), a checkpoint file, or a run folder. Raises: CheckpointError."""
        chosen = choose_device(device)
        model, info = load_model(checkpoint, chosen)
        return cls(model, info, chosen)

    @property
    def config(self) -> ModelConfig:
        """The network's settings."""
        return self.model.config

    def prepare(self, image: ImageLike) -> torch.Tensor:
        """The network's input for an image, (3, H, W) float32. Raises: DatasetError, ShapeError."""
        return prepare_image(as_image(image), self.config.image_height, self.config.image_width)

    def embed(
        self, images: ImageLike | Sequence[ImageLike], *, flip: bool = False
    ) -> NDArray[np.float32]:
        """Descriptors of one image, several, or all of a folder: (N, 2d) float32, one unit of length a branch.

        A folder's images come in the order of `ccan.data.loading.image_files`, folders below it included.

        Args:
            images: what to embed.
            flip: average each image with its mirror (`ccan.evaluation.features.mirror_average`).

        Raises: DatasetError for an image that cannot be read or a folder without any, ShapeError for none at all.
        """
        several = _listed(images)
        descriptors: list[NDArray[np.float32]] = []
        for start in range(0, len(several), BATCH):
            batch = torch.stack([self.prepare(image) for image in several[start : start + BATCH]])
            with torch.inference_mode():
                found = describe(self.model, batch.to(self.device), flip=flip)
            descriptors.append(found.float().cpu().numpy())
        return np.concatenate(descriptors)

    def features(
        self,
        samples: Sequence[Sample],
        *,
        progress: Callable[[int, int], None] | bool = False,
    ) -> FeatureSet:
        """Descriptors of many samples with their identities, cameras and names."""
        # Decoded in this process: a script without a __main__ guard must not start others.
        return extract_features(
            self.model, samples, workers=0, device=self.device, progress=progress
        )

    def rank(
        self,
        query: ImageLike,
        gallery: FeatureSet,
        *,
        identity: int | None = None,
        camera: int = UNKNOWN_CAMERA,
        top: int | None = None,
    ) -> Ranking:
        """Rank a gallery for one image; with its identity (and camera) the ranking is marked right and wrong."""
        embedding = self.embed(query)
        if identity is None:
            return rank_gallery(embedding[0], gallery, top=top)
        names = [str(query)] if isinstance(query, str | Path) else None
        return rank_gallery(FeatureSet(embedding, [identity], [camera], names), gallery, top=top)

    def attention(self, image: ImageLike) -> AttentionRecord:
        """Attention maps of every slot for one image, from the very forward that makes its embedding."""
        return record_attention(self.model, self.prepare(image)[None].to(self.device))[0]


def _listed(images: ImageLike | Sequence[ImageLike]) -> Sequence[ImageLike]:
    """One image, several, or a folder's, as a list. Raises: DatasetError, ShapeError as `Predictor.embed`."""
    if isinstance(images, str | Path) and Path(images).is_dir():
        return image_files(images)
    several = cast("Sequence[ImageLike]", images if isinstance(images, list | tuple) else [images])
    if not several:
        raise ShapeError("expected at least one image to embed, got an empty list")
    return several


def as_image(image: ImageLike) -> Image.Image:
    """Anything that `Predictor` takes as an upright RGB picture. Raises: DatasetError, ShapeError."""
    if isinstance(image, np.ndarray):
        right = image.ndim == 2 or (image.ndim == 3 and image.shape[2] in (3, 4))
        if not right or image.dtype != np.uint8 or image.size == 0:
            raise ShapeError(
                f"expected a uint8 array (H, W), (H, W, 3) or (H, W, 4), got {image.dtype} "
                f"{image.shape}; scale values to 0…255 and convert with .astype(numpy.uint8)"
            )
        image = Image.fromarray(image)
    if isinstance(image, Image.Image):
        return to_rgb(ImageOps.exif_transpose(image))
    return open_image(image)
