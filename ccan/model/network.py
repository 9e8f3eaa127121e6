"""CCAN: a global branch, part streams, and attention between them (section 3.3, Fig. 3).

`build_ccan` is the only place that knows all sizes; the modules receive built parts. Letters as in the paper: Z1, Z2
the input and output of I2 in the global branch, kp parts, d embedding channels.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from ccan.config import GOOGLENET, ModelConfig
from ccan.errors import ConfigError, ShapeError
from ccan.model.attention import (
    CrossCorrelatedAttention,
    NonLocalAttention,
    SymmetricSelfAttention,
)
from ccan.model.backbone import Backbone, GoogLeNetBackbone, GoogLeNetInput
from ccan.model.strips import resized_strips


class CCANOutput(NamedTuple):
    """What one forward gives, in training and in evaluation; a branch that is off gives None.

    Attributes:
        global_embedding: f_G, output of the global FC1, (B, d).
        local_embedding: f_L, output of the local FC1, (B, d).
        global_logits: identity scores of the global branch, (B, identities).
        local_logits: identity scores of the local branch, (B, identities).
        descriptor: [f_G/‖f_G‖ ; f_L/‖f_L‖], (B, 2d), or (B, d) with one branch (section 3.4); behind the necks, where
            there are any.
        part_attention: A of CC2 of every part stream, (B, kp, MN, MN), where `CCAN.gives_part_attention` asks for it.
    """

    global_embedding: Tensor | None
    local_embedding: Tensor | None
    global_logits: Tensor | None
    local_logits: Tensor | None
    descriptor: Tensor
    part_attention: Tensor | None = None


class HeadOutput(NamedTuple):
    """What a head gives: for the triplet loss, for the descriptor, for the identity loss.

    Attributes:
        embedding: f, output of FC1, (B, d).
        feature: f behind the neck, (B, d); f itself without one.
        logits: identity scores, (B, identities).
    """

    embedding: Tensor
    feature: Tensor
    logits: Tensor


_OFF = (None, None, None)
"""What a branch gives that is off."""


class EmbeddingHead(nn.Module):
    """FC1 to the embedding, FC2 to the identities (plain linear layers: Decision D7), and what stands between them.

    Args:
        neck: `none`, or `batch_norm` (Luo et al. 2019): then neither it nor FC2 shifts, so that identities are told
            apart by direction, as descriptors are.

    Shapes: pooled (B, C) → embedding and feature (B, d), logits (B, identities).
    """

    def __init__(
        self,
        channels: int,
        embedding_dim: int,
        num_identities: int,
        neck: Literal["none", "batch_norm"] = "none",
    ) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels, embedding_dim)
        self.neck = nn.Identity()
        if neck == "batch_norm":
            self.neck = nn.BatchNorm1d(embedding_dim)
            self.neck.register_parameter("bias", None)
        self.fc2 = nn.Linear(embedding_dim, num_identities, bias=neck == "none")

    def forward(self, pooled: Tensor) -> HeadOutput:
        """See the class."""
        embedding = self.fc1(pooled)
        feature = self.neck(embedding)
        return HeadOutput(embedding, feature, self.fc2(feature))


class GlobalBranch(nn.Module):
    """Branch G behind the trunk: Z1 → I2 → Z2 → I3 → GAP → FC1 → FC2.

    Shapes: Z1 (B, 480, 32, 16) → Z2 (B, 832, 16, 8) and what the head gives, for 256×128.
    """

    def __init__(self, i2: nn.Module, i3: nn.Module, head: EmbeddingHead) -> None:
        super().__init__()
        self.i2, self.i3, self.head = i2, i3, head

    def forward(self, z1: Tensor) -> tuple[Tensor, HeadOutput]:
        """See the class."""
        z2 = self.i2(z1)
        pooled = self.i3(z2).mean(dim=(2, 3))  # GAP: B 1024
        return z2, self.head(pooled)


class PartStream(nn.Module):
    """One part stream of branch L: u = I2(strip of Z1), t = CC2(Q = u, Q′ = strip of Z2), p = GAP(I3(t)).

    Args:
        i2, i3: this stream's own backbone stages.
        cc2: its attention, or None.
        global_is_target: swap the roles of Q and Q′ (Decision D4).

    Shapes: strip of Z1 (B, 480, 32, 16), strip of Z2 (B, 832, 16, 8) or None → p (B, 1024), for 256×128; and A of its
    attention (B, 128, 128), if it has one and the map is asked for, else None.
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

    def forward(
        self, z1_strip: Tensor, z2_strip: Tensor | None, with_map: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """See the class."""
        part, attention = self.i2(z1_strip), None
        if self.cc2 is not None and z2_strip is not None:
            target, source = (z2_strip, part) if self.global_is_target else (part, z2_strip)
            if with_map:
                part, attention = self.cc2.with_map(target, source)
            else:
                part = self.cc2(target, source)
        return self.i3(part).mean(dim=(2, 3)), attention  # GAP: B 1024


class LocalBranch(nn.Module):
    """Branch L: kp part streams that share no weight, joined: [p_1 … p_kp] → FC1 → FC2.

    Shapes: Z1 (B, 480, 32, 16), Z2 (B, 832, 16, 8) or None → what the head gives, for 256×128; and A of each stream
    that has an attention, if these maps are asked for.
    """

    def __init__(self, streams: list[PartStream], head: EmbeddingHead) -> None:
        super().__init__()
        self.streams = nn.ModuleList(streams)
        self.head = head

    def forward(
        self, z1: Tensor, z2: Tensor | None, with_maps: bool = False
    ) -> tuple[HeadOutput, list[Tensor]]:
        """See the class."""
        parts = len(self.streams)
        z1_strips = resized_strips(z1, parts)
        z2_strips = [None] * parts if z2 is None else resized_strips(z2, parts)
        pooled: list[Tensor] = []
        maps: list[Tensor] = []
        for stream, z1_strip, z2_strip in zip(self.streams, z1_strips, z2_strips, strict=True):
            part, attention = stream(z1_strip, z2_strip, with_maps)
            pooled.append(part)
            if attention is not None:
                maps.append(attention)
        return self.head(torch.cat(pooled, dim=1)), maps  # B kp·1024


class CCAN(nn.Module):
    """The network of Fig. 3, or any ablation of it (Table 6).

    Args:
        config: the settings that it was built from.
        num_identities: training identities, the width of both FC2.
        i1: the trunk; ss1: attention on its output or None (Decision D3);
            global_branch, local_branch: the branches, None where off (Decision D16).

    Attributes:
        gives_part_attention: whether the output holds the part streams' attention, which costs memory and is False
            unless something asks for it (`LossConfig.attention_diversity`).

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
        self.gives_part_attention = False
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
        z2 = of_global = of_local = None
        maps: list[Tensor] = []
        if self.global_branch is not None:
            z2, of_global = self.global_branch(z1)
        if self.local_branch is not None:
            seen = z2 if self.config.cca else None
            of_local, maps = self.local_branch(z1, seen, self.gives_part_attention)
        f_global, feature_global, logits_global = of_global or _OFF
        f_local, feature_local, logits_local = of_local or _OFF
        return CCANOutput(
            f_global,
            f_local,
            logits_global,
            logits_local,
            join_descriptor(feature_global, feature_local),
            self._part_attention(maps, images) if self.gives_part_attention else None,
        )

    def _part_attention(self, maps: list[Tensor], images: Tensor) -> Tensor:
        """(B, kp, MN, MN); (B, 0, 0, 0) in a network without CC2."""
        return torch.stack(maps, dim=1) if maps else images.new_zeros(len(images), 0, 0, 0)

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
    Raises: ConfigError if num_identities < 1, or for a backbone that cannot be had.
    """
    if num_identities < 1:
        raise ConfigError(f"num_identities must be at least 1, got {num_identities}")
    backbone, d = _backbone(config), config.embedding_dim
    last = backbone.channels("I3")

    global_branch = local_branch = None
    (i1,) = backbone.build("I1")
    ss1 = _self_attention(config, backbone.channels("I1"), *config.grid_z1) if config.ssa else None
    if config.global_branch:
        head = EmbeddingHead(last, d, num_identities, config.neck)
        i2, i3 = backbone.build("I2", "I3")
        global_branch = GlobalBranch(i2, i3, head)
    if config.local_branch:
        streams = [_part_stream(config, backbone) for _ in range(config.parts)]
        head = EmbeddingHead(config.parts * last, d, num_identities, config.neck)
        local_branch = LocalBranch(streams, head)
    return CCAN(
        config,
        num_identities,
        i1=i1,
        ss1=ss1,
        global_branch=global_branch,
        local_branch=local_branch,
    )


def _backbone(config: ModelConfig) -> Backbone:
    if config.backbone == GOOGLENET:
        return GoogLeNetBackbone(config.width_multiplier, config.last_stride)
    from ccan.model.timm_backbone import timm_backbone

    return timm_backbone(config)


def _self_attention(
    config: ModelConfig, channels: int, rows: int, columns: int
) -> NonLocalAttention:
    reduced = max(1, channels // config.reduction)
    if config.attention == "non_local":
        return NonLocalAttention(channels, reduced, config.attention_init)
    return SymmetricSelfAttention(
        channels, rows * columns, reduced, config.attention_values, config.attention_init
    )


def _part_stream(config: ModelConfig, backbone: Backbone) -> PartStream:
    cc2: NonLocalAttention | None = None
    if config.cca:
        channels = backbone.channels("I2")
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
    i2, i3 = backbone.build("I2", "I3")
    return PartStream(i2, i3, cc2, config.cca_target == "global")
