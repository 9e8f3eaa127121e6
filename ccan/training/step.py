"""One training step: the unit that everything about training is built from, and tested by."""

from __future__ import annotations

import torch
from torch import Tensor

from ccan.config import OptimConfig
from ccan.device import autocast
from ccan.losses import CCANLoss, LossReport
from ccan.model.network import CCAN


def learning_rate_at(config: OptimConfig, epoch: int, epochs: int) -> float:
    """The learning rate of an epoch, counted from 0 (section 4.1, Decision D10).

    A function of the epoch alone, so that a resumed run cannot get another one.
    """
    rate = config.learning_rate
    if config.schedule == "cosine":
        progress = epoch / epochs
        rate *= 0.5 * (1 + float(torch.cos(torch.tensor(progress * torch.pi, dtype=torch.float64))))
    elif epoch >= config.decay_start:
        rate *= config.decay_factor ** (1 + (epoch - config.decay_start) // config.decay_every)
    if epoch < config.warmup_epochs:
        rate *= 0.1 + 0.9 * epoch / config.warmup_epochs
    return rate


def build_optimizer(model: CCAN, config: OptimConfig) -> torch.optim.Adam:
    """Plain Adam with coupled weight decay (section 4.1, Decision D11)."""
    return torch.optim.Adam(
        model.parameters(),
        lr=config.learning_rate,
        betas=config.betas,
        weight_decay=config.weight_decay,
    )


def training_step(
    model: CCAN,
    loss: CCANLoss,
    optimizer: torch.optim.Optimizer,
    images: Tensor,
    labels: Tensor,
    precision: str = "auto",
) -> LossReport:
    """Forward, loss, backward, update on one batch: images (B, 3, H, W), labels (B,).

    A loss that is not finite changes no weight: the caller sees it in the report and decides.
    """
    with autocast(images.device, precision):
        output = model(images)
    report = loss(output, labels)
    if torch.isfinite(report.loss):
        optimizer.zero_grad(set_to_none=True)
        report.loss.backward()
        optimizer.step()
    return report
