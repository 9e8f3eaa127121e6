"""Attention that is read from the real forward, and the place of its positions in the image (Decisions D5, D19)."""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from ccan.config import ModelConfig
from ccan.errors import ShapeError
from ccan.explain.attention import (
    SUMMARIES,
    AttentionRecord,
    Side,
    SlotGeometry,
    SlotMaps,
    Summary,
    attention_slots,
    record_attention,
    slot_geometry,
    slot_names,
    tapped,
)
from ccan.model.attention import CrossCorrelatedAttention
from ccan.model.network import CCAN, build_ccan
from ccan.model.strips import resized_strips

SMALL = ModelConfig(
    width_multiplier=0.125, embedding_dim=8, image_height=64, image_width=32, parts=2
)
PAPER = ModelConfig()
ALL_KP = (1, 2, 4, 6, 8)


@pytest.fixture(scope="module")
def model() -> CCAN:
    torch.manual_seed(3)
    return build_ccan(SMALL, num_identities=3).eval()


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.randn(2, 3, 64, 32, generator=torch.Generator().manual_seed(5))


def hooks_of(model: nn.Module) -> int:
    return sum(len(module._forward_hooks) for module in model.modules())


def test_a_record_is_the_forward_that_makes_the_embedding(
    model: CCAN, images: torch.Tensor
) -> None:
    with torch.inference_mode():
        expected = model(images)
    records = record_attention(model, images)
    for index, record in enumerate(records):
        assert torch.equal(record.output.descriptor[0], expected.descriptor[index])
        assert record.output.local_logits is not None
        assert torch.equal(record.output.local_logits[0], expected.local_logits[index])
    assert list(records[0].slots) == ["SS1", "CC2_1", "CC2_2"] == slot_names(SMALL)


def test_the_maps_obey_the_equations(model: CCAN, images: torch.Tensor) -> None:
    """Eq. 1 on the recorded A′ gives the recorded A; SS1's A′ of the first image is not the second's."""
    first, second = record_attention(model, images)
    for slot, module in attention_slots(model).items():
        assert isinstance(module, CrossCorrelatedAttention)
        maps = first.slots[slot]
        both = np.concatenate([maps.correlation, maps.correlation.T], axis=1)
        expected = np.maximum(both @ module.alpha.weight.detach().numpy().T, 0)
        np.testing.assert_allclose(maps.attention, expected, rtol=1e-4, atol=1e-6)
        assert maps.residual.shape == (len(maps.attention), module.channels)
        assert (maps.residual >= 0).all()
    assert not np.allclose(first.slots["SS1"].correlation, second.slots["SS1"].correlation)


def test_the_residual_is_what_attention_adds(model: CCAN, images: torch.Tensor) -> None:
    assert model.ss1 is not None
    with torch.inference_mode():
        before = model.i1(images)
        added = model.ss1(before) - before
    recorded = record_attention(model, images)[1].slots["SS1"].residual
    np.testing.assert_allclose(added[1].flatten(1).T.numpy(), recorded, rtol=1e-3, atol=1e-5)


def hand_made(values: np.ndarray) -> SlotMaps:
    """Four positions in two rows; A′ is A in other units."""
    place = SlotGeometry(2, 2, 8, 4, 0, 8)
    energy = np.array([[3, 4], [0, 0], [1, 0], [0, 2]], np.float32)
    return SlotMaps(10 * values, values, energy, place, place, place)


def test_rows_columns_and_summaries_by_hand() -> None:
    attention = np.arange(16, dtype=np.float32).reshape(4, 4)
    maps = hand_made(attention)
    np.testing.assert_allclose(maps.gathers_from(1), np.array([[4, 5], [6, 7]]) / 4)
    np.testing.assert_allclose(maps.gathered_by(1), np.array([[1, 5], [9, 13]]) / 4)
    np.testing.assert_allclose(maps.co_fires_with(2), [[20, 60], [100, 140]])
    np.testing.assert_allclose(maps.gathered_share(), np.array([[6, 7], [8, 9]]) / 4)
    np.testing.assert_allclose(maps.added_energy(), [[5, 0], [1, 2]])
    spread = maps.on_image("added_energy")
    assert spread.shape == (8, 4)
    np.testing.assert_allclose(spread[:4, :2], 5)
    np.testing.assert_allclose(spread[4:, 2:], 2)


def test_a_position_outside_the_map_is_refused() -> None:
    maps = hand_made(np.ones((4, 4), np.float32))
    for ask in (maps.gathers_from, maps.gathered_by, maps.co_fires_with, maps.geometry.box_of):
        for position in (-1, 4):
            with pytest.raises(ShapeError, match=r"position must lie in 0…3, got"):
                ask(position)


