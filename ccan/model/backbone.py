"""The backbone: GoogLeNet with batch normalisation in three stages I1, I2, I3 (Fig. 3; Decision D2).

torchvision's blocks under torchvision's names, so that its ImageNet weights fit each stage without translation.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision.models import GoogLeNet_Weights
from torchvision.models.googlenet import BasicConv2d, Inception

from ccan.data.transforms import IMAGENET_MEAN, IMAGENET_STD
from ccan.errors import CheckpointError

StageName = Literal["I1", "I2", "I3"]

# name: (1×1, 3×3 reduce, 3×3, 5×5 reduce, 5×5, pool projection), GoogLeNet's own table; torchvision's fourth branch
# has 3×3 kernels in the place of 5×5.
INCEPTION_WIDTHS: dict[str, tuple[int, int, int, int, int, int]] = {
    "inception3a": (64, 96, 128, 16, 32, 32),
    "inception3b": (128, 128, 192, 32, 96, 64),
    "inception4a": (192, 96, 208, 16, 48, 64),
    "inception4b": (160, 112, 224, 24, 64, 64),
    "inception4c": (128, 128, 256, 24, 64, 64),
    "inception4d": (112, 144, 288, 32, 64, 64),
    "inception4e": (256, 160, 320, 32, 128, 128),
    "inception5a": (256, 160, 320, 32, 128, 128),
    "inception5b": (384, 192, 384, 48, 128, 128),
}
STAGE_BLOCKS: dict[StageName, tuple[str, ...]] = {
    "I1": ("inception3a", "inception3b"),
    "I2": ("inception4a", "inception4b", "inception4c", "inception4d", "inception4e"),
    "I3": ("inception5a", "inception5b"),
}


def scaled(channels: int, width_multiplier: float) -> int:
    """Channel count at width w: max(8, 8·round(c·w/8)) (Decision D2)."""
    return max(8, 8 * round(channels * width_multiplier / 8))


def stage_channels(stage: StageName, width_multiplier: float = 1.0) -> int:
    """Channels that a stage puts out: 480, 832 and 1024 at full width."""
    widths = INCEPTION_WIDTHS[STAGE_BLOCKS[stage][-1]]
    return sum(scaled(widths[branch], width_multiplier) for branch in (0, 2, 4, 5))


def build_stage(
    stage: StageName, width_multiplier: float = 1.0, last_stride: Literal[1, 2] = 2
) -> nn.Sequential:
    """One stage of the backbone with fresh weights.

    Args:
        last_stride: 1 leaves out the pooling that I3 begins with, which has no weights, so that its map keeps the size
            of Z2 (Sun et al. 2018).

    Shapes at full width for a 256×128 image: I1 (B, 3, 256, 128) → (B, 480, 32, 16); I2 → (B, 832, 16, 8);
    I3 → (B, 1024, 8, 4), or (B, 1024, 16, 8) with last_stride 1.
    """
    blocks: OrderedDict[str, nn.Module] = OrderedDict()
    if stage == "I1":
        first, third = scaled(64, width_multiplier), scaled(192, width_multiplier)
        blocks["conv1"] = BasicConv2d(3, first, kernel_size=7, stride=2, padding=3)
        blocks["maxpool1"] = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        blocks["conv2"] = BasicConv2d(first, first, kernel_size=1)
        blocks["conv3"] = BasicConv2d(first, third, kernel_size=3, padding=1)
        blocks["maxpool2"] = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        channels = third
    elif stage == "I2":
        blocks["maxpool3"] = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        channels = stage_channels("I1", width_multiplier)
    else:
        halve = nn.MaxPool2d(2, stride=2, ceil_mode=True)
        blocks["maxpool4"] = halve if last_stride == 2 else nn.Identity()
        channels = stage_channels("I2", width_multiplier)
    for name in STAGE_BLOCKS[stage]:
        one, three_in, three, five_in, five, pool = (
            scaled(width, width_multiplier) for width in INCEPTION_WIDTHS[name]
        )
        blocks[name] = Inception(channels, one, three_in, three, five_in, five, pool)
        channels = one + three + five + pool
    return nn.Sequential(blocks)


class Backbone(Protocol):
    """What `build_ccan` asks of a backbone: stages at strides 8, 16 and 32 (16 with last_stride 1)."""

    def channels(self, stage: StageName) -> int:
        """Channels that a stage puts out."""
        ...

    def build(self, *stages: StageName) -> list[nn.Sequential]:
        """These stages with fresh weights of their own."""
        ...


@dataclass(frozen=True)
class GoogLeNetBackbone:
    """The paper's backbone (Decision D2).

    Attributes:
        width_multiplier: w.
        last_stride: of I3.
    """

    width_multiplier: float = 1.0
    last_stride: Literal[1, 2] = 2

    def channels(self, stage: StageName) -> int:
        """See `Backbone`."""
        return stage_channels(stage, self.width_multiplier)

    def build(self, *stages: StageName) -> list[nn.Sequential]:
        """See `Backbone`."""
        return [build_stage(stage, self.width_multiplier, self.last_stride) for stage in stages]


class GoogLeNetInput(nn.Module):
    """From ImageNet-normalised RGB to the scale that torchvision's GoogLeNet weights expect (Decision D2).

    Shapes: (B, 3, H, W) → (B, 3, H, W). The weights were ported from TensorFlow: their input is (rgb − ½)/½.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self) -> None:
        super().__init__()
        mean, std = torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD)
        self.register_buffer("scale", (std / 0.5).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("shift", ((mean - 0.5) / 0.5).view(1, 3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """See the class."""
        return images * self.scale + self.shift


_PUBLISHED_HASH = "1378be20"
"""How the SHA-256 of torchvision's file begins; its name, googlenet-1378be20.pth, says so too."""


def imagenet_state(file: str | Path | None = None) -> dict[str, Tensor]:
    """GoogLeNet's ImageNet weights: from ``file``, else from torchvision's cache, else by download.

    Args:
        file: a ``.safetensors`` file, or torchvision's own. The latter is a pickle, and so is read only if its SHA-256
            begins as published, wherever it comes from; and even then tensors alone are unpacked.

    Raises: CheckpointError that says where to put the file, or how to convert it.
    """
    url = GoogLeNet_Weights.IMAGENET1K_V1.url
    name = url.rsplit("/", 1)[-1]
    cached = Path(torch.hub.get_dir()) / "checkpoints" / name
    path = cached if file is None else Path(file).expanduser()
    try:
        if file is None and not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(url, str(path), hash_prefix=_PUBLISHED_HASH)
        state = load_file(path) if path.suffix == ".safetensors" else _published_state(path)
        if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
            raise TypeError("a file without tensors by name")
        return state
    except CheckpointError:
        raise
    except Exception as error:
        where = f"{file}" if file is not None else f"{cached} (torchvision's cache) or by download"
        raise CheckpointError(
            f"expected GoogLeNet's ImageNet weights at {where}, got: {error}. Without a network, fetch "
            f"{name} elsewhere and put it at {cached}, or pass --train.imagenet-file FILE; "
            "--train.initial-weights none starts from random weights"
        ) from error


def _published_state(path: Path) -> object:
    """What torchvision's file holds. Raises: CheckpointError, before it is unpacked, if it is any other file."""
    with path.open("rb") as opened:
        found = hashlib.file_digest(opened, "sha256").hexdigest()
        if not found.startswith(_PUBLISHED_HASH):
            raise CheckpointError(
                f"{path}: expected a .safetensors file or torchvision's own (SHA-256 {_PUBLISHED_HASH}…), "
                f"got SHA-256 {found[:8]}…. If it was downloaded, it is damaged: delete it and fetch it again. "
                "Weights of your own must be converted to safetensors, because a .pth file can run code when it "
                "is opened: docs/troubleshooting.md, “Weights without a network”, has the lines"
            )
        opened.seek(0)
        return torch.load(opened, map_location="cpu", weights_only=True)


def load_imagenet(stages: Sequence[nn.Sequential], state: Mapping[str, Tensor]) -> None:
    """Copy ImageNet weights into every given stage, global and part streams alike.

    Raises: CheckpointError if a weight is missing or has another shape (width_multiplier must be 1).
    """
    for stage in stages:
        names = tuple(f"{name}." for name, _ in stage.named_children())
        own = {key: value for key, value in state.items() if key.startswith(names)}
        try:
            stage.load_state_dict(own, strict=True)
        except RuntimeError as error:
            raise CheckpointError(
                "these are not GoogLeNet's ImageNet weights for full width; use width_multiplier=1 and "
                f"torchvision's GoogLeNet_Weights.IMAGENET1K_V1. {error}"
            ) from error
