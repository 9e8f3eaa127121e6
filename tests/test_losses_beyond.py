"""The losses that the paper does not have: soft margin, circle, attention diversity. Hand, loop twin, gradients."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ccan.config import LossConfig, ModelConfig
from ccan.errors import ConfigError, ShapeError
from ccan.losses import (
    AttentionDiversityLoss,
    CCANLoss,
    CircleLoss,
    SoftMarginTripletLoss,
    TripletReport,
)
from ccan.model import CCANOutput, build_ccan
from tests.reference import losses as twin

SOFT: dict[str, Callable[[], nn.Module]] = {
    "soft margin": lambda: SoftMarginTripletLoss(normalize=False),
    "soft margin, normalised": SoftMarginTripletLoss,
    "circle": lambda: CircleLoss(0.25, 8.0),
}


def line(*points: float) -> Tensor:
    return torch.tensor(points, dtype=torch.float64)[:, None]


def directions(*degrees: float) -> Tensor:
    """Embeddings of several lengths in the plane, by their angle."""
    angle = torch.deg2rad(torch.tensor(degrees, dtype=torch.float64))
    lengths = torch.arange(1, len(degrees) + 1, dtype=torch.float64)
    return torch.stack([angle.cos(), angle.sin()], dim=1) * lengths[:, None]


def report_of(module: nn.Module, embeddings: Tensor, identities: list[int]) -> TripletReport:
    return module(embeddings, torch.tensor(identities))


def random_batch(rng: np.random.Generator) -> tuple[Tensor, list[int]]:
    """Up to 5 people with 1 to 4 images, so that some have no positive, shuffled."""
    identities: list[int] = []
    for person in range(rng.integers(1, 6)):
        identities += [person * 7] * int(rng.integers(1, 5))
    identities = rng.permutation(identities).tolist()
    centres = rng.normal(0, 1, (36, 3))
    return torch.from_numpy(
        np.stack([centres[i] + rng.normal(0, 0.7, 3) for i in identities])
    ), identities


# --- by hand ---------------------------------------------------------------------------------------------------------


def test_soft_margin_worked_by_hand() -> None:
    """Identity 0 at 0, 1 and 4, identity 1 at 6 and 7, identity 2 at 20 on a line.

    0: farthest positive 4, nearest negative 6: −2        6: 1 and 2: −1
    1: 3 and 5: −2                                        7: 1 and 3: −2
    4: 4 and 2: +2                                        20: no positive
    """
    report = report_of(
        SoftMarginTripletLoss(normalize=False), line(0, 1, 4, 6, 7, 20), [0, 0, 0, 1, 1, 2]
    )
    excess = [-2, -2, 2, -1, -2]
    expected = sum(math.log(1 + math.exp(x)) for x in excess) / 5
    assert report.loss.item() == pytest.approx(expected, abs=1e-14)
    assert (int(report.mined), int(report.active)) == (5, 1)


def test_circle_worked_by_hand() -> None:
    """Directions 0° and 60° for identity 0, 90° for identity 1; m = ¼, γ = 4; cosines ½, 0 and √3/2.

    0°: pull −4·(5/4 − ½)(½ − ¾) = ¾; push 4·(0 + ¼)(0 − ¼) = −¼: log(1 + e^½)
    60°: pull ¾; push 4(s + ¼)(s − ¼) = 4(¾ − 1/16) = 11/4: log(1 + e^(7/2))
    """
    report = report_of(CircleLoss(0.25, 4.0), directions(0, 60, 90), [0, 0, 1])
    expected = (math.log(1 + math.exp(1 / 2)) + math.log(1 + math.exp(7 / 2))) / 2
    assert report.loss.item() == pytest.approx(expected, abs=1e-14)
    assert (int(report.mined), int(report.active)) == (2, 2)


def test_circle_is_at_rest_where_all_pairs_are_as_they_should_be() -> None:
    """s_p = 1 and s_n = −1 lie inside the circle; the far negatives weigh nothing."""
    report = report_of(CircleLoss(0.25, 128.0), directions(10, 10, 190, 190), [0, 0, 1, 1])
    pull, push = -128 * 0.25 * 0.25, math.log(2)  # α_n = 0 for both negatives
    assert report.loss.item() == pytest.approx(math.log1p(math.exp(pull + push)), rel=1e-9)
    assert (int(report.mined), int(report.active)) == (4, 0)


def test_diversity_worked_by_hand() -> None:
    """Three positions. Rows (1,0,0), (0,2,0), (3,4,0): cosines 0, 3/5, 4/5, mean 7/15, whatever the rows' lengths."""
    mixed = torch.tensor([[1.0, 0, 0], [0, 2, 0], [3, 4, 0]], dtype=torch.float64)
    same = torch.tensor([[1.0, 2, 3], [2, 4, 6], [0, 0, 0]], dtype=torch.float64)  # one row is dead
    apart = torch.eye(3, dtype=torch.float64) * 5
    dead = torch.zeros(3, 3, dtype=torch.float64)
    alone = torch.tensor([[0.0, 0, 0], [0, 2, 0], [0, 0, 0]], dtype=torch.float64)
    loss = AttentionDiversityLoss()

    def of(*maps: Tensor) -> float:
        return loss(torch.stack(maps)[None]).item()

    assert of(mixed) == pytest.approx(7 / 15, abs=1e-15)
    assert of(same) == pytest.approx(1, abs=1e-15)
    assert of(apart) == pytest.approx(0, abs=1e-15)
    assert of(mixed, same, apart) == pytest.approx((7 / 15 + 1 + 0) / 3, abs=1e-15)
    # nothing is won by dying: maps without two live rows are left out
    assert of(mixed, dead, alone) == pytest.approx(7 / 15, abs=1e-15)
    assert of(dead) == of(alone) == 0
    assert loss(torch.zeros(2, 0, 0, 0)).item() == 0


