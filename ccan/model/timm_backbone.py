"""A network of timm in the place of GoogLeNet, cut into I1, I2, I3 at strides 8, 16 and 32 (features-only API).

So cross-correlated attention can be studied on other backbones. timm is imported when such a backbone is built, not
before.
"""

from __future__ import annotations

import difflib
from collections import OrderedDict
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from ccan.config import STRIDE_I1, STRIDE_I2, STRIDE_I3, TIMM, ModelConfig
from ccan.data.transforms import IMAGENET_MEAN, IMAGENET_STD
from ccan.errors import CheckpointError, ConfigError
from ccan.model.backbone import StageName

Stages = dict[StageName, nn.Sequential]


class TimmBackbone:
    """Stages of a network of timm (see `ccan.model.backbone.Backbone`).

    Args:
        name: as timm lists it, with or without the tag of its weights: `resnet50`, `resnet50.a1_in1k`.
        last_stride: 1 keeps I3 at the size of Z2, by timm's `output_stride=16`, which dilates where it no longer steps.
        size: height and width of the images.

    Raises: ConfigError if timm is missing or does not know the name, or if the network has other strides or is not one
    module after the other, which is found out by comparing the stages with timm's own features on noise.
    """

    def __init__(self, name: str, last_stride: Literal[1, 2], size: tuple[int, int]) -> None:
        self.name, self.last_stride = name, last_stride
        with torch.random.fork_rng(devices=[]), torch.device("cpu"), torch.inference_mode():
            self._channels = self._try_out(torch.randn(2, 3, *size))

    def channels(self, stage: StageName) -> int:
        """Channels that a stage puts out."""
        return self._channels[stage]

    def build(self, *stages: StageName) -> list[nn.Sequential]:
        """These stages of one network with fresh weights."""
        fresh = self._cut(self._network())
        return [fresh[stage] for stage in stages]

    def pretrained(self, file: str | Path | None = None) -> Stages:
        """The stages with timm's ImageNet weights: from a ``.safetensors`` file, else its cache, else by download.

        Raises: CheckpointError that says where the weights may come from.
        """
        if file is not None and Path(file).suffix != ".safetensors":
            raise CheckpointError(
                f"expected the weights of {TIMM}{self.name} as a .safetensors file, got {file}; files of "
                "other kinds can run code when they are opened"
            )
        overlay = {} if file is None else {"pretrained_cfg_overlay": {"file": str(file)}}
        try:
            return self._cut(self._network(pretrained=True, **overlay))
        except Exception as error:  # of timm, of its hub, of the file
            where = f"{file}" if file is not None else "Hugging Face's cache or by download"
            raise CheckpointError(
                f"expected ImageNet weights of {TIMM}{self.name} at {where}, got: {_said(error)}. Without a network, "
                "fetch that model's model.safetensors elsewhere and pass --train.imagenet-file FILE; "
                "--train.initial-weights none starts from random weights"
            ) from error

    def input_affine(self) -> Literal["none", "googlenet"]:
        """How the pretrained weights expect pixels: ImageNet-normalised, or as (rgb − ½)/½, which GoogLeNet's do too.

        Raises: ConfigError for any other normalisation.
        """
        asked = _timm().get_pretrained_cfg(self.name)
        if asked is None:
            raise ConfigError(
                f"timm has no ImageNet weights for {self.name!r}; pass --train.initial-weights none"
            )
        scale = (tuple(asked.mean), tuple(asked.std))
        if scale == (IMAGENET_MEAN, IMAGENET_STD):
            return "none"
        if scale == ((0.5,) * 3, (0.5,) * 3):
            return "googlenet"
        raise ConfigError(
            f"expected weights for images normalised by ImageNet's mean and deviation, or by ½ and ½; those of "
            f"{TIMM}{self.name} want {scale[0]} and {scale[1]}. Choose other weights, or pass "
            "--train.initial-weights none"
        )

    def _network(self, **settings: Any) -> Any:
        """timm's features-only network."""
        timm = _timm()
        if not timm.is_model(self.name):
            near = difflib.get_close_matches(self.name, timm.list_models(), 3, 0.5)
            raise ConfigError(
                f"timm has no network {self.name!r}; near it: {', '.join(near) or 'nothing'}; "
                "timm.list_models() names all of them"
            )
        if self.last_stride == 1:
            settings["output_stride"] = STRIDE_I2
        return timm.create_model(self.name, features_only=True, **settings)

    def _cut(self, network: Any) -> Stages:
        """Cut the chain of modules behind the last features at strides 8, 16 and 32."""
        chain, ends = _chain(network), self._ends(network.feature_info.reduction())
        names = [name for name, _ in chain]
        features = [name.replace(".", "_") for name in network.feature_info.module_name()]
        stages: Stages = {}
        start = 0
        for stage, end in zip(get_args(StageName), ends, strict=True):
            stop = names.index(features[end]) + 1
            first = chain[start][1]
            if getattr(first, "inplace", False):
                first.inplace = False  # type: ignore[assignment]  # Z1 and Z2 have other readers
            stages[stage] = nn.Sequential(OrderedDict(chain[start:stop]))
            start = stop
        return stages

    def _ends(self, strides: list[int]) -> list[int]:
        """Which of the network's features I1, I2 and I3 end with: the last of their stride."""
        last = STRIDE_I3 if self.last_stride == 2 else STRIDE_I2
        wanted = [STRIDE_I1, STRIDE_I2, last]
        if self.last_stride == 1:  # two features at stride 16: I2's, I3's
            strides = [*strides[:-1], -1] if strides[-1] == last else strides
            wanted[-1] = -1
        if not all(stride in strides for stride in wanted):
            raise ConfigError(
                f"expected a network with feature maps at strides {STRIDE_I1}, {STRIDE_I2} and {last}, got "
                f"{self.name}, which has them at {strides}; try {TIMM}resnet50"
            )
        return [len(strides) - 1 - strides[::-1].index(stride) for stride in wanted]

    def _try_out(self, images: Tensor) -> dict[StageName, int]:
        """Channels of each stage. Raises: ConfigError unless the stages do what the network does."""
        try:
            network = self._network().eval()
            stages = self._cut(network)
            theirs: list[Tensor] = network(images)
            maps = images
            found: dict[StageName, Tensor] = {}
            for name, stage in stages.items():
                found[name] = maps = stage(maps)
        except ConfigError:
            raise
        except (
            Exception
        ) as error:  # whatever a network of timm's does that is no chain, or not made for this size
            height, width = images.shape[2:]
            raise ConfigError(
                f"timm's {self.name} cannot be cut into three stages for images of {height}×{width} with "
                f"last_stride={self.last_stride}: {_said(error)}; try {TIMM}resnet50"
            ) from error
        ends = self._ends(network.feature_info.reduction())
        strides = (STRIDE_I1, STRIDE_I2, STRIDE_I3 if self.last_stride == 2 else STRIDE_I2)
        channels = network.feature_info.channels()
        for (name, maps), end, stride in zip(found.items(), ends, strides, strict=True):
            shape = (2, channels[end], images.shape[2] // stride, images.shape[3] // stride)
            if maps.shape != shape or not torch.equal(maps, theirs[end]):
                raise ConfigError(
                    f"expected {name} of timm's {self.name} to give its own feature map {shape}, got "
                    f"{tuple(maps.shape)}; this network cannot be cut into three stages; try {TIMM}resnet50"
                )
        return {name: maps.shape[1] for name, maps in found.items()}


def timm_backbone(config: ModelConfig) -> TimmBackbone:
    """The backbone that ``config.backbone`` names, `timm:NAME`. Raises: ConfigError, see `TimmBackbone`."""
    size = (config.image_height, config.image_width)
    return TimmBackbone(config.backbone.removeprefix(TIMM), config.last_stride, size)


def _chain(network: Any) -> list[tuple[str, nn.Module]]:
    """The network's modules in the order of its forward; a Sequential that holds features is taken apart."""
    within = {name.split(".")[0] for name in network.feature_info.module_name() if "." in name}
    chain: list[tuple[str, nn.Module]] = []
    for name, child in network.named_children():
        inner = child.named_children() if name in within else ()
        chain += [(f"{name}_{number}", one) for number, one in inner] or [(name, child)]
    return chain


def _said(error: Exception) -> str:
    """An error's text, or its kind where it says nothing."""
    return str(error) or type(error).__name__


def _timm() -> Any:
    try:
        import timm
    except ImportError as error:
        raise ConfigError(
            f"backbones of timm need the library: pip install timm ({error}); or take backbone='googlenet'"
        ) from error
    return timm
