"""The training loop: reads aloud as section 4.1, survives being killed at any moment.

An epoch is the unit of resuming: its batches depend on (seed, epoch) alone, and the `last` checkpoint holds weights and
Adam's state after whole epochs. So interrupt + resume equals an uninterrupted run, bit for bit on one CPU.
"""

from __future__ import annotations

import hashlib
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from ccan.config import Recipe
from ccan.data.loading import TrainingBatch, TrainingImages, find_broken
from ccan.data.records import ReIDDataset, Sample
from ccan.device import choose_device
from ccan.errors import ConfigError, DatasetError, TrainingError
from ccan.evaluation.features import extract_features
from ccan.evaluation.protocol import evaluate_features
from ccan.losses import CCANLoss
from ccan.model.attention import NonLocalAttention
from ccan.model.network import CCAN, build_ccan
from ccan.model.pretrained import expecting_imagenet_weights, load_pretrained
from ccan.training.checkpoint import (
    BEST,
    LAST,
    MODEL,
    CheckpointInfo,
    load_weights,
    read_info,
    save_checkpoint,
)
from ccan.training.journal import RunFolder, describe_environment
from ccan.training.step import build_optimizer, learning_rate_at, training_step

Say = Callable[[str], None]


@dataclass(frozen=True)
class FitResult:
    """What `fit` leaves behind.

    Attributes:
        folder: the run folder.
        epochs: epochs that were run now; 0 when a finished run was resumed.
        seconds: time of these epochs.
        images_per_second: training images a second over these epochs.
    """

    folder: Path
    epochs: int
    seconds: float
    images_per_second: float


def hold_out(
    dataset: ReIDDataset, identities: int, seed: int
) -> tuple[tuple[Sample, ...], tuple[Sample, ...], tuple[Sample, ...]]:
    """Split training identities: (train, held-out query, held-out gallery).

    Of each held-out identity the first image of every camera is a query, the rest is gallery.
    Raises: ConfigError unless 2 ≤ identities < all, or 0 = hold nothing out.
    """
    if identities == 0:
        return dataset.train, (), ()
    everyone = dataset.train_identities
    if not 2 <= identities < len(everyone):
        raise ConfigError(
            f"validation_identities must be 0 or between 2 and {len(everyone) - 1} "
            f"(one less than the training identities), got {identities}"
        )
    held = set(np.random.default_rng([seed]).choice(everyone, identities, replace=False).tolist())
    train = tuple(sample for sample in dataset.train if sample.identity not in held)
    query: list[Sample] = []
    gallery: list[Sample] = []
    seen: set[tuple[int, int]] = set()
    cameras = {sample.camera for sample in dataset.train}
    for sample in dataset.train:
        if sample.identity in held:
            view = (sample.identity, sample.camera)
            (gallery if view in seen else query).append(sample)
            seen.add(view)
    found = {(sample.identity, sample.camera) for sample in gallery}
    if not any(
        (one.identity, camera) in found for one in query for camera in cameras - {one.camera}
    ):
        raise ConfigError(
            "no held-out identity has two images in one camera and one in another, so nothing can be "
            "ranked; hold out more identities, or none (validation_identities 0)"
        )
    return train, tuple(query), tuple(gallery)


def fingerprint(samples: Sequence[Sample]) -> str:
    """Hash of a training list: file names and identities, in order."""
    lines = (f"{sample.path.name} {sample.identity}\n" for sample in samples)
    return hashlib.sha256("".join(lines).encode()).hexdigest()[:16]