# --- the twins -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("normalize", [True, False])
def test_soft_margin_equals_the_twin(normalize: bool) -> None:
    rng, partly = np.random.default_rng(3), 0
    for _ in range(100):
        embeddings, identities = random_batch(rng)
        loss, mined, active = twin.soft_margin_loss(embeddings.tolist(), identities, normalize)
        report = report_of(SoftMarginTripletLoss(normalize), embeddings, identities)
        assert report.loss.item() == pytest.approx(loss, abs=1e-12)
        assert (int(report.mined), int(report.active)) == (mined, active)
        partly += 0 < active < mined < len(identities)
    assert partly > 10


def test_circle_equals_the_twin() -> None:
    rng, partly = np.random.default_rng(4), 0
    for _ in range(100):
        embeddings, identities = random_batch(rng)
        margin, scale = float(rng.uniform(0.1, 0.9)), float(rng.uniform(1, 200))
        loss, mined, active = twin.circle_loss(embeddings.tolist(), identities, margin, scale)
        report = report_of(CircleLoss(margin, scale), embeddings, identities)
        assert report.loss.item() == pytest.approx(loss, rel=1e-9, abs=1e-12)
        assert (int(report.mined), int(report.active)) == (mined, active)
        partly += 0 < active < mined
    assert partly > 5


def test_diversity_equals_the_twin() -> None:
    rng = np.random.default_rng(5)
    for _ in range(20):
        maps = np.maximum(rng.normal(0, 1, (2, 3, 5, 5)), 0) * rng.integers(0, 2, (2, 3, 5, 1))
        found = AttentionDiversityLoss()(torch.from_numpy(maps)).item()
        assert found == pytest.approx(twin.attention_diversity(maps.tolist()), abs=1e-12)


# --- gradients -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["soft margin", "soft margin, normalised"])
def test_soft_margin_s_gradient_is_that_of_its_formula(name: str) -> None:
    rng, checked = np.random.default_rng(9), 0
    while checked < 3:
        embeddings, identities = random_batch(rng)
        if int(report_of(SOFT[name](), embeddings, identities).mined) < 3:
            continue
        labels = torch.tensor(identities)
        assert torch.autograd.gradcheck(
            lambda e, labels=labels: SOFT[name]()(e, labels).loss, embeddings.requires_grad_()
        )
        checked += 1


