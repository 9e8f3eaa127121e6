"""From files to batches: every odd file is read or named, and batches depend on (seed, epoch) alone."""

from __future__ import annotations

import gc
import io
import struct
import threading
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, features

import ccan.data.loading as loading
from ccan.config import DataConfig, EvalConfig, ModelConfig
from ccan.data.loading import TestImages, TrainingImages, find_broken, open_image, to_rgb
from ccan.data.records import Sample
from ccan.data.transforms import prepare_image
from ccan.errors import DatasetError

MODEL = ModelConfig(image_height=64, image_width=32)


def noise(height: int, width: int, seed: int = 0, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), np.uint8)


def colours_of(image: Image.Image) -> list[tuple[int, ...]]:
    return [tuple(pixel) for pixel in np.asarray(image).reshape(-1, 3).tolist()]


# --- formats ---------------------------------------------------------------------------------------------------------


def test_plain_pictures_keep_their_pixels(tmp_path: Path) -> None:
    pixels = noise(5, 3)
    for name in ("a.png", "b.bmp", "c.tif"):
        Image.fromarray(pixels).save(tmp_path / name)
        content = io.BytesIO((tmp_path / name).read_bytes())
        for source in (tmp_path / name, str(tmp_path / name), content):
            image = open_image(source)
            assert image.mode == "RGB" and np.array_equal(np.asarray(image), pixels)


def test_double_endings_are_read(tmp_path: Path) -> None:
    """Market-1501 has files that end in .jpg.jpg."""
    file = tmp_path / "1488_c1s1_000001_00.jpg.jpg"
    Image.fromarray(noise(8, 4)).save(file)
    assert open_image(file).size == (4, 8)


def test_transparency_stands_on_white() -> None:
    """Opaque red, half-transparent red (0.5·255 + 0.5·255 white → 255, 127, 127), clear."""
    image = Image.new("RGBA", (3, 1))
    for x, pixel in enumerate([(255, 0, 0, 255), (255, 0, 0, 128), (255, 0, 0, 0)]):
        image.putpixel((x, 0), pixel)
    assert colours_of(to_rgb(image)) == [(255, 0, 0), (255, 127, 127), (255, 255, 255)]

    grey = Image.new("LA", (2, 1))
    grey.putpixel((0, 0), (40, 255))
    grey.putpixel((1, 0), (40, 0))
    assert colours_of(to_rgb(grey)) == [(40, 40, 40), (255, 255, 255)]


def test_palettes_with_and_without_a_clear_colour(tmp_path: Path) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([0, 0, 255, 9, 8, 7])
    image.putpixel((1, 0), 1)
    image.save(tmp_path / "plain.png")
    image.save(tmp_path / "clear.png", transparency=1)
    assert colours_of(open_image(tmp_path / "plain.png")) == [(0, 0, 255), (9, 8, 7)]
    assert colours_of(open_image(tmp_path / "clear.png")) == [(0, 0, 255), (255, 255, 255)]


def test_cmyk() -> None:
    """No ink is white, all of cyan takes red away, all of black is black."""
    image = Image.new("CMYK", (3, 1))
    for x, pixel in enumerate([(0, 0, 0, 0), (255, 0, 0, 0), (0, 0, 0, 255)]):
        image.putpixel((x, 0), pixel)
    assert colours_of(to_rgb(image)) == [(255, 255, 255), (0, 255, 255), (0, 0, 0)]
    buffer = io.BytesIO()
    Image.new("CMYK", (8, 8), (255, 0, 0, 0)).save(buffer, "JPEG")
    buffer.seek(0)
    red, green, blue = colours_of(open_image(buffer))[0]
    assert red < 10 and green > 245 and blue > 245


def test_sixteen_bit_grey_is_stretched(tmp_path: Path) -> None:
    """1000, 11000, 21000 → 0, 127, 255; plain conversion would clip all of it to white."""
    values = np.array([[1000, 11000, 21000]], np.uint16)
    Image.fromarray(values).save(tmp_path / "deep.png")
    assert colours_of(open_image(tmp_path / "deep.png")) == [(v, v, v) for v in (0, 127, 255)]
    for kind in (np.int32, np.float32):
        assert colours_of(to_rgb(Image.fromarray(values.astype(kind))))[1] == (127, 127, 127)
    flat = to_rgb(Image.fromarray(np.full((2, 2), 700, np.uint16)))
    assert set(colours_of(flat)) == {(0, 0, 0)}  # nothing to stretch, no division by zero


