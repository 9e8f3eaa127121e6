"""The device is the best that is there, or the one that was asked for; bfloat16 is CUDA's default alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ccan.device import autocast, choose_device
from ccan.errors import ConfigError


def machine(patch: pytest.MonkeyPatch, cuda: int, mps: bool) -> None:
    """As if this machine had so many GPUs."""
    patch.setattr(torch.cuda, "is_available", lambda: cuda > 0)
    patch.setattr(torch.cuda, "device_count", lambda: cuda)
    patch.setattr(torch.backends.mps, "is_available", lambda: mps)


@pytest.mark.parametrize(
    ("cuda", "mps", "best"), [(2, True, "cuda"), (0, True, "mps"), (0, False, "cpu")]
)
def test_auto_takes_the_best_that_is_there(
    monkeypatch: pytest.MonkeyPatch, cuda: int, mps: bool, best: str
) -> None:
    machine(monkeypatch, cuda, mps)
    assert choose_device("auto") == torch.device(best)
    assert choose_device("cpu") == torch.device("cpu")


def test_a_named_device_must_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, cuda=2, mps=False)
    assert choose_device("cuda:1") == torch.device("cuda:1")
    assert choose_device("cuda") == torch.device("cuda")
    for absent in ("cuda:2", "mps", "nonsense"):
        with pytest.raises(
            ConfigError, match=f"auto or one of cpu, cuda:0, cuda:1, got '{absent}'"
        ):
            choose_device(absent)


@pytest.mark.parametrize(
    ("device", "precision", "bfloat16"),
    [
        ("cuda", "auto", True),
        ("cuda", "float32", False),
        ("mps", "auto", False),
        ("cpu", "auto", False),
        ("cpu", "bfloat16", True),
    ],
)
def test_bfloat16_is_the_default_on_cuda_alone(
    monkeypatch: pytest.MonkeyPatch, device: str, precision: str, bfloat16: bool
) -> None:
    asked: dict[str, Any] = {}

    def record(kind: str, **settings: Any) -> None:
        asked.update(settings, kind=kind)

    monkeypatch.setattr(torch, "autocast", record)
    autocast(torch.device(device), precision)
    assert asked == {"kind": device, "dtype": torch.bfloat16, "enabled": bfloat16}


def test_bfloat16_holds_within() -> None:
    with autocast(torch.device("cpu"), "bfloat16"):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16
