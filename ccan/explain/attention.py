"""What the attention did in one real forward: A′, A and the residual of every slot, and where they lie in the image.

Slots are named as in the paper: ``SS1`` in the global branch, ``CC2_1`` … ``CC2_kp`` in the part streams. A slot has
MN = M·N positions; row i of A says from which positions of Q position i gathers, column i who gathers from it, and
column j of A′ which positions of Q co-fire with position j of Q′ (section 3.1).
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ccan.config import STRIDE_I2, ModelConfig
from ccan.errors import ShapeError
from ccan.model.attention import NonLocalAttention
from ccan.model.network import CCAN, CCANOutput
from ccan.model.strips import strip_bounds

_TAPS_LOCK = threading.RLock()


@dataclass(frozen=True)
class SlotGeometry:
    """Where the positions of a slot lie in the input image (Decision D19: nominal cells).

    Attributes:
        rows, columns: M and N.
        image_height, image_width: pixels of the input.
        top, bottom: pixel rows that the map covers; less than the image for a part's strip.
    """

    rows: int
    columns: int
    image_height: int
    image_width: int
    top: int
    bottom: int

    def position_at(self, x: float, y: float) -> int | None:
        """The position (row-major) that holds pixel (x, y) of the input, or None outside the map."""
        if not (0 <= x < self.image_width and self.top <= y < self.bottom):
            return None
        row = int((y - self.top) * self.rows / (self.bottom - self.top))
        return row * self.columns + int(x * self.columns / self.image_width)

    def box_of(self, position: int) -> tuple[float, float, float, float]:
        """(left, top, right, bottom) in pixels of the input of one position."""
        if not 0 <= position < self.rows * self.columns:
            raise ShapeError(
                f"position must lie in 0…{self.rows * self.columns - 1}, got {position}"
            )
        row, column = divmod(position, self.columns)
        tall = (self.bottom - self.top) / self.rows
        wide = self.image_width / self.columns
        return (
            column * wide,
            self.top + row * tall,
            (column + 1) * wide,
            self.top + (row + 1) * tall,
        )

    def to_image(self, values: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
        """Spread one value a position, (MN,) or (M, N), over the image: (H, W), NaN where the map does not reach."""
        grid = np.asarray(values, dtype=np.float32).reshape(self.rows, self.columns)
        ys = (np.arange(self.bottom - self.top) + 0.5) * self.rows / (self.bottom - self.top)
        xs = (np.arange(self.image_width) + 0.5) * self.columns / self.image_width
        picture = np.full((self.image_height, self.image_width), np.nan, np.float32)
        picture[self.top : self.bottom] = grid[ys.astype(int)[:, None], xs.astype(int)[None, :]]
        return picture


def slot_geometry(config: ModelConfig, slot: str) -> SlotGeometry:
    """Geometry of a slot by its name. Raises: ShapeError for a slot that this network does not have."""
    height, width = config.image_height, config.image_width
    if slot not in slot_names(config):
        raise ShapeError(
            f"expected one of the slots {', '.join(slot_names(config)) or '(none)'}, got {slot!r}"
        )
    if slot == "SS1":
        return SlotGeometry(*config.grid_z1, height, width, 0, height)
    rows, columns = config.grid_z2
    top, end = strip_bounds(rows, config.parts)[int(slot.removeprefix("CC2_")) - 1]
    return SlotGeometry(rows, columns, height, width, top * STRIDE_I2, end * STRIDE_I2)


def slot_names(config: ModelConfig) -> list[str]:
    """Names of the attention slots that a network of these settings has."""
    names = ["SS1"] if config.ssa else []
    return names + ([f"CC2_{part + 1}" for part in range(config.parts)] if config.cca else [])


@dataclass(frozen=True)
class SlotMaps:
    """What one slot computed for one image, float32 on the CPU.

    Attributes:
        correlation: A′, (MN, MN); row = position of Q, column = position of Q′.
        attention: A, (MN, MN); row i = where position i gathers from.
        residual: φ(y W_w), (MN, C): what attention added to each position.
        geometry: where the positions lie in the image.
    """

    correlation: NDArray[np.float32]
    attention: NDArray[np.float32]
    residual: NDArray[np.float32]
    geometry: SlotGeometry

    def gathers_from(self, position: int) -> NDArray[np.float32]:
        """Row i of A over MN, (M, N): the weight with which position i gathers each position (Eq. 2)."""
        return self._grid(self.attention[self._checked(position)] / len(self.attention))

    def gathered_by(self, position: int) -> NDArray[np.float32]:
        """Column i of A over MN, (M, N): the weight with which each position gathers position i."""
        return self._grid(self.attention[:, self._checked(position)] / len(self.attention))

    def co_fires_with(self, position: int) -> NDArray[np.float32]:
        """Column j of A′, (M, N): how strongly each position of Q co-fires with position j of Q′."""
        return self._grid(self.correlation[:, self._checked(position)])

    def gathered_share(self) -> NDArray[np.float32]:
        """Mean column of A over MN, (M, N): how much each position is gathered from, over all that gather."""
        return self._grid(self.attention.mean(axis=0) / len(self.attention))

    def added_energy(self) -> NDArray[np.float32]:
        """‖φ(y W_w)‖ of each position, (M, N): how strongly attention changes it."""
        return self._grid(np.linalg.norm(self.residual, axis=1))

    def _grid(self, values: NDArray[Any]) -> NDArray[np.float32]:
        return values.reshape(self.geometry.rows, self.geometry.columns).astype(np.float32)

    def _checked(self, position: int) -> int:
        if not 0 <= position < len(self.attention):
            raise ShapeError(f"position must lie in 0…{len(self.attention) - 1}, got {position}")
        return position


@dataclass(frozen=True)
class AttentionRecord:
    """One image's forward: its output and the maps of every slot, by name."""

    output: CCANOutput
    slots: dict[str, SlotMaps]


