"""What the attention did in one real forward: A′, A and the residual of every slot, and where they lie in the image.

Slots are named as in the paper: ``SS1`` in the global branch, ``CC2_1`` … ``CC2_kp`` in the part streams. A slot has
MN = M·N positions; row i of A says from which positions of Q position i gathers, column i who gathers from it, and
column j of A′ which positions of Q co-fire with position j of Q′ (section 3.1).

Where Q and Q′ lie in the image may differ: in a part stream one is cut from Z1 and the other from Z2, whose strips
differ by some pixels where kp does not divide their rows (Decision D5).
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ccan.config import STRIDE_I1, STRIDE_I2, ModelConfig
from ccan.errors import ShapeError
from ccan.model.attention import NonLocalAttention
from ccan.model.network import CCAN, CCANOutput
from ccan.model.strips import strip_bounds

Side = Literal["target", "source"]
"""Q, which the residual is added to, or Q′."""
Summary = Literal["gathered_share", "added_energy"]
"""Maps that tell one number a position."""
SUMMARIES: tuple[Summary, ...] = get_args(Summary)

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
        column = int(x * self.columns / self.image_width)
        return min(row, self.rows - 1) * self.columns + min(column, self.columns - 1)

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


def slot_geometry(config: ModelConfig, slot: str, side: Side = "target") -> SlotGeometry:
    """Geometry of Q or of Q′ of a slot by its name. Raises: ShapeError for a slot that this network does not have."""
    height, width = config.image_height, config.image_width
    if slot not in slot_names(config):
        raise ShapeError(
            f"expected one of the slots {', '.join(slot_names(config)) or '(none)'}, got {slot!r}"
        )
    if slot == "SS1":
        return SlotGeometry(*config.grid_z1, height, width, 0, height)
    # The part stream lies on its strip of Z1, the global branch's map on its strip of Z2 (Decisions D4, D18).
    stream: Side = "source" if config.cca_target == "global" else "target"
    on_z1 = side == stream or config.attention == "non_local"
    rows, stride = (config.grid_z1[0], STRIDE_I1) if on_z1 else (config.grid_z2[0], STRIDE_I2)
    top, end = strip_bounds(rows, config.parts)[int(slot.removeprefix("CC2_")) - 1]
    return SlotGeometry(*config.grid_z2, height, width, top * stride, end * stride)


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
        geometry: where the positions of Q lie in the image: rows of A′ and A, and the residual.
        source_geometry: where the positions of Q′ lie: columns of A′.
        gathered_geometry: where the positions lie that values are gathered from: columns of A (Decision D17).
    """

    correlation: NDArray[np.float32]
    attention: NDArray[np.float32]
    residual: NDArray[np.float32]
    geometry: SlotGeometry
    source_geometry: SlotGeometry
    gathered_geometry: SlotGeometry

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

    def on_image(self, summary: Summary) -> NDArray[np.float32]:
        """`gathered_share` or `added_energy` over the image, (H, W); NaN where the slot does not reach."""
        if summary == "gathered_share":
            return self.gathered_geometry.to_image(self.gathered_share())
        return self.geometry.to_image(self.added_energy())

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

    def parts_on_image(self, summary: Summary) -> NDArray[np.float32]:
        """The maps of all part streams over the image, (H, W); where strips overlap, their mean (Decision D5).

        Raises: ShapeError if the network has no attention in its parts.
        """
        maps = [slot.on_image(summary) for name, slot in self.slots.items() if name != "SS1"]
        if not maps:
            raise ShapeError("expected a network with CC2 in its part streams, got one without")
        return joined_pictures(maps)


def joined_pictures(pictures: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Maps over the image that each reach a part of it as one, (H, W); where several reach, their mean."""
    stacked = np.stack(pictures)
    count = np.isfinite(stacked).sum(axis=0)
    return (np.nansum(stacked, axis=0) / np.where(count, count, np.nan)).astype(np.float32)


@dataclass
class SlotTensors:
    """Batched values of one slot, filled while the forward runs; in the network's dtype, detached."""

    values: dict[str, Tensor] = field(default_factory=dict)

    @property
    def correlation(self) -> Tensor:
        """A′, (B, MN, MN)."""
        return self.values["correlation"]

    @property
    def attention(self) -> Tensor:
        """A, (B, MN, MN)."""
        return self.values["attention"]

    @property
    def residual(self) -> Tensor:
        """φ(y W_w), (B, MN, C)."""
        return self.values["residual"]


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """The module in evaluation mode; each part of it gets back the mode that it had."""
    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes.items():
            part.training = mode


@contextmanager
def tapped(model: CCAN) -> Iterator[dict[str, SlotTensors]]:
    """Listen to every attention slot of a model while it runs; always cleans up; one listener at a time.

    Only forwards of the listening thread are heard, so that others may use the model meanwhile.

    Yields a dict slot name → values ``correlation``, ``attention`` (B, MN, MN) and ``residual`` (B, MN, C), filled by
    the next forward.
    """
    found: dict[str, SlotTensors] = {}
    handles: list[Any] = []
    listener = threading.get_ident()

    def listen(slot: str, name: str, module: nn.Module) -> None:
        def keep(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
            if threading.get_ident() == listener:
                found[slot].values[name] = output.detach()

        handles.append(module.register_forward_hook(keep))

    with _TAPS_LOCK:
        try:
            for slot, attention in attention_slots(model).items():
                found[slot] = SlotTensors()
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


def silent_slots(model: CCAN) -> tuple[str, ...]:
    """Names of the slots that add nothing to any image (`NonLocalAttention.silent`); their residuals are zero."""
    return tuple(name for name, attention in attention_slots(model).items() if attention.silent)


def record_attention(model: CCAN, images: Tensor) -> list[AttentionRecord]:
    """Run one forward in evaluation mode and keep its attention: images (B, 3, H, W) → one record an image."""
    with tapped(model) as found, evaluating(model), torch.inference_mode():
        output = model(images)
    return [record_of(model.config, output, found, index) for index in range(len(images))]


def record_of(
    config: ModelConfig, output: CCANOutput, found: dict[str, SlotTensors], index: int = 0
) -> AttentionRecord:
    """One image of a batch; its arrays are its own, so that the batch can be forgotten."""
    slots = {}
    for slot, tap in found.items():
        target, source = (slot_geometry(config, slot, side) for side in get_args(Side))
        gathered = source if config.attention_values == "source" else target
        correlation, attention, residual = (
            tap.values[name][index].float().cpu().numpy().copy()
            for name in ("correlation", "attention", "residual")
        )
        slots[slot] = SlotMaps(correlation, attention, residual, target, source, gathered)
    alone = (None if part is None else part[index : index + 1].clone() for part in output)
    return AttentionRecord(CCANOutput(*alone), slots)  # type: ignore[arg-type]
