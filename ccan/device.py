"""Where numbers are computed, and at which precision."""

from __future__ import annotations

import torch

from ccan.errors import ConfigError


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
