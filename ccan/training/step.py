"""One training step: the unit that everything about training is built from, and tested by."""

from __future__ import annotations

import torch
from torch import Tensor

from ccan.config import OptimConfig
from ccan.errors import ConfigError
from ccan.losses import CCANLoss, LossReport
from ccan.model.network import CCAN


def choose_device(name: str = "auto") -> torch.device:
    """`auto` = the first CUDA GPU, else Apple's MPS, else the CPU; a name must be one that is there.

    Raises: ConfigError that lists the devices of this machine.
    """
    if name != "auto":
        return _named_device(name)
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def _named_device(name: str) -> torch.device:
    """A device by name, if this machine has it."""
    present = ["cpu", *(f"cuda:{number}" for number in range(torch.cuda.device_count()))]
    present += ["mps"] if torch.backends.mps.is_available() else []
    if ("cuda:0" if name == "cuda" else name) not in present:
        raise ConfigError(f"device must be auto or one of {', '.join(present)}, got {name!r}")
    return torch.device(name)


def autocast(device: torch.device, precision: str = "auto") -> torch.autocast:
    """bfloat16 autocast where it is asked for; `auto` = on CUDA only."""
    bfloat16 = precision == "bfloat16" or (precision == "auto" and device.type == "cuda")
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=bfloat16)


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
