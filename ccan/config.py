"""Every setting of CCAN as typed, frozen data: `Recipe` holds one group for each concern and travels as JSON.

The defaults are the paper's (sections 3 and 4.1, Market-1501). Unknown keys are errors, so that a misspelt setting can
never pass in silence. Validation happens in `__post_init__` only.
"""

from __future__ import annotations

import dataclasses
import json
import math
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Self
from urllib.parse import urlsplit

from ccan.errors import ConfigError

STRIDE_I1, STRIDE_I2, STRIDE_I3 = 8, 16, 32
"""Pixels of the input for one cell of Z1, Z2 and the last map."""

GOOGLENET, TIMM = "googlenet", "timm:"
"""The paper's backbone by name, and what stands before a name of timm's."""


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ConfigError(message)


def _positive(config: object, *names: str) -> None:
    for name in names:
        value = getattr(config, name)
        _require(
            math.isfinite(value) and value > 0,
            f"{name} must be a finite number > 0, got {value!r}",
        )


def _fraction(config: object, *names: str) -> None:
    for name in names:
        value = getattr(config, name)
        _require(0.0 <= value <= 1.0, f"{name} must be a share between 0 and 1, got {value!r}")


class _Group:
    """JSON in and out for a dataclass of settings."""

    def to_dict(self) -> dict[str, Any]:
        """The settings as plain JSON values."""
        return json.loads(json.dumps(dataclasses.asdict(typing.cast(Any, self))))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Rebuild from `to_dict`. Raises: ConfigError for unknown keys or values of the wrong type."""
        if not isinstance(typing.cast(object, values), Mapping):
            raise ConfigError(f"{cls.__name__} expects an object of settings, got {values!r}")
        hints = typing.get_type_hints(cls)
        names = [f.name for f in dataclasses.fields(typing.cast(Any, cls))]
        unknown = sorted(set(values) - set(names))
        _require(
            not unknown,
            f"{cls.__name__} has no setting {', '.join(map(repr, unknown))}; it has: {', '.join(names)}",
        )
        return cls(
            **{
                name: _read(f"{cls.__name__}.{name}", hints[name], value)
                for name, value in values.items()
            }
        )


def _read(where: str, hint: Any, value: Any) -> Any:
    """One JSON value as the type that its field declares."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if isinstance(hint, type) and issubclass(hint, _Group):
        return hint.from_dict(value)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        hint = next(argument for argument in arguments if argument is not type(None))
        return _read(where, hint, value)
    if origin is Literal:
        choices = ", ".join(map(repr, arguments))
        right = any(value == one and type(value) is type(one) for one in arguments)
        _require(right, f"{where} must be one of {choices}, got {value!r}")
        return value
    if origin is tuple:
        parts = typing.cast(Sequence[Any], value)
        right = isinstance(value, list | tuple) and len(parts) == len(arguments)
        _require(right, f"{where} must be a list of {len(arguments)} values, got {value!r}")
        return tuple(_read(where, kind, part) for kind, part in zip(arguments, parts, strict=True))
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    right = isinstance(value, hint) and (hint is bool or not isinstance(value, bool))
    _require(right, f"{where} must be {hint.__name__}, got {value!r}")
    return value


