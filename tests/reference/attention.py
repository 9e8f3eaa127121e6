"""Eq. 1–3 of the paper and Fig. 2, one position at a time, in NumPy: slow on purpose, with nothing to optimise.

Letters: C channels, M×N grid, MN positions, K = C/8 signature width. A weight is written as it stands in the equation
(`q W_f`), so `nn.Linear.weight` is its transpose. Written from the paper alone; it shares no line with the package.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class AttentionTrace:
    """Everything that Eq. 1–3 name, for one image."""

    a_prime: Array
    """A′ (MN, MN)."""
    pre_activation: Array
    """What φ sees in Eq. 1 (MN, MN); for the non-local block A′ itself."""
    a: Array
    """A (MN, MN)."""
    y: Array
    """(MN, K)."""
    update: Array
    """φ(y W_w), (MN, C): what is added to q."""
    z: Array
    """The output map (C, M, N)."""


def relu(x: float) -> float:
    """φ."""
    return x if x > 0.0 else 0.0


def positions_of(feature_map: Array) -> Array:
    """(C, M, N) → (MN, C): row m·N + n holds the features of cell (m, n)."""
    channels, rows, columns = feature_map.shape
    listed = np.zeros((rows * columns, channels))
    for m in range(rows):
        for n in range(columns):
            for c in range(channels):
                listed[m * columns + n, c] = feature_map[c, m, n]
    return listed


def map_of(listed: Array, rows: int, columns: int) -> Array:
    """(MN, C) → (C, M, N)."""
    feature_map = np.zeros((listed.shape[1], rows, columns))
    for m in range(rows):
        for n in range(columns):
            for c in range(listed.shape[1]):
                feature_map[c, m, n] = listed[m * columns + n, c]
    return feature_map


def signature(listed: Array, weight: Array) -> Array:
    """φ(q W) row by row: (MN, C) → (MN, K)."""
    out = np.zeros((listed.shape[0], weight.shape[1]))
    for i in range(listed.shape[0]):
        for k in range(weight.shape[1]):
            out[i, k] = relu(sum(listed[i, c] * weight[c, k] for c in range(listed.shape[1])))
    return out


def co_firing(g: Array, f: Array) -> Array:
    """A′_ij = g_i · f_j."""
    count = g.shape[0]
    a_prime = np.zeros((count, count))
    for i in range(count):
        for j in range(count):
            a_prime[i, j] = sum(g[i, k] * f[j, k] for k in range(g.shape[1]))
    return a_prime


def joined(a_prime: Array, w_alpha: Array) -> Array:
    """[A′, A′ᵀ] W_α (Eq. 1 before φ): row i of the joined matrix is row i of A′, then column i of A′."""
    count = a_prime.shape[0]
    out = np.zeros((count, count))
    for i in range(count):
        row = [a_prime[i, j] for j in range(count)] + [a_prime[j, i] for j in range(count)]
        for j in range(count):
            out[i, j] = sum(row[t] * w_alpha[t, j] for t in range(2 * count))
    return out


def gather(a: Array, h: Array) -> Array:
    """Eq. 2: y_i = 1/(MN) Σ_j A_ij h_j."""
    count = a.shape[0]
    y = np.zeros_like(h)
    for i in range(count):
        for k in range(h.shape[1]):
            y[i, k] = sum(a[i, j] * h[j, k] for j in range(count)) / count
    return y


def cross_correlated(
    target: Array, source: Array, weights: Mapping[str, Array], values: str = "target"
) -> AttentionTrace:
    """CCA of Q = target and Q′ = source, each (C, M, N).

    Args:
        target: Q. Decision D4 is a matter of which map the caller hands in here.
        source: Q′.
        weights: ``f``, ``g``, ``h`` (C, K), ``w`` (K, C), ``alpha`` (2MN, MN).
        values: whether Eq. 2 gathers h(q) ("target") or h(q′) ("source"), Decision D17.
    """
    _, rows, columns = target.shape
    q, q_prime = positions_of(target), positions_of(source)
    a_prime = co_firing(signature(q, weights["g"]), signature(q_prime, weights["f"]))
    before = joined(a_prime, weights["alpha"])
    a = np.vectorize(relu)(before)
    y = gather(a, signature({"target": q, "source": q_prime}[values], weights["h"]))
    update = signature(y, weights["w"])
    return AttentionTrace(a_prime, before, a, y, update, map_of(update + q, rows, columns))


def symmetric(target: Array, weights: Mapping[str, Array]) -> AttentionTrace:
    """SSA (Remark 2): Q′ = Q."""
    return cross_correlated(target, target, weights)


def non_local(target: Array, weights: Mapping[str, Array]) -> AttentionTrace:
    """Fig. 2: SSA without the concatenation and W_α, so A = A′ (Decision D18)."""
    _, rows, columns = target.shape
    q = positions_of(target)
    a = co_firing(signature(q, weights["g"]), signature(q, weights["f"]))
    y = gather(a, signature(q, weights["h"]))
    update = signature(y, weights["w"])
    return AttentionTrace(a, a, a, y, update, map_of(update + q, rows, columns))
