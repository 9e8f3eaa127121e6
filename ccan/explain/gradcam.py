"""The Grad-CAM family for networks with several streams: which positions of each stream raise a score.

The formulas are those of the grad-cam package; what surrounds them is ours, because a CCAN has a tap in every stream:

- the package lists gradients in the order of the backward pass, which is not that of the streams; here each stream's
  activations and gradients stay together, from one forward and one backward for all streams and methods;
- the package scales every map to [0, 1]; here the raw numbers stay, so that two maps can be compared;
- a tap hands a copy on, so that an in-place ReLU behind it cannot change what was kept, and so that the global
  branch's map Z2 gets the gradient of its own stream only (the part streams read it too);
- gradients flow to the taps only: no parameter's ``grad`` is touched, every module keeps its mode, and it does not
  matter whether the caller has switched gradients off.

The package is imported when a map is first asked for (it takes seconds).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ccan.errors import ConfigError, ShapeError
from ccan.explain.attention import SlotGeometry, evaluating, joined_pictures
from ccan.explain.parts import stream_geometry
from ccan.explain.trace import GLOBAL, numbers, stream_names, stream_stages
from ccan.model.network import CCAN, CCANOutput

CamMethod = Literal["gradcam", "gradcam++", "hirescam", "layercam", "eigencam"]
CAM_METHODS: tuple[CamMethod, ...] = get_args(CamMethod)
"""`eigencam` looks at no gradient: it is the same for every score. The others weight activations by gradients."""
Level = Literal["last", "middle"]
"""Where a stream is tapped: at its last map (I3's output, before GAP), or one stage before (t, I3's input), which is
twice as fine."""

Score = Callable[[CCANOutput], Tensor]
"""What a map explains: (B,) of a forward's output."""
Values = NDArray[np.float64]


def identity_score(identity: int) -> Score:
    """ "Identity k": the sum of both branches' scores of this training identity (its class label, from 0)."""

    def score(output: CCANOutput) -> Tensor:
        logits = [one for one in (output.global_logits, output.local_logits) if one is not None]
        if not 0 <= identity < logits[0].shape[1]:
            raise ShapeError(
                f"identity must be a class of the training set, 0…{logits[0].shape[1] - 1}, got {identity}"
            )
        return torch.stack([one[:, identity] for one in logits]).sum(dim=0)

    return score


def similarity_score(descriptor: Tensor | NDArray[np.floating[Any]]) -> Score:
    """ "Similarity to this image": inner product with its descriptor, (D,), which is held fixed."""
    fixed = torch.as_tensor(descriptor).detach()

    def score(output: CCANOutput) -> Tensor:
        if fixed.shape != output.descriptor.shape[1:]:
            raise ShapeError(
                f"expected a descriptor ({output.descriptor.shape[1]},) of this network, got {tuple(fixed.shape)}"
            )
        return output.descriptor @ fixed.clone().to(
            output.descriptor
        )  # it may be an inference tensor

    return score


@dataclass(frozen=True)
class CamMaps:
    """One method's maps for one image.

    Attributes:
        method, level: how they were made.
        score: the number that they explain.
        raw: stream → signed map (M, N) in units of the score times activation; never rescaled.
        geometry: stream → where its positions lie in the image.
    """

    method: CamMethod
    level: Level
    score: float
    raw: Mapping[str, Values]
    geometry: Mapping[str, SlotGeometry]

    def positive(self, stream: str) -> Values:
        """What speaks for the score: the map without its negative values, (M, N)."""
        return np.maximum(self.raw[stream], 0)

    def on_image(self, stream: str) -> NDArray[np.float32]:
        """`positive` over the image, (H, W); NaN where the stream does not look."""
        return self.geometry[stream].to_image(self.positive(stream))

    def parts_on_image(self) -> NDArray[np.float32]:
        """All part streams over the image, (H, W), on one scale. Raises: ShapeError without a local branch."""
        parts = [self.on_image(stream) for stream in self.raw if stream != GLOBAL]
        if not parts:
            raise ShapeError("expected a network with part streams, got one without a local branch")
        return joined_pictures(parts)


