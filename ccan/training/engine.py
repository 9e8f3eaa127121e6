"""Where training runs: one process, or many under `torchrun` or `accelerate launch`, by Hugging Face Accelerate.

Accelerate finds out how the processes were started and how they talk (NCCL on GPUs, gloo on processors), and wraps the
network for them. Placement, precision and the loop stay ours, so that one process computes what it always did.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from ccan.device import choose_device
from ccan.errors import ConfigError

Thing = TypeVar("Thing")


def processes_started() -> int:
    """How many processes a launcher started for this work; 1 without a launcher."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_first_process() -> bool:
    """Whether this process, among those that a launcher started, is the one that speaks and writes."""
    return os.environ.get("RANK", "0") == "0"


def end_processes() -> None:
    """Part from the other processes, where there are any."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


class Engine:
    """One of the processes that train together.

    Args:
        device: `auto`, or a device's name; among several processes `auto`, `cpu` or `cuda`: each takes its own GPU.

    Attributes:
        device: where this process computes.
        rank: its number, from 0; processes: how many there are.

    Raises: ConfigError for a device that is not there.
    """

    def __init__(self, device: str = "auto") -> None:
        with warnings.catch_warnings():
            # In a notebook without ipywidgets, a library of Accelerate's misses bars that are never shown.
            warnings.filterwarnings("ignore", message="IProgress not found")
            from accelerate import Accelerator

        together = processes_started() > 1
        if together and device not in ("auto", "cpu", "cuda"):
            raise ConfigError(
                "among several processes device must be auto, cpu or cuda (each takes a GPU of its own), "
                f"got {device!r}"
            )
        chosen = choose_device(device)
        self.accelerator = Accelerator(
            device_placement=False, mixed_precision="no", cpu=together and chosen.type == "cpu"
        )
        own_gpu = together and chosen.type == "cuda"
        self.device = self.accelerator.device if own_gpu else chosen
        self.rank: int = self.accelerator.process_index
        self.processes: int = self.accelerator.num_processes

    @property
    def is_first(self) -> bool:
        """Whether this process writes files and speaks."""
        return self.rank == 0

    def prepare(self, model: nn.Module, synchronise: bool = False, compiled: bool = False) -> Any:
        """The network as the step calls it: the very model, or wrapped so that backward means gradients over processes.

        Args:
            model: on this process's device.
            synchronise: batch normalisation over the batches of all processes (needs CUDA).
            compiled: through `torch.compile`.

        Raises: ConfigError for synchronised normalisation on a processor, which torch does not have.
        """
        if synchronise and self.processes > 1:
            if self.device.type != "cuda":
                raise ConfigError(
                    f"train.sync_batch_norm needs CUDA, got {self.device.type}; pass --train.no-sync-batch-norm"
                )
            model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
        network = self.accelerator.prepare_model(model, device_placement=False)
        return torch.compile(network) if compiled else network

    def backward(self, loss: Tensor) -> None:
        """Gradients of the loss; with several processes their mean, before it returns."""
        self.accelerator.backward(loss)

    def mean(self, values: Tensor) -> Tensor:
        """Mean over processes, the same everywhere; any shape."""
        if self.processes == 1:
            return values
        mean = self.accelerator.reduce(values, "mean")
        assert isinstance(mean, Tensor)
        return mean

    def joined(self, own: Tensor) -> Tensor:
        """The rows of all processes, by rank: (B, …) → (processes·B, …). Gradient flows to this process's rows only."""
        if self.processes == 1:
            return own
        rows = self.accelerator.gather(own.detach().contiguous())
        first = self.rank * len(own)
        return torch.cat([rows[:first], own, rows[first + len(own) :]])

    def collected(self, things: Sequence[Thing]) -> list[Thing]:
        """The things of all processes, by rank, in every one of them."""
        if self.processes == 1:
            return list(things)
        from accelerate.utils import gather_object

        return gather_object(list(things))

    def wait(self) -> None:
        """Until every process is here."""
        self.accelerator.wait_for_everyone()