def test_circle_s_gradient_takes_its_weights_as_given() -> None:
    """Differences of the twin with α held still; with α moving along, they are others."""
    embeddings, identities = random_batch(np.random.default_rng(2))
    assert len(set(identities)) > 1
    module, step = CircleLoss(0.25, 8.0), 1e-6
    leaf = embeddings.clone().requires_grad_()
    report_of(module, leaf, identities).loss.backward()
    assert leaf.grad is not None and leaf.grad.abs().max() > 1e-3

    def slope(row: int, column: int, held: bool) -> float:
        values = []
        for sign in (1, -1):
            moved = embeddings.clone()
            moved[row, column] += sign * step
            at = embeddings.tolist() if held else None
            values.append(twin.circle_loss(moved.tolist(), identities, 0.25, 8.0, at)[0])
        return (values[0] - values[1]) / (2 * step)

    places = [(row, column) for row in range(len(identities)) for column in range(3)]
    held = torch.tensor([slope(*place, True) for place in places], dtype=torch.float64)
    moving = torch.tensor([slope(*place, False) for place in places], dtype=torch.float64)
    torch.testing.assert_close(leaf.grad.flatten(), held, rtol=0, atol=1e-7)
    assert (moving - held).abs().max() > 1e-2


def test_diversity_s_gradient_is_that_of_its_formula() -> None:
    generator = torch.Generator().manual_seed(1)
    maps = torch.rand(2, 3, 5, 5, generator=generator, dtype=torch.float64) + 0.1
    assert torch.autograd.gradcheck(AttentionDiversityLoss(), maps.requires_grad_())


@pytest.mark.parametrize("name", SOFT)
@pytest.mark.parametrize(
    ("points", "identities"),
    [([0, 40, 80], [0, 0, 0]), ([0, 40, 80], [0, 1, 2]), ([30], [0])],
    ids=["one identity", "no positives", "one image"],
)
def test_without_an_anchor_it_is_a_zero_that_back_propagates(
    name: str, points: list[float], identities: list[int]
) -> None:
    embeddings = directions(*points).requires_grad_()
    report = report_of(SOFT[name](), embeddings, identities)
    assert (report.loss.item(), int(report.mined), int(report.active)) == (0.0, 0, 0)
    report.loss.backward()
    assert embeddings.grad is not None and not embeddings.grad.any()


@pytest.mark.parametrize("name", SOFT)
def test_zero_vectors_and_copies_do_not_give_nan(name: str) -> None:
    for embeddings in (torch.zeros(4, 3), torch.ones(4, 3), directions(0, 0, 90, 90).float()):
        leaf = embeddings.clone().requires_grad_()
        report = report_of(SOFT[name](), leaf, [0, 0, 1, 1])
        report.loss.backward()
        assert torch.isfinite(report.loss)
        assert leaf.grad is not None and torch.isfinite(leaf.grad).all()


