"""The loss of Eq. 4–5: values worked by hand, the loop twin, gradients, and mistakes planted on purpose."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from ccan.config import LossConfig, ModelConfig
from ccan.errors import ConfigError, ShapeError
from ccan.losses import (
    CCANLoss,
    IdentityLoss,
    SemiHardTripletLoss,
    TripletReport,
    pairwise_squared_euclidean,
)
from ccan.model import CCANOutput, build_ccan
from tests.reference import losses as twin


def line(*points: float) -> Tensor:
    """Embeddings on a line, so that distances can be read off."""
    return torch.tensor(points, dtype=torch.float64)[:, None]


def report_of(
    embeddings: Tensor, identities: list[int], module: SemiHardTripletLoss | None = None
) -> TripletReport:
    module = SemiHardTripletLoss(normalize=False) if module is None else module
    return module(embeddings, torch.tensor(identities))


# --- label smoothing -------------------------------------------------------------------------------------------------


def test_label_smoothing_worked_by_hand() -> None:
    """Softmax (1/2, 1/4, 1/4), label 0, ε = 1/10, K = 3: targets (28/30, 1/30, 1/30).

    −(28/30) log ½ − (2/30) log ¼ = (28/30 + 4/30) log 2 = (16/15) log 2; with ε = 0 it is log 2.
    """
    logits = torch.tensor([[2.0, 1.0, 1.0]], dtype=torch.float64) * math.log(2)
    label = torch.tensor([0])
    assert IdentityLoss(0.1)(logits, label).item() == pytest.approx(
        16 / 15 * math.log(2), abs=1e-14
    )
    assert IdentityLoss(0.0)(logits, label).item() == pytest.approx(math.log(2), abs=1e-14)
    # label 1 instead: −(28/30) log ¼ − (1/30)(log ½ + log ¼) = (56/30 + 3/30) log 2 = (59/30) log 2; the mean of both:
    both = IdentityLoss(0.1)(logits.repeat(2, 1), torch.tensor([0, 1])).item()
    assert both == pytest.approx((32 / 30 + 59 / 30) / 2 * math.log(2), abs=1e-14)


def test_equal_logits_cost_log_k_whatever_the_smoothing() -> None:
    for epsilon in (0.0, 0.1, 0.9):
        loss = IdentityLoss(epsilon)(torch.full((4, 751), 3.0), torch.tensor([0, 5, 9, 750]))
        assert loss.item() == pytest.approx(math.log(751), rel=1e-6)


def test_smoothing_equals_the_twin() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        batch, classes, epsilon = rng.integers(1, 7), rng.integers(2, 9), rng.uniform(0, 0.9)
        logits = rng.normal(0, 3, (batch, classes))
        labels = rng.integers(0, classes, batch)
        expected = twin.smoothed_cross_entropy(logits.tolist(), labels.tolist(), epsilon)
        found = IdentityLoss(epsilon)(torch.from_numpy(logits), torch.from_numpy(labels)).item()
        assert found == pytest.approx(expected, abs=1e-12)


# --- triplets worked by hand -----------------------------------------------------------------------------------------


def test_raw_triplets_worked_by_hand() -> None:
    """Identity 0 at 0 and 1, identity 1 at ½ and 3 on a line, τ = 1, r = 10, raw.

    anchor 0 (p = 1, D_p = 1): negatives ½ (¼ ≤ 1, not mined), 3 (9 > 1): hinge 1 − 9 + 1 < 0
    anchor 1 (p = 0, D_p = 1): negatives ½ (¼, not mined), 3 (4 > 1): hinge 1 − 4 + 1 < 0
    anchor ½ (p = 3, D_p = 25/4): negatives 0 (¼) and 1 (¼): none farther
    anchor 3 (p = ½, D_p = 25/4): negatives 0 (9): hinge 25/4 − 9 + 1 < 0; 1 (4): not mined
    So 3 mined, 0 active, loss 0. With τ = 4: hinges 0, 1, 5/4 → loss 9/4 / 3 = 3/4.
    """
    points, identities = line(0.0, 1.0, 0.5, 3.0), [0, 0, 1, 1]
    report = report_of(points, identities)
    assert (report.loss.item(), int(report.mined), int(report.active)) == (0.0, 3, 0)
    report = report_of(points, identities, SemiHardTripletLoss(4.0, normalize=False))
    assert report.loss.item() == pytest.approx(3 / 4, abs=1e-15)
    assert (int(report.mined), int(report.active)) == (3, 2)


def test_normalised_triplets_worked_by_hand() -> None:
    """Directions (1, 0), (4/5, 3/5) for identity 0 and (0, 1) for identity 1, of any length; D = 2 − 2 cos.

    anchor a: D_p = 2 − 8/5 = 2/5, D_n = 2:             hinge 2/5 − 2 + 1 < 0
    anchor b: D_p = 2/5,           D_n = 2 − 6/5 = 4/5: hinge 2/5 − 4/5 + 1 = 3/5
    Mean over both mined triplets: 3/10. Raw, with lengths 1, 5, 2, it is another value:
    a: D_p = 9 + 9 = 18, D_n = 1 + 4 = 5, not mined; b: D_p = 18, D_n = 16 + 1 = 17, not mined; nothing is left.
    """
    embeddings = torch.tensor([[1.0, 0.0], [4.0, 3.0], [0.0, 2.0]], dtype=torch.float64)
    report = report_of(embeddings, [0, 0, 1], SemiHardTripletLoss())
    assert report.loss.item() == pytest.approx(3 / 10, abs=1e-15)
    assert (int(report.mined), int(report.active)) == (2, 1)
    assert int(report_of(embeddings, [0, 0, 1]).mined) == 0


def test_lengths_do_not_matter_when_normalised_and_do_when_raw() -> None:
    generator = torch.Generator().manual_seed(1)
    embeddings = torch.randn(12, 5, generator=generator, dtype=torch.float64)
    stretched = embeddings * torch.rand(12, 1, generator=generator, dtype=torch.float64).add(0.5)
    identities = [i // 3 for i in range(12)]
    for normalize, same in ((True, True), (False, False)):
        module = SemiHardTripletLoss(2.0, 10, normalize)
        first, second = (report_of(e, identities, module).loss for e in (embeddings, stretched))
        assert torch.allclose(first, second, rtol=1e-9, atol=0) == same


def assert_ties_are_not_mined(kind: type[SemiHardTripletLoss]) -> None:
    """Positives at 0 and 1, negatives at −1 and 2: each anchor has one negative as far as its positive (a tie)."""
    report = report_of(line(0.0, 1.0, -1.0, 2.0), [0, 0, 1, 2], kind(1.0, 10, normalize=False))
    # anchor 0: D_p 1; −1 at 1 (tie), 2 at 4 → 1 triplet, hinge 0. anchor 1: D_p 1; −1 at 4, 2 at 1 (tie) → 1 triplet
    assert (int(report.mined), int(report.active), report.loss.item()) == (2, 0, 0.0)


def test_ties_are_not_mined() -> None:
    assert_ties_are_not_mined(SemiHardTripletLoss)


@pytest.mark.parametrize(("negatives", "mined"), [(1, 2), (2, 4), (3, 6), (4, 6), (10, 6), (99, 6)])
def test_r_below_at_and_above_the_negatives(negatives: int, mined: int) -> None:
    """Positives at 0 and 1, negatives at 11, 12 and 13; τ = 145, so that every hinge is active and tells its distance.

    anchor 0: D = 121, 144, 169 → hinges 25, 2, 0; anchor 1: D = 100, 121, 144 → hinges 46, 25, 2.
    """
    hinges = [[25, 2, 0], [46, 25, 2]]
    module = SemiHardTripletLoss(145.0, negatives, normalize=False)
    report = report_of(line(0.0, 1.0, 11.0, 12.0, 13.0), [0, 0, 1, 2, 3], module)
    kept = [h for row in hinges for h in row[:negatives]]
    assert int(report.mined) == mined == len(kept)
    assert report.loss.item() == pytest.approx(sum(kept) / len(kept), abs=1e-12)
    assert int(report.active) == sum(h > 0 for h in kept)


# --- Decision D9 -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("points", "identities"),
    [
        ([0.0, 10.0, 1.0], [0, 0, 1]),  # every negative is nearer than the positive
        ([0.0, 1.0, 2.0], [0, 0, 0]),  # one identity
        ([0.0, 1.0, 2.0], [0, 1, 2]),  # no positives
        ([5.0], [0]),
        ([1.0, 1.0, 1.0, 1.0], [0, 0, 1, 1]),  # all in one place: only ties
    ],
)
def test_nothing_mined_is_a_zero_that_back_propagates(
    points: list[float], identities: list[int]
) -> None:
    embeddings = line(*points).requires_grad_()
    report = report_of(embeddings, identities)
    assert (report.loss.item(), int(report.mined), int(report.active)) == (0.0, 0, 0)
    report.loss.backward()
    assert embeddings.grad is not None and not embeddings.grad.any()


def test_zero_vectors_do_not_give_nan() -> None:
    embeddings = torch.zeros(4, 3, requires_grad=True)
    report = report_of(embeddings, [0, 0, 1, 1], SemiHardTripletLoss())
    report.loss.backward()
    assert report.loss.item() == 0.0
    assert embeddings.grad is not None and torch.isfinite(embeddings.grad).all()


def test_duplicated_images_do_not_give_nan() -> None:
    """An identity with one image is drawn four times (D12): D_p = 0 exactly."""
    generator = torch.Generator().manual_seed(0)
    one, others = torch.randn(1, 6, generator=generator), torch.randn(4, 6, generator=generator)
    embeddings = torch.cat([one.repeat(4, 1), others]).requires_grad_()
    report = report_of(embeddings, [0] * 4 + [1] * 4, SemiHardTripletLoss(3.0))
    report.loss.backward()
    assert int(report.mined) >= 12 * 4
    assert embeddings.grad is not None and torch.isfinite(embeddings.grad).all()


# --- the twin --------------------------------------------------------------------------------------------------------


def random_batch(rng: np.random.Generator) -> tuple[Tensor, list[int], float, int, bool]:
    people, images, width = rng.integers(1, 6), rng.integers(1, 5), rng.integers(2, 6)
    identities = rng.permutation(np.repeat(np.arange(people) * 7, images)).tolist()
    centres = rng.normal(0, 1, (people, width))
    embeddings = np.stack([centres[i // 7] + rng.normal(0, 0.7, width) for i in identities])
    margin, negatives = float(rng.uniform(0.1, 2)), int(rng.integers(1, 12))
    return torch.from_numpy(embeddings), identities, margin, negatives, bool(rng.integers(2))


def assert_equals_twin(kind: type[SemiHardTripletLoss], batches: int = 200) -> None:
    rng = np.random.default_rng(7)
    partly_active = 0
    for _ in range(batches):
        embeddings, identities, margin, negatives, normalize = random_batch(rng)
        loss, mined, active = twin.triplet_loss(
            embeddings.tolist(), identities, margin, negatives, normalize
        )
        report = report_of(embeddings, identities, kind(margin, negatives, normalize))
        assert int(report.mined) == mined and int(report.active) == active
        assert report.loss.item() == pytest.approx(loss, abs=1e-10)
        partly_active += 0 < active < mined
    assert partly_active > batches / 4


def test_triplets_equal_the_twin_on_random_batches() -> None:
    assert_equals_twin(SemiHardTripletLoss, 250)


def test_gradients_equal_those_of_the_mined_triplets() -> None:
    rng = np.random.default_rng(8)
    compared = 0
    for _ in range(60):
        embeddings, identities, margin, negatives, normalize = random_batch(rng)
        mined = twin.mine_semi_hard(embeddings.tolist(), identities, negatives, normalize)
        plain = embeddings.clone().requires_grad_()
        points = [p / p.square().sum().sqrt() if normalize else p for p in plain]
        hinges = [
            ((points[t.anchor] - points[t.positive]) ** 2).sum()
            - ((points[t.anchor] - points[t.negative]) ** 2).sum()
            + margin
            for t in mined
        ]
        active = [h for h in hinges if h.item() > 0]
        found = embeddings.clone().requires_grad_()
        report_of(
            found, identities, SemiHardTripletLoss(margin, negatives, normalize)
        ).loss.backward()
        assert found.grad is not None
        if active:
            (torch.stack(active).sum() / len(mined)).backward()
            torch.testing.assert_close(found.grad, plain.grad, rtol=0, atol=1e-10)
            compared += 1
        else:
            assert not found.grad.any()
    assert compared > 30


def test_rotating_the_embeddings_or_shuffling_the_batch_changes_nothing() -> None:
    embeddings, identities, _, _, _ = random_batch(np.random.default_rng(13))
    module = SemiHardTripletLoss(1.5, 3)
    before = report_of(embeddings, identities, module).loss
    assert before > 0
    generator = torch.Generator().manual_seed(3)
    square = torch.randn(2 * [embeddings.shape[1]], generator=generator, dtype=torch.float64)
    turn, _ = torch.linalg.qr(square)
    torch.testing.assert_close(report_of(embeddings @ turn, identities, module).loss, before)
    order = torch.randperm(len(identities), generator=generator)
    shuffled = report_of(embeddings[order], [identities[i] for i in order.tolist()], module)
    torch.testing.assert_close(shuffled.loss, before)


def test_distances_are_squared_euclidean_and_never_negative() -> None:
    points = torch.tensor([[0.0, 0.0], [3.0, 4.0], [3.0, 4.0]])
    assert pairwise_squared_euclidean(points).tolist() == [[0, 25, 25], [25, 0, 0], [25, 0, 0]]
    crowded = torch.randn(40, 64) * 1e-4 + 100
    assert pairwise_squared_euclidean(crowded).min() >= 0


# --- types -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_is_computed_in_single(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(5)
    embeddings = (torch.randn(8, 32, generator=generator) * 300).to(
        dtype
    )  # squares overflow float16
    identities = [0, 0, 1, 1, 2, 2, 3, 3]
    wide = report_of(embeddings.float(), identities, SemiHardTripletLoss())
    narrow = embeddings.clone().requires_grad_()
    found = report_of(narrow, identities, SemiHardTripletLoss())
    assert found.loss.dtype == torch.float32 and torch.equal(found.loss, wide.loss)
    found.loss.backward()
    assert narrow.grad is not None and narrow.grad.dtype == dtype

    logits = torch.randn(8, 20, generator=generator).to(dtype)
    labels = torch.tensor(identities)
    loss = IdentityLoss()(logits, labels)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, IdentityLoss()(logits.float(), labels))


def test_autocast_does_not_blur_the_distances() -> None:
    generator = torch.Generator().manual_seed(5)
    embeddings = torch.randn(16, 64, generator=generator)
    identities = [i // 4 for i in range(16)]
    exact = report_of(embeddings, identities, SemiHardTripletLoss())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = report_of(embeddings, identities, SemiHardTripletLoss())
    assert found.loss.dtype == torch.float32
    torch.testing.assert_close(found.loss, exact.loss, rtol=0, atol=1e-6)
    assert int(found.mined) == int(exact.mined)


# --- the sum ---------------------------------------------------------------------------------------------------------


def output_of(branches: str, batch: int = 8, classes: int = 5) -> tuple[CCANOutput, Tensor]:
    generator = torch.Generator().manual_seed(3)

    def draw(letter: str, width: int) -> Tensor | None:
        values = torch.randn(batch, width, generator=generator)
        return values if letter in branches else None

    embeddings = [draw(letter, 6) for letter in "GL"]
    logits = [draw(letter, classes) for letter in "GL"]
    labels = torch.arange(batch) % 4
    return CCANOutput(*embeddings, *logits, torch.zeros(batch, 1)), labels  # type: ignore[arg-type]


@pytest.mark.parametrize("branches", ["GL", "G", "L"])
def test_the_total_is_the_sum_of_its_terms(branches: str) -> None:
    output, labels = output_of(branches)
    config = LossConfig(label_smoothing=0.2, margin=1.5, negatives=3)
    report = CCANLoss(config)(output, labels)
    expected = 0.0
    for letter, embedding, logits in (
        ("G", output.global_embedding, output.global_logits),
        ("L", output.local_embedding, output.local_logits),
    ):
        name = {"G": "global", "L": "local"}[letter]
        identity, triplet = (getattr(report, f"{kind}_{name}") for kind in ("identity", "triplet"))
        if embedding is None or logits is None:
            assert identity is None and triplet is None
            continue
        ce = twin.smoothed_cross_entropy(logits.tolist(), labels.tolist(), 0.2)
        tri, mined, active = twin.triplet_loss(embedding.tolist(), labels.tolist(), 1.5, 3, True)
        assert identity.item() == pytest.approx(ce, abs=1e-5)
        assert triplet.loss.item() == pytest.approx(tri, abs=1e-5) and tri > 0
        values = report.values()
        assert (values[f"mined_{name}"], values[f"active_{name}"]) == (mined, active)
        expected += ce + tri
    assert report.loss.item() == pytest.approx(expected, abs=1e-5)
    assert len(report.values()) == 1 + 4 * len(branches)
    assert all(isinstance(value, float) for value in report.values().values())


def test_the_total_s_gradient_reaches_every_branch() -> None:
    output, labels = output_of("GL")
    parts = [part.requires_grad_() for part in output[:4] if part is not None]
    report = CCANLoss()(output, labels)
    report.loss.backward()
    assert all(part.grad is not None and part.grad.any() for part in parts)


def test_loss_at_the_start_is_log_k_for_each_branch_and_a_triplet_near_the_margin() -> None:
    """A fresh network knows nothing: CE ≈ log K in each branch; D_p ≈ D_n within the margin, so 0 < Tri ≤ τ."""
    torch.manual_seed(0)
    config = ModelConfig(image_height=96, image_width=64, width_multiplier=0.25, embedding_dim=64)
    classes = 90
    model = build_ccan(config, classes).train()
    labels = torch.arange(6).repeat_interleave(2) * 11
    with torch.no_grad():
        report = CCANLoss()(model(torch.randn(12, 3, 96, 64)), labels)
    values = report.values()
    for branch in ("global", "local"):
        assert values[f"identity_{branch}"] == pytest.approx(math.log(classes), rel=0.06)
        assert 0.3 < values[f"triplet_{branch}"] <= 1.0
    triplets = values["triplet_global"] + values["triplet_local"]
    assert values["loss"] == pytest.approx(2 * math.log(classes) + triplets, rel=0.06)


# --- errors ----------------------------------------------------------------------------------------------------------


def test_errors() -> None:
    with pytest.raises(
        ShapeError, match=r"\(B, d\) and identities \(B,\), got \(3, 2\) and \(4,\)"
    ):
        report_of(torch.zeros(3, 2), [0, 0, 1, 1])
    with pytest.raises(ShapeError, match=r"got \(3,\) and \(3,\)"):
        report_of(torch.zeros(3), [0, 0, 1])
    with pytest.raises(
        ShapeError, match=r"logits \(B, K\) and labels \(B,\), got \(3, 2\) and \(2,\)"
    ):
        IdentityLoss()(torch.zeros(3, 2), torch.tensor([0, 1]))
    for arguments in ({"margin": 0.0}, {"margin": float("nan")}, {"negatives": 0}):
        with pytest.raises(ConfigError, match="margin must be > 0 and negatives at least 1"):
            SemiHardTripletLoss(**arguments)  # type: ignore[arg-type]


# --- mistakes planted on purpose: each must be found -----------------------------------------------------------------


class HardNegatives(SemiHardTripletLoss):
    """The r nearest negatives without D_p < D_n."""

    def mine(self, distances: Tensor, identities: Tensor) -> tuple[Tensor, Tensor]:
        same = identities[:, None] == identities[None, :]
        steps = min(self.negatives, len(identities))
        order = torch.where(same, torch.inf, distances).argsort(dim=1)[:, :steps]
        enough = torch.arange(steps) < (~same).sum(dim=1)[:, None]
        positive = same & ~torch.eye(len(identities), dtype=torch.bool)
        mined = positive[:, :, None] & enough[:, None, :]
        return order[:, None, :].expand(mined.shape), mined


class SelfAsPositive(SemiHardTripletLoss):
    """The anchor counted as its own positive."""

    def mine(self, distances: Tensor, identities: Tensor) -> tuple[Tensor, Tensor]:
        order, mined = super().mine(distances, identities)
        negatives = (identities[:, None] != identities[None, :]).sum(dim=1)
        mined = mined.clone()
        for i in range(len(identities)):
            mined[i, i, : int(negatives[i])] = True
        return order, mined


class OnlyActiveCount(SemiHardTripletLoss):
    """Mean over the active triplets instead of all mined ones."""

    def forward(self, embeddings: Tensor, identities: Tensor) -> TripletReport:
        report = super().forward(embeddings, identities)
        scale = report.mined / report.active.clamp(min=1)
        return TripletReport(report.loss * scale, report.mined, report.active)


class MeanOverPairs(SemiHardTripletLoss):
    """Each anchor–positive pair weighs the same, however many negatives it found."""

    def forward(self, embeddings: Tensor, identities: Tensor) -> TripletReport:
        report = super().forward(embeddings, identities)
        points = functional.normalize(embeddings, dim=1) if self.normalize else embeddings
        distances = pairwise_squared_euclidean(points)
        order, mined = self.mine(distances, identities)
        rows = torch.arange(len(identities))[:, None, None]
        hinge = (distances[:, :, None] - distances[rows, order] + self.margin).relu() * mined
        counts = mined.sum(dim=2)
        pairs = hinge.sum(dim=2)[counts > 0] / counts[counts > 0]
        loss = pairs.mean() if len(pairs) else report.loss
        return TripletReport(loss, report.mined, report.active)


class PlainDistance(SemiHardTripletLoss):
    """‖a − p‖ instead of its square."""

    def forward(self, embeddings: Tensor, identities: Tensor) -> TripletReport:
        points = functional.normalize(embeddings, dim=1) if self.normalize else embeddings
        distances = pairwise_squared_euclidean(points).sqrt()
        order, mined = self.mine(distances, identities)
        rows = torch.arange(len(identities))[:, None, None]
        hinge = (distances[:, :, None] - distances[rows, order] + self.margin).relu() * mined
        return TripletReport(hinge.sum() / mined.sum().clamp(min=1), mined.sum(), (hinge > 0).sum())


class FarthestFirst(SemiHardTripletLoss):
    """The r farthest of the semi-hard negatives."""

    def mine(self, distances: Tensor, identities: Tensor) -> tuple[Tensor, Tensor]:
        largest = distances.max() + 1
        same = identities[:, None] == identities[None, :]
        semi_hard = ~same[:, None, :] & (distances[:, None, :] > distances[:, :, None])
        key = torch.where(semi_hard, largest - distances[:, None, :], torch.inf)
        ascending, order = key.sort(dim=2)
        steps = min(self.negatives, len(identities))
        positive = same & ~torch.eye(len(identities), dtype=torch.bool)
        return order[..., :steps], positive[:, :, None] & torch.isfinite(ascending[..., :steps])


class AlwaysNormalised(SemiHardTripletLoss):
    """The raw variant that is not raw."""

    def __init__(self, margin: float, negatives: int, _normalize: bool) -> None:
        super().__init__(margin, negatives, True)


@pytest.mark.parametrize(
    "mistake",
    [
        HardNegatives,
        SelfAsPositive,
        OnlyActiveCount,
        MeanOverPairs,
        PlainDistance,
        FarthestFirst,
        AlwaysNormalised,
    ],
)
def test_planted_mistakes_are_rejected(mistake: type[SemiHardTripletLoss]) -> None:
    with pytest.raises(AssertionError):
        assert_equals_twin(mistake, 60)


class TiesMined(SemiHardTripletLoss):
    """D_p ≤ D_n instead of D_p < D_n."""

    def mine(self, distances: Tensor, identities: Tensor) -> tuple[Tensor, Tensor]:
        same = identities[:, None] == identities[None, :]
        nearer = torch.where(same, distances * (1 - 1e-9) - 1e-12, distances)
        return super().mine(nearer, identities)


def test_mined_ties_are_rejected() -> None:
    with pytest.raises(AssertionError):
        assert_ties_are_not_mined(TiesMined)


class SmoothedOverOthers(nn.Module):
    """ε/(K−1) on the wrong classes and 1−ε on the right one: another common reading, not the paper's."""

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        classes = logits.shape[1]
        target = torch.full_like(logits, 0.1 / (classes - 1))
        target.scatter_(1, labels[:, None], 0.9)
        return functional.cross_entropy(logits, target)


def test_the_other_smoothing_is_told_apart() -> None:
    """On the hand-worked case it gives −0.9 log ½ − 0.1 log ¼ = 1.1 log 2, not 16/15 log 2."""
    logits = torch.tensor([[2.0, 1.0, 1.0]], dtype=torch.float64) * math.log(2)
    value: Tensor = SmoothedOverOthers()(logits, torch.tensor([0]))
    assert value.item() == pytest.approx(1.1 * math.log(2), abs=1e-12)
    assert abs(value.item() - 16 / 15 * math.log(2)) > 0.02
