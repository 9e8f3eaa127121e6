"""CCA, SSA and the non-local baseline against hand values, the slow NumPy twin, and mistakes planted on purpose."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from ccan.errors import ConfigError, ShapeError
from ccan.model.attention import (
    CrossCorrelatedAttention,
    NonLocalAttention,
    SymmetricSelfAttention,
    to_positions,
)
from tests.reference import attention as twin

CHANNELS, ROWS, COLUMNS, REDUCED, BATCH = 13, 5, 3, 7, 2
POSITIONS = ROWS * COLUMNS
Attention = TypeVar("Attention", bound=NonLocalAttention)


def relu_map(seed: int, *shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """A map as a ReLU leaves it: about half of it zero."""
    generator = torch.Generator().manual_seed(seed)
    return functional.relu(torch.randn(shape, generator=generator, dtype=torch.float64)).to(dtype)


def scrambled(module: Attention, seed: int = 3) -> Attention:
    """The module in float64 with every weight drawn anew, so that no structure of the start helps a test."""
    generator = torch.Generator().manual_seed(seed)
    module = module.double()
    with torch.no_grad():
        for weight in module.parameters():
            fresh = torch.randn(weight.shape, generator=generator, dtype=torch.float64)
            weight.copy_(fresh / math.sqrt(weight.shape[1]))
    return module


def weights_of(module: NonLocalAttention) -> dict[str, twin.Array]:
    """The module's maps as the equations write them (q W)."""
    return {
        name.removesuffix(".weight"): value.detach().double().numpy().T
        for name, value in module.named_parameters()
    }


def watched(module: NonLocalAttention, *maps: Tensor) -> dict[str, Tensor]:
    """Output of a forward and what passed its taps."""
    seen: dict[str, Tensor] = {}

    def keeper(name: str) -> Callable[[nn.Module, Any, Tensor], None]:
        def keep(_module: nn.Module, _inputs: Any, out: Tensor) -> None:
            seen[name] = out

        return keep

    handles = [
        tap.register_forward_hook(keeper(name)) for name, tap in module.taps.named_children()
    ]
    with torch.no_grad():
        seen["z"] = module(*maps)
    for handle in handles:
        handle.remove()
    return seen


def assert_equals_twin(
    module: NonLocalAttention, maps: list[Tensor], twin_of: Callable[..., twin.AttentionTrace]
) -> None:
    """Every named quantity equals the twin's to 1e-10, on a case where A is neither all zero nor all positive."""
    seen = watched(module, *maps)
    for image in range(len(maps[0])):
        trace = twin_of(*(m[image].double().numpy() for m in maps), weights_of(module))
        assert 0.1 < (trace.a > 0).mean() <= 1
        assert 0.1 < (trace.update > 0).mean() < 0.9
        for name, expected in (
            ("correlation", trace.a_prime),
            ("attention", trace.a),
            ("residual", trace.update),
            ("z", trace.z),
        ):
            np.testing.assert_allclose(
                seen[name][image].numpy(), expected, rtol=0, atol=1e-10, err_msg=name
            )


def two_maps() -> list[Tensor]:
    return [relu_map(seed, BATCH, CHANNELS, ROWS, COLUMNS) for seed in (1, 2)]


@pytest.mark.parametrize("values", ["target", "source"])
def test_cca_equals_the_twin(values: str) -> None:
    module = scrambled(CrossCorrelatedAttention(CHANNELS, POSITIONS, REDUCED, values))  # type: ignore[arg-type]
    assert_equals_twin(module, two_maps(), lambda q, q2, w: twin.cross_correlated(q, q2, w, values))


def test_ssa_and_non_local_equal_their_twins() -> None:
    one = two_maps()[:1]
    assert_equals_twin(
        scrambled(SymmetricSelfAttention(CHANNELS, POSITIONS, REDUCED)), one, twin.symmetric
    )
    assert_equals_twin(scrambled(NonLocalAttention(CHANNELS, REDUCED)), one, twin.non_local)