@pytest.mark.parametrize("kp", ALL_KP)
@pytest.mark.parametrize("side", ["target", "source"])
def test_a_marked_pixel_is_found_again(kp: int, side: Side) -> None:
    """A pixel is averaged into its cell (D19), cut into strips (D5); the strongest position must lie on that cell."""
    config = replace(PAPER, parts=kp)
    stride = {"target": 8, "source": 16}[side]
    for x, y in ((0, 0), (127, 255), (40, 100), (77, 171), (64, 128), (5, 42), (90, 213)):
        picture = torch.zeros(1, 1, 256, 128)
        picture[0, 0, y, x] = 1
        strips = resized_strips(functional.avg_pool2d(picture, stride), kp)
        holding = 0
        for part, strip in enumerate(strips):
            geometry = slot_geometry(config, f"CC2_{part + 1}", side)
            # Z1's strip is twice as fine as the stream's map: stride 2 of I2 takes the larger of its cells.
            values = functional.max_pool2d(strip, 2) if side == "target" else strip
            assert values.shape[-2:] == (geometry.rows, geometry.columns)
            if not geometry.top <= y < geometry.bottom:
                assert values.max() == 0
                assert geometry.position_at(x, y) is None
                continue
            holding += 1
            left, top, right, bottom = geometry.box_of(int(values.argmax()))
            cell = (x // stride * stride, y // stride * stride)
            assert left < cell[0] + stride and cell[0] < right
            assert top < cell[1] + stride and cell[1] < bottom
        assert holding >= 1


@pytest.mark.parametrize("kp", ALL_KP)
def test_strips_of_both_sides_where_kp_divides_and_where_it_does_not(kp: int) -> None:
    config = replace(PAPER, parts=kp)
    spans = {
        side: [
            (geometry.top, geometry.bottom)
            for part in range(kp)
            for geometry in [slot_geometry(config, f"CC2_{part + 1}", side)]
        ]
        for side in ("target", "source")
    }
    assert spans["target"][0][0] == 0 and spans["target"][-1][1] == 256
    assert (spans["target"] == spans["source"]) == (kp != 6)
    if kp == 6:  # ⌊32/6⌋ and ⌈32/6⌉ rows of 8 pixels against ⌊16/6⌋ and ⌈16/6⌉ rows of 16
        assert spans["target"][1] == (40, 88)
        assert spans["source"][1] == (32, 96)


def test_the_global_target_lies_on_the_strip_of_z2() -> None:
    swapped = replace(PAPER, parts=6, cca_target="global")
    assert slot_geometry(swapped, "CC2_2", "target") == slot_geometry(
        replace(PAPER, parts=6), "CC2_2", "source"
    )
    alone = replace(PAPER, parts=6, attention="non_local")
    assert slot_geometry(alone, "CC2_2", "target") == slot_geometry(alone, "CC2_2", "source")


@pytest.mark.parametrize("slot", ["SS1", "CC2_1", "CC2_4", "CC2_6"])
def test_a_position_and_its_box_name_each_other(slot: str) -> None:
    geometry = slot_geometry(replace(PAPER, parts=6), slot)
    last = geometry.rows * geometry.columns - 1
    for position in range(last + 1):
        left, top, right, bottom = geometry.box_of(position)
        assert geometry.position_at((left + right) / 2, (top + bottom) / 2) == position
        assert geometry.position_at(left, top) == position
    just_inside = np.nextafter(geometry.bottom, 0), np.nextafter(128.0, 0)
    assert geometry.position_at(just_inside[1], just_inside[0]) == last
    assert geometry.position_at(-0.1, geometry.top) is None
    assert geometry.position_at(128, geometry.top) is None
    assert geometry.position_at(0, geometry.bottom) is None


def test_one_value_is_spread_over_its_box() -> None:
    geometry = slot_geometry(PAPER, "CC2_3")
    values = np.zeros(geometry.rows * geometry.columns)
    values[29] = 1
    picture = geometry.to_image(values)
    ys, xs = np.nonzero(picture == 1)
    assert (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1) == geometry.box_of(29)
    assert np.isnan(picture[: geometry.top]).all() and np.isnan(picture[geometry.bottom :]).all()
    assert np.isfinite(picture[geometry.top : geometry.bottom]).all()


def test_an_unknown_slot_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ShapeError, match="slots SS1, CC2_1, CC2_2, got 'CC2_3'"):
        slot_geometry(SMALL, "CC2_3")
    bare = replace(SMALL, ssa=False, cca=False)
    assert slot_names(bare) == []
    with pytest.raises(ShapeError, match=r"slots \(none\), got 'SS1'"):
        slot_geometry(bare, "SS1")


