"""Loss values on their way to the log, without making a GPU wait.

Asking a GPU for a number stops the program until all work before it is done. So each step's numbers are sent on their
way at once, and read some steps later, when they have long arrived.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ccan.data.loading import TrainingBatch
from ccan.losses import LossReport

LAG = 8
"""Steps between a number's departure and its reading on a CUDA device; elsewhere 0."""


@dataclass(frozen=True)
class StepValues:
    """The loss values of one step that has been read.

    Attributes:
        step: its number in the epoch, from 0.
        values: loss terms by name.
        indices: places of its images in the training list.
    """

    step: int
    values: dict[str, float]
    indices: Tensor


class Readout:
    """Takes the report of each step, gives back those that can be read without waiting."""

    def __init__(self, device: torch.device) -> None:
        self.lag = LAG if device.type == "cuda" else 0
        self._waiting: deque[tuple[int, list[str], Tensor, Tensor, Any]] = deque()

    def put(self, step: int, report: LossReport, batch: TrainingBatch) -> Iterator[StepValues]:
        """Send a step's values on their way; the steps that are due come back, oldest first."""
        tensors = report.tensors()
        numbers = torch.stack([value.detach().double() for value in tensors.values()])
        arrived = None
        if numbers.is_cuda:
            numbers = numbers.to("cpu", non_blocking=True)
            arrived = torch.cuda.Event()
            arrived.record()
        self._waiting.append((step, list(tensors), numbers, batch.indices, arrived))
        yield from self._read(self.lag)

    def rest(self) -> Iterator[StepValues]:
        """All that is still on its way."""
        yield from self._read(0)

    def _read(self, leave: int) -> Iterator[StepValues]:
        while len(self._waiting) > leave:
            step, names, numbers, indices, arrived = self._waiting.popleft()
            if arrived is not None:
                arrived.synchronize()
            yield StepValues(step, dict(zip(names, numbers.tolist(), strict=True)), indices)