def test_ssa_is_cca_of_a_map_with_itself() -> None:
    cca = scrambled(CrossCorrelatedAttention(CHANNELS, POSITIONS, REDUCED))
    ssa = SymmetricSelfAttention(CHANNELS, POSITIONS, REDUCED).double()
    ssa.load_state_dict(cca.state_dict())
    q, other = two_maps()
    torch.testing.assert_close(ssa(q), cca(q, q), rtol=0, atol=0)
    assert (ssa(q) - cca(q, other)).abs().max() > 1e-3


def test_a_case_worked_by_hand() -> None:
    """C = K = 1, two positions: q = (1, 2), q′ = (3, 1), unit maps, W_α = [½I; ½I], w = 1/5.

    A′ = [[3, 1], [6, 2]], A = ½(A′ + A′ᵀ) = [[3, 7/2], [7/2, 2]], y = ½(3+7, 7/2+4) = (5, 15/4), z = (1+1, 3/4+2).
    With the values of Q′: y = ½(9+7/2, 21/2+2) = (25/4, 25/4), z = (5/4+1, 5/4+2).
    """
    q = torch.tensor([1.0, 2.0], dtype=torch.float64).view(1, 1, 2, 1)
    q_prime = torch.tensor([3.0, 1.0], dtype=torch.float64).view(1, 1, 2, 1)
    for values, expected in (("target", [2.0, 11 / 4]), ("source", [9 / 4, 13 / 4])):
        module = CrossCorrelatedAttention(1, 2, 1, values).double()  # type: ignore[arg-type]
        with torch.no_grad():
            for name in "fgh":
                getattr(module, name).weight.fill_(1.0)
            module.w.weight.fill_(1 / 5)
            module.alpha.weight.copy_(torch.tensor([[0.5, 0, 0.5, 0], [0, 0.5, 0, 0.5]]))
        seen = watched(module, q, q_prime)
        assert seen["correlation"][0].tolist() == [[3, 1], [6, 2]]
        assert seen["attention"][0].tolist() == [[3, 3.5], [3.5, 2]]
        assert seen["z"].flatten().tolist() == pytest.approx(expected, abs=1e-15)


def test_the_pre_activation_splits_into_two_votes() -> None:
    module = scrambled(CrossCorrelatedAttention(CHANNELS, POSITIONS, REDUCED))
    q, q_prime = two_maps()
    w_alpha = module.alpha.weight.detach().T  # 2MN × MN
    a_prime = watched(module, q, q_prime)["correlation"]
    votes = a_prime @ w_alpha[:POSITIONS] + a_prime.transpose(1, 2) @ w_alpha[POSITIONS:]
    trace = twin.cross_correlated(q[0].numpy(), q_prime[0].numpy(), weights_of(module))
    np.testing.assert_allclose(votes[0].numpy(), trace.pre_activation, rtol=0, atol=1e-10)
    torch.testing.assert_close(module.attend(a_prime), functional.relu(votes), rtol=0, atol=1e-10)
    assert (votes < 0).any()


def test_moving_the_positions_of_both_maps_moves_the_output() -> None:
    """With W_α = [½I; ½I] exactly, nothing knows where a position is; a random W_α does."""
    module = CrossCorrelatedAttention(CHANNELS, POSITIONS, REDUCED).double()
    half = torch.eye(POSITIONS, dtype=torch.float64) / 2
    with torch.no_grad():
        module.alpha.weight.copy_(torch.cat([half, half], dim=1))
    order = torch.randperm(POSITIONS, generator=torch.Generator().manual_seed(5))

    def moved(feature_map: Tensor) -> Tensor:
        return feature_map.flatten(2)[:, :, order].view_as(feature_map)

    q, q_prime = two_maps()
    torch.testing.assert_close(
        module(moved(q), moved(q_prime)), moved(module(q, q_prime)), rtol=0, atol=1e-12
    )
    module = scrambled(module)
    assert (module(moved(q), moved(q_prime)) - moved(module(q, q_prime))).abs().max() > 1e-3


