"""Why two images are as far apart as they are: their squared distance as signed terms that add up exactly.

With f_L = Σ_s B_s p_s + b, n = ‖f_L‖ and Δ_L = f_L^q/n^q − f_L^g/n^g the terms of the local branch are

    ‖Δ_L‖² = Σ_s ⟨δ_s, Δ_L⟩ + ⟨δ_b, Δ_L⟩      δ_s = B_s p_s^q/n^q − B_s p_s^g/n^g      δ_b = b (1/n^q − 1/n^g)

and, since p_s is a mean over the R positions r of the last map x_s, each part's term is a sum over the positions of
both images: +⟨B_s x^q_{s,r}, Δ_L⟩/(R n^q) and −⟨B_s x^g_{s,r}, Δ_L⟩/(R n^g). The global branch is one more stream, with
a bias of its own. The whole is d² = ‖Δ_G‖² + ‖Δ_L‖² (section 3.4).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ccan.errors import ShapeError
from ccan.explain.embedding import LOCAL, EmbeddingMaps, branch_of, embedding_maps
from ccan.explain.trace import GLOBAL, Trace, numbers, trace
from ccan.explain.weighting import PartVectors
from ccan.model.network import CCAN

CAPTION = (
    "The terms add up to the squared distance. A term may be negative: it then speaks against the difference that all "
    "streams make together. The length of each embedding is taken as given and belongs to no part; what would happen "
    "without a part is another question (knock-out)."
)
"""What must stand beside an account."""

Values = NDArray[np.float64]


@dataclass(frozen=True)
class DistanceAccount:
    """The squared Euclidean distance of two descriptors, term by term.

    Attributes:
        squared_distance: d².
        terms: stream (``G``, ``P1`` …) and ``bias G``, ``bias L`` → signed term; they add up to d².
        query_map, gallery_map: stream → signed terms of the positions of its last map, (M, N); both maps of a stream
            add up to its term.
    """

    squared_distance: float
    terms: Mapping[str, float]
    query_map: Mapping[str, Values]
    gallery_map: Mapping[str, Values]

    def branches(self) -> dict[str, float]:
        """``G`` → ‖Δ_G‖², ``L`` → ‖Δ_L‖²."""
        return branch_sums(self.terms)


def branch_sums(terms: Mapping[str, float]) -> dict[str, float]:
    """``G`` → ‖Δ_G‖², ``L`` → ‖Δ_L‖² from the terms of a distance, of those branches that there are."""
    sums: dict[str, float] = {}
    for name, value in terms.items():
        branch = branch_of(name.removeprefix("bias "))
        sums[branch] = sums.get(branch, 0.0) + value
    return sums


def distance_accounts(model: CCAN, query: Tensor, gallery: Tensor) -> list[DistanceAccount]:
    """The accounts of one query image with several gallery images.

    Shapes: query (1, 3, H, W), gallery (B, 3, H, W), as `Predictor.prepare` makes them → B accounts.
    Raises: ShapeError unless there is one query.
    """
    if len(query) != 1:
        raise ShapeError(f"expected one query image (1, 3, H, W), got {tuple(query.shape)}")
    return accounts_of(embedding_maps(model), trace(model, query), trace(model, gallery))


def accounts_of(maps: EmbeddingMaps, query: Trace, gallery: Trace) -> list[DistanceAccount]:
    """The same from traces, of one image and of B."""
    found = [_OneBranch(maps, query, gallery, branch) for branch in maps.biases]
    return [_joined([one.account(image) for one in found]) for image in range(len(gallery.z1))]


class _OneBranch:
    """The parts of one branch's account, for one query and B gallery images, in float64."""

    def __init__(self, maps: EmbeddingMaps, query: Trace, gallery: Trace, branch: str) -> None:
        self.branch = branch
        self.streams = [name for name in maps.weights if branch_of(name) == branch]
        self.weights = {name: numbers(maps.weights[name]) for name in self.streams}
        self.bias = numbers(maps.biases[branch])
        self.last = [
            {name: numbers(side.last[name]) for name in self.streams} for side in (query, gallery)
        ]
        self.scaled = [self._over_length(side) for side in self.last]  # 1/n of each image

    def _over_length(self, last: Mapping[str, Values]) -> Values:
        """1/n of each image, (B,)."""
        whole = sum(last[name].mean(axis=(2, 3)) @ self.weights[name].T for name in self.streams)
        return 1 / np.maximum(np.linalg.norm(whole + self.bias, axis=1), 1e-12)

    def account(self, image: int) -> DistanceAccount:
        """Of the query and one gallery image."""
        (query, gallery), (over_query, over_gallery) = (
            self.last,
            (
                self.scaled[0][0],
                self.scaled[1][image],
            ),
        )
        pooled = [
            {name: side[name][row].mean(axis=(1, 2)) for name in self.streams}
            for side, row in ((query, 0), (gallery, image))
        ]
        bias = self.bias * (over_query - over_gallery)
        parts = {
            name: self.weights[name]
            @ (pooled[0][name] * over_query - pooled[1][name] * over_gallery)
            for name in self.streams
        }
        delta = bias + np.sum(list(parts.values()), axis=0)  # Δ, (d,)
        terms = {name: float(part @ delta) for name, part in parts.items()}
        terms[f"bias {self.branch}"] = float(bias @ delta)
        maps: list[dict[str, Values]] = [{}, {}]
        for name in self.streams:
            towards = delta @ self.weights[name]  # Bᵀ Δ, (C,)
            for side, (last, row, factor) in enumerate(
                ((query, 0, over_query), (gallery, image, -over_gallery))
            ):
                x = last[name][row]  # C M N
                maps[side][name] = factor * np.einsum("c,cmn->mn", towards, x) / x[0].size
        return DistanceAccount(float(delta @ delta), terms, *maps)


