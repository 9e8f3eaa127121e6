"""One step, the optimiser and the learning rate, against hand-worked values."""

import pytest
import torch

from ccan.config import LossConfig, ModelConfig, OptimConfig
from ccan.data.loading import TrainingBatch
from ccan.losses import CCANLoss
from ccan.model import build_ccan
from ccan.training.readout import Readout
from ccan.training.step import (
    build_optimizer,
    learning_rate_at,
    training_step,
)

SMALL = ModelConfig(
    embedding_dim=8, image_height=32, image_width=32, parts=2, width_multiplier=0.05
)


def test_the_optimizer_is_plain_adam_with_coupled_decay() -> None:
    """Decision D11, by hand: one step on one weight, gradient 2 and weight 3 with decay 0.1 → gradient 2.3."""
    model = build_ccan(SMALL, 2)
    optimizer = build_optimizer(model, OptimConfig(learning_rate=0.5, weight_decay=0.1))
    weight = next(model.parameters())
    with torch.no_grad():
        weight.fill_(3.0)
    weight.grad = torch.full_like(weight, 2.0)
    optimizer.step()
    state = optimizer.state[weight]
    assert state["exp_avg"].flatten()[0].item() == pytest.approx(0.1 * 2.3)
    assert state["exp_avg_sq"].flatten()[0].item() == pytest.approx(0.01 * 2.3**2)
    assert weight.flatten()[0].item() == pytest.approx(2.5)  # the first step moves by the rate


@pytest.mark.parametrize(
    ("epoch", "expected"),
    [(0, 5e-4), (149, 5e-4), (150, 5e-5), (199, 5e-5), (200, 5e-6), (249, 5e-6), (250, 5e-7)],
)
def test_the_papers_schedule(epoch: int, expected: float) -> None:
    """Section 4.1 and Decision D10."""
    assert learning_rate_at(OptimConfig(), epoch, 300) == pytest.approx(expected)


def test_warm_up_and_cosine() -> None:
    config = OptimConfig(learning_rate=1.0, schedule="cosine", warmup_epochs=4)
    assert learning_rate_at(config, 0, 12) == pytest.approx(0.1)
    assert learning_rate_at(config, 2, 12) == pytest.approx(0.55 * 0.5 * (1 + 3**0.5 / 2))
    assert learning_rate_at(config, 6, 12) == pytest.approx(0.5)
    assert learning_rate_at(config, 12, 12) == pytest.approx(0.0, abs=1e-12)


def test_a_step_lowers_the_loss_on_its_own_batch() -> None:
    torch.manual_seed(3)
    model, loss = build_ccan(SMALL, 4).train(), CCANLoss(LossConfig())
    optimizer = build_optimizer(model, OptimConfig(learning_rate=1e-2))
    images, labels = torch.randn(8, 3, 32, 32), torch.arange(4).repeat_interleave(2)
    values = [
        training_step(model, loss, optimizer, images, labels).values()["loss"] for _ in range(12)
    ]
    assert values[-1] < values[0] / 2


def test_a_loss_that_is_not_finite_changes_no_weight() -> None:
    model = build_ccan(SMALL, 2).train()
    optimizer = build_optimizer(model, OptimConfig())
    before = {name: value.clone() for name, value in model.named_parameters()}
    images = torch.full((4, 3, 32, 32), torch.nan)
    report = training_step(model, CCANLoss(), optimizer, images, torch.tensor([0, 0, 1, 1]))
    assert not torch.isfinite(report.loss)
    for name, value in model.named_parameters():
        assert torch.equal(value, before[name]), name


def test_the_network_learns_eight_people_by_heart() -> None:
    """Overfitting eight identities of random pixels ends with rank-1 of 100 % on the same images."""
    from ccan.evaluation import FeatureSet, evaluate_features

    torch.manual_seed(0)
    model, loss = build_ccan(SMALL, 8).train(), CCANLoss()
    optimizer = build_optimizer(model, OptimConfig(learning_rate=1e-2))
    people = torch.randn(8, 3, 32, 32).repeat_interleave(4, dim=0)
    labels = torch.arange(8).repeat_interleave(4)
    images = people + 0.3 * torch.randn_like(people)
    for _ in range(60):
        training_step(model, loss, optimizer, images, labels)
    with torch.inference_mode():
        found = model.eval()(people + 0.3 * torch.randn_like(people)).descriptor
    cameras = torch.arange(4).repeat(8)
    query, gallery = cameras == 0, cameras > 0
    report = evaluate_features(
        FeatureSet(found[query], labels[query], cameras[query]),
        FeatureSet(found[gallery], labels[gallery], cameras[gallery]),
        max_rank=5,
    )
    assert report.rank(1) == 1.0 and report.mAP > 0.9


def test_the_fused_optimizer_leaves_weights_alone_without_asking_the_loss() -> None:
    """On CUDA nothing waits for the loss: the kernel itself is told. The processor has the same kernel."""
    torch.manual_seed(1)
    model = build_ccan(SMALL, 2).train()
    fused = torch.optim.Adam(model.parameters(), lr=0.1, fused=True)
    labels = torch.tensor([0, 0, 1, 1])
    before = [value.clone() for value in model.parameters()]
    training_step(model, CCANLoss(), fused, torch.full((4, 3, 32, 32), torch.nan), labels)
    assert all(map(torch.equal, model.parameters(), before))
    model = build_ccan(SMALL, 2).train()  # its statistics have seen NaN
    fused = torch.optim.Adam(model.parameters(), lr=0.1, fused=True)
    before = [value.clone() for value in model.parameters()]
    training_step(model, CCANLoss(), fused, torch.randn(4, 3, 32, 32), labels)
    assert not all(map(torch.equal, model.parameters(), before))


def test_values_come_back_in_order_after_the_lag() -> None:
    torch.manual_seed(1)
    model = build_ccan(SMALL, 2).eval()
    loss = CCANLoss()
    readout = Readout(torch.device("cpu"))
    readout.lag = 2  # as on a CUDA device, only shorter
    labels = torch.tensor([0, 0, 1, 1])
    reports, read = [], []
    for step in range(5):
        images = torch.randn(4, 3, 32, 32)
        reports.append(loss(model(images), labels))
        batch = TrainingBatch(images, labels, torch.full((4,), step))
        due = list(readout.put(step, reports[-1], batch))
        assert len(due) == (step >= 2)
        read += due
    read += list(readout.rest())
    assert [one.step for one in read] == [0, 1, 2, 3, 4]
    for one, report in zip(read, reports, strict=True):
        assert one.values == pytest.approx(report.values(), rel=1e-6)
        assert one.indices.tolist() == [one.step] * 4
