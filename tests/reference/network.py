"""The forward pass of Fig. 3 as plain statements, one image and one strip at a time (float64, eval or training mode).

Written from the paper and from GoogLeNet's published table; it shares no line with the package. Weights arrive as one
mapping for each box of the figure, inside a GoogLeNet stage under torchvision's names
(`inception3a.branch2.0.conv.weight`):

    I1, SS1, I2, I3, FC1_G, FC2_G        the global branch
    I2_s, CC2_s, I3_s  (s = 1 … kp)      the part streams
    FC1_L, FC2_L                         the local head
    NECK_G, NECK_L                       batch norms between FC1 and FC2 (Luo et al. 2019), not the paper's

A box that is missing is switched off; which ones may be missing together is Table 6 (Decisions D3, D16).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.reference.attention import Array, cross_correlated, non_local

Box = Mapping[str, Tensor]
BN_EPSILON, NECK_EPSILON = 1e-3, 1e-5
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class TwinOutput:
    """What the network returns; None where a branch is off."""

    global_embedding: Tensor | None
    local_embedding: Tensor | None
    global_logits: Tensor | None
    local_logits: Tensor | None
    descriptor: Tensor


@dataclass(frozen=True)
class TwinSettings:
    """The choices of the paper's open points."""

    parts: int = 4
    attention: Literal["cross_correlated", "non_local"] = "cross_correlated"
    cca_target: Literal["part", "global"] = "part"
    values: Literal["target", "source"] = "target"
    input_affine: Literal["none", "googlenet"] = "none"
    last_stride: int = 2
    training: bool = False


def conv_bn_relu(x: Tensor, box: Box, name: str, stride: int, training: bool) -> Tensor:
    """Convolution that keeps the size (padding = half the kernel), batch normalisation, φ."""
    weight = box[f"{name}.conv.weight"]
    x = F.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2)
    if training:
        mean = x.mean(dim=(0, 2, 3))
        variance = ((x - mean[None, :, None, None]) ** 2).mean(dim=(0, 2, 3))
    else:
        mean, variance = box[f"{name}.bn.running_mean"], box[f"{name}.bn.running_var"]
    scale = box[f"{name}.bn.weight"] / torch.sqrt(variance + BN_EPSILON)
    shift = box[f"{name}.bn.bias"] - mean * scale
    return torch.clamp(x * scale[None, :, None, None] + shift[None, :, None, None], min=0.0)


def inception(x: Tensor, box: Box, name: str, training: bool) -> Tensor:
    """The four columns of an Inception block, joined over channels."""

    def unit(value: Tensor, part: str) -> Tensor:
        return conv_bn_relu(value, box, f"{name}.{part}", 1, training)

    pooled = F.max_pool2d(x, 3, stride=1, padding=1)
    columns = [
        unit(x, "branch1"),
        unit(unit(x, "branch2.0"), "branch2.1"),
        unit(unit(x, "branch3.0"), "branch3.1"),
        unit(pooled, "branch4.1"),
    ]
    return torch.cat(columns, dim=1)


def stage_1(x: Tensor, box: Box, training: bool) -> Tensor:
    """I1: conv1 … inception3b, stride 8."""
    x = conv_bn_relu(x, box, "conv1", 2, training)
    x = F.max_pool2d(x, 3, stride=2, ceil_mode=True)
    x = conv_bn_relu(x, box, "conv2", 1, training)
    x = conv_bn_relu(x, box, "conv3", 1, training)
    x = F.max_pool2d(x, 3, stride=2, ceil_mode=True)
    return inception(inception(x, box, "inception3a", training), box, "inception3b", training)


def stage_2(x: Tensor, box: Box, training: bool) -> Tensor:
    """I2: maxpool3, inception4a … 4e, stride 2."""
    x = F.max_pool2d(x, 3, stride=2, ceil_mode=True)
    for letter in "abcde":
        x = inception(x, box, f"inception4{letter}", training)
    return x


def stage_3(x: Tensor, box: Box, training: bool, stride: int = 2) -> Tensor:
    """I3: maxpool4, inception5a, 5b, stride 2; with stride 1 (Sun et al. 2018) nothing is pooled."""
    if stride == 2:
        x = F.max_pool2d(x, 2, stride=2, ceil_mode=True)
    return inception(inception(x, box, "inception5a", training), box, "inception5b", training)


def affine(images: Tensor) -> Tensor:
    """Decision D2: from ImageNet-normalised RGB to the (x − ½)/½ that the ported weights were trained on."""
    out = torch.empty_like(images)
    for channel, (mean, std) in enumerate(zip(IMAGENET_MEAN, IMAGENET_STD, strict=True)):
        pixels = images[:, channel] * std + mean
        out[:, channel] = (pixels - 0.5) / 0.5
    return out


def strip_rows(height: int, parts: int, s: int) -> tuple[int, int]:
    """Decision D5: rows ⌊sH/kp⌋ to ⌈(s+1)H/kp⌉, end exclusive, for s = 0 … kp−1."""
    return math.floor(s * height / parts), math.ceil((s + 1) * height / parts)