def test_pixels_that_are_no_numbers(tmp_path: Path) -> None:
    values = np.zeros((3, 2), np.float32)
    for wrong in (np.nan, np.inf):
        values[1, 1] = wrong
        Image.fromarray(values).save(tmp_path / "float.tif")
        with pytest.raises(DatasetError, match=r"float\.tif: expected finite pixel values"):
            open_image(tmp_path / "float.tif")


@pytest.mark.parametrize("mode", ["1", "L", "P", "PA", "YCbCr", "LAB", "HSV", "RGBX", "I;16B"])
def test_rare_modes_become_rgb(mode: str) -> None:
    assert to_rgb(Image.new(mode, (3, 2))).mode == "RGB"


def test_exif_orientation_is_obeyed(tmp_path: Path) -> None:
    """Orientation 6: the camera was turned, the stored left column is the upper row."""
    pixels = np.zeros((4, 2, 3), np.uint8)
    pixels[0, 0] = (255, 0, 0)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(tmp_path / "turned.png", exif=exif)
    image = open_image(tmp_path / "turned.png")
    assert image.size == (4, 2)
    assert np.argwhere(np.asarray(image)[..., 0] == 255).tolist() == [[0, 3]]


def test_animations_give_their_first_frame(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    assert set(colours_of(open_image(tmp_path / "moving.gif"))) == {(255, 0, 0)}


# --- files that cannot be read ---------------------------------------------------------------------------------------


def jpeg_bytes(height: int = 64, width: int = 32, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(noise(height, width)).save(buffer, "JPEG", **options)
    return buffer.getvalue()


def png_header(width: int, height: int) -> bytes:
    """A tiny PNG that promises width × height pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


BROKEN: dict[str, tuple[bytes, str]] = {
    "empty.jpg": (b"", "expected a readable image"),
    "text.jpg": (b"this is no image", "expected a readable image"),
    "half.jpg": (jpeg_bytes()[:700], "damaged, cut off or not an image"),
    "half.png": (png_header(30, 60), "damaged, cut off or not an image"),
    "page.jpg": (b"<html><body>404</body></html>", "expected a readable image"),
    "large.png": (
        png_header(8000, 7000),
        "at most 50,000,000 pixels, got 8000×7000; scale it down",
    ),
    "bomb.png": (png_header(50_000, 50_000), "at most 50,000,000 pixels, got more .*scale it down"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_files_are_named(name: str, tmp_path: Path) -> None:
    content, message = BROKEN[name]
    (tmp_path / name).write_bytes(content)
    for source in (tmp_path / name, str(tmp_path / name)):
        with pytest.raises(DatasetError, match=message) as caught:
            open_image(source)
        assert str(caught.value).startswith(str(tmp_path / name))
    with pytest.raises(DatasetError, match=f"^the image: .*{message}"):
        open_image(io.BytesIO(content))
    with (tmp_path / name).open("rb") as opened, pytest.raises(DatasetError, match=name):
        open_image(opened)


def test_pictures_between_pillows_two_limits_are_refused(tmp_path: Path) -> None:
    """Above 89 million pixels Pillow warns; whoever turns warnings into errors gets the same DatasetError."""
    (tmp_path / "wide.png").write_bytes(png_header(10_000, 10_000))
    for action in ("error", "ignore"):
        with warnings.catch_warnings():
            warnings.simplefilter(action, Image.DecompressionBombWarning)  # type: ignore[arg-type]
            with pytest.raises(
                DatasetError, match=r"wide\.png: expected at most 50,000,000 pixels"
            ):
                open_image(tmp_path / "wide.png")


def test_missing_files_and_folders(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"gone\.jpg: no such image file; check the path"):
        open_image(tmp_path / "gone.jpg")
    with pytest.raises(DatasetError, match=r"expected a readable image"):
        open_image(tmp_path)


def damaged(data: bytes, rng: np.random.Generator) -> bytes:
    """A few bytes changed, sometimes the end cut off."""
    content = bytearray(data)
    for _ in range(rng.integers(1, 6)):
        content[rng.integers(len(content))] = rng.integers(256)
    content[rng.integers(min(60, len(content)))] = rng.integers(256)
    return bytes(content[: rng.integers(len(content))] if rng.random() < 0.2 else content)


FORMATS = ["JPEG", "PNG", "GIF", "BMP", *(k for k in ("WEBP", "AVIF") if features.check(k.lower()))]


@pytest.mark.parametrize("kind", FORMATS)
def test_damaged_bytes_give_a_picture_or_a_dataset_error(kind: str) -> None:
    """Nothing else ever comes out: Pillow itself raises struct.error, TypeError and RuntimeError here."""
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a description"
    buffer = io.BytesIO()
    extra = {"exif": exif} if kind in ("JPEG", "PNG", "WEBP") else {}
    Image.fromarray(noise(24, 16)).save(buffer, kind, **extra)
    rng = np.random.default_rng(0)
    outcomes = {"read": 0, "refused": 0}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's remarks on strange metadata
        for _ in range(400):
            try:
                image = open_image(io.BytesIO(damaged(buffer.getvalue(), rng)))
                assert image.mode == "RGB"
                outcomes["read"] += 1
            except DatasetError:
                outcomes["refused"] += 1
    assert outcomes["refused"] > 20, outcomes


def test_broken_metadata_is_a_dataset_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_image: Image.Image) -> Image.Image:
        raise struct.error("required argument is not an integer")

    monkeypatch.setattr(loading.ImageOps, "exif_transpose", fail)
    with pytest.raises(DatasetError, match="required argument is not an integer"):
        open_image(io.BytesIO(jpeg_bytes()))


# --- a small training set --------------------------------------------------------------------------------------------

IDENTITIES, IMAGES = 5, 6


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> list[Sample]:
    folder = tmp_path_factory.mktemp("train")
    found: list[Sample] = []
    for number in range(IDENTITIES * IMAGES):
        file = folder / f"{number % IDENTITIES:04d}_c1s1_{number:06d}_00.png"
        Image.fromarray(noise(40 + number, 20 + number, seed=number)).save(file)
        found.append(Sample(file, number % IDENTITIES + 10, 1))
    return found


def data_config(**changes: Any) -> DataConfig:
    settings: dict[str, Any] = dict(
        identities_per_batch=2, images_per_identity=3, erasing_from_epoch=1, workers=0
    )
    return DataConfig(**(settings | changes))


def images_of(samples: list[Sample], data: DataConfig) -> TrainingImages:
    return TrainingImages(samples, [s.identity - 10 for s in samples], MODEL, data)


def batches_of(
    samples: list[Sample], data: DataConfig, seed: int = 3, epoch: int = 1
) -> list[loading.TrainingBatch]:
    return list(images_of(samples, data).batches(data, seed, epoch))


def same(first: list[loading.TrainingBatch], second: list[loading.TrainingBatch]) -> bool:
    return len(first) == len(second) and all(
        torch.equal(a, b)
        for one, two in zip(first, second, strict=True)
        for a, b in zip(one, two, strict=True)
    )


def test_find_broken_names_each_with_its_reason(samples: list[Sample], tmp_path: Path) -> None:
    wrong = [Sample(tmp_path / name, 0, 1) for name in ("half.jpg", "text.jpg", "gone.jpg")]
    for sample in wrong[:2]:
        sample.path.write_bytes(BROKEN[sample.path.name][0])
    found = find_broken([wrong[0], *samples[:4], *wrong[1:]])
    assert list(found) == [sample.path for sample in wrong]
    assert "cut off" in found[wrong[0].path] and "no such image file" in found[wrong[2].path]
    assert all(reason.startswith(str(path)) for path, reason in found.items())
    assert find_broken(samples) == {}


def test_batches_are_p_times_k_and_carry_their_places(samples: list[Sample]) -> None:
    batches = batches_of(samples, data_config())
    assert len(batches) >= 4  # ten groups of three, two to a batch, one identity may stay alone
    for batch in batches:
        assert batch.images.shape == (6, 3, 64, 32) and batch.images.dtype == torch.float32
        assert batch.labels.dtype == torch.int64
        assert [samples[i].identity - 10 for i in batch.indices.tolist()] == batch.labels.tolist()
        assert len(batch.labels.unique()) == 2


def test_the_number_of_batches_is_known_before(samples: list[Sample]) -> None:
    data = data_config()
    images = images_of(samples, data)
    for epoch in range(6):
        assert images.batches_in_epoch(data, 3, epoch) == len(list(images.batches(data, 3, epoch)))


def test_batches_do_not_depend_on_workers_or_on_keeping_pixels(samples: list[Sample]) -> None:
    kept = batches_of(samples, data_config())
    decoded = batches_of(samples, data_config(keep_decoded=False))
    workers = batches_of(samples, data_config(keep_decoded=False, workers=2))
    assert same(kept, decoded) and same(kept, workers)


def test_batches_depend_on_seed_and_epoch_and_nothing_else(samples: list[Sample]) -> None:
    data = data_config()
    first = batches_of(samples, data)
    torch.manual_seed(99)
    np.random.seed(99)
    assert same(first, batches_of(samples, data))
    assert not same(first, batches_of(samples, data, seed=4))
    assert not same(first, batches_of(samples, data, epoch=2))
    images = images_of(samples, data)
    list(images.batches(data, 3, 0))  # an epoch before it changes nothing: resuming sees the same
    assert same(first, list(images.batches(data, 3, 1)))


def test_batches_leave_the_global_randomness_alone(samples: list[Sample]) -> None:
    before = torch.get_rng_state()
    batches_of(samples, data_config())
    assert torch.equal(torch.get_rng_state(), before)


def test_the_draws_of_a_batch_are_independent(samples: list[Sample]) -> None:
    """An identity with too few images repeats one: each copy is augmented anew."""
    few = samples[:2]
    data = data_config(images_per_identity=4, crop_margin=1.5, erasing_probability=0.0)
    (batch,) = batches_of(few, data)
    places = batch.indices.tolist()
    assert places in ([0] * 4 + [1] * 4, [1] * 4 + [0] * 4)
    assert len({image.numpy().tobytes() for image in batch.images}) > 4


def test_no_two_batches_of_an_epoch_share_their_draws(samples: list[Sample]) -> None:
    """One picture under every name: what differs between batches is the augmentation alone."""
    path = samples[0].path
    twins = [Sample(path, sample.identity, sample.camera) for sample in samples]
    batches = batches_of(twins, data_config(erasing_probability=0.0))
    assert len({batch.images.numpy().tobytes() for batch in batches}) == len(batches) > 2


def test_the_first_image_does_not_share_its_draws_with_the_sampler(samples: list[Sample]) -> None:
    """NumPy pads short seeds with zeros: (seed, epoch) and (seed, epoch, 0) are one stream."""
    sampler, padded = (np.random.default_rng(key).integers(2**40) for key in ([3, 1], [3, 1, 0]))
    assert sampler == padded
    data = data_config()
    images = images_of(samples, data)
    first = next(images.batches(data, 3, 1))
    assert images.pixels is not None
    shared = images.augment.draw(1, np.random.default_rng([3, 1]))
    pixels = images.pixels[first.indices[:1]]
    assert not torch.equal(first.images[:1], images.augment.apply(pixels, [shared]))
    own = images.augment.draw(1, np.random.default_rng([3, 1, 1]))
    assert torch.equal(first.images[:1], images.augment.apply(pixels, [own]))


def test_erasing_begins_with_its_epoch(samples: list[Sample]) -> None:
    data = data_config(erasing_from_epoch=2, erasing_probability=1.0)

    def erased(epoch: int) -> list[bool]:
        batches = batches_of(samples, data, epoch=epoch)
        return [bool((i == 0).all(dim=0).any()) for batch in batches for i in batch.images]

    assert not any(erased(1)) and all(erased(2))


def test_pixels_are_kept_only_where_they_fit(samples: list[Sample]) -> None:
    assert images_of(samples, data_config(keep_decoded=False)).pixels is None
    large = samples * 200  # 6,000 images of 72×36 pixels are 44.5 MiB
    small_memory = data_config(keep_decoded_limit_mb=44)
    assert images_of(large, small_memory).pixels is None
    kept = images_of(samples, data_config()).pixels
    assert kept is not None and kept.shape == (30, 72, 36, 3) and kept.dtype == torch.uint8


@pytest.mark.parametrize("keep", [True, False])
def test_processes_get_other_people_in_every_step(samples: list[Sample], keep: bool) -> None:
    data = data_config(keep_decoded=keep)
    alone = list(images_of(samples, data_config(identities_per_batch=4)).batches(
        data_config(identities_per_batch=4), 3, 1
    ))  # fmt: skip
    images = images_of(samples, data)
    first, second = (list(images.batches(data, 3, 1, rank=r, processes=2)) for r in (0, 1))
    assert len(first) == len(second) == images.batches_in_epoch(data, 3, 1, processes=2) > 0
    for one, other, both in zip(first, second, alone, strict=True):
        assert not set(one.labels.tolist()) & set(other.labels.tolist())
        assert len(one.labels.unique()) == len(other.labels.unique()) == 2
        # Together they are the batch that one process with as many people would see, augmentation included.
        assert torch.equal(torch.cat([one.images, other.images]), both.images)
        assert torch.equal(torch.cat([one.indices, other.indices]), both.indices)
    with pytest.raises(DatasetError, match=r"takes 12 identities in 6 processes, but .* has 5"):
        images.batches(data, 3, 1, processes=6)


def test_a_pass_that_is_given_up_leaves_no_thread(samples: list[Sample]) -> None:
    before = threading.active_count()
    batches = images_of(samples, data_config()).batches(data_config(), 3, 1)
    next(batches)
    assert threading.active_count() > before
    del batches
    gc.collect()
    assert threading.active_count() == before


@pytest.mark.parametrize("keep", [True, False])
def test_a_broken_training_image_stops_with_its_name(
    samples: list[Sample], keep: bool, tmp_path: Path
) -> None:
    (tmp_path / "half.jpg").write_bytes(BROKEN["half.jpg"][0])
    wrong = [Sample(tmp_path / "half.jpg", 10, 1)] * 3
    with pytest.raises(DatasetError, match=r"half\.jpg: expected a readable image"):
        batches_of([*wrong, *samples[1:2] * 3], data_config(keep_decoded=keep))


# --- images of the evaluation ----------------------------------------------------------------------------------------


def test_evaluation_sees_the_resized_image_and_nothing_else(samples: list[Sample]) -> None:
    paths = [s.path for s in samples]
    for workers in (0, 2):
        images = TestImages(paths, 64, 32)
        batches = list(images.batches(EvalConfig(batch_size=7, workers=workers)))
        assert [len(places) for _, places in batches] == [7, 7, 7, 7, 2]
        assert [place for _, places in batches for place in places] == list(range(30))
        together = torch.cat([images for images, _ in batches])
        wanted = torch.stack([prepare_image(open_image(path), 64, 32) for path in paths])
        assert torch.equal(together, wanted)


def test_broken_images_of_the_evaluation(samples: list[Sample], tmp_path: Path) -> None:
    (tmp_path / "half.jpg").write_bytes(BROKEN["half.jpg"][0])
    paths = [samples[0].path, tmp_path / "half.jpg", samples[1].path, tmp_path / "gone.jpg"]
    config = EvalConfig(batch_size=2, workers=0)
    with pytest.raises(DatasetError, match=r"half\.jpg"):
        list(TestImages(paths, 64, 32).batches(config))
    with pytest.warns(UserWarning, match="left out: ") as caught:
        batches = list(TestImages(paths, 64, 32, skip_broken=True).batches(config))
    assert [places for _, places in batches] == [[0], [2]]
    assert {Path(str(w.message).split(": ")[1]).name for w in caught} == {"half.jpg", "gone.jpg"}

    only_broken = TestImages(paths[1:2], 64, 32, skip_broken=True)
    with pytest.warns(UserWarning, match="left out"):
        assert list(only_broken.batches(config)) == []


def test_the_limit_is_inclusive(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(loading, "MAX_PIXELS", 40 * 20)
    Image.fromarray(noise(40, 20)).save(tmp_path / "fits.png")
    Image.fromarray(noise(41, 20)).save(tmp_path / "large.png")
    assert open_image(tmp_path / "fits.png").size == (20, 40)
    with pytest.raises(DatasetError, match="expected at most 800 pixels, got 20×41"):
        open_image(tmp_path / "large.png")
