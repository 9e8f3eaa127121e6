"""Which positions of two images make them similar, and which positions of one image co-fire with those of another.

The inner product of two descriptors is a sum over pairs of positions. With f = Σ_s B_s p_s + b, p_s the mean of x_{s,r}
over the R positions r of a stream's last map, and n = ‖f‖, each branch gives

    ⟨f^q, f^g⟩/(n^q n^g) = Σ_{s,r} Σ_{s′,r′} ⟨B_s x^q_{s,r}, B_s′ x^g_{s′,r′}⟩/(R R′ n^q n^g)     position with position
                         + Σ_{s,r} ⟨B_s x^q_{s,r}, b⟩/(R n^q n^g) + Σ_{s′,r′} ⟨b, B_s′ x^g_{s′,r′}⟩/(R′ n^q n^g)
                         + ⟨b, b⟩/(n^q n^g)                                                   bias cross-terms

exactly. A position of the last map has seen nearly the whole of its input (section 3.3): a contribution tells where
the network keeps what it found, not that it found it there only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ccan.errors import ShapeError
from ccan.explain.attention import Side, SlotGeometry, evaluating, slot_geometry
from ccan.explain.embedding import EmbeddingMaps, branch_of
from ccan.explain.parts import stream_geometry
from ccan.explain.trace import Trace, numbers
from ccan.model.attention import to_positions
from ccan.model.network import CCAN

Values = NDArray[np.float64]

LEDGER_CAPTION = (
    "The numbers add up to the inner product of the two descriptors. A position of the last map has seen nearly all of "
    "its stream's input; a number may be negative, and the terms with the bias belong to no pair of positions."
)
CROSS_IMAGE_CAPTION = (
    "A′ between the query's stream and the gallery image's strip of Z2: where they co-fire. Outside training use: "
    "while training, both maps come from one image, so nothing obliges the correspondence to mean anything here."
)


@dataclass(frozen=True)
class BranchLedger:
    """One branch's share of the inner product, S streams of R positions each.

    Attributes:
        streams: their names.
        geometry: where their positions lie.
        pairs: (S, R, S, R): position r of the query's stream s with position r′ of the gallery image's stream s′.
        query_bias: (S, R), the query's positions with b; gallery_bias: (S, R), b with the gallery image's positions.
        bias: b with b.
    """

    streams: tuple[str, ...]
    geometry: tuple[SlotGeometry, ...]
    pairs: Values
    query_bias: Values
    gallery_bias: Values
    bias: float

    @property
    def total(self) -> float:
        """⟨f^q, f^g⟩/(n^q n^g): the cosine of the branch's embeddings."""
        return float(self.pairs.sum() + self.query_bias.sum() + self.gallery_bias.sum() + self.bias)


@dataclass(frozen=True)
class Ledger:
    """The inner product of two descriptors, position by position; by branch (``G``, ``L``)."""

    branches: Mapping[str, BranchLedger]

    @property
    def total(self) -> float:
        """⟨f_A^q, f_A^g⟩, from -1 to 1 times the number of branches."""
        return sum(branch.total for branch in self.branches.values())

    def of_query_position(self, stream: str, position: int) -> dict[str, Values]:
        """What a position of the query's stream shares with each of the gallery image: stream → (M, N).

        Raises: ShapeError for a stream or position that is not there.
        """
        branch, place = self._place(stream, position)
        return _grids(branch, branch.pairs[place, position])

    def of_gallery_position(self, stream: str, position: int) -> dict[str, Values]:
        """What a position of the gallery image's stream shares with each of the query: stream → (M, N)."""
        branch, place = self._place(stream, position)
        return _grids(branch, branch.pairs[:, :, place, position])

    def query_map(self, stream: str) -> Values:
        """What each position of the query's stream adds in all, its bias term included, (M, N)."""
        branch, place = self._place(stream, 0)
        return _grid(branch, place, branch.pairs[place].sum((1, 2)) + branch.query_bias[place])

    def gallery_map(self, stream: str) -> Values:
        """What each position of the gallery image's stream adds in all, its bias term included, (M, N)."""
        branch, place = self._place(stream, 0)
        whole = branch.pairs[:, :, place].sum((0, 1)) + branch.gallery_bias[place]
        return _grid(branch, place, whole)

    def _place(self, stream: str, position: int) -> tuple[BranchLedger, int]:
        """A stream's branch and its place in it."""
        known = [name for branch in self.branches.values() for name in branch.streams]
        if stream not in known:
            raise ShapeError(f"expected one of the streams {', '.join(known)}, got {stream!r}")
        branch = self.branches[branch_of(stream)]
        positions = branch.pairs.shape[1]
        if not 0 <= position < positions:
            raise ShapeError(f"position must lie in 0…{positions - 1}, got {position}")
        return branch, branch.streams.index(stream)


