"""The run folder: what was asked for, where it ran, what was measured.

config.json        the recipe, the dataset and its fingerprint
environment.json   versions and device
metrics.jsonl      one line an epoch
events.*           TensorBoard, if it is installed
last.safetensors   where --resume goes on; best.safetensors with --val-identities; model.safetensors when finished
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from ccan.config import Recipe, changed_settings
from ccan.errors import ConfigError
from ccan.files import write_json, write_text

MAY_CHANGE = (
    "train.device",
    "train.checkpoint_every",
    "train.compile",
    "data.workers",
    "data.keep_decoded",
    "data.pixels_on_device",
    "eval.",
)
"""Settings that a resumed run may change, because no weight depends on them."""


def describe_environment(device: torch.device) -> dict[str, Any]:
    """Versions and hardware that a result may depend on; nothing that names a person or a machine."""
    packages = ("ccan", "torch", "torchvision", "numpy", "pillow", "safetensors", "accelerate")
    named = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor()
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": str(device),
        "device_name": named or platform.machine(),
        "cpu_threads": torch.get_num_threads(),
        "versions": {name: metadata.version(name) for name in packages},
    }


class RunFolder:
    """Reads and writes one run's folder.

    Args:
        path: the folder; made if missing.
        writes: whether anything is written; among several training processes only the first one does.
    """

    def __init__(self, path: Path, writes: bool = True) -> None:
        self.path = Path(path)
        self.writes = writes
        if writes:
            self.path.mkdir(parents=True, exist_ok=True)
        self._tensorboard: Any = None

    def start(self, config: Mapping[str, Any], environment: Mapping[str, Any]) -> None:
        """Begin a new run: its settings, an empty journal."""
        if not self.writes:
            return
        write_json(self.path / "config.json", config)
        write_json(self.path / "environment.json", environment)
        write_text(self.path / "metrics.jsonl", "")

    def resume(self, config: Mapping[str, Any], epoch: int) -> None:
        """Go on at ``epoch``: refuse other settings, drop journal lines of epochs that will be run again.

        Raises: ConfigError with the settings that differ.
        """
        try:
            before = json.loads((self.path / "config.json").read_text(encoding="utf-8"))
            # Settings that came later stood at their defaults.
            before = {
                "processes": 1,
                **before,
                "recipe": Recipe.from_dict(before["recipe"]).to_dict(),
            }
        except (OSError, ValueError, KeyError, TypeError, ConfigError) as error:
            raise ConfigError(
                f"{self.path} holds a checkpoint but no readable config.json ({error}); "
                "choose another --out"
            ) from error
        changes = {
            name: values
            for name, values in changed_settings(before, config).items()
            if not name.removeprefix("recipe.").startswith(MAY_CHANGE)
        }
        if changes:
            listed = "; ".join(f"{name}: {old!r} → {new!r}" for name, (old, new) in changes.items())
            raise ConfigError(
                f"--resume needs the settings that {self.path} was begun with, got other ones: {listed}. "
                "Repeat the old settings, or choose another --out"
            )
        if not self.writes:
            return
        kept = [line for line in self.read() if line["epoch"] < epoch]
        write_text(self.path / "metrics.jsonl", "".join(json.dumps(line) + "\n" for line in kept))

    def read(self) -> list[dict[str, Any]]:
        """The journal's lines, one for each finished epoch; a line cut off by a crash is left out."""
        try:
            text = (self.path / "metrics.jsonl").read_text(encoding="utf-8")
        except FileNotFoundError:
            return []
        lines = []
        for line in text.splitlines():
            try:
                lines.append(json.loads(line))
            except json.JSONDecodeError:
                break
        return lines

    def write(self, epoch: int, values: Mapping[str, float]) -> None:
        """Add an epoch's values to the journal and, if it is installed, to TensorBoard."""
        if not self.writes:
            return
        with open(self.path / "metrics.jsonl", "a", encoding="utf-8") as journal:
            journal.write(json.dumps({"epoch": epoch, **values}) + "\n")
            journal.flush()
            os.fsync(journal.fileno())
        writer = self._writer(epoch)
        if writer is not None:
            for name, value in values.items():
                writer.add_scalar(name, value, epoch)
            writer.flush()

    def _writer(self, epoch: int) -> Any:
        if self._tensorboard is None:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError:
                return None
            self._tensorboard = SummaryWriter(str(self.path), purge_step=epoch)
        return self._tensorboard

    def close(self) -> None:
        """Close TensorBoard's file."""
        if self._tensorboard is not None:
            self._tensorboard.close()
            self._tensorboard = None
