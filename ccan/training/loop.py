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
from ccan.errors import ConfigError, DatasetError, TrainingError
from ccan.evaluation.features import extract_features
from ccan.evaluation.protocol import EvaluationReport, evaluate_features
from ccan.losses import CCANLoss
from ccan.model.backbone import imagenet_state, load_imagenet
from ccan.model.network import CCAN, build_ccan
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
from ccan.training.step import build_optimizer, choose_device, learning_rate_at, training_step

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
    for sample in dataset.train:
        if sample.identity in held:
            view = (sample.identity, sample.camera)
            (gallery if view in seen else query).append(sample)
            seen.add(view)
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
    out = Path(out)
    device = choose_device(recipe.train.device)
    if recipe.train.initial_weights == "imagenet":
        recipe = replace(recipe, model=replace(recipe.model, input_affine="googlenet"))
    train, query, gallery = hold_out(dataset, recipe.train.validation_identities, recipe.train.seed)
    if recipe.data.broken_images == "skip":
        train = _readable(train, say)
    info = CheckpointInfo(
        recipe=recipe,
        identities=tuple(sorted({sample.identity for sample in train})),
        dataset=dataset.name,
        data_fingerprint=fingerprint(train),
    )
    config = {"recipe": recipe.to_dict(), "data_fingerprint": info.data_fingerprint}
    checkpoint = out / LAST
    if checkpoint.exists() and not resume:
        raise ConfigError(
            f"{out} already holds a run; pass --resume to go on, or choose another --out"
        )

    label_of = {identity: label for label, identity in enumerate(info.identities)}
    labels = [label_of[sample.identity] for sample in train]
    folder = RunFolder(out)
    if checkpoint.exists():
        info = read_info(checkpoint)
        folder.resume(config, info.epoch)
        info = replace(info, recipe=recipe)
        if info.epoch >= recipe.train.epochs:
            say(f"{out} is finished: {info.epoch} of {recipe.train.epochs} epochs; nothing to do")
            return FitResult(out, 0, 0.0, 0.0)
        say(f"resuming {out} after epoch {info.epoch} of {recipe.train.epochs}")
    images = TrainingImages(train, labels, recipe.model, recipe.data, progress)
    if images.batches_in_epoch(recipe.data, recipe.train.seed, 0) == 0:
        raise DatasetError("an epoch has no whole batch; lower --data.identities-per-batch")
    model = _initial_model(recipe, len(info.identities), fresh=not checkpoint.exists()).to(device)
    optimizer = build_optimizer(model, recipe.optim)
    if checkpoint.exists():
        load_weights(checkpoint, model, optimizer)
    else:
        folder.start(config, describe_environment(device))
    parameters = sum(parameter.numel() for parameter in model.parameters())
    say(
        f"training {parameters:,} parameters on {len(train):,} images of {len(info.identities)} "
        f"identities, device {device}"
    )
    try:
        return _run_epochs(
            info, model, optimizer, images, query, gallery, folder, device, progress, say
        )
    finally:
        folder.close()