@dataclass(frozen=True)
class ModelConfig(_Group):
    """The network (section 3, Fig. 3). Every row of Table 6 and both ablation figures are one setting away."""

    embedding_dim: int = 1024
    """d, width of each branch's embedding (paper: 1024; Fig. 4a varies it: Decision D15)."""
    parts: int = 4
    """kp, number of horizontal strips and part streams (paper: 4; Fig. 4b varies it: Decision D15)."""
    image_height: int = 256
    """Input height in pixels, a multiple of 32 (paper: 256)."""
    image_width: int = 128
    """Input width in pixels, a multiple of 32 (paper: 128)."""
    width_multiplier: float = 1.0
    """w: every channel count c of the backbone becomes max(8, 8·round(c·w/8)) (paper: 1; Decision D2)."""
    reduction: int = 8
    """C/K of the attention maps (paper: 8)."""
    global_branch: bool = True
    """Branch G. Without it I1 stays as the trunk of the parts (Decision D16)."""
    local_branch: bool = True
    """Branch L: the part streams."""
    ssa: bool = True
    """SS1: symmetric self-attention after I1 in the global branch."""
    cca: bool = True
    """CC2: cross-correlated attention between each part stream and the global strip; needs both branches."""
    attention: Literal["cross_correlated", "non_local"] = "cross_correlated"
    """What stands in every attention slot: the paper's, or the Fig. 2 baseline on Q alone (Decision D18)."""
    cca_target: Literal["part", "global"] = "part"
    """Which map is Q, and so carries the residual, in CC2 (Decision D4)."""
    attention_values: Literal["target", "source"] = "target"
    """Whether Eq. 2 gathers h(q) as printed, or h(q′) (Decision D17)."""
    attention_init: Literal["symmetric", "symmetric_full_w", "default"] = "symmetric"
    """Start of the attention maps (Decision D6)."""
    input_affine: Literal["none", "googlenet"] = "none"
    """Re-scaling inside the model that torchvision's ImageNet weights expect (Decision D2)."""
    backbone: str = GOOGLENET
    """`googlenet` (paper), or `timm:NAME`: a network of timm whose features at strides 8, 16 and 32 end I1, I2, I3."""
    last_stride: Literal[1, 2] = 2
    """Stride of I3 (paper: 2). 1 keeps its map at the size of Z2, for finer detail (Sun et al. 2018)."""
    neck: Literal["none", "batch_norm"] = "none"
    """`batch_norm` between FC1 and FC2: triplets see the embedding before it, identity scores (by an FC2 without bias)
    and the descriptor what comes after it (BN-neck, Luo et al. 2019; paper: none, Decision D7)."""

    def __post_init__(self) -> None:
        _positive(self, "embedding_dim", "parts", "image_height", "image_width")
        _positive(self, "width_multiplier", "reduction")
        for name in ("image_height", "image_width"):
            value = getattr(self, name)
            _require(
                value % STRIDE_I3 == 0,
                f"{name} must be a multiple of {STRIDE_I3} (the backbone's stride), got {value}; "
                f"try {max(STRIDE_I3, round(value / STRIDE_I3) * STRIDE_I3)}",
            )
        _require(
            self.global_branch or self.local_branch,
            "global_branch and local_branch are both off: there is nothing to train; switch one on",
        )
        _require(
            not self.cca or (self.global_branch and self.local_branch),
            "cca=True needs global_branch and local_branch (it correlates one with the other); "
            "pass cca=False",
        )
        _require(
            not self.ssa or self.global_branch,
            "ssa=True needs global_branch (SS1 is part of branch G); pass ssa=False",
        )
        _require(
            self.attention != "non_local"
            or (self.cca_target == "part" and self.attention_values == "target"),
            "attention='non_local' works on Q alone (Decision D18): cca_target must stay 'part' and "
            f"attention_values 'target', got {self.cca_target!r} and {self.attention_values!r}",
        )
        name = self.backbone.removeprefix(TIMM)
        _require(
            self.backbone == GOOGLENET or (name != self.backbone and bool(name)),
            f"backbone must be {GOOGLENET!r} or '{TIMM}NAME' with a name of timm's, for example "
            f"'{TIMM}resnet50', got {self.backbone!r}",
        )
        _require(
            self.backbone == GOOGLENET or self.width_multiplier == 1,
            f"width_multiplier scales GoogLeNet alone; with backbone={self.backbone!r} it must be 1, got "
            f"{self.width_multiplier}; choose a narrower network of timm's instead",
        )
        rows = self.image_height // STRIDE_I2
        _require(
            not self.local_branch or self.parts <= rows,
            f"parts must be at most the {rows} rows of Z2 at image_height={self.image_height}, "
            f"got {self.parts}; use fewer parts or taller images",
        )

    @property
    def grid_z1(self) -> tuple[int, int]:
        """(M, N) of Z1, where SS1 works."""
        return self.image_height // STRIDE_I1, self.image_width // STRIDE_I1

    @property
    def grid_z2(self) -> tuple[int, int]:
        """(M, N) of Z2, where CC2 works."""
        return self.image_height // STRIDE_I2, self.image_width // STRIDE_I2

    @property
    def descriptor_dim(self) -> int:
        """Width of the descriptor: d for each branch that is on."""
        return self.embedding_dim * (int(self.global_branch) + int(self.local_branch))


