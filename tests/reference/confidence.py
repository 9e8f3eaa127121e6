"""Resampling and sign flips by plain loops, one resample and one query at a time, from given draws."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product


def resampled_mean(
    values: Sequence[float], identities: Sequence[int], drawn: Sequence[int]
) -> float:
    """The mean over all queries of the drawn identities, each as often as it was drawn."""
    taken = [
        v for who in drawn for v, owner in zip(values, identities, strict=True) if owner == who
    ]
    return sum(taken) / len(taken)


def every_flip(a: Sequence[float], b: Sequence[float], identities: Sequence[int]) -> float:
    """Two-sided p: the share of all ways to swap a and b for whole identities that differ as much as observed."""
    people = sorted(set(identities))

    def gap(swapped: Sequence[bool]) -> float:
        swap = dict(zip(people, swapped, strict=True))
        terms = [
            (x - y) if swap[who] else (y - x) for x, y, who in zip(a, b, identities, strict=True)
        ]
        return abs(math.fsum(terms))

    observed = gap([False] * len(people))
    flips = [gap(swapped) for swapped in product([False, True], repeat=len(people))]
    return sum(value >= observed - 1e-9 for value in flips) / len(flips)


def binomial_two_sided(fixed: int, broken: int) -> float:
    """The chance, over all outcomes of fair coins, of one that is no likelier than the observed split."""
    flips = fixed + broken
    likely = [math.comb(flips, heads) for heads in range(flips + 1)]
    return sum(chance for chance in likely if chance <= likely[fixed]) / 2**flips
