"""ImageNet weights for every stage of a network, global and part streams alike (section 4.1; Decision D2)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ccan.config import GOOGLENET, ModelConfig
from ccan.model.backbone import imagenet_state, load_imagenet
from ccan.model.network import CCAN
from ccan.model.timm_backbone import timm_backbone


def expecting_imagenet_weights(config: ModelConfig) -> ModelConfig:
    """The settings with the re-scaling of images that the backbone's ImageNet weights need, by which it is built."""
    if config.backbone == GOOGLENET:
        return replace(config, input_affine="googlenet")
    return replace(config, input_affine=timm_backbone(config).input_affine())


def load_pretrained(model: CCAN, file: str | Path | None = None) -> None:
    """Give every stage of a network the ImageNet weights of its backbone, from ``file``, a cache or by download.

    Raises: CheckpointError that says where to put the file, or which weight does not fit.
    """
    if model.config.backbone == GOOGLENET:
        load_imagenet(model.backbone_stages(), imagenet_state(file))
        return
    weights = timm_backbone(model.config).pretrained(file)
    branches = [branch for branch in (model.global_branch, *model.streams) if branch is not None]
    for branch in branches:
        branch.i2.load_state_dict(weights["I2"].state_dict())
        branch.i3.load_state_dict(weights["I3"].state_dict())
    model.i1.load_state_dict(weights["I1"].state_dict())