def _joined(branches: Sequence[DistanceAccount]) -> DistanceAccount:
    """The accounts of both branches as one."""
    terms: dict[str, float] = {}
    query: dict[str, Values] = {}
    gallery: dict[str, Values] = {}
    for one in branches:
        terms |= one.terms
        query |= one.query_map
        gallery |= one.gallery_map
    return DistanceAccount(sum(one.squared_distance for one in branches), terms, query, gallery)


def stream_terms(query: PartVectors, gallery: PartVectors) -> dict[str, Values]:
    """The terms of one query's distances to N images without their positions: what an index keeps is enough.

    Returns: ``G`` (‖Δ_G‖², its bias included), ``P1`` … and ``bias L`` → (N,); in the sum the squared distances.
    Raises: ShapeError unless there is one query.
    """
    counts = {len(values) for values in (query.parts, query.direction) if values is not None}
    if counts != {1}:
        raise ShapeError(f"expected the vectors of one query, got {sorted(counts)}")
    terms: dict[str, Values] = {}
    if query.direction is not None and gallery.direction is not None:
        terms[GLOBAL] = np.square(query.direction - gallery.direction).sum(axis=1)
    if query.parts is not None and gallery.parts is not None:
        scaled = []
        for parts in (query.parts, gallery.parts):
            lengths = np.linalg.norm(parts.sum(axis=1), axis=1)
            scaled.append(parts / np.maximum(lengths, 1e-12)[:, None, None])
        differences = scaled[0] - scaled[1]  # δ_1 … δ_kp, δ_b: (N, kp+1, d)
        local = np.einsum("nsd,nd->ns", differences, differences.sum(axis=1))
        names = [f"P{part + 1}" for part in range(local.shape[1] - 1)]
        terms |= dict(zip([*names, f"bias {LOCAL}"], local.T, strict=True))
    return terms


def waterfall(nearer: DistanceAccount, farther: DistanceAccount) -> dict[str, float]:
    """Why one image outranks another: term by term, farther − nearer; the sum is d²_farther − d²_nearer.

    For "why is wrong #1 ahead of the first true match" the wrong image is the nearer: a positive term speaks for it.
    Raises: ShapeError if the accounts are of different networks.
    """
    if nearer.terms.keys() != farther.terms.keys():
        raise ShapeError(
            f"expected accounts with the same terms, got {', '.join(nearer.terms)} and {', '.join(farther.terms)}"
        )
    return {name: farther.terms[name] - value for name, value in nearer.terms.items()}
