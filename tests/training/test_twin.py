"""The fast training is the plain one: images in batches, channels last, mining without loops, against loops.

The twin augments image by image in NumPy, keeps the standard layout, mines triplets in Python loops and updates by the
plain form of Adam.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from ccan.config import DataConfig, LossConfig, ModelConfig, OptimConfig
from ccan.data.transforms import TrainingAugmentation
from ccan.losses import CCANLoss
from ccan.model import CCAN, CCANOutput, build_ccan
from ccan.training.engine import Engine
from ccan.training.step import build_optimizer, training_step
from tests.reference import augmentation
from tests.reference.losses import mine_semi_hard

MODEL = ModelConfig(
    embedding_dim=11, image_height=64, image_width=32, parts=2, width_multiplier=0.125
)
DATA = DataConfig(erasing_from_epoch=0)
LOSS, OPTIM = LossConfig(), OptimConfig(learning_rate=1e-3)
IDENTITIES, IMAGES = 5, 3


def batches(steps: int, seed: int = 1) -> list[tuple[np.ndarray, Tensor]]:
    """Pixels of IDENTITIES × IMAGES people, smooth and alike within an identity, and labels; others each step."""
    generator = torch.Generator().manual_seed(seed)
    resized = TrainingAugmentation(64, 32, DATA).resized
    labels = torch.arange(IDENTITIES).repeat_interleave(IMAGES)
    people = torch.rand(IDENTITIES, 3, 8, 4, generator=generator)[labels]
    found = []
    for _ in range(steps):
        coarse = people + 0.2 * torch.randn(people.shape, generator=generator)
        smooth = functional.interpolate(coarse.clamp(0, 1), resized, mode="bilinear")
        pixels = (255 * smooth).round().to(torch.uint8).permute(0, 2, 3, 1)
        found.append((pixels.contiguous().numpy(), labels))
    return found


def fresh(dtype: torch.dtype) -> CCAN:
    torch.manual_seed(0)
    model = build_ccan(MODEL, IDENTITIES)
    for branch in (model.global_branch, model.local_branch):
        assert branch is not None
        with torch.no_grad():  # no common offset, so that distances differ by more than rounding
            branch.head.fc1.bias.zero_()
    return model.to(dtype).train()


def draws_of(step: int) -> list[np.random.Generator]:
    return [np.random.default_rng([7, step, image]) for image in range(IDENTITIES * IMAGES)]


def fast(
    steps: int, dtype: torch.dtype, seed: int = 1
) -> tuple[list[float], CCAN, dict[str, Tensor]]:
    """Losses, the trained network and the gradients of the first step, as `ccan train` computes them."""
    model, engine = fresh(dtype).to(memory_format=torch.channels_last), Engine("cpu")
    optimizer, loss = build_optimizer(model, OPTIM), CCANLoss(LOSS)
    augment = TrainingAugmentation(64, 32, DATA)
    losses, gradients = [], dict[str, Tensor]()
    for step, (pixels, labels) in enumerate(batches(steps, seed)):
        draws = [augment.draw(0, generator) for generator in draws_of(step)]
        images = augment.apply(torch.from_numpy(pixels), draws).to(dtype)
        assert images.is_contiguous(memory_format=torch.channels_last)
        report = training_step(
            engine.prepare(model), loss, optimizer, images, labels, backward=engine.backward
        )
        losses.append(float(report.loss.detach()))
        gradients = gradients or gradients_of(model)
    return losses, model, gradients


def plain(
    steps: int, dtype: torch.dtype, seed: int = 1
) -> tuple[list[float], CCAN, dict[str, Tensor]]:
    """The same by the twin."""
    model = fresh(dtype)
    optimizer = torch.optim.Adam(
        model.parameters(), OPTIM.learning_rate, OPTIM.betas,
        weight_decay=OPTIM.weight_decay, foreach=False, fused=False,
    )  # fmt: skip
    losses, gradients = [], dict[str, Tensor]()
    for step, (pixels, labels) in enumerate(batches(steps, seed)):
        images = [
            augmentation.augmented(one, (64, 32), DATA, 0, generator)
            for one, generator in zip(pixels, draws_of(step), strict=True)
        ]
        # The pipeline's numbers are float32; the twin starts from the same.
        output = model(torch.from_numpy(np.stack(images)).float().to(dtype).contiguous())
        loss = plain_loss(output, labels)
        optimizer.zero_grad()
        loss.backward()
        gradients = gradients or gradients_of(model)
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses, model, gradients


def plain_loss(output: CCANOutput, labels: Tensor) -> Tensor:
    """Eq. 4 and 5 with the mining in loops."""
    total = torch.zeros((), dtype=output.descriptor.dtype)
    for embedding, logits in (
        (output.global_embedding, output.global_logits),
        (output.local_embedding, output.local_logits),
    ):
        assert embedding is not None and logits is not None
        wanted = torch.full_like(logits, LOSS.label_smoothing / IDENTITIES)
        wanted[torch.arange(len(labels)), labels] += 1 - LOSS.label_smoothing
        total = total - (wanted * logits.log_softmax(1)).sum(1).mean()
        unit = functional.normalize(embedding, dim=1)
        mined = mine_semi_hard(
            embedding.detach().tolist(), labels.tolist(), LOSS.negatives, LOSS.normalize
        )
        hinges = [
            functional.relu(
                (unit[one.anchor] - unit[one.positive]).square().sum()
                - (unit[one.anchor] - unit[one.negative]).square().sum()
                + LOSS.margin
            )
            for one in mined
        ]
        if hinges:
            total = total + torch.stack(hinges).mean()
    return total


def gradients_of(model: CCAN) -> dict[str, Tensor]:
    return {
        name: value.grad.clone()
        for name, value in model.named_parameters()
        if value.grad is not None
    }


@pytest.fixture
def same_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """The twin gets its images one by one from the package: they are compared elsewhere (tests/data)."""
    augment = TrainingAugmentation(64, 32, DATA)

    def alone(
        pixels: np.ndarray, _size: object, _data: object, epoch: int, generator: np.random.Generator
    ) -> np.ndarray:
        draw = augment.draw(epoch, generator)
        return augment.apply(torch.from_numpy(pixels)[None], [draw])[0].numpy()

    monkeypatch.setattr(augmentation, "augmented", alone)


@pytest.mark.slow
@pytest.mark.usefixtures("same_images")
def test_in_float64_both_train_alike():
    (losses, model, gradients), (expected, twin, wanted) = (
        fast(20, torch.float64),
        plain(20, torch.float64),
    )
    assert losses == pytest.approx(expected, rel=1e-8)
    assert losses[-1] < 0.95 * losses[0]
    for name, value in gradients.items():
        assert torch.allclose(value, wanted[name], rtol=1e-8, atol=1e-10), name
    for name, value in model.state_dict().items():
        assert torch.allclose(value, twin.state_dict()[name], rtol=0, atol=1e-8), name


@pytest.mark.slow
@pytest.mark.usefixtures("same_images")
def test_in_float32_both_begin_alike_and_drift_as_rounding_does():
    """A ReLU or a maximum that stands within rounding of its switch may fall either way, and 20 steps later losses
    differ by some per cent, as they do between float32 and float64 of the twin itself; their mean does not.

    One run's mean wanders by about a per cent with the processor's instructions, too, so it is taken over eight.
    """
    (losses, _, gradients), (expected, _, wanted) = (
        fast(20, torch.float32),
        plain(20, torch.float32),
    )
    assert losses[0] == pytest.approx(expected[0], rel=1e-5)
    assert relative(gradients, wanted) < 1e-3
    runs = [[train(20, torch.float32, seed)[0] for train in (fast, plain)] for seed in range(1, 9)]
    ours, theirs = np.mean(runs, axis=(0, 2))
    assert ours == pytest.approx(theirs, rel=0.01)
    exact, _, _ = plain(20, torch.float64)
    drift = max(abs(np.array(expected) - exact) / exact)
    assert max(abs(np.array(losses) - expected) / np.array(expected)) < 3 * drift


def relative(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> float:
    """‖found − wanted‖ / ‖wanted‖ over all tensors together."""
    apart = sum(float((found[name] - value).square().sum()) for name, value in wanted.items())
    return (apart / sum(float(value.square().sum()) for value in wanted.values())) ** 0.5


@pytest.mark.slow
def test_a_compiled_network_is_trained_and_kept_under_its_own_names(
    monkeypatch: pytest.MonkeyPatch,
):
    """Without a compiler: the graph is captured and differentiated, and run as it is."""
    compiled = torch.compile
    calls: list[object] = []

    def captured(network: object) -> object:
        calls.append(network)
        return compiled(network, backend="aot_eager")  # type: ignore[call-overload]

    monkeypatch.setattr(torch, "compile", captured)
    model = fresh(torch.float32)
    names = list(model.state_dict())
    network = Engine("cpu").prepare(model, compiled=True)
    pixels, labels = batches(1)[0]
    images = TrainingAugmentation(64, 32, replace(DATA, erasing_probability=0.0))
    draws = [images.draw(0, generator) for generator in draws_of(0)]
    report = training_step(
        network, CCANLoss(LOSS), build_optimizer(model, OPTIM),
        images.apply(torch.from_numpy(pixels), draws), labels,
    )  # fmt: skip
    assert calls == [model] and list(model.state_dict()) == names
    assert torch.isfinite(report.loss)
    assert all(value.grad is not None for value in model.parameters())
