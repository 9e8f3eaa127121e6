"""From images to descriptors: one pass of the model over a list of images (section 3.4).

Letters: N images, B of them in a batch, D numbers of a descriptor.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ccan.config import EvalConfig
from ccan.data.records import Sample
from ccan.errors import ConfigError, DatasetError
from ccan.evaluation.feature_set import FeatureSet, unit_rows


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
    flip: bool = False,
) -> FeatureSet:
    """The model's descriptor of each image: resized, normalised, nothing else (section 4.1).

    A CCAN is run with its batch norms folded (`ccan.model.fast`): the same numbers up to rounding, in less time.

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
        flip: describe each image by itself and its mirror (`mirror_average`); twice the work.

    Returns: float32 features (float64 if the model computes in it) on the CPU, named by the path of the image, with
    the samples' metadata.
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
            _folded(model), images.batches(config), device, autocast, advance, strict, flip
        )
    if len(rows) < len(samples):
        _complain(samples, rows, strict)
    if not rows:
        raise DatasetError("there is no image to extract features of; check the folder or the list")
    # Made outside of inference mode: an ordinary tensor.
    return feature_set_of(torch.cat(features), [samples[row] for row in rows])


def feature_set_of(features: Tensor, samples: Sequence[Sample]) -> FeatureSet:
    """Descriptors (N, D) with the facts of the N images that they belong to, named by their paths.

    A metadata column is there if any sample has it. It is numeric if all values that are known are numbers, and text
    otherwise; where a sample does not know it, NaN or "" stands.
    """
    columns = dict.fromkeys(column for sample in samples for column in sample.metadata)
    return FeatureSet(
        features,
        np.array([sample.identity for sample in samples], dtype=np.int64),
        np.array([sample.camera for sample in samples], dtype=np.int64),
        [str(sample.path) for sample in samples],
        {column: _metadata_column(samples, column) for column in columns},
    )


def _metadata_column(samples: Sequence[Sample], column: str) -> NDArray[Any]:
    values = [sample.metadata.get(column) for sample in samples]
    if any(isinstance(value, str) for value in values):
        return np.array(["" if value is None else str(value) for value in values])
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)


def describe(model: nn.Module, images: Tensor, *, flip: bool = False) -> Tensor:
    """The model's descriptors of prepared images, (B, 3, H, W) → (B, D).

    With flip, the mean with the mirrored images' descriptors (`mirror_average`). Modes and gradients are the caller's.
    """
    output = model(images)
    if not flip:
        return output.descriptor
    embeddings = [getattr(output, f"{branch}_embedding", None) for branch in ("global", "local")]
    branches = max(1, sum(embedding is not None for embedding in embeddings))
    return mirror_average(output.descriptor, model(images.flip(3)).descriptor, branches)


def mirror_average(descriptor: Tensor, mirrored: Tensor, branches: int = 2) -> Tensor:
    """Mean of the descriptors of images and of their mirrors, each branch brought back to unit length.

    f_A joins one vector of unit length for each branch (section 3.4). The mean of two such vectors is shorter the
    more an image differs from its mirror, so that without the second step such images would lie nearer to everything,
    and the branches would no longer weigh alike.

    Shapes: (B, branches·d) twice → (B, branches·d).
    """
    mean = (descriptor + mirrored) / 2
    return torch.cat([unit_rows(part) for part in mean.chunk(branches, dim=1)], dim=1)


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
            f"{listed}; mend or remove them, or leave them out with on_broken='skip' (on a command line: "
            "--broken-images skip)"
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


def _folded(model: nn.Module) -> nn.Module:
    """The model for one pass over many images, from its weights of this moment."""
    from ccan.model.fast import fast_for_inference  # torchvision is needed only here
    from ccan.model.network import CCAN

    return fast_for_inference(model) if isinstance(model, CCAN) else model


def _forward_all(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, list[int]]],
    device: torch.device | str | None,
    autocast: torch.dtype | None,
    advance: Callable[[int], object],
    strict: bool,
    flip: bool,
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
                features.append(describe(model, images.to(where, weight.dtype), flip=flip).cpu())
                rows.extend(indices)
                advance(len(indices))
                if strict and rows[-1] >= len(rows):
                    break
    finally:
        for module, mode in modes.items():
            module.training = mode
    return features, rows
