"""The paper's augmentation (section 4.1, Decision D1) and the test-time resize."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import functional as reference

from ccan.config import DataConfig
from ccan.data.transforms import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    TrainingAugmentation,
    colour_map,
    normalize,
    prepare_image,
    resize_pixels,
)
from tests.reference import augmentation as twin

HEIGHT, WIDTH = 64, 32
PLAIN = DataConfig(flip_probability=0.0, erasing_probability=0.0)


def augmented(
    augment: TrainingAugmentation, picture: np.ndarray, epoch: int, generator: np.random.Generator
) -> torch.Tensor:
    """One picture, (3, H, W)."""
    pixels = torch.from_numpy(picture.copy())[None]
    return augment.apply(pixels, [augment.draw(epoch, generator)])[0]


def numbered(height: int, width: int) -> np.ndarray:
    """Pixels that say where they are: red = row, green = column."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[..., 0] = np.arange(height)[:, None]
    pixels[..., 1] = np.arange(width)[None, :]
    return pixels


def place_of(image: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Row and column of each pixel of an augmented `numbered` picture."""
    mean, std = (np.array(v)[:, None, None] for v in (IMAGENET_MEAN, IMAGENET_STD))
    pixels = np.rint((image.numpy() * std + mean) * 255).astype(int)
    return pixels[0], pixels[1]


def test_normalisation_worked_by_hand() -> None:
    """(0, 51, 255) / 255 = (0, 1/5, 1) → (−0.485/0.229, (0.2 − 0.456)/0.224, (1 − 0.406)/0.225)."""
    found = normalize(np.array([[[0, 51, 255]]], np.uint8))
    assert found.shape == (3, 1, 1) and found.dtype == torch.float32
    expected = [-0.485 / 0.229, (0.2 - 0.456) / 0.224, (1 - 0.406) / 0.225]
    assert found.flatten().tolist() == pytest.approx(expected, abs=2e-6)


def test_normalisation_equals_torchvisions_for_every_value() -> None:
    pixels = np.stack([np.arange(256)] * 3, axis=-1).astype(np.uint8)[None]
    wanted = reference.normalize(
        reference.to_tensor(pixels), list(IMAGENET_MEAN), list(IMAGENET_STD)
    )
    torch.testing.assert_close(normalize(pixels), wanted, rtol=0, atol=2e-6)


def test_the_test_time_resize_is_all_there_is() -> None:
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (101, 47, 3), np.uint8))
    found = prepare_image(image, 64, 32)
    small = image.resize((32, 64), Image.Resampling.BILINEAR)
    assert found.shape == (3, 64, 32)
    assert torch.equal(found, normalize(np.asarray(small)))
    same = resize_pixels(image, 101, 47)
    assert np.array_equal(same, np.asarray(image))  # nothing to do, nothing done


def test_training_pictures_are_resized_to_the_paper_s_size() -> None:
    assert TrainingAugmentation(256, 128, DataConfig()).resized == (288, 144)
    assert TrainingAugmentation(256, 128, DataConfig(crop_margin=1.0)).resized == (256, 128)


def test_crops_stay_inside_and_reach_every_place() -> None:
    augment = TrainingAugmentation(HEIGHT, WIDTH, PLAIN)
    picture = numbered(*augment.resized)
    rng = np.random.default_rng(0)
    tops: set[int] = set()
    lefts: set[int] = set()
    for _ in range(300):
        rows, columns = place_of(augmented(augment, picture, 0, rng))
        assert rows.shape == (HEIGHT, WIDTH)
        top, left = int(rows[0, 0]), int(columns[0, 0])
        assert np.array_equal(rows, np.broadcast_to(top + np.arange(HEIGHT)[:, None], rows.shape))
        assert np.array_equal(columns, np.broadcast_to(left + np.arange(WIDTH), columns.shape))
        tops.add(top)
        lefts.add(left)
    assert tops == set(range(72 - 64 + 1)) and lefts == set(range(36 - 32 + 1))


@pytest.mark.parametrize(("probability", "low", "high"), [(0, 0, 0), (0.5, 0.42, 0.58), (1, 1, 1)])
def test_flips_are_horizontal_and_as_frequent_as_set(
    probability: float, low: float, high: float
) -> None:
    config = DataConfig(flip_probability=float(probability), erasing_probability=0.0)
    augment = TrainingAugmentation(HEIGHT, WIDTH, config)
    picture = numbered(*augment.resized)
    rng = np.random.default_rng(1)
    flipped = 0
    for _ in range(400):
        rows, columns = place_of(augmented(augment, picture, 0, rng))
        assert (np.diff(rows, axis=0) == 1).all()  # never upside down
        steps = set(np.diff(columns, axis=1).flatten().tolist())
        assert steps in ({1}, {-1})
        flipped += steps == {-1}
    assert low <= flipped / 400 <= high


def erased_boxes(config: DataConfig, epoch: int, count: int, seed: int = 2) -> list[np.ndarray]:
    """Where each of `count` pictures was erased (H, W); a picture of one colour that the mean never has."""
    augment = TrainingAugmentation(HEIGHT, WIDTH, config)
    picture = np.full((*augment.resized, 3), 250, np.uint8)
    rng = np.random.default_rng(seed)
    return [(augmented(augment, picture, epoch, rng) == 0).all(dim=0).numpy() for _ in range(count)]


def test_nothing_is_erased_before_its_epoch() -> None:
    config = DataConfig(erasing_probability=1.0)
    for epoch in (0, 1, 49):
        assert not any(box.any() for box in erased_boxes(config, epoch, 50))
    for epoch in (50, 51, 199):
        assert all(box.any() for box in erased_boxes(config, epoch, 50))
    from_the_start = DataConfig(erasing_probability=1.0, erasing_from_epoch=0)
    assert all(box.any() for box in erased_boxes(from_the_start, 0, 20))


def test_half_of_the_pictures_are_erased() -> None:
    share = np.mean([box.any() for box in erased_boxes(DataConfig(), 50, 600)])
    assert 0.44 < share < 0.56


def test_the_erased_box_is_one_box_of_the_right_area_and_shape() -> None:
    boxes = erased_boxes(DataConfig(erasing_probability=1.0), 60, 500)
    areas, aspects, tops, lefts = [], [], [], []
    for box in boxes:
        rows, columns = np.flatnonzero(box.any(axis=1)), np.flatnonzero(box.any(axis=0))
        height, width = len(rows), len(columns)
        assert box.sum() == height * width  # filled
        assert (
            rows[-1] - rows[0] + 1 == height and columns[-1] - columns[0] + 1 == width
        )  # one piece
        areas.append(height * width / (HEIGHT * WIDTH))
        aspects.append((height, width))
        tops.append(rows[0])
        lefts.append(columns[0])
        for side, other in ((height, width), (width, height)):
            # rounding moves each side by half a pixel at most
            assert (side - 0.5) / (other + 0.5) <= max(3.3, 1 / 0.3) + 1e-9
    assert 0.01 < min(areas) < 0.06 and 0.34 < max(areas) < 0.42
    ratios = [h / w for h, w in aspects]
    assert min(ratios) < 0.5 and max(ratios) > 2.5
    assert min(tops) == 0 and min(lefts) == 0 and max(tops) > HEIGHT / 2 and max(lefts) > WIDTH / 2


def test_the_aspect_is_height_over_width() -> None:
    """Area 2048/12, aspect 3 → height √512 = 22.6, width √(512/9) = 7.5; a third turns it round."""
    for aspect, shape in ((3.0, (23, 8)), (1 / 3, (8, 23))):
        config = DataConfig(
            erasing_probability=1.0,
            erasing_area=(1 / 12, 1 / 12),
            erasing_aspect=(aspect, aspect),
        )
        for box in erased_boxes(config, 60, 10):
            assert (int(box.any(axis=1).sum()), int(box.any(axis=0).sum())) == shape


def test_the_erased_box_has_the_colour_of_the_imagenet_mean() -> None:
    config = DataConfig(
        erasing_probability=1.0, erasing_from_epoch=0, erasing_area=(0.2, 0.2), erasing_aspect=(1.0, 1.0)
    )  # fmt: skip
    augment = TrainingAugmentation(HEIGHT, WIDTH, config)
    picture = np.random.default_rng(0).integers(0, 256, (*augment.resized, 3), np.uint8)
    image = augmented(augment, picture, 0, np.random.default_rng(4))
    side = round(math.sqrt(0.2 * HEIGHT * WIDTH))
    erased = (image == 0).all(dim=0)
    assert erased.sum() == side * side
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    colour = (image * std + mean)[:, erased]
    torch.testing.assert_close(colour, mean.view(3, 1).expand_as(colour))


def test_a_box_that_never_fits_erases_nothing() -> None:
    config = DataConfig(
        erasing_probability=1.0, erasing_from_epoch=0, erasing_area=(1.0, 1.0), erasing_aspect=(0.3, 0.4)
    )  # fmt: skip
    augment = TrainingAugmentation(HEIGHT, WIDTH, config)
    picture = np.full((*augment.resized, 3), 250, np.uint8)
    assert (augmented(augment, picture, 0, np.random.default_rng(0)) != 0).all()


def test_the_picture_is_left_as_it_was() -> None:
    augment = TrainingAugmentation(
        HEIGHT, WIDTH, DataConfig(flip_probability=1.0, erasing_probability=1.0)
    )
    picture = numbered(*augment.resized)
    pixels = torch.from_numpy(picture)[None]
    before = pixels.clone()
    image = augment.apply(pixels, [augment.draw(60, np.random.default_rng(0))])
    image += 1
    assert torch.equal(pixels, before)


def test_the_generator_alone_decides() -> None:
    augment = TrainingAugmentation(HEIGHT, WIDTH, DataConfig())
    picture = np.random.default_rng(0).integers(0, 256, (*augment.resized, 3), np.uint8)
    first, again, other = (
        augmented(augment, picture, 60, np.random.default_rng(s)) for s in (3, 3, 4)
    )
    assert torch.equal(first, again) and not torch.equal(first, other)


@pytest.mark.parametrize("epoch", [0, 60])
def test_a_batch_equals_its_images_one_by_one_in_the_slow_twin(epoch: int) -> None:
    config = DataConfig(crop_margin=1.25, erasing_probability=0.7)
    augment = TrainingAugmentation(HEIGHT, WIDTH, config)
    pictures = np.random.default_rng(0).integers(0, 256, (11, *augment.resized, 3), np.uint8)
    draws = [augment.draw(epoch, np.random.default_rng([5, k])) for k in range(11)]
    found = augment.apply(torch.from_numpy(pictures), draws)
    assert found.shape == (11, 3, HEIGHT, WIDTH) and found.dtype == torch.float32
    assert found.is_contiguous(memory_format=torch.channels_last)
    for number, picture in enumerate(pictures):
        generator = np.random.default_rng([5, number])
        expected = twin.augmented(picture, (HEIGHT, WIDTH), config, epoch, generator)
        assert np.abs(found[number].numpy() - expected).max() < 2e-6
        assert torch.equal(
            found[number], augment.apply(torch.from_numpy(picture)[None], [draws[number]])[0]
        )
    assert any(draw.box[2] for draw in draws) == (epoch == 60)
    assert len({draw.flip for draw in draws}) == 2


def test_colour_jitter_worked_by_hand() -> None:
    """Grey g under brightness 2 and contrast ½: ½·2g + ¼; saturation and hue leave grey alone."""
    grey = np.full(3, 0.3)
    matrix = colour_map(brightness=2, contrast=0.5, saturation=7, turn=2.0)
    assert matrix[:, :3] @ grey + matrix[:, 3] == pytest.approx(grey + 0.25, abs=1e-5)
    luma = np.array([0.299, 0.587, 0.114])
    colour = np.array([0.9, 0.2, 0.4])
    without = colour_map(1, 1, 0, 0)[:, :3] @ colour
    assert without == pytest.approx(np.full(3, luma @ colour), abs=1e-5)
    turned = colour_map(1, 1, 1, 2 * math.pi / 3)[:, :3]
    assert luma @ turned @ colour == pytest.approx(luma @ colour, abs=1e-5)
    assert turned @ turned @ turned == pytest.approx(np.eye(3), abs=1e-6)
    assert colour_map(1, 1, 1, 0) == pytest.approx(np.eye(3, 4), abs=1e-12)


def test_colour_jitter_changes_its_share_of_the_images_and_no_other_draw() -> None:
    plain = DataConfig(erasing_from_epoch=0)
    jittered = dataclasses.replace(plain, jitter_probability=0.4)
    augment = {one: TrainingAugmentation(HEIGHT, WIDTH, one) for one in (plain, jittered)}
    draws = {
        one: [augment[one].draw(0, np.random.default_rng(k)) for k in range(300)]
        for one in (plain, jittered)
    }
    assert all(draw.colour is None for draw in draws[plain])
    with_colour = [draw for draw in draws[jittered] if draw.colour is not None]
    assert 0.32 < len(with_colour) / 300 < 0.48
    for one, other in zip(draws[plain], draws[jittered], strict=True):
        assert dataclasses.replace(other, colour=None) == one
    picture = np.random.default_rng(1).integers(0, 256, (*augment[plain].resized, 3), np.uint8)
    pixels = torch.from_numpy(np.stack([picture] * 40))
    one, other = (augment[c].apply(pixels, draws[c][:40]) for c in (plain, jittered))
    for number, draw in enumerate(draws[jittered][:40]):
        same = torch.allclose(one[number], other[number], atol=1e-5)
        assert same == (draw.colour is None)
    low, high = (normalize(np.full((1, 1, 3), value, np.uint8)) for value in (0, 255))
    erased = other == 0
    assert ((other >= low - 1e-5) & (other <= high + 1e-5) | erased).all()
