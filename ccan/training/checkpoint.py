"""Checkpoints as single safetensors files with a JSON header: written whole, read without running any code.

A training checkpoint holds the weights (``model.*``), Adam's state (``optimizer.*``) and, where one is kept, the moving
average of the weights (``average.*``); a model file holds weights only. The header's entry ``ccan`` holds the recipe
and what else is needed to build the network again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from ccan.config import Recipe
from ccan.errors import CCANError, CheckpointError
from ccan.files import atomic_path
from ccan.model.network import CCAN, build_ccan

FORMAT = 1
BEST, LAST, MODEL = "best.safetensors", "last.safetensors", "model.safetensors"


@dataclass(frozen=True)
class CheckpointInfo:
    """The header of a checkpoint.

    Attributes:
        recipe: the recipe of the run; ``recipe.model`` builds the network.
        identities: training identities in label order; their number is the width of both FC2.
        epoch: finished epochs.
        dataset: name of the dataset it was trained on.
        data_fingerprint: hash of the training list (names and identities).
        metrics: the newest values that were measured, by name.
    """

    recipe: Recipe
    identities: tuple[int, ...]
    epoch: int = 0
    dataset: str = ""
    data_fingerprint: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "format": FORMAT,
            "recipe": self.recipe.to_dict(),
            "identities": list(self.identities),
            "epoch": self.epoch,
            "dataset": self.dataset,
            "data_fingerprint": self.data_fingerprint,
            "metrics": dict(self.metrics),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> CheckpointInfo:
        """Read `to_dict`. Raises: CheckpointError for another format or missing entries."""
        if not isinstance(values, Mapping):
            raise CheckpointError(f"the checkpoint's header must be an object, got {values!r}")
        if values.get("format") != FORMAT:
            raise CheckpointError(
                f"expected checkpoint format {FORMAT}, got {values.get('format')!r}; "
                "it was written by another version of ccan"
            )
        try:
            return cls(
                recipe=Recipe.from_dict(values["recipe"]),
                identities=tuple(int(identity) for identity in values["identities"]),
                epoch=int(values["epoch"]),
                dataset=str(values["dataset"]),
                data_fingerprint=str(values["data_fingerprint"]),
                metrics={key: float(value) for key, value in values["metrics"].items()},
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise CheckpointError(f"the checkpoint's header is incomplete: {error!r}") from error


BUNDLED = ("demo", "demo-plain")
"""Models that come with the package: one as the paper has it, and the same without attention (no SS1, no CC2)."""


def resolve_checkpoint(name: str | Path) -> Path:
    """The file meant by ``name``: a `BUNDLED` model, a file, or a run folder (its best, else its last).

    Raises: CheckpointError if there is none.
    """
    if str(name) in BUNDLED:
        return Path(str(resources.files("ccan"))) / "assets" / str(name) / MODEL
    path = Path(name).expanduser()
    if path.is_file():
        return path
    for candidate in (BEST, LAST, MODEL):
        if (path / candidate).is_file():
            return path / candidate
    found = "a folder that holds none" if path.is_dir() else "nothing there"
    raise CheckpointError(
        f"expected a checkpoint at {path}: a .safetensors file, a run folder, or the word demo; got {found}"
    )


def save_checkpoint(
    path: Path,
    model: CCAN,
    info: CheckpointInfo,
    optimizer: torch.optim.Optimizer | None = None,
    half: bool = False,
    average: AveragedModel | None = None,
) -> None:
    """Write one file as a whole; the file that stood there before survives any failure.

    Args:
        average: kept beside the weights, so that training can go on with both.
        half: store weights of two and more axes in float16 (batch-norm statistics and biases stay float32).

    Raises: CheckpointError if the disk is full or the folder cannot be written.
    """
    tensors = {
        f"model.{name}": _stored(value, half and value.dim() > 1)
        for name, value in model.state_dict().items()
    }
    if optimizer is not None:
        tensors |= _optimizer_tensors(model, optimizer)
    if average is not None:
        kept = average.state_dict()
        tensors |= {f"average.{name}": _stored(value, half=False) for name, value in kept.items()}
    try:
        with atomic_path(path) as temporary:
            save_file(tensors, temporary, {"ccan": json.dumps(info.to_dict())})
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"could not write {path}: {error}. Free some space or choose another --out; "
            "the checkpoint that was there before is intact"
        ) from error


def _stored(value: Tensor, half: bool) -> Tensor:
    value = value.detach().cpu().contiguous()
    return value.half() if half and value.is_floating_point() else value.clone()


def _optimizer_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    names: dict[Tensor, str] = {value: name for name, value in model.named_parameters()}
    return {
        f"optimizer.{key}.{names[parameter]}": _stored(torch.as_tensor(value), half=False)
        for parameter, state in optimizer.state.items()
        for key, value in state.items()
    }


def read_info(path: Path) -> CheckpointInfo:
    """The header alone, without reading weights. Raises: CheckpointError for a file that is not a checkpoint."""
    try:
        with safe_open(path, framework="pt") as file:
            header = (file.metadata() or {}).get("ccan")
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{path}: expected a whole safetensors file, got one that cannot be read ({error}); "
            "it is damaged, cut off or of another kind"
        ) from error
    if header is None:
        raise CheckpointError(
            f"{path}: expected a checkpoint of ccan, got a safetensors file without its header"
        )
    try:
        return CheckpointInfo.from_dict(json.loads(header))
    except (CCANError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{path}: {error}") from error


def load_model(name: str | Path, device: torch.device | str = "cpu") -> tuple[CCAN, CheckpointInfo]:
    """Build the network of a checkpoint with its weights, or their moving average if it has one.

    In evaluation mode, float32.

    Raises: CheckpointError if the file is missing, damaged, or does not fit its own header.
    """
    path = resolve_checkpoint(name)
    info = read_info(path)
    with torch.random.fork_rng(devices=[]):
        model = build_ccan(info.recipe.model, len(info.identities))
    load_weights(path, model, averaged=True)
    return model.to(device).eval(), info


def load_weights(
    path: Path,
    model: CCAN,
    optimizer: torch.optim.Optimizer | None = None,
    average: AveragedModel | None = None,
    averaged: bool = False,
) -> None:
    """Copy a checkpoint's tensors into a model, its optimiser and its moving average.

    With ``averaged`` the model gets the moving average where there is one. Raises: CheckpointError on any misfit.
    """
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        weights = _below("average.module.", tensors) if averaged else {}
        model.load_state_dict(weights or _below("model.", tensors), strict=True)
        if optimizer is not None:
            _load_optimizer(model, optimizer, tensors)
        if average is not None:
            average.load_state_dict(_below("average.", tensors), strict=True)
    except (OSError, SafetensorError, RuntimeError, KeyError) as error:
        raise CheckpointError(f"{path}: the weights do not fit this network: {error}") from error


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose names begin so, by the rest of the name."""
    return {
        name.removeprefix(prefix): value
        for name, value in tensors.items()
        if name.startswith(prefix)
    }


def _load_optimizer(
    model: nn.Module, optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]
) -> None:
    state = optimizer.state_dict()
    keys = sorted({name.split(".")[1] for name in tensors if name.startswith("optimizer.")})
    state["state"] = {
        place: {key: tensors[f"optimizer.{key}.{name}"] for key in keys}
        for place, (name, _) in enumerate(model.named_parameters())
    }
    optimizer.load_state_dict(state)
