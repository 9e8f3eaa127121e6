"""What if it had been otherwise? One query with a part of it hidden, or its attention changed, ranked again.

Only the query's forward is changed; the gallery stays as it was indexed. Every answer is a real forward of the real
network, with the change made at a tap.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ccan.errors import ShapeError
from ccan.evaluation import FeatureSet, evaluate_features
from ccan.explain.attention import attention_slots, evaluating
from ccan.model.network import CCAN
from ccan.model.strips import strip_bounds

Change = Literal["off", "uniform", "shuffled", "transposed"]
"""What is done to a slot: its residual is left out; every row of A becomes its mean; the columns of A are permuted, all
rows alike; A is transposed."""

HIDDEN = 0.0
"""Fill of what is hidden: the ImageNet mean after normalisation, as in random erasing (Decision D1)."""


@contextmanager
def altered(model: CCAN, changes: Mapping[str, Change], seed: int = 0) -> Iterator[None]:
    """While open, forwards of this thread run with changed attention; always cleans up.

    Args:
        changes: slot (``SS1``, ``CC2_1`` …) → what is done to it.
        seed: of the permutation of `shuffled`.

    Raises: ShapeError for a slot that the network does not have.
    """
    slots = attention_slots(model)
    unknown = [slot for slot in changes if slot not in slots]
    if unknown:
        raise ShapeError(
            f"expected slots among {', '.join(slots) or '(none)'}, got {', '.join(unknown)}"
        )
    mine, handles = threading.get_ident(), list[Any]()

    def change(module: nn.Module, by: Callable[[Tensor], Tensor]) -> None:
        def replaced(_module: nn.Module, _inputs: Any, output: Tensor) -> Tensor | None:
            return by(output) if threading.get_ident() == mine else None

        handles.append(module.register_forward_hook(replaced))

    try:
        for slot, what in changes.items():
            taps = slots[slot].taps
            if what == "off":
                change(taps.residual, torch.zeros_like)
            else:
                change(taps.attention, _changed(what, seed))
        yield
    finally:
        for handle in handles:
            handle.remove()


def _changed(what: Change, seed: int) -> Callable[[Tensor], Tensor]:
    """A (B, MN, MN) → A changed."""
    if what == "uniform":
        return lambda attention: attention.mean(dim=2, keepdim=True).expand_as(attention)
    if what == "transposed":
        return lambda attention: attention.transpose(1, 2)

    def shuffle(attention: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(attention.shape[2], generator=generator).to(attention.device)
        return attention[:, :, order]

    return shuffle


def hide(images: Tensor, mask: NDArray[np.bool_] | Tensor) -> Tensor:
    """Images with the masked pixels hidden: (B, 3, H, W), mask (H, W) true where hidden → a copy.

    Raises: ShapeError for a mask of another size.
    """
    hidden = torch.as_tensor(mask, dtype=torch.bool, device=images.device)
    if hidden.shape != images.shape[2:]:
        raise ShapeError(
            f"expected a mask {tuple(images.shape[2:])} as large as the images, got {tuple(hidden.shape)}"
        )
    return images.masked_fill(hidden, HIDDEN)


def strip_mask(height: int, width: int, parts: int, strip: int) -> NDArray[np.bool_]:
    """Mask (H, W) of one of kp horizontal strips of the image, counted from 0 at the top."""
    top, end = strip_bounds(height, parts)[strip]
    mask = np.zeros((height, width), bool)
    mask[top:end] = True
    return mask


@dataclass(frozen=True)
class Effect:
    """What a change did to one query.

    Attributes:
        descriptor: of the changed query, (D,).
        moved: Euclidean distance from the unchanged descriptor (two images at random are some √2 a branch apart).
        ap, first_match: with the changed query; NaN and -1 where the query has no match.
        ap_change: ap minus that of the unchanged query: negative where what was taken away had helped.
    """

    descriptor: NDArray[np.float64]
    moved: float
    ap: float
    first_match: int
    ap_change: float

    @property
    def right(self) -> bool:
        """Whether the nearest image that counts shows the person."""
        return self.first_match == 1


def standard_changes(model: CCAN) -> dict[str, dict[str, Change]]:
    """Questions about the attention of a network: name → changes of its slots; none without attention."""
    slots = list(attention_slots(model))
    changes: dict[str, dict[str, Change]] = {f"without {slot}": {slot: "off"} for slot in slots}
    if slots:
        kinds: tuple[Change, ...] = ("off", "uniform", "shuffled", "transposed")
        names = {"off": "without any attention"}
        changes |= {names.get(k, f"all attention {k}"): dict.fromkeys(slots, k) for k in kinds}
    return changes


def counterfactuals(
    model: CCAN,
    image: Tensor,
    gallery: FeatureSet,
    *,
    identity: int,
    camera: int,
    masks: Mapping[str, NDArray[np.bool_]] | None = None,
    seed: int = 0,
) -> dict[str, Effect]:
    """The query as it is, then with each change: attention switched off or spoilt, each strip hidden, each mask hidden.

    Args:
        image: the prepared query, (1, 3, H, W).
        gallery: as it was indexed, by the unchanged network.
        identity, camera: of the query.
        masks: name → (H, W), regions to hide too, as somebody painted them.
        seed: of what is shuffled.

    Returns: name → effect; the first, ``unchanged``, is what the others are compared with.
    Raises: ShapeError unless there is one image, or for a mask of another size.
    """
    if len(image) != 1:
        raise ShapeError(f"expected one prepared image (1, 3, H, W), got {tuple(image.shape)}")
    height, width = image.shape[2:]
    parts = model.config.parts
    hidden = {
        f"strip {strip + 1} hidden": strip_mask(height, width, parts, strip)
        for strip in range(parts)
    } | dict(masks or {})
    shown = torch.cat([image, *(hide(image, mask) for mask in hidden.values())])
    rows = dict(zip(["unchanged", *hidden], _describe(model, shown), strict=True))
    for name, changes in standard_changes(model).items():
        with altered(model, changes, seed):
            rows[name] = _describe(model, image)[0]
    return _effects(rows, gallery, identity, camera)


def _describe(model: CCAN, images: Tensor) -> NDArray[np.float64]:
    with evaluating(model), torch.inference_mode():
        return model(images).descriptor.double().cpu().numpy()


def _effects(
    rows: Mapping[str, NDArray[np.float64]], gallery: FeatureSet, identity: int, camera: int
) -> dict[str, Effect]:
    """Rank every version of the query at once."""
    count, together = len(rows), np.stack(list(rows.values()))
    features = torch.from_numpy(together).to(gallery.features)
    query = FeatureSet(features, [identity] * count, [camera] * count)
    report = evaluate_features(query, gallery)
    return {
        name: Effect(
            descriptor=row,
            moved=float(np.linalg.norm(row - together[0])),
            ap=float(report.ap[place]),
            first_match=int(report.first_match[place]),
            ap_change=float(report.ap[place] - report.ap[0]),
        )
        for place, (name, row) in enumerate(rows.items())
    }