def bilinear(feature_map: Array, height: int, width: int) -> Array:
    """Resize (C, M, N) with pixel centres at half-integers (`align_corners=False`) and clamped borders."""
    channels, rows, columns = feature_map.shape
    out = np.zeros((channels, height, width))
    for i in range(height):
        y = max((i + 0.5) * rows / height - 0.5, 0.0)
        top = min(int(y), rows - 1)
        bottom = min(top + 1, rows - 1)
        for j in range(width):
            x = max((j + 0.5) * columns / width - 0.5, 0.0)
            left = min(int(x), columns - 1)
            right = min(left + 1, columns - 1)
            upper = feature_map[:, top, left] * (1 - (x - left)) + feature_map[:, top, right] * (
                x - left
            )
            lower = feature_map[:, bottom, left] * (1 - (x - left)) + feature_map[
                :, bottom, right
            ] * (x - left)
            out[:, i, j] = upper * (1 - (y - top)) + lower * (y - top)
    return out


def stretched_strip(maps: Tensor, parts: int, s: int) -> Tensor:
    """Strip s of each map of a batch (B, C, M, N), resized to the size of the map it was cut from."""
    height, width = maps.shape[-2:]
    start, end = strip_rows(height, parts, s)
    resized = [bilinear(one[:, start:end].numpy(), height, width) for one in maps.detach()]
    return torch.from_numpy(np.stack(resized))


def attend(target: Tensor, source: Tensor, box: Box, settings: TwinSettings) -> Tensor:
    """An attention slot for a batch: CCA with target = Q, or Fig. 2 on Q alone."""
    weights = {name: value.numpy().T for name, value in box.items()}
    out: list[Array] = []
    for q, q_prime in zip(target.numpy(), source.numpy(), strict=True):
        if settings.attention == "non_local":
            out.append(non_local(q, weights).z)
        else:
            out.append(cross_correlated(q, q_prime, weights, settings.values).z)
    return torch.from_numpy(np.stack(out))


def average(maps: Tensor) -> Tensor:
    """GAP: (B, C, M, N) → (B, C)."""
    return maps.sum(dim=(2, 3)) / (maps.shape[2] * maps.shape[3])


def linear(x: Tensor, box: Box) -> Tensor:
    """x Wᵀ + b, or x Wᵀ where the box has no b."""
    return x @ box["weight"].T + box.get("bias", torch.zeros(()))


def neck(x: Tensor, box: Box | None, training: bool) -> Tensor:
    """γ (x − mean)/√(variance + ε) for each channel, by the batch or by what was learnt; x itself without a neck."""
    if box is None:
        return x
    mean, variance = box["running_mean"], box["running_var"]
    if training:
        mean = x.sum(dim=0) / len(x)
        variance = ((x - mean) ** 2).sum(dim=0) / len(x)
    return box["weight"] * (x - mean) / torch.sqrt(variance + NECK_EPSILON)


def unit_rows(x: Tensor) -> Tensor:
    """Each row over its Euclidean length."""
    return x / torch.sqrt((x * x).sum(dim=1, keepdim=True))


def forward(images: Tensor, boxes: Mapping[str, Box], settings: TwinSettings) -> TwinOutput:
    """Fig. 3 for a batch of ImageNet-normalised images (B, 3, H, W), float64."""
    mode = settings.training
    if settings.input_affine == "googlenet":
        images = affine(images)
    z1 = stage_1(images, boxes["I1"], mode)
    if "SS1" in boxes:
        z1 = attend(z1, z1, boxes["SS1"], settings)  # Decision D3: Z1 is what I2 reads

    z2 = stage_2(z1, boxes["I2"], mode) if "I2" in boxes else None
    f_g = n_g = logits_g = f_l = n_l = logits_l = None
    stride = settings.last_stride
    if z2 is not None:
        f_g = linear(average(stage_3(z2, boxes["I3"], mode, stride)), boxes["FC1_G"])
        n_g = neck(f_g, boxes.get("NECK_G"), mode)
        logits_g = linear(n_g, boxes["FC2_G"])

    if "FC1_L" in boxes:
        part_features: list[Tensor] = []
        for s in range(settings.parts):
            t = stage_2(stretched_strip(z1, settings.parts, s), boxes[f"I2_{s + 1}"], mode)
            if f"CC2_{s + 1}" in boxes:
                assert z2 is not None
                v = stretched_strip(z2, settings.parts, s)
                q, q_prime = (t, v) if settings.cca_target == "part" else (v, t)
                t = attend(q, q_prime, boxes[f"CC2_{s + 1}"], settings)
            part_features.append(average(stage_3(t, boxes[f"I3_{s + 1}"], mode, stride)))
        f_l = linear(torch.cat(part_features, dim=1), boxes["FC1_L"])
        n_l = neck(f_l, boxes.get("NECK_L"), mode)
        logits_l = linear(n_l, boxes["FC2_L"])

    branches = [unit_rows(n) for n in (n_g, n_l) if n is not None]
    return TwinOutput(f_g, f_l, logits_g, logits_l, torch.cat(branches, dim=1))
