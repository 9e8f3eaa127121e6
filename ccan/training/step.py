"""One training step: the unit that everything about training is built from, and tested by."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ccan.config import OptimConfig
from ccan.device import autocast
from ccan.losses import CCANLoss, LossReport
from ccan.model.network import CCAN, CCANOutput


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
    """Plain Adam with coupled weight decay (section 4.1, Decision D11); on CUDA as one kernel (`fused`)."""
    on_cuda = next(model.parameters()).device.type == "cuda"
    return torch.optim.Adam(
        model.parameters(),
        lr=config.learning_rate,
        betas=config.betas,
        weight_decay=config.weight_decay,
        fused=True if on_cuda else None,
    )


def training_step(
    network: Callable[[Tensor], CCANOutput],
    loss: CCANLoss,
    optimizer: torch.optim.Optimizer,
    images: Tensor,
    labels: Tensor,
    precision: str = "auto",
    *,
    backward: Callable[[Tensor], None] = Tensor.backward,
    joined: Callable[[Tensor], Tensor] | None = None,
) -> LossReport:
    """Forward, loss, backward, update on one batch: images (B, 3, H, W), labels (B,).

    A loss that is not finite changes no weight: the caller sees it in the report and decides. Nothing waits for a GPU.

    Args:
        network: the model, or what `Engine.prepare` made of it.
        backward: makes the gradients.
        joined: rows of all processes, to mine triplets among them (`CCANLoss.forward`).
    """
    with autocast(images.device, precision):
        output = network(images)
    report = loss(output, labels, joined)
    optimizer.zero_grad(set_to_none=True)
    backward(report.loss)
    finite = torch.isfinite(report.loss.detach())
    if optimizer.defaults.get("fused"):
        # The fused kernel itself leaves weights alone where this is not zero; GradScaler tells it so too.
        optimizer.found_inf = (~finite).float()  # type: ignore[attr-defined]
        optimizer.step()
    elif finite:
        optimizer.step()
    return report