def test_parts_tile_the_image_and_overlaps_take_the_mean() -> None:
    """At kp = 6 the first two strips of Z1 at 256 pixels are [0, 48) and [40, 88)."""
    config = replace(PAPER, parts=6)
    slots = {}
    for part in range(6):
        place = slot_geometry(config, f"CC2_{part + 1}")
        positions = place.rows * place.columns
        energy = np.full((positions, 1), part + 1, np.float32)
        square = np.zeros((positions, positions), np.float32)
        slots[f"CC2_{part + 1}"] = SlotMaps(square, square, energy, place, place, place)
    record = AttentionRecord(None, slots)  # type: ignore[arg-type]
    picture = record.parts_on_image("added_energy")
    assert np.isfinite(picture).all()
    np.testing.assert_allclose(picture[:40], 1)
    np.testing.assert_allclose(picture[40:48], 1.5)
    np.testing.assert_allclose(picture[48:80], 2)
    with pytest.raises(ShapeError, match="CC2 in its part streams"):
        AttentionRecord(None, {}).parts_on_image("added_energy")  # type: ignore[arg-type]


@pytest.mark.parametrize("summary", SUMMARIES)
def test_summaries_of_a_real_forward_cover_their_strips(
    model: CCAN, images: torch.Tensor, summary: Summary
) -> None:
    record = record_attention(model, images[:1])[0]
    assert np.isfinite(record.parts_on_image(summary)).all()
    upper = record.slots["CC2_1"].on_image(summary)
    assert np.isfinite(upper[:32]).all() and np.isnan(upper[32:]).all()


@pytest.mark.parametrize(
    "change",
    [
        {"attention": "non_local"},
        {"cca_target": "global"},
        {"attention_values": "source"},
        {"local_branch": False, "cca": False},
        {"cca": False},
        {"ssa": False, "cca": False},
    ],
)
def test_every_variant_can_be_recorded(images: torch.Tensor, change: dict) -> None:
    config = replace(SMALL, **change)
    torch.manual_seed(0)
    record = record_attention(build_ccan(config, 2), images[:1])[0]
    assert list(record.slots) == slot_names(config)
    for slot, maps in record.slots.items():
        values = "source" if config.attention_values == "source" else "target"
        assert maps.geometry == slot_geometry(config, slot, "target")
        assert maps.source_geometry == slot_geometry(config, slot, "source")
        assert maps.gathered_geometry == slot_geometry(config, slot, values)
        if config.attention == "non_local":
            np.testing.assert_array_equal(maps.attention, maps.correlation)


def test_hooks_and_mode_are_as_before_afterwards(model: CCAN, images: torch.Tensor) -> None:
    assert hooks_of(model) == 0
    model.train()
    try:
        record_attention(model, images)
        assert model.training and hooks_of(model) == 0
        with pytest.raises(ShapeError), tapped(model):
            assert hooks_of(model) == 9
            model(images[:, :, :32])
        assert hooks_of(model) == 0
        with pytest.raises(ShapeError):
            record_attention(model, images[:, :, :32])
        assert model.training and hooks_of(model) == 0
    finally:
        model.eval()


def test_a_listener_hears_its_own_thread_alone(model: CCAN, images: torch.Tensor) -> None:
    """While one thread listens, another uses the model: what was recorded must not change."""
    with tapped(model) as found, torch.inference_mode():
        model(images[:1])
        mine = found["SS1"].values["correlation"].clone()
        other = threading.Thread(target=lambda: model(images[1:]))
        other.start()
        other.join()
        assert torch.equal(found["SS1"].values["correlation"], mine)


def test_many_threads_get_each_their_own_maps(model: CCAN, images: torch.Tensor) -> None:
    alone = [record_attention(model, images[index : index + 1])[0] for index in range(2)]
    wrong: list[str] = []

    def ask(index: int) -> None:
        for _ in range(5):
            record = record_attention(model, images[index : index + 1])[0]
            for slot, maps in record.slots.items():
                if not np.array_equal(maps.attention, alone[index].slots[slot].attention):
                    wrong.append(f"{slot} of image {index}")

    threads = [threading.Thread(target=ask, args=(index % 2,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == [] and hooks_of(model) == 0