def _run_epochs(
    info: CheckpointInfo,
    model: CCAN,
    optimizer: torch.optim.Optimizer,
    images: TrainingImages,
    query: Sequence[Sample],
    gallery: Sequence[Sample],
    folder: RunFolder,
    device: torch.device,
    progress: bool,
    say: Say,
) -> FitResult:
    recipe, first = info.recipe, info.epoch
    epochs = recipe.train.epochs
    loss = CCANLoss(recipe.loss)
    best = max((line.get("val_mAP", -1.0) for line in folder.read()), default=-1.0)
    seen, began = 0, time.perf_counter()
    for epoch in range(first, epochs):
        rate = learning_rate_at(recipe.optim, epoch, epochs)
        for group in optimizer.param_groups:
            group["lr"] = rate
        values, count = _train_epoch(
            model, loss, optimizer, images, recipe, epoch, device, progress
        )
        seen += count
        values["learning_rate"] = rate
        if query and ((epoch + 1) % recipe.train.evaluate_every == 0 or epoch + 1 == epochs):
            report = _evaluate(model, query, gallery, recipe, device)
            values |= {"val_mAP": report.mAP, "val_rank1": report.rank(1)}
            say(f"epoch {epoch + 1}: held-out mAP {report.mAP:.1%}, rank-1 {report.rank(1):.1%}")
        folder.write(epoch, values)
        info = replace(info, epoch=epoch + 1, metrics=values)
        if values.get("val_mAP", -1.0) > best:
            best = values["val_mAP"]
            save_checkpoint(folder.path / BEST, model, info)
        if epoch + 1 == epochs:  # before `last`, whose epoch count says that the run is finished
            save_checkpoint(folder.path / MODEL, model, info, half=True)
        if (epoch + 1) % recipe.train.checkpoint_every == 0 or epoch + 1 == epochs:
            save_checkpoint(folder.path / LAST, model, info, optimizer)
    seconds = time.perf_counter() - began
    return FitResult(folder.path, epochs - first, seconds, seen / seconds)


def _train_epoch(
    model: CCAN,
    loss: CCANLoss,
    optimizer: torch.optim.Optimizer,
    images: TrainingImages,
    recipe: Recipe,
    epoch: int,
    device: torch.device,
    progress: bool,
) -> tuple[dict[str, float], int]:
    """One pass over the training set → mean of each loss term (and speed), and the images seen."""
    model.train()
    sums: dict[str, float] = defaultdict(float)
    steps, seen, began = 0, 0, time.perf_counter()
    left = recipe.train.epochs - epoch - 1
    batches = images.batches(
        recipe.data, recipe.train.seed, epoch, pin_memory=device.type == "cuda"
    )
    total = images.batches_in_epoch(recipe.data, recipe.train.seed, epoch)
    name = f"epoch {epoch + 1}/{recipe.train.epochs}"
    with tqdm(total=total * recipe.data.batch_size, desc=name, unit="img", disable=not progress) as bar:
        for batch in batches:
            report = training_step(
                model,
                loss,
                optimizer,
                batch.images.to(device, non_blocking=True),
                batch.labels.to(device, non_blocking=True),
                recipe.train.precision,
            )
            values = report.values()
            if not np.isfinite(values["loss"]):
                raise TrainingError(_explain_nonfinite(values, epoch, steps, batch, images.samples))
            for key, value in values.items():
                sums[key] += value
            steps += 1
            seen += len(batch.labels)
            bar.update(len(batch.labels))
            remaining = (time.perf_counter() - began) / seen * (total * recipe.data.batch_size)
            bar.set_postfix(loss=f"{values['loss']:.3f}", then=f"{remaining * left / 60:.0f} min")
    seconds = time.perf_counter() - began
    means = {key: value / steps for key, value in sums.items()}
    return means | {"seconds": seconds, "images_per_second": seen / seconds}, seen


def _evaluate(
    model: CCAN,
    query: Sequence[Sample],
    gallery: Sequence[Sample],
    recipe: Recipe,
    device: torch.device,
) -> EvaluationReport:
    features = [
        extract_features(
            model, samples, batch_size=recipe.eval.batch_size, device=device, progress=False
        )
        for samples in (query, gallery)
    ]
    return evaluate_features(*features, distance=recipe.eval.distance, ap=recipe.eval.ap)


def _initial_model(recipe: Recipe, num_identities: int, fresh: bool) -> CCAN:
    """The network at epoch 0, from the recipe's seed; weights are read only where training starts."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.train.seed)
        model = build_ccan(recipe.model, num_identities)
    if fresh and recipe.train.initial_weights == "imagenet":
        load_imagenet(model.backbone_stages(), imagenet_state(recipe.train.imagenet_file))
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
