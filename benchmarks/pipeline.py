"""A training loop with its images: how `ccan train` feeds it, beside plain decoding in the loop.

The images are JPEG files of noise at the input size, or on CUDA random pixels of Market-1501's number and size.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measuring import peak_memory, reset_peak_memory, synchronise
from networks import IDENTITIES, Setting, Way
from PIL import Image

from ccan.config import DataConfig
from ccan.data.loading import TrainingBatch, TrainingImages, open_image
from ccan.data.records import Sample
from ccan.data.sampler import IdentityBalancedSampler
from ccan.data.transforms import TrainingAugmentation, resize_pixels
from ccan.losses import CCANLoss
from ccan.training import training_step
from ccan.training.readout import Readout
from ccan.training.step import build_optimizer

MARKET_IMAGES, MARKET_EPOCHS = 12_936, 200
MARKET_TEST_IMAGES = 3_368 + 15_913


def files_of_noise(folder: Path, height: int, width: int, identities: int) -> list[Sample]:
    """Four JPEG files of each identity; coarse noise, which compresses as photographs do."""
    generator = np.random.default_rng(0)
    samples = []
    for number in range(4 * identities):
        coarse = generator.integers(0, 256, (16, 8, 3), np.uint8)
        path = folder / f"{number:06d}.jpg"
        Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).save(path)
        samples.append(Sample(path, number // 4, 1 + number % 4))
    return samples


def decoded_in_the_loop(
    samples: list[Sample], augment: TrainingAugmentation, data: DataConfig
) -> Iterator[TrainingBatch]:
    """The plain twin: each image is opened, resized and augmented when its batch is due, one after the other."""
    labels = torch.tensor([sample.identity for sample in samples])
    sampler = IdentityBalancedSampler(
        labels.tolist(), data.identities_per_batch, data.images_per_identity
    )
    epoch = 0
    while True:
        for batch in sampler.epoch(np.random.default_rng([0, epoch])):
            images = []
            for place, index in enumerate(batch):
                pixels = resize_pixels(open_image(samples[index].path), *augment.resized)
                draw = augment.draw(60, np.random.default_rng([0, epoch, 1 + place]))
                images.append(augment.apply(torch.from_numpy(pixels.copy())[None], [draw])[0])
            yield TrainingBatch(
                torch.stack(images).contiguous(), labels[batch], torch.tensor(batch)
            )
        epoch += 1


def repeated(images: TrainingImages, data: DataConfig) -> Iterator[TrainingBatch]:
    """Epoch after epoch as `ccan train` sees them, erasing included."""
    for epoch in range(60, 10**6):
        yield from images.batches(data, 0, epoch)


def timed(setting: Setting, way: Way, batches: Iterator[TrainingBatch]) -> dict[str, float]:
    """Images a second over `setting.steps` steps, and the share of the time in which no batch was ready."""
    model = setting.network(way).train()
    optimizer, loss = build_optimizer(model, setting.recipe.optim), CCANLoss(setting.recipe.loss)
    readout, waiting, began = Readout(setting.device), 0.0, 0.0
    for step in range(-1, setting.steps):
        if step == 0:  # the first step warms up
            synchronise(setting.device)
            waiting, began = 0.0, time.perf_counter()
        asked = time.perf_counter()
        batch = next(batches)
        waiting += time.perf_counter() - asked
        images = batch.images.to(setting.device, memory_format=way.memory_format)
        labels = batch.labels.to(setting.device)
        report = training_step(model, loss, optimizer, images, labels, way.precision)
        list(readout.put(step, report, batch))
    list(readout.rest())
    synchronise(setting.device)
    seconds = time.perf_counter() - began
    return {
        "images_per_second": setting.steps * setting.batch / seconds,
        "waiting": waiting / seconds,
    }


def measure_pipeline(setting: Setting) -> dict[str, Any]:
    """Plain decoding in the loop, decoding processes, and kept pixels, one after the other."""
    model, batch = setting.recipe.model, setting.batch
    data = replace(
        setting.recipe.data, identities_per_batch=batch // 4, images_per_identity=4, workers=1
    )
    own = Way("bfloat16" if setting.device.type == "cuda" else "float32", channels_last=True)
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        people = 4 * data.identities_per_batch
        samples = files_of_noise(Path(folder), model.image_height, model.image_width, people)
        labels = [sample.identity for sample in samples]
        plain = TrainingAugmentation(model.image_height, model.image_width, data)
        found["decoded in the loop, standard layout"] = timed(
            setting, Way("float32"), decoded_in_the_loop(samples, plain, data)
        )
        for name, keep in (("decoded by a process", False), ("pixels kept", True)):
            settings = replace(data, keep_decoded=keep)
            images = TrainingImages(samples, labels, model, settings, device=setting.device)
            found[f"{name}, channels last"] = timed(setting, own, repeated(images, settings))
    first = next(iter(found.values()))["images_per_second"]
    for figures in found.values():
        figures["speed_ratio"] = figures["images_per_second"] / first
    result = {"pipeline": found}
    if setting.device.type == "cuda":
        result["market1501"] = market_size(setting)
    return result


class RandomImages(TrainingImages):
    """Training images that are random pixels: nothing is read."""

    def _decode_all(self, progress: bool) -> torch.Tensor:
        generator = torch.Generator().manual_seed(0)
        shape = (len(self.samples), *self.augment.resized, 3)
        return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)


def market_size(setting: Setting, epochs: int = 20) -> dict[str, Any]:
    """Some epochs of Market-1501's size and one pass over its test images, scaled to the paper's 200 epochs."""
    recipe = setting.recipe
    labels = [number * IDENTITIES // MARKET_IMAGES for number in range(MARKET_IMAGES)]
    samples = [Sample(Path(f"{number}.jpg"), label, 1) for number, label in enumerate(labels)]
    images = RandomImages(samples, labels, recipe.model, recipe.data, device=setting.device)
    way = Way("bfloat16", channels_last=True)
    steps = sum(images.batches_in_epoch(recipe.data, 0, 60 + epoch) for epoch in range(epochs))
    reset_peak_memory(setting.device)
    training = timed(replace(setting, steps=steps), way, repeated(images, recipe.data))
    shown = steps * recipe.data.batch_size
    seconds = shown / training["images_per_second"]
    model = setting.network(way).eval()
    batch = setting.images(way)
    synchronise(setting.device)
    began = time.perf_counter()
    with torch.inference_mode(), torch.autocast("cuda", torch.bfloat16):
        for _ in range(-(-MARKET_TEST_IMAGES // len(batch))):
            model(batch)
    synchronise(setting.device)
    extraction = time.perf_counter() - began
    return {
        "epochs_measured": epochs,
        "images_shown": shown,
        "training": training,
        "peak_mib": peak_memory(setting.device),
        "test_features_seconds": extraction,
        "minutes_of_200_epochs_and_one_extraction_scaled": (
            seconds * MARKET_EPOCHS / epochs + extraction
        )
        / 60,
    }