@dataclass(frozen=True)
class LossConfig(_Group):
    """L = CE_G + Tri_G + CE_L + Tri_L (Eq. 4–5); other triplet losses and attention diversity on demand."""

    label_smoothing: float = 0.1
    """ε of the smoothed identity loss (paper: 0.1)."""
    margin: float = 1.0
    """τ, on squared distances (paper: 1 for Market-1501 and DukeMTMC-reID, 1.5 for CUHK03; MSMT17: Decision D13)."""
    negatives: int = 10
    """r, semi-hard negatives mined for each anchor–positive pair (paper: 10)."""
    normalize: bool = True
    """Whether the triplet loss sees L2-normalised embeddings (Decision D8)."""
    triplet: Literal["semi_hard", "soft_margin", "circle"] = "semi_hard"
    """Tri: Eq. 5 on semi-hard negatives (paper), batch-hard with a soft margin (Hermans et al. 2017; that paper leaves
    embeddings raw: normalize=False), or circle loss (Sun et al. 2020). margin and negatives belong to the first."""
    circle_margin: float = 0.25
    """m of the circle loss, in cosine similarity (Sun et al. 2020; fast-reid, He et al. 2020: 0.25)."""
    circle_scale: float = 128.0
    """γ of the circle loss (the same: 128; a fresh network then begins near 100, beside log K of the identities)."""
    attention_diversity: float = 0.0
    """Weight of the attention-diversity loss (the paper's future work; what ours is stands in `ccan.losses.diversity`)
    over the part streams; 0 = off. Without CC2 there are no such maps, and the term is zero."""

    def __post_init__(self) -> None:
        _require(
            0.0 <= self.label_smoothing < 1.0,
            f"label_smoothing must lie in [0, 1), got {self.label_smoothing!r}",
        )
        _positive(self, "margin", "negatives", "circle_scale")
        _require(
            0.0 < self.circle_margin < 1.0,
            f"circle_margin must lie in (0, 1), a cosine, got {self.circle_margin!r}",
        )
        _require(
            0.0 <= self.attention_diversity < math.inf,
            f"attention_diversity must be a finite weight ≥ 0, got {self.attention_diversity!r}",
        )
        _require(
            self.triplet != "circle" or self.normalize,
            "triplet='circle' compares cosines, which are those of normalised embeddings; "
            "leave normalize=True",
        )


@dataclass(frozen=True)
class DataConfig(_Group):
    """Batches and augmentation of the training images (section 4.1)."""

    identities_per_batch: int = 16
    """P, identities in a batch (paper: 16)."""
    images_per_identity: int = 4
    """K, images of each of them (paper: 4)."""
    crop_margin: float = 1.125
    """Images are resized to this times the input size before the random crop (paper: 288×144 for 256×128)."""
    flip_probability: float = 0.5
    """Random horizontal flip (paper: yes)."""
    erasing_probability: float = 0.5
    """Random erasing, once it is on (Decision D1)."""
    erasing_area: tuple[float, float] = (0.02, 0.4)
    """Smallest and largest share of the image that is erased (Decision D1)."""
    erasing_aspect: tuple[float, float] = (0.3, 3.3)
    """Smallest and largest height/width of the erased box (Decision D1)."""
    erasing_from_epoch: int = 50
    """First epoch, counted from 0, with random erasing (paper: after epoch 50)."""
    jitter_probability: float = 0.0
    """Random change of colours (paper: none; Luo et al. 2019 and fast-reid, He et al. 2020, use it)."""
    jitter_brightness: float = 0.2
    """Colours are multiplied by a factor up to this much above or below 1."""
    jitter_contrast: float = 0.15
    """So is their distance from middle grey."""
    jitter_saturation: float = 0.15
    """So is their distance from grey of their own luma."""
    jitter_hue: float = 0.05
    """Hues turn by up to this share of a whole turn, either way."""
    broken_images: Literal["error", "skip"] = "error"
    """What a corrupt or truncated training image does: stop with its name, or be named and left out."""
    workers: int = 2
    """Processes that decode images; 0 = decode in the training process. Idle where pixels are kept in memory."""
    keep_decoded: bool = True
    """Decode each training image once and keep its uint8 pixels in memory, when they fit."""
    keep_decoded_limit_mb: int = 4096
    """Above this many MiB of decoded pixels the images are decoded anew each epoch."""
    pixels_on_device: bool = True
    """Where pixels are kept and a CUDA device trains, they are kept there, and augmented there."""

    def __post_init__(self) -> None:
        _positive(self, "identities_per_batch", "images_per_identity", "keep_decoded_limit_mb")
        _fraction(self, "flip_probability", "erasing_probability", "jitter_probability")
        _fraction(self, "jitter_brightness", "jitter_contrast", "jitter_saturation")
        _require(
            0 <= self.jitter_hue <= 0.5,
            f"jitter_hue must be a share of a turn between 0 and 0.5, got {self.jitter_hue!r}",
        )
        _require(
            1 <= self.crop_margin < math.inf,
            f"crop_margin must be a finite number ≥ 1, got {self.crop_margin!r}",
        )
        low, high = self.erasing_area
        _require(
            0 < low <= high <= 1,
            f"erasing_area must be two shares 0 < low ≤ high ≤ 1, got {self.erasing_area!r}",
        )
        low, high = self.erasing_aspect
        _require(
            0 < low <= high < math.inf,
            f"erasing_aspect must be 0 < low ≤ high, finite, got {self.erasing_aspect!r}",
        )
        _require(
            self.erasing_from_epoch >= 0 and self.workers >= 0,
            f"erasing_from_epoch and workers must be at least 0, got {self.erasing_from_epoch!r} "
            f"and {self.workers!r}",
        )
        _require(
            self.images_per_identity >= 2,
            "images_per_identity must be at least 2: a triplet needs a positive, got "
            f"{self.images_per_identity}",
        )

    @property
    def batch_size(self) -> int:
        """Images in a batch, P·K (paper: 64)."""
        return self.identities_per_batch * self.images_per_identity