@dataclass
class _Tapped:
    """Batched values of one slot, filled while the forward runs."""

    values: dict[str, Tensor] = field(default_factory=dict)


@contextmanager
def tapped(model: CCAN) -> Iterator[dict[str, _Tapped]]:
    """Listen to every attention slot of a model while it runs; always cleans up; one listener at a time.

    Yields a dict slot name → values ``correlation``, ``attention`` (B, MN, MN) and ``residual`` (B, MN, C), filled by
    the next forward.
    """
    found: dict[str, _Tapped] = {}
    handles: list[Any] = []

    def listen(slot: str, name: str, module: torch.nn.Module) -> None:
        def keep(_module: torch.nn.Module, _inputs: Any, output: Tensor) -> None:
            found[slot].values[name] = output.detach()

        handles.append(module.register_forward_hook(keep))

    with _TAPS_LOCK:
        try:
            for slot, attention in attention_slots(model).items():
                found[slot] = _Tapped()
                for name in ("correlation", "attention", "residual"):
                    listen(slot, name, getattr(attention.taps, name))
            yield found
        finally:
            for handle in handles:
                handle.remove()


def attention_slots(model: CCAN) -> dict[str, NonLocalAttention]:
    """The attention modules of a model by slot name."""
    slots = {} if model.ss1 is None else {"SS1": model.ss1}
    for part, stream in enumerate(model.streams):
        if stream.cc2 is not None:
            slots[f"CC2_{part + 1}"] = stream.cc2
    return slots


def record_attention(model: CCAN, images: Tensor) -> list[AttentionRecord]:
    """Run one forward in evaluation mode and keep its attention: images (B, 3, H, W) → one record an image."""
    was_training = model.training
    with tapped(model) as found, torch.inference_mode():
        model.eval()
        try:
            output = model(images)
        finally:
            model.train(was_training)
    records = []
    for index in range(len(images)):
        slots = {
            slot: SlotMaps(
                *(
                    tap.values[name][index].float().cpu().numpy()
                    for name in ("correlation", "attention", "residual")
                ),
                geometry=slot_geometry(model.config, slot),
            )
            for slot, tap in found.items()
        }
        alone = (None if part is None else part[index : index + 1] for part in output)
        records.append(AttentionRecord(CCANOutput(*alone), slots))  # type: ignore[arg-type]
    return records
