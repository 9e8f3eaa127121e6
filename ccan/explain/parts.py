"""What each stream sees, what it contributes, and whether the parts of two images lie at the same height."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from ccan.config import STRIDE_I1, ModelConfig
from ccan.errors import ShapeError
from ccan.explain.attention import SlotGeometry, evaluating
from ccan.explain.embedding import LOCAL, EmbeddingMaps, branch_of
from ccan.explain.trace import GLOBAL, Trace
from ccan.model.network import CCAN, PartStream
from ccan.model.strips import strip_bounds


@dataclass(frozen=True)
class StreamActivation:
    """The last map of one stream for one image, before GAP.

    Attributes:
        energy: ‖x_r‖ of each position r over the channels, (M, N).
        channels: numbers of the strongest channels by their mean, strongest first, (k,).
        channel_maps: their maps, (k, M, N).
        geometry: where the positions lie in the image.
    """

    energy: NDArray[np.float32]
    channels: NDArray[np.int64]
    channel_maps: NDArray[np.float32]
    geometry: SlotGeometry


def stream_geometry(config: ModelConfig, stream: str, rows: int, columns: int) -> SlotGeometry:
    """Where a stream's last map of so many rows and columns lies: the whole image, or the part's strip of Z1."""
    height, width = config.image_height, config.image_width
    if stream == GLOBAL:
        return SlotGeometry(rows, columns, height, width, 0, height)
    top, end = strip_bounds(config.grid_z1[0], config.parts)[int(stream[1:]) - 1]
    return SlotGeometry(rows, columns, height, width, top * STRIDE_I1, end * STRIDE_I1)


def stream_activations(
    config: ModelConfig, found: Trace, image: int = 0, top: int = 6
) -> dict[str, StreamActivation]:
    """Stream → its activation for one image of a trace, with its ``top`` strongest channels.

    Raises: ShapeError if ``top`` is below 1.
    """
    if top < 1:
        raise ShapeError(f"top must be at least 1 channel, got {top}")
    activations = {}
    for stream, last in found.last.items():
        x = last[image].float()  # C M N
        strongest = x.mean(dim=(1, 2)).topk(min(top, len(x))).indices
        activations[stream] = StreamActivation(
            energy=x.norm(dim=0).cpu().numpy(),
            channels=strongest.cpu().numpy(),
            channel_maps=x[strongest].cpu().numpy(),
            geometry=stream_geometry(config, stream, *x.shape[1:]),
        )
    return activations


def knocked_out(maps: EmbeddingMaps, found: Trace) -> dict[str, Tensor]:
    """Stream → the descriptors without it, (B, D): its B_s p_s is taken away, the bias stays, then it is normalised.

    A part is missing from f_L; for ``G`` (and for the only part) what is left of its branch is the bias alone, whose
    direction is the same for every image.
    """
    parts = maps.parts(found)
    whole = {branch: maps.embedding(found, branch) for branch in maps.biases}
    without: dict[str, Tensor] = {}
    for stream, share in parts.items():
        branch = branch_of(stream)
        left = {**whole, branch: whole[branch] - share}
        without[stream] = torch.cat(
            [functional.normalize(value, dim=1) for value in left.values()], dim=1
        )
    return without


@dataclass(frozen=True)
class PartAlignment:
    """Which strip of a query shows what which strip of a gallery image shows.

    Attributes:
        similarity: (kp, kp), cosine from -1 to 1; row = strip of the query, column = strip of the gallery image.
        assignment: (kp,) the gallery strip of each query strip in the best one-to-one assignment.
        shift: by how many strips the query lies lower (+) or higher (-) than the gallery image, as the best mean
            similarity of overlapping strips says; 0 = the parts lie alike.
        shift_similarity: shift → that mean.
    """

    similarity: NDArray[np.float64]
    assignment: NDArray[np.int64]
    shift: int
    shift_similarity: Mapping[int, float]

    def reading(self) -> str:
        """In words."""
        if self.shift == 0:
            return "the parts lie alike"
        way = "lower" if self.shift > 0 else "higher"
        count = "one" if abs(self.shift) == 1 else str(abs(self.shift))
        return f"the query's parts lie {count} strip{'s' if abs(self.shift) > 1 else ''} {way}: a bad crop?"


def align_parts(model: CCAN, maps: EmbeddingMaps, query: Trace, gallery: Trace) -> PartAlignment:
    """Compare every strip of one image with every strip of another.

    Streams share no weight, so that p_s and p_t of different streams cannot be compared. Instead stream t looks at
    every strip of both images, and what it makes of strip s of the query is compared with what it makes of its own
    strip of the gallery image, both as differences from the mean of all that it makes: the cosine of B_t p_t there. For
    s ≠ t this lies outside of what streams were trained on.

    Raises: ShapeError without a local branch, or unless both traces are of one image.
    """
    if not model.streams:
        raise ShapeError("expected a network with part streams, got one without a local branch")
    if len(query.z1) != 1 or len(gallery.z1) != 1:
        raise ShapeError(
            f"expected traces of one image each, got {len(query.z1)} and {len(gallery.z1)}"
        )
    names = [name for name in maps.weights if branch_of(name) == LOCAL]
    z1 = torch.cat([one.z1_strips[name] for one in (query, gallery) for name in names])
    z2 = None
    if query.z2_strips:
        z2 = torch.cat([one.z2_strips[name] for one in (query, gallery) for name in names])
    columns = []
    for own, (stream, name) in enumerate(zip(model.streams, names, strict=True)):
        seen = (
            _pooled(stream, z1, z2) @ maps.weights[name].T
        )  # 2kp d: the query's strips, the gallery's
        seen = seen - seen.mean(dim=0)
        of_query, mine = seen[: len(names)], seen[len(names) + own]
        columns.append(functional.cosine_similarity(of_query, mine[None], dim=1))
    return _alignment(torch.stack(columns, dim=1).cpu().double().numpy())


def _pooled(stream: PartStream, z1_strips: Tensor, z2_strips: Tensor | None) -> Tensor:
    """p of a stream for a batch of strips, (B, C); the stream keeps its mode."""
    with evaluating(stream), torch.inference_mode():
        return stream(z1_strips, z2_strips)[0]


def _alignment(similarity: NDArray[np.float64]) -> PartAlignment:
    """Assignment and shift that a matrix of similarities speaks for; ties go to the smaller shift."""
    count = len(similarity)
    strips = np.arange(count)
    best = max(
        itertools.permutations(range(count)), key=lambda order: similarity[strips, order].sum()
    )
    shifts = {}
    for shift in sorted(range(1 - count, count), key=abs):
        if 2 * (count - abs(shift)) >= count:  # at least half of the strips overlap
            shifts[shift] = float(np.diagonal(similarity, -shift).mean())
    return PartAlignment(similarity, np.array(best), max(shifts, key=lambda k: shifts[k]), shifts)
