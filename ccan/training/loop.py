"""The training loop: reads aloud as section 4.1, survives being killed at any moment.

An epoch is the unit of resuming: its batches depend on (seed, epoch) alone, and the `last` checkpoint holds weights and
Adam's state after whole epochs. So interrupt + resume equals an uninterrupted run, bit for bit on one CPU.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch.optim.swa_utils import AveragedModel
from tqdm import tqdm

from ccan.config import Recipe
from ccan.data.loading import TrainingImages, find_broken
from ccan.data.records import ReIDDataset, Sample
from ccan.errors import ConfigError, DatasetError, TrainingError
from ccan.losses import CCANLoss
from ccan.model.attention import NonLocalAttention
from ccan.model.network import CCAN, CCANOutput, build_ccan
from ccan.model.pretrained import expecting_imagenet_weights, load_pretrained
from ccan.training.averaging import average_of, averaged_model
from ccan.training.checkpoint import (
    BEST,
    LAST,
    MODEL,
    CheckpointInfo,
    load_weights,
    read_info,
    save_checkpoint,
)
from ccan.training.engine import Engine
from ccan.training.held_out import fingerprint, hold_out
from ccan.training.journal import RunFolder, describe_environment
from ccan.training.readout import Readout, StepValues
from ccan.training.sharding import evaluate_together
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
    engine = Engine(recipe.train.device)
    if not engine.is_first:
        progress, say = False, _nothing
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
    config = {
        "recipe": recipe.to_dict(),
        "data_fingerprint": info.data_fingerprint,
        "processes": engine.processes,
    }
    folder = RunFolder(Path(out), writes=engine.is_first)
    going_on = checkpoint.exists()
    engine.wait()  # no process may find a file that another has just written
    if going_on:
        saved = read_info(checkpoint)
        folder.resume(config, saved.epoch)
        info = replace(saved, recipe=recipe)
        if info.epoch >= recipe.train.epochs:
            say(f"{out} is finished: {info.epoch} of {recipe.train.epochs} epochs; nothing to do")
            return FitResult(Path(out), 0, 0.0, 0.0)
        say(f"resuming {out} after epoch {info.epoch} of {recipe.train.epochs}")

    label_of = {identity: label for label, identity in enumerate(identities)}
    labels = [label_of[sample.identity] for sample in train]
    images = TrainingImages(train, labels, recipe.model, recipe.data, progress, engine.device)
    if images.batches_in_epoch(recipe.data, recipe.train.seed, 0, engine.processes) == 0:
        raise DatasetError("an epoch has no whole batch; lower --data.identities-per-batch")
    model = _initial_model(recipe, len(identities), fresh=not going_on)
    model = model.to(engine.device).to(memory_format=torch.channels_last)
    optimizer = build_optimizer(model, recipe.optim)
    average = average_of(model, recipe.train.ema_decay)
    if going_on:
        load_weights(checkpoint, model, optimizer, average)
    else:
        folder.start(config, describe_environment(engine.device))
    parameters = sum(parameter.numel() for parameter in model.parameters())
    say(
        f"training {parameters:,} parameters on {len(train):,} images of {len(identities)} "
        f"identities, device {engine.device}"
        + (f", {engine.processes} processes" if engine.processes > 1 else "")
    )
    network = engine.prepare(model, recipe.train.sync_batch_norm, recipe.train.compile)
    run = _Run(
        info,
        engine,
        model,
        network,
        optimizer,
        average,
        images,
        query,
        gallery,
        folder,
        progress,
        say,
    )
    try:
        return run.all_epochs()
    finally:
        folder.close()


@dataclass
class _Run:
    """What the epochs of one run share, and how one follows the other."""

    info: CheckpointInfo
    engine: Engine
    model: CCAN
    network: Callable[[torch.Tensor], CCANOutput]
    optimizer: torch.optim.Optimizer
    average: AveragedModel | None
    images: TrainingImages
    query: Sequence[Sample]
    gallery: Sequence[Sample]
    folder: RunFolder
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
                self.keep_judged(BEST)
            if last:  # before `last`, whose epoch count says that the run is finished
                self.keep_judged(MODEL, half=True)
            if last or (epoch + 1) % recipe.train.checkpoint_every == 0:
                self.keep_last()
        self.engine.wait()  # the files are there when any process comes back
        self.name_silent_attention()
        seconds = time.perf_counter() - began
        return FitResult(self.folder.path, recipe.train.epochs - first, seconds, seen / seconds)

    @property
    def judged(self) -> CCAN:
        """The model that is judged and kept: the moving average where there is one."""
        return averaged_model(self.model, self.average)

    def keep_judged(self, name: str, half: bool = False) -> None:
        """Write the judged model's weights."""
        if self.engine.is_first:
            save_checkpoint(self.folder.path / name, self.judged, self.info, half=half)

    def keep_last(self) -> None:
        """Write all that training goes on from."""
        if self.engine.is_first:
            path = self.folder.path / LAST
            save_checkpoint(path, self.model, self.info, self.optimizer, average=self.average)

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
        """One pass over the training set → mean of each loss term with the speed, and the images seen.

        ``waiting`` is the share of the time in which no batch was ready.
        """
        recipe, loss = self.info.recipe, CCANLoss(self.info.recipe.loss)
        seed, processes = recipe.train.seed, self.engine.processes
        self.model.train()
        steps = self.images.batches_in_epoch(recipe.data, seed, epoch, processes)
        batches = self.images.batches(
            recipe.data, seed, epoch, rank=self.engine.rank, processes=processes
        )
        joined = self.engine.joined if recipe.train.gather_embeddings else None
        readout, tally = Readout(self.engine.device), _Tally(self, epoch, steps)
        images, began = steps * recipe.data.batch_size * processes, time.perf_counter()
        name = f"epoch {epoch + 1}/{recipe.train.epochs}"
        with tqdm(total=images, desc=name, unit="img", disable=not self.progress) as bar:
            for step in range(steps):
                asked = time.perf_counter()
                batch = next(batches)
                tally.waiting += time.perf_counter() - asked
                with _memory_advice(epoch, step):
                    report = training_step(
                        self.network,
                        loss,
                        self.optimizer,
                        batch.images,
                        batch.labels,
                        recipe.train.precision,
                        backward=self.engine.backward,
                        joined=joined,
                    )
                if self.average is not None:
                    self.average.update_parameters(self.model)
                for read in readout.put(step, report, batch):
                    tally.add(read)
                bar.update(len(batch.labels) * processes)
                left = (recipe.train.epochs - epoch) * steps - step - 1
                minutes = (time.perf_counter() - began) / (step + 1) * left / 60
                bar.set_postfix(loss=tally.shown, left=f"{minutes:.0f} min in all")
            for read in readout.rest():
                tally.add(read)
        seconds = time.perf_counter() - began
        speed = {"seconds": seconds, "images_per_second": images / seconds}
        return self.mean_over_processes(tally.means()) | speed | {
            "waiting": tally.waiting / seconds
        }, images

    def mean_over_processes(self, values: dict[str, float]) -> dict[str, float]:
        """The means of the values that each process has."""
        numbers = torch.tensor(list(values.values()), dtype=torch.float64)
        if self.engine.device.type == "mps":  # it has no float64, and only one process
            return values
        mean = self.engine.mean(numbers.to(self.engine.device)).tolist()
        return dict(zip(values, mean, strict=True))

    def validate(self, epoch: int) -> dict[str, float]:
        """mAP and rank-1 on the held-out training identities."""
        settings = self.info.recipe.eval
        report = evaluate_together(self.engine, self.judged, self.query, self.gallery, settings)
        values = {"val_mAP": report.mAP, "val_rank1": report.to_dict()["rank1"]}
        self.say(f"epoch {epoch + 1}: held-out mAP {report.mAP:.1%}, R1 {values['val_rank1']:.1%}")
        return values


