"""The moving average of the weights: worked by hand, judged and kept in place of the weights, and resumed exactly."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ccan.config import TrainConfig
from ccan.errors import ConfigError
from ccan.model import build_ccan
from ccan.training import fit, load_model
from ccan.training.averaging import average_of, averaged_model
from tests.training.people import tiny_dataset, tiny_recipe


def test_the_average_by_hand():
    """Decay ¾, weights 4 then 8: the first step copies 4; then ¾·4 + ¼·8 = 5. Statistics of batch norm alike."""
    model = build_ccan(tiny_recipe().model, 2)
    average = average_of(model, 0.75)
    assert average is not None
    weight, statistic = "i1.conv1.conv.weight", "i1.conv1.bn.running_mean"
    for value in (4.0, 8.0):
        with torch.no_grad():
            model.get_parameter(weight).fill_(value)
            model.get_buffer(statistic).fill_(10 * value)
        average.update_parameters(model)
    averaged = averaged_model(model, average)
    assert averaged is not model
    assert averaged.get_parameter(weight).unique().item() == pytest.approx(5)
    assert averaged.get_buffer(statistic).unique().item() == pytest.approx(50)
    assert model.get_parameter(weight).unique().item() == 8, "the weights go their own way"


def test_without_decay_there_is_no_average():
    model = build_ccan(tiny_recipe().model, 2)
    assert average_of(model, 0.0) is None
    assert averaged_model(model, None) is model
    with pytest.raises(ConfigError, match="ema_decay must lie in"):
        TrainConfig(ema_decay=1.0)


def test_the_average_is_what_a_run_is_judged_and_kept_by(tmp_path: Path):
    dataset = tiny_dataset(tmp_path)
    for name, decay in (("plain", 0.0), ("average", 0.8)):
        fit(
            tiny_recipe(ema_decay=decay), dataset, tmp_path / name,
            progress=False, say=lambda _: None,
        )  # fmt: skip
    name = "i1.conv1.conv.weight"
    plain, averaged = (
        load_file(tmp_path / run / "last.safetensors") for run in ("plain", "average")
    )
    assert torch.equal(plain[f"model.{name}"], averaged[f"model.{name}"]), "training is the same"
    kept = averaged[f"average.module.{name}"]
    assert not torch.equal(kept, averaged[f"model.{name}"])
    final = load_file(tmp_path / "average" / "model.safetensors")
    assert torch.equal(final[f"model.{name}"], kept.half())
    assert not any(key.startswith("average.") for key in final)
    loaded, _ = load_model(tmp_path / "average" / "last.safetensors")
    assert torch.equal(loaded.get_parameter(name), kept)
