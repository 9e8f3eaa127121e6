"""CCAN: a global branch, part streams, and attention between them (section 3.3, Fig. 3).

`build_ccan` is the only place that knows all sizes; the modules receive built parts. Letters as in the paper: Z1, Z2
the input and output of I2 in the global branch, kp parts, d embedding channels.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from ccan.config import ModelConfig
from ccan.errors import ConfigError, ShapeError
from ccan.model.attention import (
    CrossCorrelatedAttention,
    NonLocalAttention,
    SymmetricSelfAttention,
)
from ccan.model.backbone import GoogLeNetInput, build_stage, stage_channels
from ccan.model.strips import resized_strips


class CCANOutput(NamedTuple):
    """What one forward gives, in training and in evaluation; a branch that is off gives None.

    Attributes:
        global_embedding: f_G, output of the global FC1, (B, d).
        local_embedding: f_L, output of the local FC1, (B, d).
        global_logits: identity scores of the global branch, (B, identities).
        local_logits: identity scores of the local branch, (B, identities).
        descriptor: [f_G/‖f_G‖ ; f_L/‖f_L‖], (B, 2d), or (B, d) with one branch (section 3.4).
    """

    global_embedding: Tensor | None
    local_embedding: Tensor | None
    global_logits: Tensor | None
    local_logits: Tensor | None
    descriptor: Tensor


class EmbeddingHead(nn.Module):
    """FC1 to the embedding, FC2 to the identities (plain linear layers: Decision D7).

    Shapes: pooled (B, C) → embedding (B, d), logits (B, identities).
    """

    def __init__(self, channels: int, embedding_dim: int, num_identities: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels, embedding_dim)
        self.fc2 = nn.Linear(embedding_dim, num_identities)

    def forward(self, pooled: Tensor) -> tuple[Tensor, Tensor]:
        """See the class."""
        embedding = self.fc1(pooled)
        return embedding, self.fc2(embedding)


class GlobalBranch(nn.Module):
    """Branch G behind the trunk: Z1 → I2 → Z2 → I3 → GAP → FC1 → FC2.

    Shapes: Z1 (B, 480, 32, 16) → Z2 (B, 832, 16, 8), embedding (B, d), logits (B, identities), for 256×128.
    """

    def __init__(self, i2: nn.Module, i3: nn.Module, head: EmbeddingHead) -> None:
        super().__init__()
        self.i2, self.i3, self.head = i2, i3, head

    def forward(self, z1: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See the class."""
        z2 = self.i2(z1)
        pooled = self.i3(z2).mean(dim=(2, 3))  # GAP: B 1024
        return (z2, *self.head(pooled))


class PartStream(nn.Module):
    """One part stream of branch L: u = I2(strip of Z1), t = CC2(Q = u, Q′ = strip of Z2), p = GAP(I3(t)).

    Args:
        i2, i3: this stream's own backbone stages.
        cc2: its attention, or None.
        global_is_target: swap the roles of Q and Q′ (Decision D4).

    Shapes: strip of Z1 (B, 480, 32, 16), strip of Z2 (B, 832, 16, 8) or None → p (B, 1024), for 256×128.
    """

    def __init__(
        self,
        i2: nn.Module,
        i3: nn.Module,
        cc2: NonLocalAttention | None = None,
        global_is_target: bool = False,
    ) -> None:
        super().__init__()
        self.i2, self.cc2, self.i3 = i2, cc2, i3
        self.global_is_target = global_is_target

    def forward(self, z1_strip: Tensor, z2_strip: Tensor | None) -> Tensor:
        """See the class."""
        part = self.i2(z1_strip)
        if self.cc2 is not None and z2_strip is not None:
            target, source = (z2_strip, part) if self.global_is_target else (part, z2_strip)
            part = self.cc2(target, source)
        return self.i3(part).mean(dim=(2, 3))  # GAP: B 1024


class LocalBranch(nn.Module):
    """Branch L: kp part streams that share no weight, joined: [p_1 … p_kp] → FC1 → FC2.

    Shapes: Z1 (B, 480, 32, 16), Z2 (B, 832, 16, 8) or None → embedding (B, d), logits (B, identities), for 256×128.
    """

    def __init__(self, streams: list[PartStream], head: EmbeddingHead) -> None:
        super().__init__()
        self.streams = nn.ModuleList(streams)
        self.head = head

    def forward(self, z1: Tensor, z2: Tensor | None) -> tuple[Tensor, Tensor]:
        """See the class."""
        parts = len(self.streams)
        z1_strips = resized_strips(z1, parts)
        z2_strips = [None] * parts if z2 is None else resized_strips(z2, parts)
        pooled = [
            stream(z1_strip, z2_strip)
            for stream, z1_strip, z2_strip in zip(self.streams, z1_strips, z2_strips, strict=True)
        ]
        return self.head(torch.cat(pooled, dim=1))  # B kp·1024