@dataclass(frozen=True)
class OptimConfig(_Group):
    """Adam and its schedule (section 4.1; Decisions D10, D11)."""

    learning_rate: float = 5e-4
    """Paper: 5e-4 (Market-1501, DukeMTMC-reID; MSMT17 by Decision D13), 1e-3 (CUHK03)."""
    betas: tuple[float, float] = (0.9, 0.99)
    """Adam's β (paper: 0.9, 0.99)."""
    weight_decay: float = 1e-4
    """Coupled L2 of plain Adam (paper: 1e-4; Decision D11)."""
    schedule: Literal["step", "cosine"] = "step"
    """`step`: constant, then ×decay_factor (paper). `cosine`: half a cosine to zero over all epochs."""
    decay_start: int = 150
    """Epoch of the first decay (paper: 150; Decision D10)."""
    decay_every: int = 50
    """Epochs between decays (paper: 50)."""
    decay_factor: float = 0.1
    """Factor of each decay (paper: 0.1)."""
    warmup_epochs: int = 0
    """Epochs of linear growth from a tenth of the learning rate (paper: none)."""

    def __post_init__(self) -> None:
        _positive(self, "learning_rate", "decay_start", "decay_every", "decay_factor")
        _require(
            all(0 <= beta < 1 for beta in self.betas),
            f"betas must lie in [0, 1), got {self.betas!r}",
        )
        _require(
            0 <= self.weight_decay < math.inf and self.warmup_epochs >= 0,
            "weight_decay and warmup_epochs must be at least 0, got "
            f"{self.weight_decay!r} and {self.warmup_epochs!r}",
        )


@dataclass(frozen=True)
class TrainConfig(_Group):
    """How long, from which weights, on what, and how often results are kept."""

    epochs: int = 200
    """Identity-balanced passes over the training set (paper: 200; Decision D12)."""
    seed: int = 0
    """Owner of all randomness: weights, batches, augmentation."""
    initial_weights: Literal["imagenet", "none"] = "imagenet"
    """ImageNet weights for the global stages and every part stream (paper), or a random start."""
    imagenet_file: str | None = None
    """GoogLeNet's ImageNet weights on disk: torchvision's file or safetensors; by default its cache or a download."""
    device: str = "auto"
    """`auto` (CUDA, else MPS, else CPU), or a torch device such as `cuda:1`."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Autocast of the forward pass; `auto` = bfloat16 on CUDA, float32 elsewhere."""
    ema_decay: float = 0.0
    """β of a moving average of the weights, w̄ ← β w̄ + (1 − β) w after each step, which is what is evaluated and kept
    (Tarvainen and Valpola 2017; paper: none); 0 = off."""
    validation_identities: int = 0
    """Training identities held out to choose the `best` checkpoint; 0 = none, and no `best` is written."""
    evaluate_every: int = 10
    """Epochs between evaluations on the held-out identities, when there are any."""
    checkpoint_every: int = 1
    """Epochs between writes of the `last` checkpoint; the final epoch is always written."""
    compile: bool = False
    """Compile the network by torch.compile: minutes at the start, faster steps on a GPU; needs a C++ compiler."""
    gather_embeddings: bool = False
    """With several processes mine triplets among the images of all of them, not of each alone."""
    sync_batch_norm: bool = False
    """With several processes on CUDA normalise over the batches of all of them."""

    def __post_init__(self) -> None:
        _positive(self, "epochs", "evaluate_every", "checkpoint_every")
        _require(self.seed >= 0, f"seed must be at least 0, got {self.seed!r}")
        _require(
            0.0 <= self.ema_decay < 1.0, f"ema_decay must lie in [0, 1), got {self.ema_decay!r}"
        )
        _require(
            self.validation_identities >= 0,
            f"validation_identities must be at least 0, got {self.validation_identities!r}",
        )