def fit(
    recipe: Recipe,
    dataset: ReIDDataset,
    out: Path,
    *,
    resume: bool = False,
    progress: bool = True,
    say: Say = print,
) -> FitResult:
    """Train CCAN by a recipe, into a run folder (see `ccan.training.journal`).

    Args:
        recipe: every setting.
        dataset: its training part is used; query and gallery are never looked at.
        out: the run folder. Without ``resume`` it must not hold a run.
        resume: go on from the `last` checkpoint; begin anew where there is none.
        progress: show a bar.
        say: where sentences for people go.

    Raises: ConfigError, DatasetError, CheckpointError, TrainingError; the last checkpoint stays intact in each case.
    """
    checkpoint = Path(out) / LAST
    if checkpoint.exists() and not resume:
        raise ConfigError(
            f"{out} already holds a run; pass --resume to go on, or choose another --out"
        )
    if recipe.train.initial_weights == "imagenet":
        recipe = replace(recipe, model=expecting_imagenet_weights(recipe.model))
    device = choose_device(recipe.train.device)
    if not dataset.train:
        raise DatasetError(
            f"{dataset.root}: expected training images, got none; check the folder "
            "(a synthetic world has them if its train split was rendered)"
        )
    if recipe.data.broken_images == "skip":
        dataset = replace(dataset, train=_readable(dataset.train, say))
    train, query, gallery = hold_out(dataset, recipe.train.validation_identities, recipe.train.seed)
    identities = tuple(sorted({sample.identity for sample in train}))
    info = CheckpointInfo(recipe, identities, 0, dataset.name, fingerprint(train))
    config = {"recipe": recipe.to_dict(), "data_fingerprint": info.data_fingerprint}

    folder = RunFolder(Path(out))
    if checkpoint.exists():
        saved = read_info(checkpoint)
        folder.resume(config, saved.epoch)
        info = replace(saved, recipe=recipe)
        if info.epoch >= recipe.train.epochs:
            say(f"{out} is finished: {info.epoch} of {recipe.train.epochs} epochs; nothing to do")
            return FitResult(Path(out), 0, 0.0, 0.0)
        say(f"resuming {out} after epoch {info.epoch} of {recipe.train.epochs}")

    label_of = {identity: label for label, identity in enumerate(identities)}
    labels = [label_of[sample.identity] for sample in train]
    images = TrainingImages(train, labels, recipe.model, recipe.data, progress)
    if images.batches_in_epoch(recipe.data, recipe.train.seed, 0) == 0:
        raise DatasetError("an epoch has no whole batch; lower --data.identities-per-batch")
    model = _initial_model(recipe, len(identities), fresh=not checkpoint.exists())
    model = model.to(device).to(memory_format=torch.channels_last)
    optimizer = build_optimizer(model, recipe.optim)
    if checkpoint.exists():
        load_weights(checkpoint, model, optimizer)
    else:
        folder.start(config, describe_environment(device))
    parameters = sum(parameter.numel() for parameter in model.parameters())
    say(
        f"training {parameters:,} parameters on {len(train):,} images of {len(identities)} "
        f"identities, device {device}"
    )
    run = _Run(info, model, optimizer, images, query, gallery, folder, device, progress, say)
    try:
        return run.all_epochs()
    finally:
        folder.close()


