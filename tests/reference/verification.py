"""Verification over single pairs by plain loops and sorted lists, written from the definitions."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise

from tests.reference.evaluation import Image, distance, is_ignored


def pairs(
    query: Sequence[Image], gallery: Sequence[Image], kind: str = "euclidean"
) -> tuple[list[float], list[float]]:
    """Distances of the pairs of one person and of the pairs of two."""
    genuine: list[float] = []
    impostors: list[float] = []
    for probe in query:
        if probe.identity == -1:
            continue
        for image in gallery:
            if not is_ignored(probe, image):
                same = image.identity == probe.identity
                (genuine if same else impostors).append(
                    distance(probe.feature, image.feature, kind)
                )
    return genuine, impostors


def auc(genuine: Sequence[float], impostors: Sequence[float]) -> Fraction:
    """Every genuine pair against every impostor: 1 if nearer, ½ if equal."""
    twice = sum(2 * (g < i) + (g == i) for g in genuine for i in impostors)
    return Fraction(twice, 2 * len(genuine) * len(impostors))


def curve(
    genuine: Sequence[float], impostors: Sequence[float]
) -> list[tuple[Fraction, Fraction, float]]:
    """(false match rate, true match rate, threshold) at every distance that occurs, from (0, 0)."""
    points = [(Fraction(0), Fraction(0), float("-inf"))]
    for threshold in sorted({*genuine, *impostors}):
        accepted = sum(i <= threshold for i in impostors), sum(g <= threshold for g in genuine)
        points.append(
            (Fraction(accepted[0], len(impostors)), Fraction(accepted[1], len(genuine)), threshold)
        )
    return points


def equal_error_rate(genuine: Sequence[float], impostors: Sequence[float]) -> Fraction:
    """Where the curve, its points joined by lines, meets x = 1 − y."""
    points = curve(genuine, impostors)
    for (x0, y0, _), (x1, y1, _) in pairwise(points):
        before, after = x0 + y0 - 1, x1 + y1 - 1
        if after >= 0:
            return x0 + -before / (after - before) * (x1 - x0)
    raise AssertionError("a curve ends in (1, 1)")


def tpr_at(genuine: Sequence[float], impostors: Sequence[float], rate: Fraction) -> Fraction:
    """The highest true match rate of all thresholds whose false match rate is at most this."""
    return max(y for x, y, _ in curve(genuine, impostors) if x <= rate)


def first_refused(impostors: Sequence[float], rate: Fraction) -> float:
    """The smallest impostor distance that no threshold may reach if at most this share is to be accepted."""
    for value in sorted(impostors):
        if Fraction(sum(i <= value for i in impostors), len(impostors)) > rate:
            return value
    raise AssertionError("only a rate of 1 accepts everything")