def test_images_of_a_batch_do_not_mix() -> None:
    module = scrambled(CrossCorrelatedAttention(CHANNELS, POSITIONS, REDUCED))
    q, q_prime = two_maps()
    alone = module(q[1:], q_prime[1:])
    torch.testing.assert_close(module(q, q_prime)[1:], alone, rtol=0, atol=1e-12)


def test_inputs_are_left_as_they_were() -> None:
    maps = two_maps()
    before = [m.clone() for m in maps]
    for module in (
        CrossCorrelatedAttention(CHANNELS, POSITIONS, REDUCED).double(),
        NonLocalAttention(CHANNELS, REDUCED).double(),
    ):
        module(*maps)
    assert all(torch.equal(m, b) for m, b in zip(maps, before, strict=True))


@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str
)
def test_every_float_type_is_kept(dtype: torch.dtype) -> None:
    module = scrambled(CrossCorrelatedAttention(CHANNELS, POSITIONS, REDUCED))
    q, q_prime = two_maps()
    exact = module(q, q_prime)
    found = module.to(dtype)(q.to(dtype), q_prime.to(dtype))
    assert found.dtype == dtype and found.shape == q.shape
    tolerance = 40 * torch.finfo(dtype).eps
    assert (found.double() - exact).abs().max() <= tolerance * exact.abs().max()


def test_autocast_gives_bfloat16_close_to_float32() -> None:
    module = scrambled(CrossCorrelatedAttention(CHANNELS, POSITIONS, REDUCED)).float()
    q, q_prime = (m.float() for m in two_maps())
    exact = module(q, q_prime)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = module(q, q_prime)
        assert module.correlate(to_positions(q), to_positions(q_prime)).dtype == torch.bfloat16
    assert (found.float() - exact).abs().max() <= 0.05 * exact.abs().max()


def test_zero_maps_stay_zero() -> None:
    zero = torch.zeros(1, CHANNELS, ROWS, COLUMNS)
    module = CrossCorrelatedAttention(CHANNELS, POSITIONS, REDUCED)
    assert torch.equal(module(zero, zero), zero)
    some = relu_map(1, 1, CHANNELS, ROWS, COLUMNS, dtype=torch.float32)
    assert torch.equal(module(some, zero), some)  # nothing co-fires with an empty source


def test_gradients_are_exact() -> None:
    torch.manual_seed(11)
    module = scrambled(CrossCorrelatedAttention(3, 4, 2), seed=5)
    names = [name for name, _ in module.named_parameters()]
    weights = [p.detach().clone().requires_grad_() for p in module.parameters()]
    q = (relu_map(7, 1, 3, 2, 2) + 0.05).requires_grad_()
    q_prime = (relu_map(8, 1, 3, 2, 2) + 0.05).requires_grad_()

    def run(target: Tensor, source: Tensor, *parameters: Tensor) -> Tensor:
        named = dict(zip(names, parameters, strict=True))
        return torch.func.functional_call(module, named, (target, source))

    assert torch.autograd.gradcheck(run, (q, q_prime, *weights))


# --- Decision D6: how attention starts --------------------------------------------------------------------------------

FULL_SIZE = [(480, 32, 16), (832, 16, 8)]


def fresh(
    channels: int, rows: int, columns: int, init: str = "symmetric"
) -> CrossCorrelatedAttention:
    torch.manual_seed(0)
    return CrossCorrelatedAttention(channels, rows * columns, init=init)  # type: ignore[arg-type]


def maps_of_rms(rms: float, channels: int, rows: int, columns: int, batch: int = 2) -> list[Tensor]:
    maps = [relu_map(s, batch, channels, rows, columns, dtype=torch.float32) for s in (1, 2)]
    return [m * (rms / m.square().mean().sqrt()) for m in maps]


