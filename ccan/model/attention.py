"""Cross-correlated attention and its relatives (section 3.1–3.2, Fig. 1 and 2, Eq. 1–3).

B images, C channels, M×N positions (MN of them), K = C/8 signature channels. φ = ReLU. Row i of a position matrix is
one position of the flattened map.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from ccan.errors import ConfigError, ShapeError

Values = Literal["target", "source"]
Init = Literal["symmetric", "symmetric_full_w", "default"]


def to_positions(feature_map: Tensor) -> Tensor:
    """(B, C, M, N) → (B, MN, C): one row for each position, row-major."""
    return feature_map.flatten(2).transpose(1, 2)


class AttentionTaps(nn.Module):
    """Places where the maps of one attention slot pass by, so that explanations read the real forward.

    Each tap is an identity; a forward hook on it sees A′ (B, MN, MN), A (B, MN, MN) and φ(yW_w) (B, MN, C).
    """

    def __init__(self) -> None:
        super().__init__()
        self.correlation = nn.Identity()
        self.attention = nn.Identity()
        self.residual = nn.Identity()


class NonLocalAttention(nn.Module):
    """Non-local self-attention, the baseline that the paper starts from (Fig. 2; Decision D18).

        A = A′ = g(q) f(q)ᵀ      z = φ((A h(q) / MN) W_w) + q

    Args:
        channels: C of the map.
        reduced: K, width of the signatures (paper: C/8).
        init: `symmetric` starts W_w at a fifth of PyTorch's scale, the others leave it alone (Decision D6).

    Shapes: target (B, C, M, N) → (B, C, M, N). A second map may be passed, as to its relatives, and is not used.
    Raises: ConfigError if C is not divisible by 8 and no K is given; ShapeError for another number of channels.
    """

    def __init__(self, channels: int, reduced: int | None = None, init: Init = "symmetric") -> None:
        super().__init__()
        if reduced is None and channels % 8:
            raise ConfigError(
                f"channels must be divisible by 8 for K = C/8, got {channels}; pass reduced= explicitly"
            )
        reduced = channels // 8 if reduced is None else reduced
        if reduced < 1:
            raise ConfigError(f"reduced (K) must be at least 1, got {reduced}")
        self.channels = channels
        self.f = nn.Linear(channels, reduced, bias=False)
        self.g = nn.Linear(channels, reduced, bias=False)
        self.h = nn.Linear(channels, reduced, bias=False)
        self.w = nn.Linear(reduced, channels, bias=False)
        self.taps = AttentionTaps()
        if init == "symmetric":
            with torch.no_grad():
                self.w.weight.mul_(0.2)

    @property
    def silent(self) -> bool:
        """Whether it adds nothing to any map of values ≥ 0, which is what GoogLeNet gives (not every net of timm's).

        So it is where one of its maps has no weight above zero. Training can wear an attention down to that: ReLU lets
        no gradient through at zero, and coupled weight decay (Decision D11) goes on shrinking what gets none.
        """
        maps = [module for module in self.children() if isinstance(module, nn.Linear)]
        return any(not bool((one.weight > 0).any()) for one in maps)

    def correlate(self, q: Tensor, q_source: Tensor) -> Tensor:
        """A′ = g(q) f(q′)ᵀ, the co-firing of positions (B, MN, MN)."""
        return functional.relu(self.g(q)) @ functional.relu(self.f(q_source)).transpose(1, 2)

    def gather(self, attention: Tensor, q_values: Tensor, target: Tensor) -> Tensor:
        """Eq. 2 and 3: y = (A/MN) h(·), z = φ(y W_w) + q, back in the target's shape."""
        positions = attention.shape[-1]
        y = (attention / positions) @ functional.relu(self.h(q_values))  # B MN K
        residual = self.taps.residual(functional.relu(self.w(y)))  # B MN C
        return residual.transpose(1, 2).reshape(target.shape) + target

    def forward(self, target: Tensor, source: Tensor | None = None) -> Tensor:
        """See the class."""
        return self.with_map(target, source)[0]

    def with_map(self, target: Tensor, source: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """What `forward` gives, and the map A that it was gathered by (B, MN, MN)."""
        self._check(target)
        q = to_positions(target)
        attention = self.taps.attention(self.taps.correlation(self.correlate(q, q)))
        return self.gather(attention, q, target), attention

    def _check(self, target: Tensor) -> None:
        if target.dim() != 4 or target.shape[1] != self.channels:
            raise ShapeError(
                f"expected a map (B, {self.channels}, M, N), got {tuple(target.shape)}; "
                "build the attention with the map's number of channels"
            )


class CrossCorrelatedAttention(NonLocalAttention):
    """Gather features of Q where they co-fire with Q′ (Eq. 1–3, Fig. 1).

        A′ = g(q) f(q′)ᵀ      A = φ([A′, A′ᵀ] W_α)      z = φ((A h(q) / MN) W_w) + q

    Args:
        channels: C of both maps.
        positions: MN, the number of spatial positions; fixed because W_α is 2MN×MN.
        reduced: K, width of the signatures (paper: C/8).
        values: whose features are gathered: `target` h(q), as Eq. 2 is printed, or `source` h(q′) (Decision D17).
        init: `symmetric` starts W_α at [½I; ½I] + N(0, 1e-3) and W_w at a fifth of PyTorch's scale,
            `symmetric_full_w` leaves W_w alone, `default` leaves everything alone (Decision D6).

    Shapes: target (B, C, M, N), source (B, C, M, N) → (B, C, M, N); the map A is (B, MN, MN), row i = where
    position i gathers from.
    Raises: ShapeError if the maps differ in shape or M·N ≠ positions.
    """

    def __init__(
        self,
        channels: int,
        positions: int,
        reduced: int | None = None,
        values: Values = "target",
        init: Init = "symmetric",
    ) -> None:
        super().__init__(channels, reduced, init)
        if positions < 1:
            raise ConfigError(f"positions (M·N) must be at least 1, got {positions}")
        self.positions = positions
        self.values = values
        self.alpha = nn.Linear(2 * positions, positions, bias=False)  # weight = W_αᵀ
        if init != "default":
            half = torch.eye(positions) / 2
            with torch.no_grad():
                self.alpha.weight.copy_(torch.cat([half, half], dim=1))
                self.alpha.weight.add_(torch.randn_like(self.alpha.weight), alpha=1e-3)

    def attend(self, correlation: Tensor) -> Tensor:
        """Eq. 1: A = φ([A′, A′ᵀ] W_α), joined along the width (B, MN, MN)."""
        both = torch.cat([correlation, correlation.transpose(1, 2)], dim=2)  # B MN 2MN
        return functional.relu(self.alpha(both))

    def with_map(self, target: Tensor, source: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See `NonLocalAttention.with_map`."""
        if source is None:
            raise ShapeError(
                "cross-correlated attention takes two maps (target, source), got one; "
                "use SymmetricSelfAttention to correlate a map with itself"
            )
        self._check(target)
        if target.shape != source.shape:
            raise ShapeError(
                f"target and source must have one shape, got {tuple(target.shape)} and "
                f"{tuple(source.shape)}; resize one of them"
            )
        if target.shape[2] * target.shape[3] != self.positions:
            raise ShapeError(
                f"expected M·N = {self.positions} positions, got {target.shape[2]}×{target.shape[3]}; "
                "W_α fixes the input size: build the attention for this map"
            )
        q, q_source = to_positions(target), to_positions(source)  # B MN C
        correlation = self.taps.correlation(self.correlate(q, q_source))
        attention = self.taps.attention(self.attend(correlation))
        gathered = self.gather(attention, q if self.values == "target" else q_source, target)
        return gathered, attention


class SymmetricSelfAttention(CrossCorrelatedAttention):
    """Cross-correlated attention of a map with itself, Q′ = Q (Remark 2, the paper's SSA).

    Shapes: target (B, C, M, N) → (B, C, M, N).
    """

    def with_map(self, target: Tensor, source: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See `NonLocalAttention.with_map`; the only ``source`` that is accepted is the target itself."""
        if source is not None and source is not target:
            raise ShapeError(
                "symmetric self-attention takes one map, got two; use CrossCorrelatedAttention"
            )
        return super().with_map(target, target)
