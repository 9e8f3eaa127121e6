"""A moving average of the weights, which often ranks better than the weights themselves.

Polyak and Juditsky 1992; exponential: Tarvainen and Valpola 2017 (“mean teachers”). By torch's own `AveragedModel`.
"""

from __future__ import annotations

from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ccan.model.network import CCAN


def average_of(model: CCAN, decay: float) -> AveragedModel | None:
    """The average at its start, a copy of the model; None where ``decay`` is 0, that is, off.

    After every step `update_parameters(model)` moves it: average ← decay·average + (1 − decay)·weights, the statistics
    of batch normalisation included. The first step copies the weights.
    """
    if decay == 0:
        return None
    return AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)


def averaged_model(model: CCAN, average: AveragedModel | None) -> CCAN:
    """The model that is judged and kept: the average where there is one."""
    if average is None:
        return model
    assert isinstance(average.module, CCAN)
    return average.module