@pytest.mark.parametrize("size", FULL_SIZE, ids=["SS1", "CC2"])
def test_every_tensor_learns_from_the_first_step(size: tuple[int, int, int]) -> None:
    module = fresh(*size)
    q, q_prime = maps_of_rms(0.7, *size)
    aim = torch.randn(q.shape, generator=torch.Generator().manual_seed(9))
    (module(q, q_prime) * aim).sum().backward()
    for name, weight in module.named_parameters():
        assert weight.grad is not None and weight.grad.abs().max() > 0, name
    assert set(dict(module.named_parameters())) == {f"{n}.weight" for n in "fghw"} | {
        "alpha.weight"
    }


def test_zero_initialised_w_is_a_dead_start() -> None:
    """φ passes no gradient at 0: with W_w = 0 no map of the attention ever moves (why D6 is what it is)."""
    module = fresh(*FULL_SIZE[1])
    nn.init.zeros_(module.w.weight)
    q, q_prime = maps_of_rms(0.7, *FULL_SIZE[1])
    (module(q, q_prime).square().sum()).backward()
    assert all(p.grad is not None and torch.count_nonzero(p.grad) == 0 for p in module.parameters())


@pytest.mark.parametrize("size", FULL_SIZE, ids=["SS1", "CC2"])
def test_dead_share_of_w_at_the_start(size: tuple[int, int, int]) -> None:
    """y ≥ 0, so a column of W_w with y W_w ≤ 0 everywhere gets no gradient (D6: about 44 %).

    Measured here over three seeds on noise maps: 46–50 %.
    """
    module = fresh(*size)
    seen = watched(module, *maps_of_rms(0.7, *size))
    dead = (seen["residual"].amax(dim=(0, 1)) == 0).double().mean().item()
    assert 0.35 < dead < 0.55, dead


@pytest.mark.parametrize("size", FULL_SIZE, ids=["SS1", "CC2"])
@pytest.mark.parametrize("rms", [0.5, 1.0])
def test_the_update_starts_smaller_than_the_map(size: tuple[int, int, int], rms: float) -> None:
    q, q_prime = maps_of_rms(rms, *size)
    share = {
        init: float(watched(fresh(*size, init=init), q, q_prime)["residual"].norm() / q.norm())
        for init in ("symmetric", "symmetric_full_w")
    }
    assert 0.001 < share["symmetric"] < 0.5, share
    assert share["symmetric_full_w"] == pytest.approx(5 * share["symmetric"], rel=1e-4)


def test_the_three_starts() -> None:
    channels, rows, columns = 64, 6, 4
    half = torch.eye(rows * columns) / 2
    ideal = torch.cat([half, half], dim=1)
    default, full, ours = (
        fresh(channels, rows, columns, init)
        for init in ("default", "symmetric_full_w", "symmetric")
    )
    for module in (full, ours):
        noise = module.alpha.weight.detach() - ideal
        assert 0.9e-3 < noise.std() < 1.1e-3 and abs(noise.mean()) < 1e-4
    assert (default.alpha.weight - ideal).abs().max() > 0.4
    bound = 1 / math.sqrt(channels // 8)  # PyTorch's default: uniform within ±1/√fan_in
    assert 0.9 * bound < default.w.weight.abs().max() <= bound
    torch.testing.assert_close(full.w.weight, default.w.weight, rtol=0, atol=0)
    torch.testing.assert_close(ours.w.weight, default.w.weight * 0.2, rtol=0, atol=0)
    for name in "fgh":
        assert torch.equal(getattr(ours, name).weight, getattr(default, name).weight)


def test_training_starts_from_the_symmetrised_correlation() -> None:
    module = fresh(64, 6, 4)
    seen = watched(module, *maps_of_rms(0.7, 64, 6, 4))
    a_prime = seen["correlation"]
    wanted = (a_prime + a_prime.transpose(1, 2)) / 2
    assert (seen["attention"] - wanted).abs().max() < 0.02 * wanted.max()


def test_same_seed_same_attention() -> None:
    first, again = fresh(64, 6, 4), fresh(64, 6, 4)
    assert all(
        torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True)
    )


# --- errors ----------------------------------------------------------------------------------------------------------