class _Tally:
    """Sums of an epoch's loss values, and the check that each of them is finite."""

    def __init__(self, run: _Run, epoch: int, steps: int) -> None:
        self.run, self.epoch, self.steps = run, epoch, steps
        self.sums: dict[str, float] = defaultdict(float)
        self.waiting = 0.0
        self.shown = "…"

    def add(self, read: StepValues) -> None:
        """Take a step's values. Raises: TrainingError with the step and its images if the loss is not finite."""
        if not np.isfinite(read.values["loss"]):
            raise TrainingError(_explain_nonfinite(read, self.epoch, self.run.images.samples))
        for key, value in read.values.items():
            self.sums[key] += value
        self.shown = f"{read.values['loss']:.3f}"

    def means(self) -> dict[str, float]:
        """Mean of each term over the epoch's steps."""
        return {key: value / self.steps for key, value in self.sums.items()}


@contextmanager
def _memory_advice(epoch: int, step: int) -> Iterator[None]:
    """Say what to lower where a device's memory is too small. Raises: TrainingError."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise TrainingError(
            f"the device's memory is too small for a step (epoch {epoch + 1}, step {step + 1}). The last checkpoint is "
            "intact. Lower --data.identities-per-batch, or try --train.precision bfloat16, --data.no-pixels-on-device, "
            f"a smaller --model.embedding-dim or --model.width-multiplier. {error}"
        ) from error


def _nothing(_: str) -> None:
    """What the other processes say."""


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


def _explain_nonfinite(read: StepValues, epoch: int, samples: Sequence[Sample]) -> str:
    terms = ", ".join(f"{name} {value:.4g}" for name, value in read.values.items())
    names = ", ".join(samples[index].path.name for index in read.indices.tolist())
    return (
        f"the loss is not finite at epoch {epoch + 1}, step {read.step + 1} ({terms}). The last checkpoint is "
        "intact. Try a lower --optim.learning-rate, --optim.warmup-epochs 5, or --train.precision float32; "
        f"look at the images of this batch: {names}"
    )