def grad_cams(
    model: CCAN,
    image: Tensor,
    score: Score,
    methods: Sequence[CamMethod] = CAM_METHODS,
    level: Level = "last",
) -> dict[CamMethod, CamMaps]:
    """Maps of every stream for one image and one score, by several methods at once.

    Args:
        image: as `Predictor.prepare` makes it, (1, 3, H, W).
        score: what is explained (`identity_score`, `similarity_score`, or any other of the output).
        methods: of the family.
        level: where the streams are tapped.

    Raises: ShapeError unless there is one image; ConfigError for an unknown method or level, or without the package.
    """
    if len(image) != 1:
        raise ShapeError(f"expected one prepared image (1, 3, H, W), got {tuple(image.shape)}")
    if level not in get_args(Level):
        raise ConfigError(f"level must be one of {', '.join(get_args(Level))}, got {level!r}")
    formulas = {method: _formula(method) for method in methods}
    value, activations, gradients = _one_pass(model, image, score, level)
    geometry = {
        stream: stream_geometry(model.config, stream, *map_.shape[2:])
        for stream, map_ in activations.items()
    }
    found: dict[CamMethod, CamMaps] = {}
    for method in methods:
        formula = formulas[method]
        raw = {stream: formula(activations[stream], gradients[stream])[0] for stream in activations}
        found[method] = CamMaps(method, level, value, raw, geometry)
    return found


Formula = Callable[[Values, Values], Values]
"""Activations and gradients (B, C, M, N) → signed maps (B, M, N)."""


def _formula(method: CamMethod) -> Formula:
    """A method's formula, taken from the package; the stand-in network that its class wants is never run."""
    if method not in CAM_METHODS:
        raise ConfigError(f"method must be one of {', '.join(CAM_METHODS)}, got {method!r}")
    try:
        import pytorch_grad_cam as package
    except ImportError as error:
        raise ConfigError('Grad-CAM needs its package: pip install "ccan[explain]"') from error
    kinds = {
        "gradcam": package.GradCAM,
        "gradcam++": package.GradCAMPlusPlus,
        "hirescam": package.HiResCAM,
        "layercam": package.LayerCAM,
        "eigencam": package.EigenCAM,
    }
    cam = kinds[method](nn.Linear(1, 1), [])

    def formula(activations: Values, gradients: Values) -> Values:
        unused: Any = None
        made = cam.get_cam_image(unused, unused, unused, activations, gradients, False)
        raw = np.asarray(made, dtype=np.float64)
        return raw * _sign(raw, activations) if method == "eigencam" else raw

    return formula


def _sign(raw: Values, activations: Values) -> Values:
    """±1 for each image, (B, 1, 1): a principal axis has no sign of its own, so it gets that of the energy."""
    energy = np.linalg.norm(activations, axis=1)
    energy = energy - energy.mean(axis=(1, 2), keepdims=True)
    return np.where((raw * energy).sum(axis=(1, 2), keepdims=True) < 0, -1.0, 1.0)


def _one_pass(
    model: CCAN, image: Tensor, score: Score, level: Level
) -> tuple[float, dict[str, Values], dict[str, Values]]:
    """The score, and every stream's activations and gradients at its tap, (1, C, M, N) each."""
    with (
        torch.inference_mode(False),
        torch.enable_grad(),
        evaluating(model),
        _stream_taps(model, level) as taps,
    ):
        # A copy outside of inference mode, which needs a gradient even where no parameter does.
        value = score(model(image.detach().clone().requires_grad_()))
        found = torch.autograd.grad(value.sum(), list(taps.values()), allow_unused=True)
    gradients = [
        torch.zeros_like(tap) if gradient is None else gradient
        for tap, gradient in zip(taps.values(), found, strict=True)
    ]
    return (
        float(value.detach()[0]),
        {stream: numbers(tap) for stream, tap in taps.items()},
        {stream: numbers(one) for stream, one in zip(taps, gradients, strict=True)},
    )


@contextmanager
def _stream_taps(model: CCAN, level: Level) -> Iterator[dict[str, Tensor]]:
    """Every stream's map, with its graph, filled by forwards of this thread; always cleans up."""
    kept: dict[str, Tensor] = {}
    handles: list[Any] = []
    listener = threading.get_ident()

    def passed(stream: str, x: Tensor) -> Tensor:
        kept[stream] = x.clone()  # from here only its own stream goes on: the parts read Z2 too
        return kept[stream].clone()

    def tap(stream: str, stage: nn.Module) -> None:
        def before(_module: nn.Module, inputs: tuple[Any, ...]) -> Any:
            if threading.get_ident() == listener:
                return (passed(stream, inputs[0]), *inputs[1:])
            return None

        def behind(_module: nn.Module, _inputs: Any, output: Tensor) -> Tensor | None:
            if threading.get_ident() == listener:
                return passed(stream, output)
            return None

        handles.append(
            stage.register_forward_hook(behind)
            if level == "last"
            else stage.register_forward_pre_hook(before)
        )

    try:
        for stream in stream_names(model):
            tap(stream, stream_stages(model, stream)[1])
        yield kept
    finally:
        for handle in handles:
            handle.remove()