class CCAN(nn.Module):
    """The network of Fig. 3, or any ablation of it (Table 6).

    Args:
        config: the settings that it was built from.
        num_identities: training identities, the width of both FC2.
        i1: the trunk; ss1: attention on its output or None (Decision D3);
            global_branch, local_branch: the branches, None where off (Decision D16).

    Shapes: images (B, 3, H, W), RGB, ImageNet-normalised → CCANOutput. Any float dtype is kept.
    Raises: ShapeError for another input size: W_α fixes it.
    """

    def __init__(
        self,
        config: ModelConfig,
        num_identities: int,
        *,
        i1: nn.Module,
        ss1: NonLocalAttention | None,
        global_branch: GlobalBranch | None,
        local_branch: LocalBranch | None,
    ) -> None:
        super().__init__()
        self.config = config
        self.num_identities = num_identities
        self.input_affine = (
            GoogLeNetInput() if config.input_affine == "googlenet" else nn.Identity()
        )
        self.i1, self.ss1 = i1, ss1
        self.global_branch, self.local_branch = global_branch, local_branch

    def forward(self, images: Tensor) -> CCANOutput:
        """See the class."""
        self._check(images)
        z1 = self.i1(self.input_affine(images))
        if self.ss1 is not None:
            z1 = self.ss1(z1)
        z2 = f_global = f_local = logits_global = logits_local = None
        if self.global_branch is not None:
            z2, f_global, logits_global = self.global_branch(z1)
        if self.local_branch is not None:
            f_local, logits_local = self.local_branch(z1, z2 if self.config.cca else None)
        return CCANOutput(
            f_global, f_local, logits_global, logits_local, join_descriptor(f_global, f_local)
        )

    def backbone_stages(self) -> list[nn.Sequential]:
        """Every Inception stage, global and part streams: where ImageNet weights go."""
        branches = [branch for branch in (self.global_branch, *self.streams) if branch is not None]
        stages = [self.i1, *(stage for branch in branches for stage in (branch.i2, branch.i3))]
        return [stage for stage in stages if isinstance(stage, nn.Sequential)]

    @property
    def streams(self) -> list[PartStream]:
        """The kp part streams; none when the local branch is off."""
        if self.local_branch is None:
            return []
        return [stream for stream in self.local_branch.streams if isinstance(stream, PartStream)]

    def _check(self, images: Tensor) -> None:
        expected = (3, self.config.image_height, self.config.image_width)
        if images.dim() != 4 or tuple(images.shape[1:]) != expected:
            raise ShapeError(
                f"expected images (B, {', '.join(map(str, expected))}), got {tuple(images.shape)}; resize "
                "them, or build the model with image_height= and image_width="
            )


def join_descriptor(global_embedding: Tensor | None, local_embedding: Tensor | None) -> Tensor:
    """f_A = [f_G/‖f_G‖ ; f_L/‖f_L‖] (section 3.4): (B, d) each → (B, 2d)."""
    present = [part for part in (global_embedding, local_embedding) if part is not None]
    return torch.cat([functional.normalize(part, dim=1) for part in present], dim=1)


def build_ccan(config: ModelConfig, num_identities: int) -> CCAN:
    """Build the network with fresh weights (Decision D6 for the attention maps).

    Randomness comes from PyTorch's global generator: call `torch.manual_seed` first.
    Raises: ConfigError if num_identities < 1.
    """
    if num_identities < 1:
        raise ConfigError(f"num_identities must be at least 1, got {num_identities}")
    width, d = config.width_multiplier, config.embedding_dim
    last = stage_channels("I3", width)

    global_branch = local_branch = None
    i1 = build_stage("I1", width)
    ss1 = (
        _self_attention(config, stage_channels("I1", width), *config.grid_z1)
        if config.ssa
        else None
    )
    if config.global_branch:
        head = EmbeddingHead(last, d, num_identities)
        global_branch = GlobalBranch(build_stage("I2", width), build_stage("I3", width), head)
    if config.local_branch:
        streams = [_part_stream(config) for _ in range(config.parts)]
        head = EmbeddingHead(config.parts * last, d, num_identities)
        local_branch = LocalBranch(streams, head)
    return CCAN(
        config,
        num_identities,
        i1=i1,
        ss1=ss1,
        global_branch=global_branch,
        local_branch=local_branch,
    )


def _self_attention(
    config: ModelConfig, channels: int, rows: int, columns: int
) -> NonLocalAttention:
    reduced = max(1, channels // config.reduction)
    if config.attention == "non_local":
        return NonLocalAttention(channels, reduced, config.attention_init)
    return SymmetricSelfAttention(
        channels, rows * columns, reduced, config.attention_values, config.attention_init
    )


def _part_stream(config: ModelConfig) -> PartStream:
    width = config.width_multiplier
    cc2: NonLocalAttention | None = None
    if config.cca:
        channels = stage_channels("I2", width)
        reduced = max(1, channels // config.reduction)
        if config.attention == "non_local":  # on Q alone (Decision D18)
            cc2 = NonLocalAttention(channels, reduced, config.attention_init)
        else:
            rows, columns = config.grid_z2
            cc2 = CrossCorrelatedAttention(
                channels,
                rows * columns,
                reduced,
                config.attention_values,
                config.attention_init,
            )
    return PartStream(
        build_stage("I2", width), build_stage("I3", width), cc2, config.cca_target == "global"
    )