@pytest.mark.parametrize("name", SOFT)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_and_autocast_are_computed_in_single(name: str, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(5)
    embeddings = (torch.randn(8, 32, generator=generator) * 30).to(dtype)
    identities = [0, 0, 1, 1, 2, 2, 3, 3]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = report_of(SOFT[name](), embeddings, identities)
    exact = report_of(SOFT[name](), embeddings.double(), identities)
    assert found.loss.dtype == torch.float32
    assert found.loss.item() == pytest.approx(exact.loss.item(), rel=1e-4)


def test_rotating_and_shuffling_change_nothing() -> None:
    embeddings, identities = random_batch(np.random.default_rng(13))
    generator = torch.Generator().manual_seed(3)
    turn, _ = torch.linalg.qr(torch.randn(3, 3, generator=generator, dtype=torch.float64))
    order = torch.randperm(len(identities), generator=generator)
    for make in SOFT.values():
        before = report_of(make(), embeddings, identities).loss
        assert before > 0
        torch.testing.assert_close(report_of(make(), embeddings @ turn, identities).loss, before)
        shuffled = report_of(make(), embeddings[order], [identities[i] for i in order.tolist()])
        torch.testing.assert_close(shuffled.loss, before)


# --- the settings and the sum ----------------------------------------------------------------------------------------


def test_settings_choose_the_loss() -> None:
    soft = CCANLoss(LossConfig(triplet="soft_margin", normalize=False)).triplet
    assert isinstance(soft, SoftMarginTripletLoss) and not soft.normalize
    circle = CCANLoss(LossConfig(triplet="circle", circle_margin=0.4, circle_scale=64.0)).triplet
    assert isinstance(circle, CircleLoss) and (circle.margin, circle.scale) == (0.4, 64.0)


SMALL = dict(embedding_dim=11, image_height=96, image_width=64, width_multiplier=0.125, parts=3)


def test_the_network_s_own_attention_reaches_the_loss_and_learns_from_it() -> None:
    """Through the real forward: the maps are the taps' maps, and f, g and W_α of every stream get a gradient."""
    torch.manual_seed(0)
    model = build_ccan(ModelConfig(**SMALL), 5).train()  # type: ignore[arg-type]
    heard: list[Tensor] = []

    def listen(_module: nn.Module, _inputs: tuple[Tensor, ...], attention: Tensor) -> None:
        heard.append(attention)

    for stream in model.streams:
        assert stream.cc2 is not None
        stream.cc2.taps.attention.register_forward_hook(listen)
    labels = torch.tensor([0, 0, 1, 1])
    images = torch.randn(4, 3, 96, 64)
    assert model(images).part_attention is None
    heard.clear()
    model.gives_part_attention = True
    output = model(images)
    assert output.part_attention is not None and output.part_attention.shape == (4, 3, 24, 24)
    assert torch.equal(output.part_attention, torch.stack(heard, dim=1))

    report = CCANLoss(LossConfig(attention_diversity=0.5))(output, labels)
    plain = CCANLoss()(output, labels)
    assert report.attention_diversity is not None and 0 < report.attention_diversity < 1
    total = plain.loss + 0.5 * report.attention_diversity
    torch.testing.assert_close(report.loss, total)
    assert report.values()["attention_diversity"] == pytest.approx(
        report.attention_diversity.item()
    )
    assert plain.attention_diversity is None and "attention_diversity" not in plain.values()
    report.attention_diversity.backward()
    for stream in model.streams:
        assert stream.cc2 is not None
        for name in ("f", "g", "alpha"):
            weight = getattr(stream.cc2, name).weight
            assert weight.grad is not None and weight.grad.abs().max() > 0, name


def test_a_network_without_cc2_has_a_diversity_of_zero() -> None:
    config = ModelConfig(**(SMALL | dict(cca=False)))  # type: ignore[arg-type]
    model = build_ccan(config, 5)
    model.gives_part_attention = True
    output = model(torch.randn(4, 3, 96, 64))
    report = CCANLoss(LossConfig(attention_diversity=0.5))(output, torch.tensor([0, 0, 1, 1]))
    assert report.attention_diversity is not None and report.attention_diversity.item() == 0
    report.loss.backward()


def test_errors() -> None:
    for make in SOFT.values():
        with pytest.raises(ShapeError, match=r"identities \(B,\), got \(3, 2\) and \(4,\)"):
            report_of(make(), torch.zeros(3, 2), [0, 0, 1, 1])
    for arguments in ({"margin": 1.0}, {"margin": float("nan")}, {"scale": 0.0}):
        with pytest.raises(ConfigError, match=r"margin must lie in \(0, 1\) and scale be > 0"):
            CircleLoss(**arguments)
    with pytest.raises(ShapeError, match=r"maps \(B, kp, MN, MN\), got \(2, 3, 5, 7\)"):
        AttentionDiversityLoss()(torch.zeros(2, 3, 5, 7))
    output = CCANOutput(torch.randn(4, 3), None, torch.randn(4, 2), None, torch.zeros(4, 3))
    with pytest.raises(ShapeError, match="part_attention in the network's output, got None; set"):
        CCANLoss(LossConfig(attention_diversity=0.1))(output, torch.tensor([0, 0, 1, 1]))