def _grids(branch: BranchLedger, values: Values) -> dict[str, Values]:
    """(S, R) → stream → (M, N)."""
    return {name: _grid(branch, k, values[k]) for k, name in enumerate(branch.streams)}


def _grid(branch: BranchLedger, place: int, values: Values) -> Values:
    return values.reshape(branch.geometry[place].rows, branch.geometry[place].columns)


def ledger(model: CCAN, maps: EmbeddingMaps, query: Trace, gallery: Trace) -> Ledger:
    """The ledger of two images, in float64. Raises: ShapeError unless both traces are of one image."""
    _one_each(query, gallery)
    branches: dict[str, BranchLedger] = {}
    for branch, bias in maps.biases.items():
        streams = tuple(name for name in maps.weights if branch_of(name) == branch)
        b = bias.double()
        mine, theirs = (
            torch.stack([_per_position(maps, side, name) for name in streams])  # S R d
            for side in (query, gallery)
        )
        over = 1 / (_length(mine, b) * _length(theirs, b))
        shapes = [query.last[name].shape[2:] for name in streams]
        geometry = [
            stream_geometry(model.config, name, *shape)
            for name, shape in zip(streams, shapes, strict=True)
        ]
        branches[branch] = BranchLedger(
            streams,
            tuple(geometry),
            numbers(torch.einsum("srd,tud->srtu", mine, theirs) * over),
            numbers(mine @ b * over),
            numbers(theirs @ b * over),
            float(b @ b * over),
        )
    return Ledger(branches)


def _per_position(maps: EmbeddingMaps, found: Trace, stream: str) -> Tensor:
    """B_s x_{s,r}/R of each position, (R, d), in float64."""
    x = found.last[stream][0].double().flatten(1)  # C R
    return (maps.weights[stream].double() @ x).T / x.shape[1]


def _length(positions: Tensor, bias: Tensor) -> Tensor:
    """n = ‖f‖."""
    return (positions.sum(dim=(0, 1)) + bias).norm().clamp_min(1e-12)


@dataclass(frozen=True)
class CrossImage:
    """Where one image's part stream co-fires with another image's strip; outside training use.

    Attributes:
        slot: ``CC2_1`` …
        correlation: A′, (MN, MN): row = position of Q, column = position of Q′, the other image's.
        geometry: where the positions of Q lie in its image; source_geometry: those of Q′ in the other image.
        query_is_target: whether Q is the query image's map; False only where the roles are swapped (Decision D4).
    """

    slot: str
    correlation: Values
    geometry: SlotGeometry
    source_geometry: SlotGeometry
    query_is_target: bool

    def from_query(self, position: int) -> Values:
        """Strength with which each position of the gallery image's map co-fires with one of the query's, (M, N)."""
        return self._line(
            self.correlation if self.query_is_target else self.correlation.T, position
        )

    def from_gallery(self, position: int) -> Values:
        """Strength with which each position of the query's map co-fires with one of the gallery image's, (M, N)."""
        return self._line(
            self.correlation.T if self.query_is_target else self.correlation, position
        )

    def _line(self, matrix: Values, position: int) -> Values:
        if not 0 <= position < len(matrix):
            raise ShapeError(f"position must lie in 0…{len(matrix) - 1}, got {position}")
        return matrix[position].reshape(self.geometry.rows, self.geometry.columns)


def cross_image_attention(model: CCAN, query: Trace, gallery: Trace) -> dict[str, CrossImage]:
    """A′ of every part stream of the query with the gallery image's strips of Z2, by slot.

    It is A′ and not A that tells a correspondence: A weights positions of Q alone (Eq. 2).

    Raises: ShapeError for a network whose part streams see no second map, or unless both traces are of one image.
    """
    _one_each(query, gallery)
    if not query.z2_strips or model.config.attention == "non_local":
        raise ShapeError(
            "expected part streams with cross-correlated attention, got a network whose streams see one map only"
        )
    found: dict[str, CrossImage] = {}
    for part, stream in enumerate(model.streams):
        name, slot = f"P{part + 1}", f"CC2_{part + 1}"
        if stream.cc2 is None:
            continue
        mine, theirs = to_positions(query.u[name]), to_positions(gallery.z2_strips[name])
        target, source = (theirs, mine) if stream.global_is_target else (mine, theirs)
        with evaluating(stream), torch.inference_mode():
            correlation = stream.cc2.correlate(target, source)[0]
        sides: tuple[Side, Side] = ("target", "source")
        geometry, other = (slot_geometry(model.config, slot, side) for side in sides)
        found[slot] = CrossImage(
            slot, numbers(correlation), geometry, other, not stream.global_is_target
        )
    return found


def _one_each(query: Trace, gallery: Trace) -> None:
    if len(query.z1) != 1 or len(gallery.z1) != 1:
        raise ShapeError(
            f"expected traces of one image each, got {len(query.z1)} and {len(gallery.z1)}"
        )