@dataclass
class _Run:
    """What the epochs of one run share, and how one follows the other."""

    info: CheckpointInfo
    model: CCAN
    optimizer: torch.optim.Optimizer
    images: TrainingImages
    query: Sequence[Sample]
    gallery: Sequence[Sample]
    folder: RunFolder
    device: torch.device
    progress: bool
    say: Say

    def all_epochs(self) -> FitResult:
        """From the checkpoint's epoch to the recipe's last; every epoch ends with a checkpoint."""
        recipe, first = self.info.recipe, self.info.epoch
        best = max((line.get("val_mAP", -1.0) for line in self.folder.read()), default=-1.0)
        seen, began = 0, time.perf_counter()
        for epoch in range(first, recipe.train.epochs):
            rate = learning_rate_at(recipe.optim, epoch, recipe.train.epochs)
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            values, count = self.one_epoch(epoch)
            seen += count
            last = epoch + 1 == recipe.train.epochs
            if self.query and (last or (epoch + 1) % recipe.train.evaluate_every == 0):
                values |= self.validate(epoch)
            self.folder.write(epoch, {"learning_rate": rate, **values})
            self.info = replace(self.info, epoch=epoch + 1, metrics=values)
            if values.get("val_mAP", -1.0) > best:
                best = values["val_mAP"]
                save_checkpoint(self.folder.path / BEST, self.model, self.info)
            if last:  # before `last`, whose epoch count says that the run is finished
                save_checkpoint(self.folder.path / MODEL, self.model, self.info, half=True)
            if last or (epoch + 1) % recipe.train.checkpoint_every == 0:
                save_checkpoint(self.folder.path / LAST, self.model, self.info, self.optimizer)
        self.name_silent_attention()
        seconds = time.perf_counter() - began
        return FitResult(self.folder.path, recipe.train.epochs - first, seconds, seen / seconds)

    def name_silent_attention(self) -> None:
        """Say which attentions training has worn down to nothing; their maps would be empty."""
        silent = [
            name
            for name, module in self.model.named_modules()
            if isinstance(module, NonLocalAttention) and module.silent
        ]
        if silent:
            self.say(
                f"attention that adds nothing any more: {', '.join(silent)}; a lower --optim.learning-rate or "
                "--optim.weight-decay keeps it alive (docs/troubleshooting.md)"
            )

    def one_epoch(self, epoch: int) -> tuple[dict[str, float], int]:
        """One pass over the training set → mean of each loss term with the speed, and the images seen."""
        recipe, loss = self.info.recipe, CCANLoss(self.info.recipe.loss)
        self.model.train()
        sums: dict[str, float] = defaultdict(float)
        steps = self.images.batches_in_epoch(recipe.data, recipe.train.seed, epoch)
        batches = self.images.batches(
            recipe.data, recipe.train.seed, epoch, pin_memory=self.device.type == "cuda"
        )
        images, began = steps * recipe.data.batch_size, time.perf_counter()
        name = f"epoch {epoch + 1}/{recipe.train.epochs}"
        with tqdm(total=images, desc=name, unit="img", disable=not self.progress) as bar:
            for step, batch in enumerate(batches):
                report = training_step(
                    self.model,
                    loss,
                    self.optimizer,
                    batch.images.to(
                        self.device, non_blocking=True, memory_format=torch.channels_last
                    ),
                    batch.labels.to(self.device, non_blocking=True),
                    recipe.train.precision,
                )
                values = report.values()
                if not np.isfinite(values["loss"]):
                    raise TrainingError(
                        _explain_nonfinite(values, epoch, step, batch, self.images.samples)
                    )
                for key, value in values.items():
                    sums[key] += value
                bar.update(len(batch.labels))
                left = (recipe.train.epochs - epoch) * steps - step - 1
                minutes = (time.perf_counter() - began) / (step + 1) * left / 60
                bar.set_postfix(loss=f"{values['loss']:.3f}", left=f"{minutes:.0f} min in all")
        seconds = time.perf_counter() - began
        means = {key: value / steps for key, value in sums.items()}
        return means | {"seconds": seconds, "images_per_second": images / seconds}, images

    def validate(self, epoch: int) -> dict[str, float]:
        """mAP and rank-1 on the held-out training identities."""
        settings = self.info.recipe.eval
        query, gallery = (
            extract_features(
                self.model,
                samples,
                batch_size=settings.batch_size,
                workers=settings.workers,
                device=self.device,
            )
            for samples in (self.query, self.gallery)
        )
        report = evaluate_features(query, gallery, distance=settings.distance, ap=settings.ap)
        values = {"val_mAP": report.mAP, "val_rank1": report.to_dict()["rank1"]}
        self.say(f"epoch {epoch + 1}: held-out mAP {report.mAP:.1%}, R1 {values['val_rank1']:.1%}")
        return values


def _initial_model(recipe: Recipe, num_identities: int, fresh: bool) -> CCAN:
    """The network at epoch 0, from the recipe's seed; weights are read only where training starts."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.train.seed)
        model = build_ccan(recipe.model, num_identities)
    if fresh and recipe.train.initial_weights == "imagenet":
        load_pretrained(model, recipe.train.imagenet_file)
    model.gives_part_attention = recipe.loss.attention_diversity > 0
    return model


def _readable(samples: Sequence[Sample], say: Say) -> tuple[Sample, ...]:
    """The samples whose image can be decoded; the others are named."""
    broken = find_broken(samples)
    for problem in broken.values():
        say(f"left out of training: {problem}")
    kept = tuple(sample for sample in samples if sample.path not in broken)
    if not kept:
        raise DatasetError("no training image can be decoded; check the files")
    return kept


def _explain_nonfinite(
    values: Mapping[str, float],
    epoch: int,
    step: int,
    batch: TrainingBatch,
    samples: Sequence[Sample],
) -> str:
    terms = ", ".join(f"{name} {value:.4g}" for name, value in values.items())
    names = ", ".join(samples[index].path.name for index in batch.indices.tolist())
    return (
        f"the loss is not finite at epoch {epoch + 1}, step {step + 1} ({terms}). The last checkpoint is "
        "intact. Try a lower --optim.learning-rate, --optim.warmup-epochs 5, or --train.precision float32; "
        f"look at the images of this batch: {names}"
    )