def test_errors_say_what_was_expected_and_what_came() -> None:
    with pytest.raises(
        ConfigError,
        match=r"channels must be divisible by 8 for K = C/8, got 30; pass reduced= explicitly",
    ):
        CrossCorrelatedAttention(30, 6)
    with pytest.raises(ConfigError, match=r"reduced \(K\) must be at least 1, got 0"):
        NonLocalAttention(16, 0)
    with pytest.raises(ConfigError, match=r"positions \(M·N\) must be at least 1, got 0"):
        CrossCorrelatedAttention(16, 0)

    cca = CrossCorrelatedAttention(16, 6)
    right = torch.zeros(2, 16, 3, 2)
    for wrong, text in (
        (torch.zeros(2, 8, 3, 2), r"expected a map \(B, 16, M, N\), got \(2, 8, 3, 2\)"),
        (torch.zeros(16, 3, 2), r"expected a map \(B, 16, M, N\), got \(16, 3, 2\)"),
        (torch.zeros(2, 16, 5, 2), r"expected M·N = 6 positions, got 5×2"),
    ):
        with pytest.raises(ShapeError, match=text):
            cca(wrong, wrong)
    with pytest.raises(ShapeError, match=r"one shape, got \(2, 16, 3, 2\) and \(2, 16, 2, 3\)"):
        cca(right, right.transpose(2, 3))
    with pytest.raises(ShapeError, match=r"takes two maps .* got one; use SymmetricSelf"):
        cca(right)
    with pytest.raises(ShapeError, match=r"takes one map, got two; use CrossCorrelated"):
        SymmetricSelfAttention(16, 6)(right, right.clone())
    with pytest.raises(ShapeError, match=r"expected a map \(B, 16, M, N\)"):
        NonLocalAttention(16)(torch.zeros(1, 24, 3, 2))


def test_members_and_shapes_of_the_paper() -> None:
    module = CrossCorrelatedAttention(832, 128)
    shapes = {name: tuple(p.shape) for name, p in module.named_parameters()}
    assert shapes == {
        "f.weight": (104, 832),
        "g.weight": (104, 832),
        "h.weight": (104, 832),
        "w.weight": (832, 104),
        "alpha.weight": (128, 256),
    }
    assert set(dict(NonLocalAttention(832).named_parameters())) == set(shapes) - {"alpha.weight"}


def test_only_the_non_local_block_is_size_agnostic() -> None:
    module = NonLocalAttention(16)
    for rows, columns in ((3, 2), (5, 7)):
        assert module(torch.rand(1, 16, rows, columns)).shape == (1, 16, rows, columns)


# --- mistakes planted on purpose: each must be found -----------------------------------------------------------------


class NotTransposed(CrossCorrelatedAttention):
    """[A′, A′] instead of [A′, A′ᵀ]."""

    def attend(self, correlation: Tensor) -> Tensor:
        return functional.relu(self.alpha(torch.cat([correlation, correlation], dim=2)))


class JoinedAlongHeight(CrossCorrelatedAttention):
    """W_αᵀ [A′; A′ᵀ]: the right size from the wrong product."""

    def attend(self, correlation: Tensor) -> Tensor:
        tall = torch.cat([correlation, correlation.transpose(1, 2)], dim=1)
        return functional.relu(self.alpha.weight @ tall)


class NoOuterReLU(CrossCorrelatedAttention):
    """Eq. 1 without its φ."""

    def attend(self, correlation: Tensor) -> Tensor:
        return self.alpha(torch.cat([correlation, correlation.transpose(1, 2)], dim=2))


class SwappedSignatures(CrossCorrelatedAttention):
    """f(q) g(q′)ᵀ instead of g(q) f(q′)ᵀ."""

    def correlate(self, q: Tensor, q_source: Tensor) -> Tensor:
        return functional.relu(self.f(q)) @ functional.relu(self.g(q_source)).transpose(1, 2)


class TransposedMap(CrossCorrelatedAttention):
    """Columns of A gather instead of rows."""

    def gather(self, attention: Tensor, q_values: Tensor, target: Tensor) -> Tensor:
        return super().gather(attention.transpose(1, 2), q_values, target)


