"""The same network with fewer and larger operations, for inference: folded batch norms and joined 1×1 convolutions.

A convolution without bias and the batch norm behind it are one affine map, so they become one convolution. The three
1×1 convolutions that begin an Inception block's branches read the same map, so they become one with all their channels.
"""

from __future__ import annotations

import copy
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torchvision.models.googlenet import BasicConv2d, Inception

from ccan.model.network import CCAN


def fast_for_inference(model: CCAN) -> CCAN:
    """A copy of the network that gives the same output in less time; it cannot be trained.

    Folded from the weights of this moment: ask again when they have changed. Attention taps and stage names stay, so
    that explanations read this network too. Backbones of timm are copied as they are.

    Returns: the copy in evaluation mode, weights channels last.
    """
    fast = copy.deepcopy(model).eval()
    _replace_blocks(fast)
    for parameter in fast.parameters():
        parameter.requires_grad_(False)
    return cast(CCAN, fast.to(memory_format=torch.channels_last))


def _replace_blocks(module: nn.Module) -> None:
    for name, child in module.named_children():
        if isinstance(child, Inception):
            setattr(module, name, FastInception(child))
        elif isinstance(child, BasicConv2d):
            setattr(module, name, FoldedConv(child))
        else:
            _replace_blocks(child)


def _folded(block: nn.Module) -> nn.Conv2d:
    """Convolution and batch norm as one convolution."""
    assert isinstance(block, BasicConv2d)
    return cast(nn.Conv2d, fuse_conv_bn_eval(block.conv, block.bn))


class FoldedConv(nn.Module):
    """A BasicConv2d with its batch norm folded: φ(conv(x)), any map in, its map out."""

    def __init__(self, block: BasicConv2d) -> None:
        super().__init__()
        self.conv = _folded(block)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        return functional.relu_(self.conv(x))


class FastInception(nn.Module):
    """An Inception block with folded batch norms, whose three 1×1 convolutions on the input are one.

    Shapes: (B, C, M, N) → (B, C′, M, N), as the block it was made from.
    """

    def __init__(self, block: Inception) -> None:
        super().__init__()
        second, third, fourth = (
            cast(nn.Sequential, branch) for branch in (block.branch2, block.branch3, block.branch4)
        )
        first = [_folded(one) for one in (block.branch1, second[0], third[0])]
        self.widths = [conv.out_channels for conv in first]
        self.joined = nn.Conv2d(first[0].in_channels, sum(self.widths), 1)
        with torch.no_grad():
            weights = [conv.weight for conv in first]
            biases = [cast(Tensor, conv.bias) for conv in first]
            self.joined.weight = nn.Parameter(torch.cat(weights))
            self.joined.bias = nn.Parameter(torch.cat(biases))
        self.second, self.third = _folded(second[1]), _folded(third[1])
        self.pool, self.fourth = fourth[0], _folded(fourth[1])

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        one, two, three = functional.relu_(self.joined(x)).split(self.widths, dim=1)
        four = self.fourth(self.pool(x))
        return functional.relu_(torch.cat([one, self.second(two), self.third(three), four], 1))