@dataclass(frozen=True)
class EvalConfig(_Group):
    """How features are extracted and ranked (section 3.4)."""

    batch_size: int = 64
    """Images in a forward pass; results do not depend on it beyond rounding."""
    workers: int = 2
    """Processes that decode images; 0 = decode in the calling process."""
    distance: Literal["euclidean", "squared_euclidean", "cosine"] = "euclidean"
    """Distance between descriptors (paper: Euclidean)."""
    ap: Literal["rank-sum", "trapezoid"] = "rank-sum"
    """Rule of average precision (Decision D14)."""
    flip: bool = False
    """Describe each image by itself and its mirror; twice the work (paper: no)."""
    broken_images: Literal["error", "skip"] = "error"
    """An image that cannot be read ends the work, or is left out and named."""
    rerank: bool = False
    """Re-rank by k-reciprocal neighbours (Zhong et al. 2017) with that paper's numbers (paper: no)."""

    def __post_init__(self) -> None:
        _positive(self, "batch_size")
        _require(self.workers >= 0, f"workers must be at least 0, got {self.workers!r}")


@dataclass(frozen=True)
class SearchConfig(_Group):
    """What an indexed gallery is searched by."""

    engine: Literal["exact", "milvus"] = "exact"
    """`exact` compares with every image in this process; `milvus` asks that engine, in the index's folder or by URL."""
    kind: Literal["FLAT", "HNSW", "IVF_FLAT", "IVF_SQ8"] = "FLAT"
    """Milvus' index type. FLAT is exact; of the others the recall is measured and told."""
    effort: int | None = None
    """HNSW's ef or IVF's nprobe: more finds more, slower; by default what suits the number of images."""
    uri: str | None = None
    """Milvus server, for example http://host:19530. Its token is read from $CCAN_MILVUS_TOKEN and never written."""

    def __post_init__(self) -> None:
        _require(
            self.engine == "milvus"
            or (self.uri is None and self.kind == "FLAT" and self.effort is None),
            "uri, kind and effort belong to the engine milvus; choose it, or leave them out",
        )
        _require(
            self.effort is None or (self.effort >= 1 and self.kind != "FLAT"),
            f"effort is a number from 1, and not for FLAT, got {self.effort!r} for {self.kind}",
        )
        if self.uri is None:
            return
        try:
            parts = urlsplit(self.uri)
        except ValueError as error:
            raise ConfigError(f"uri is not an address: {error}") from error
        _require(
            not parts.username and not parts.password and not parts.query,
            "uri must not hold credentials, because it is written into the index; put the token into the environment "
            "variable CCAN_MILVUS_TOKEN",
        )
        _require(
            parts.scheme in ("http", "https")
            and bool(parts.hostname)
            and not self.uri.endswith(".db"),  # the client takes that for a file
            f"uri must be a Milvus server such as http://host:19530, got {self.uri!r}",
        )


@dataclass(frozen=True)
class Recipe(_Group):
    """Everything that a training run depends on, but the images."""

    name: str = "paper"
    """What the recipe is called in reports."""
    model: ModelConfig = field(default_factory=ModelConfig)
    """The network."""
    loss: LossConfig = field(default_factory=LossConfig)
    """The loss."""
    data: DataConfig = field(default_factory=DataConfig)
    """Batches and augmentation."""
    optim: OptimConfig = field(default_factory=OptimConfig)
    """Optimiser and schedule."""
    train: TrainConfig = field(default_factory=TrainConfig)
    """Length, start, device, checkpoints."""
    eval: EvalConfig = field(default_factory=EvalConfig)
    """Extraction and ranking."""

    def to_json(self) -> str:
        """The recipe as indented JSON text."""
        return json.dumps(self.to_dict(), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Recipe:
        """Read `to_json`'s text. Raises: ConfigError for broken JSON, unknown keys or wrong types."""
        try:
            values = json.loads(text)
        except json.JSONDecodeError as error:
            raise ConfigError(f"a recipe must be JSON, got text that is not: {error}") from error
        return cls.from_dict(values)


def changed_settings(
    old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = ""
) -> dict[str, tuple[Any, Any]]:
    """Settings that differ between two `to_dict` results, by dotted name → (old, new)."""
    changes: dict[str, tuple[Any, Any]] = {}
    for key in sorted(set(old) | set(new)):
        before, after, name = old.get(key), new.get(key), f"{prefix}{key}"
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            changes |= changed_settings(
                typing.cast(Mapping[str, Any], before),
                typing.cast(Mapping[str, Any], after),
                f"{name}.",
            )
        elif before != after:
            changes[name] = (before, after)
    return changes
