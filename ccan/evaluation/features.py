"""Descriptors of a set of images with what the protocol must know of each: identity, camera, name.

Letters: N images, D numbers of a descriptor.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from ccan.config import EvalConfig
from ccan.data.records import Sample
from ccan.errors import ConfigError, DatasetError, ProtocolError, ShapeError

_COMPUTED_IN_FLOAT32 = (torch.float16, torch.bfloat16)


@dataclass(frozen=True, init=False, eq=False)
class FeatureSet:
    """Features of N images and the facts that a ranking is judged by. Features are never re-normalised.

    Attributes:
        features: (N, D) floating point, on any device; half precision is widened to float32, the rest is kept.
        identities: (N,) int64 array; -1 junk, 0 distractor (an ordinary negative).
        cameras: (N,) int64 array; -1 unknown.
        names: N names of the images, or None; needed where cameras are unknown, to know a query from its own copy.

    Tensors, NumPy arrays and lists are accepted.

    Raises: ShapeError for a wrong number of axes or lengths that differ; ProtocolError for features that are not
    finite floating point numbers, and for identities or cameras that are not integers.
    """

    features: Tensor
    identities: NDArray[np.int64]
    cameras: NDArray[np.int64]
    names: tuple[str, ...] | None

    def __init__(
        self,
        features: Tensor | ArrayLike,
        identities: Tensor | ArrayLike,
        cameras: Tensor | ArrayLike,
        names: Sequence[str] | None = None,
    ) -> None:
        rows = check_features(features)
        for name, values in (("identities", identities), ("cameras", cameras)):
            object.__setattr__(self, name, _integers(name, values, len(rows)))
        if names is not None and len(names) != len(rows):
            raise ShapeError(
                f"names must have one entry for each of the {len(rows)} rows of features, got {len(names)}"
            )
        object.__setattr__(self, "features", rows)
        object.__setattr__(self, "names", None if names is None else tuple(map(str, names)))

    def __len__(self) -> int:
        return len(self.features)

    def select(self, rows: ArrayLike) -> FeatureSet:
        """The images at these row numbers, or where this boolean mask is true, in that order."""
        chosen = np.arange(len(self))[np.asarray(rows)]
        names = None if self.names is None else [self.names[int(row)] for row in chosen]
        features = self.features[torch.as_tensor(chosen).to(self.features.device)]
        return FeatureSet(features, self.identities[chosen], self.cameras[chosen], names)

    def to(self, device: torch.device | str) -> FeatureSet:
        """The same set with its features on another device."""
        return FeatureSet(self.features.to(device), self.identities, self.cameras, self.names)

    def numpy(self) -> dict[str, NDArray[Any]]:
        """Arrays by field name, as `numpy.savez` takes them; `names` only where there are any."""
        arrays: dict[str, NDArray[Any]] = {
            "features": self.features.cpu().numpy(),
            "identities": self.identities,
            "cameras": self.cameras,
        }
        return arrays if self.names is None else arrays | {"names": np.array(self.names, dtype=str)}


def check_features(features: Tensor | ArrayLike) -> Tensor:
    """Features as a detached (N, D) tensor of finite float32 or float64 numbers.

    Raises: ShapeError, ProtocolError as `FeatureSet` does.
    """
    rows = torch.as_tensor(features).detach()
    if rows.ndim != 2 or rows.shape[1] == 0:
        raise ShapeError(f"features must have shape (N, D) with D ≥ 1, got {tuple(rows.shape)}")
    if not rows.is_floating_point():
        raise ProtocolError(
            f"features must be floating point, got {rows.dtype}; convert them, e.g. to float32"
        )
    if rows.dtype in _COMPUTED_IN_FLOAT32:
        rows = rows.float()
    # NaN and infinity both survive aminmax, which unlike isfinite needs no second array.
    if len(rows) and not all(torch.isfinite(bound) for bound in torch.aminmax(rows)):
        broken = (~torch.isfinite(rows).all(dim=1)).nonzero()[:, 0]
        raise ProtocolError(
            f"features must be finite, got NaN or infinity in {len(broken)} of {len(rows)} rows "
            f"(the first is row {int(broken[0])}); look at the images or the weights that made them"
        )
    return rows


def _integers(name: str, values: Tensor | ArrayLike, length: int) -> NDArray[np.int64]:
    numbers = values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
    if numbers.shape != (length,):
        raise ShapeError(
            f"{name} must have shape ({length},), one for each row of features, got {numbers.shape}"
        )
    if length and not np.issubdtype(numbers.dtype, np.integer):
        raise ProtocolError(f"{name} must be integers, got {numbers.dtype}")
    return numbers.astype(np.int64)


def extract_features(
    model: nn.Module,
    samples: Sequence[Sample],
    *,
    height: int | None = None,
    width: int | None = None,
    batch_size: int = 64,
    workers: int = 2,
    device: torch.device | str | None = None,
    autocast: torch.dtype | None = None,
    progress: Callable[[int, int], None] | bool = False,
    on_broken: Literal["error", "skip"] = "error",
) -> FeatureSet:
    """The model's descriptor of each image: resized, normalised, nothing else (section 4.1).

    Args:
        model: gives a `CCANOutput` for images (B, 3, height, width); its training mode is restored afterwards.
        samples: images, whose identity, camera and path go into the result in the same order.
        height, width: input size in pixels; the model's own (`model.config`) unless both are given.
        batch_size: images in a forward pass; results do not depend on it beyond rounding.
        workers: processes that decode images; 0 = decode in this process.
        device: where to compute; where the model is if None. The model is moved there.
        autocast: dtype of the forward pass, for example `torch.bfloat16`; None = the model's own.
        progress: True for a bar, or a function that is called with (images done, images in all).
        on_broken: what an image does that cannot be decoded: stop, or be left out and named in one UserWarning.

    Returns: float32 features (float64 if the model computes in it) on the CPU, named by the path of the image.
    Raises: DatasetError that names the broken images, or if there is no image.
    """
    from ccan.data.loading import TestImages  # decoders are needed only here

    samples = list(samples)
    images = TestImages(
        [sample.path for sample in samples], *_input_size(model, height, width), skip_broken=True
    )
    config = EvalConfig(batch_size=batch_size, workers=workers)
    strict = on_broken == "error"
    with warnings.catch_warnings(), _progress_of(len(samples), progress) as advance:
        # A warning of a decoding process reaches nobody; all broken images are named together below.
        warnings.filterwarnings("ignore", "left out: ", UserWarning)
        # The batches are handed over: processes of an unfinished pass end at once when nobody holds them.
        features, rows = _forward_all(
            model, images.batches(config), device, autocast, advance, strict
        )
    if len(rows) < len(samples):
        _complain(samples, rows, strict)
    if not rows:
        raise DatasetError("there is no image to extract features of; check the folder or the list")
    return FeatureSet(
        torch.cat(features),  # made outside of inference mode: an ordinary tensor
        [samples[row].identity for row in rows],
        [samples[row].camera for row in rows],
        [str(samples[row].path) for row in rows],
    )


def _input_size(model: nn.Module, height: int | None, width: int | None) -> tuple[int, int]:
    """(height, width) in pixels, where not given those that the model was built for."""
    if height is not None and width is not None:
        return height, width
    config: Any = getattr(model, "config", None)
    if config is None:
        raise ConfigError(
            "the model has no `config` to tell its input size; pass height= and width="
        )
    return config.image_height, config.image_width


def _complain(samples: Sequence[Sample], rows: Sequence[int], strict: bool) -> None:
    """Name the images that are not among `rows`: in a DatasetError if strict, else in a UserWarning."""
    from ccan.data.loading import find_broken

    read = set(rows)
    lost = [sample for row, sample in enumerate(samples) if row not in read]
    # A strict pass ends at the first broken image; the others are found here.
    broken = find_broken(samples) or {s.path: f"{s.path}: was not readable then" for s in lost}
    first = "; ".join(list(broken.values())[:10])
    more = f"; and {len(broken) - 10} more" if len(broken) > 10 else ""
    listed = f"images that cannot be read ({len(broken)}): {first}{more}"
    if strict:
        raise DatasetError(
            f"{listed}; mend or remove them, or leave them out with on_broken='skip'"
        )
    warnings.warn(f"left out {listed}", stacklevel=3)


@contextmanager
def _progress_of(
    total: int, progress: Callable[[int, int], None] | bool
) -> Generator[Callable[[int], object]]:
    """A function to call with the number of images of each batch that is done."""
    if callable(progress):
        done = 0

        def advance(count: int) -> None:
            nonlocal done
            done += count
            progress(done, total)

        yield advance
    else:
        from tqdm import tqdm

        with tqdm(total=total, desc="features", unit="img", disable=not progress) as bar:
            yield bar.update


def _forward_all(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, list[int]]],
    device: torch.device | str | None,
    autocast: torch.dtype | None,
    advance: Callable[[int], object],
    strict: bool,
) -> tuple[list[Tensor], list[int]]:
    """Descriptors of each batch on the CPU and the rows they belong to; stops at a missing row if strict.

    The model's modules keep their training modes.
    """
    weight = next(model.parameters(), torch.empty(0))
    where = weight.device if device is None else torch.device(device)
    modes = {module: module.training for module in model.modules()}
    model.to(where).eval()
    mixed = torch.autocast(where.type, dtype=autocast, enabled=autocast is not None)
    features: list[Tensor] = []
    rows: list[int] = []
    try:
        with torch.inference_mode(), mixed:
            for images, indices in batches:
                features.append(model(images.to(where, weight.dtype)).descriptor.cpu())
                rows.extend(indices)
                advance(len(indices))
                if strict and rows[-1] >= len(rows):
                    break
    finally:
        for module, mode in modes.items():
            module.training = mode
    return features, rows