class NoMean(CrossCorrelatedAttention):
    """Eq. 2 without 1/(MN)."""

    def gather(self, attention: Tensor, q_values: Tensor, target: Tensor) -> Tensor:
        return super().gather(attention * self.positions, q_values, target)


class DoubledResidual(CrossCorrelatedAttention):
    """2q instead of q in Eq. 3."""

    def forward(self, target: Tensor, source: Tensor | None = None) -> Tensor:
        return super().forward(target, source) + target


class ColumnMajor(CrossCorrelatedAttention):
    """The output written back column by column."""

    def gather(self, attention: Tensor, q_values: Tensor, target: Tensor) -> Tensor:
        added = super().gather(attention, q_values, target) - target
        b, c, m, n = target.shape
        return added.reshape(b, c, n, m).transpose(2, 3) + target


@pytest.mark.parametrize(
    "mistake",
    [
        NotTransposed,
        JoinedAlongHeight,
        NoOuterReLU,
        SwappedSignatures,
        TransposedMap,
        NoMean,
        DoubledResidual,
        ColumnMajor,
    ],
)
def test_planted_mistakes_are_rejected(mistake: type[CrossCorrelatedAttention]) -> None:
    with pytest.raises(AssertionError):
        assert_equals_twin(
            scrambled(mistake(CHANNELS, POSITIONS, REDUCED)), two_maps(), twin.cross_correlated
        )


def test_values_of_the_wrong_map_are_rejected() -> None:
    """h(q′) where Eq. 2 prints h(q)."""
    module = scrambled(CrossCorrelatedAttention(CHANNELS, POSITIONS, REDUCED, "source"))
    with pytest.raises(AssertionError):
        assert_equals_twin(module, two_maps(), twin.cross_correlated)


class DividedTooLate(CrossCorrelatedAttention):
    """(A·h)/MN instead of (A/MN)·h."""

    def gather(self, attention: Tensor, q_values: Tensor, target: Tensor) -> Tensor:
        y = (attention @ functional.relu(self.h(q_values))) / attention.shape[-1]
        return functional.relu(self.w(y)).transpose(1, 2).reshape(target.shape) + target


def assert_half_precision_is_finite(kind: type[CrossCorrelatedAttention]) -> None:
    """Σ A h = 128 · 16² · 16 = 524,288 is beyond half precision; Σ (A/128) h = 4,096 is well within it."""
    module = kind(1, 128, 1)
    with torch.no_grad():
        for weight in (module.f.weight, module.g.weight, module.h.weight):
            weight.fill_(1.0)
        module.w.weight.fill_(0.25)
        half = torch.eye(128) / 2
        module.alpha.weight.copy_(torch.cat([half, half], dim=1))
    q = torch.full((1, 1, 16, 8), 16.0, dtype=torch.float16)
    found = module.half()(q, q)
    expected = 256.0 * 16.0 * 0.25 + 16.0  # A = 16², y = 256·16, z = y/4 + q
    assert torch.equal(found, torch.full_like(q, expected))


def test_half_precision_does_not_overflow() -> None:
    assert_half_precision_is_finite(CrossCorrelatedAttention)
    with pytest.raises(AssertionError):
        assert_half_precision_is_finite(DividedTooLate)


@pytest.mark.parametrize("worn", ["f", "g", "h", "w", "alpha"])
def test_an_attention_with_a_map_worn_down_is_silent(worn: str):
    """A map without a weight above zero lets nothing through, whatever values ≥ 0 come in."""
    torch.manual_seed(0)
    attention = CrossCorrelatedAttention(56, 15)
    maps = torch.rand(2, 56, 5, 3), torch.rand(2, 56, 5, 3)
    assert not attention.silent and not torch.equal(attention(*maps), maps[0])
    with torch.no_grad():
        getattr(attention, worn).weight.abs_().neg_()
    assert attention.silent and torch.equal(attention(*maps), maps[0])
