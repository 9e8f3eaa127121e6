"""Everything that one real forward made: strips, attention, each stream's last map, and what it is pooled to.

Streams are named ``G`` (the global branch) and ``P1`` … ``Pkp`` (the part streams, from the head down); attention slots
as in `ccan.explain.attention`. B images; tensors keep the network's dtype and device and are detached.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ccan.errors import ShapeError
from ccan.explain.attention import SlotTensors, evaluating, tapped
from ccan.model.network import CCAN, CCANOutput

GLOBAL = "G"


@dataclass(frozen=True)
class Trace:
    """What one forward made, letters as in section 3.3; what a network does not have is missing or None.

    Attributes:
        z1: SS1's output, or I1's without it, (B, 480, 32, 16) at the paper's size (Decision D3).
        z2: output of the global I2, (B, 832, 16, 8).
        z1_strips, z2_strips: stream → its resized strip of Z1 and of Z2.
        u: stream → output of its I2, before CC2; only part streams.
        t: stream → input of its I3: CC2's output in a part stream, Z2 in ``G``.
        last: stream → x, output of its I3 before GAP, (B, 1024, 8, 4).
        pooled: stream → p = GAP(x), (B, 1024).
        slots: slot → A′, A (B, MN, MN) and the residual φ(yW_w) (B, MN, C).
        output: embeddings, logits, descriptor.
    """

    output: CCANOutput
    z1: Tensor
    z2: Tensor | None
    z1_strips: dict[str, Tensor] = field(default_factory=dict)
    z2_strips: dict[str, Tensor] = field(default_factory=dict)
    u: dict[str, Tensor] = field(default_factory=dict)
    t: dict[str, Tensor] = field(default_factory=dict)
    last: dict[str, Tensor] = field(default_factory=dict)
    pooled: dict[str, Tensor] = field(default_factory=dict)
    slots: dict[str, SlotTensors] = field(default_factory=dict)


def stream_names(model: CCAN) -> list[str]:
    """``G`` and ``P1`` … ``Pkp``, those that the network has."""
    names = [] if model.global_branch is None else [GLOBAL]
    return names + [f"P{part + 1}" for part in range(len(model.streams))]


def stream_stages(model: CCAN, stream: str) -> tuple[nn.Module, nn.Module]:
    """I2 and I3 of a stream. Raises: ShapeError for a stream that the network does not have."""
    if stream == GLOBAL and model.global_branch is not None:
        return model.global_branch.i2, model.global_branch.i3
    if stream in stream_names(model):
        part = model.streams[int(stream[1:]) - 1]
        return part.i2, part.i3
    raise ShapeError(
        f"expected one of the streams {', '.join(stream_names(model))}, got {stream!r}"
    )


def trace(model: CCAN, images: Tensor) -> Trace:
    """Run one forward in evaluation mode and keep what it made. The model is left as it was.

    Shapes: images (B, 3, H, W), as `Predictor.prepare` makes them → Trace of B images.
    """
    with (
        tapped(model) as slots,
        _stages_heard(model) as heard,
        evaluating(model),
        torch.inference_mode(),
    ):
        output = model(images)
    streams = stream_names(model)
    return Trace(
        output=output,
        z1=heard["z1"],
        z2=heard.get(f"i2 {GLOBAL}"),
        z1_strips={one: heard[f"i2 in {one}"] for one in streams if one != GLOBAL},
        z2_strips={one: heard[f"z2 strip {one}"] for one in streams if f"z2 strip {one}" in heard},
        u={one: heard[f"i2 {one}"] for one in streams if one != GLOBAL},
        t={one: heard[f"i3 in {one}"] for one in streams},
        last={one: heard[f"i3 {one}"] for one in streams},
        pooled={one: heard[f"i3 {one}"].mean(dim=(2, 3)) for one in streams},
        slots=slots,
    )


@contextmanager
def _stages_heard(model: CCAN) -> Iterator[dict[str, Tensor]]:
    """Inputs and outputs of the backbone's stages, filled by forwards of this thread; always cleans up."""
    heard: dict[str, Tensor] = {}
    handles: list[Any] = []
    listener = threading.get_ident()

    def listen(module: nn.Module, given: dict[int, str], made: str | None) -> None:
        def keep(_module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
            if threading.get_ident() != listener:
                return
            for place, name in given.items():
                heard[name] = inputs[place].detach()
            if made is not None:
                heard[made] = output.detach()

        handles.append(module.register_forward_hook(keep))

    try:
        listen(model.i1 if model.ss1 is None else model.ss1, {}, "z1")
        for stream in stream_names(model):
            i2, i3 = stream_stages(model, stream)
            listen(i2, {0: f"i2 in {stream}"}, f"i2 {stream}")
            listen(i3, {0: f"i3 in {stream}"}, f"i3 {stream}")
            if stream == GLOBAL:
                continue
            part = model.streams[int(stream[1:]) - 1]
            if part.cc2 is not None and model.global_branch is not None:
                listen(part.cc2, {0 if part.global_is_target else 1: f"z2 strip {stream}"}, None)
        yield heard
    finally:
        for handle in handles:
            handle.remove()


def numbers(values: Tensor) -> NDArray[np.float64]:
    """A tensor as a float64 array on the CPU, in which explanations add up."""
    return values.detach().cpu().double().numpy()
