"""Inside Eq. 1: who votes for A, how symmetric it is, and how much of the correlation comes home.

The pre-activation of Eq. 1 splits exactly: [A′, A′ᵀ] W_α = A′ W_α[:MN] + A′ᵀ W_α[MN:]. There are MN positions; row i of
A says where position i gathers from.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ccan.errors import ShapeError
from ccan.explain.attention import SlotMaps
from ccan.explain.grounding import labels_like
from ccan.model.attention import CrossCorrelatedAttention, NonLocalAttention

Values = NDArray[np.float64]


@dataclass(frozen=True)
class VoteSplit:
    """The two votes of one image's attention, each (MN, MN), in float64.

    Attributes:
        forward: A′ W_α[:MN], what the correlation itself votes.
        backward: A′ᵀ W_α[MN:], what its transpose votes.
    """

    forward: Values
    backward: Values

    def attention(self) -> Values:
        """A = φ(forward + backward), (MN, MN)."""
        return np.maximum(self.forward + self.backward, 0)

    def backward_share(self) -> Values:
        """Share of the transpose in what was voted, row by row: Σ|backward| / Σ(|forward| + |backward|), (MN,).

        0 where nothing was voted.
        """
        forward, backward = (np.abs(one).sum(axis=1) for one in (self.forward, self.backward))
        total = forward + backward
        return np.divide(backward, total, out=np.zeros_like(total), where=total > 0)


def learned_weights(attention: NonLocalAttention) -> tuple[Values, Values]:
    """W_α as two pictures, W_α[:MN] and W_α[MN:], (MN, MN) each: row j = position voted from, column = voted for.

    Raises: ShapeError for an attention without W_α (Fig. 2's baseline, Decision D18).
    """
    if not isinstance(attention, CrossCorrelatedAttention):
        raise ShapeError(
            f"expected an attention with W_α, got {type(attention).__name__}, which takes A′ as it is"
        )
    weight = attention.alpha.weight.detach().cpu().double().numpy().T  # 2MN MN
    return weight[: attention.positions], weight[attention.positions :]


def split_votes(attention: NonLocalAttention, maps: SlotMaps) -> VoteSplit:
    """The votes behind one image's maps of a slot.

    Raises: ShapeError as `learned_weights`, or for maps of another slot.
    """
    first, second = learned_weights(attention)
    correlation = maps.correlation.astype(np.float64)
    if correlation.shape != first.shape:
        raise ShapeError(
            f"expected maps of {len(first)} positions, got {correlation.shape}: of another slot?"
        )
    return VoteSplit(correlation @ first, correlation.T @ second)


def asymmetry(matrix: NDArray[np.floating]) -> float:
    """‖A − Aᵀ‖_F / ‖A‖_F, from 0 (symmetric) to 2 (antisymmetric); 0 for a matrix of zeros."""
    values = matrix.astype(np.float64)
    length = np.linalg.norm(values)
    return float(np.linalg.norm(values - values.T) / length) if length > 0 else 0.0


@dataclass(frozen=True)
class RoundTrip:
    """How much of the correlation comes home: Q → Q′ by A′, and back by A′ᵀ.

    Attributes:
        share: mean over the positions of Q, from 0 to 1.
        by_position: (P R)_ii, (M, N), with P and R the row-normalised A′ and A′ᵀ; 0 where a position fires with none.
    """

    share: float
    by_position: Values


def round_trip(maps: SlotMaps) -> RoundTrip:
    """The round trip of one image's slot."""
    out = _rows_to_one(maps.correlation.astype(np.float64))
    back = _rows_to_one(maps.correlation.T.astype(np.float64))
    home = np.einsum("ij,ji->i", out, back)
    grid = home.reshape(maps.geometry.rows, maps.geometry.columns)
    return RoundTrip(float(home.mean()), grid)


def _rows_to_one(values: Values) -> Values:
    sums = values.sum(axis=1, keepdims=True)
    return np.divide(values, sums, out=np.zeros_like(values), where=sums > 0)


@dataclass(frozen=True)
class AttentionSummary:
    """One map over an image in a few numbers.

    Attributes:
        entropy: of the map as a distribution over its positions, in nats; NaN for a map of zeros.
        spread: entropy over log(positions), from 0 (one position) to 1 (all alike).
        centroid: (x, y) in pixels of the input; NaN for a map of zeros.
        regions: name of a region → its share of the map, where a label map was given; they add up to 1.
    """

    entropy: float
    spread: float
    centroid: tuple[float, float]
    regions: dict[str, float]


def summarise(
    picture: NDArray[np.floating],
    labels: NDArray[np.integer] | None = None,
    names: type | None = None,
) -> AttentionSummary:
    """Summarise a map over the image, (H, W), not negative; NaN where it does not reach (`SlotGeometry.to_image`).

    Args:
        labels: region of every pixel of the image, of any size: it is sampled at the map's pixels.
        names: an IntEnum of the regions, `ccan.data.synthetic.world.Region`.

    Raises: ShapeError for a map that is not (H, W), or that has negative values.
    """
    if picture.ndim != 2 or np.nanmin(picture, initial=0) < 0:
        raise ShapeError(
            f"expected a map (H, W) of values ≥ 0, got {picture.shape} from {np.nanmin(picture):.3g}"
        )
    weights = np.nan_to_num(picture.astype(np.float64))
    total = weights.sum()
    if total == 0:
        return AttentionSummary(np.nan, np.nan, (np.nan, np.nan), {})
    share = weights / total
    seen = np.isfinite(picture)
    positive = share[share > 0]
    entropy = float(-(positive * np.log(positive)).sum())
    rows, columns = (np.arange(size) + 0.5 for size in share.shape)
    centroid = (float(share.sum(axis=0) @ columns), float(share.sum(axis=1) @ rows))
    regions = {}
    if labels is not None and names is not None:
        at = labels_like(labels, share.shape)
        regions = {one.name.lower(): float(share[at == one.value].sum()) for one in names}  # type: ignore[attr-defined]
    spread = entropy / np.log(seen.sum()) if seen.sum() > 1 else 0.0
    return AttentionSummary(entropy, float(spread), centroid, regions)
