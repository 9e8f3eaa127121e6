"""Does a map show what matters? Hide what it points at, and see what becomes of the ranking.

What is watched is the retrieval margin of a query, m = d(query, nearest wrong image) − d(query, nearest right image),
over the images that count: positive where rank 1 is right. Cells of the image (8 pixels) are taken away, most important
first (*deletion*) or least important first (*insertion*, read from the other end: the most important are what is left).
A map that shows what matters loses the margin soon in the first curve and keeps it long in the second:

    score = (area under insertion − area under deletion) / 2        0 in the mean for a random order

What is taken away is filled by ROAD's noisy linear imputation (Rong et al. 2022; the grad-cam package's code), which
leaves no edges for the network to see. Two rivals must be beaten: a random order, and one from the middle outwards (the
centre prior), since people stand in the middle of their boxes.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ccan.config import STRIDE_I1
from ccan.errors import ConfigError, ProtocolError, ShapeError
from ccan.evaluation.confidence import Interval, percentile_interval, resamples
from ccan.evaluation.feature_set import FeatureSet
from ccan.evaluation.ranking import ignored_pairs
from ccan.explain.attention import evaluating
from ccan.explain.maps import Picture
from ccan.model.network import CCAN

SHARES = (0.1, 0.2, 0.3, 0.5, 0.7, 0.9)
"""Shares of the cells that are taken away."""
NOISE = 0.01
"""ROAD's noise on imputed values, in units of the normalised image."""
RANDOM, CENTRE = "random", "centre"
"""The rivals."""

Values = NDArray[np.float64]


class RetrievalMargin:
    """m = d(query, nearest wrong) − d(query, nearest right), in the gallery as it is.

    Args:
        query: one query, with its descriptor.
        gallery: G images; those that the protocol ignores for the query are on neither side.

    Attributes:
        right, wrong: rows of the gallery that are nearest to the query as it is.

    Raises: ShapeError unless there is one query; ProtocolError if no image that counts is right, or none is wrong.
    """

    def __init__(self, query: FeatureSet, gallery: FeatureSet) -> None:
        if len(query) != 1:
            raise ShapeError(f"expected one query, got {len(query)}")
        columns = np.arange(len(gallery))
        ignored = ignored_pairs(query, gallery, np.zeros_like(columns), columns)
        same = gallery.identities == query.identities
        self.rows = [np.flatnonzero(side & ~ignored) for side in (same, ~same)]
        if not all(len(rows) for rows in self.rows):
            raise ProtocolError(
                f"expected a right and a wrong image that count, got {len(self.rows[0])} and {len(self.rows[1])}"
            )
        self.sides = [gallery.features[torch.as_tensor(rows)].double() for rows in self.rows]
        nearest = [int(d.argmin()) for d in self._distances(query.features)]
        self.right, self.wrong = (int(rows[k]) for rows, k in zip(self.rows, nearest, strict=True))

    def __call__(self, descriptors: Tensor) -> Values:
        """(B, D) → (B,), in units of the distance."""
        right, wrong = (d.min(dim=1).values for d in self._distances(descriptors))
        return (wrong - right).cpu().numpy()

    def _distances(self, descriptors: Tensor) -> list[Tensor]:
        probe = descriptors.double()
        exact = "donot_use_mm_for_euclid_dist"
        return [torch.cdist(probe, side.to(probe), compute_mode=exact) for side in self.sides]


def impute(image: Tensor, keep: NDArray[np.bool_], seed: int = 0) -> Tensor:
    """Fill what is not kept from its surroundings, (3, H, W) and (H, W) → (3, H, W), float32 on the CPU.

    Raises: ShapeError for a mask of another size or one that keeps nothing; ConfigError without the grad-cam package.
    """
    try:
        from pytorch_grad_cam.metrics.road import NoisyLinearImputer
    except ImportError as error:
        raise ConfigError('imputation needs grad-cam: pip install "ccan[explain]"') from error
    if keep.shape != tuple(image.shape[1:]) or not keep.any():
        raise ShapeError(
            f"expected a mask {tuple(image.shape[1:])} that keeps some pixels, got {keep.shape} with {keep.sum()} kept"
        )
    plain = image.detach().float().cpu()
    if keep.all():
        return plain
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        torch.manual_seed(seed)  # the package draws its noise from the global generator
        # It hands tensors to NumPy's functions.
        warnings.filterwarnings("ignore", "__array_wrap__", DeprecationWarning)
        return NoisyLinearImputer(NOISE)(plain, torch.from_numpy(keep.astype(np.float32)))


def cell_values(picture: Picture) -> Values:
    """Mean of a map over each cell of 8×8 pixels, (H/8, W/8); cells that it does not reach get less than all others."""
    rows, columns = (size // STRIDE_I1 for size in picture.shape)
    blocks = picture[: rows * STRIDE_I1, : columns * STRIDE_I1].astype(np.float64)
    blocks = blocks.reshape(rows, STRIDE_I1, columns, STRIDE_I1)
    seen = np.isfinite(blocks).sum(axis=(1, 3))
    means = np.nansum(blocks, axis=(1, 3)) / np.maximum(seen, 1)
    return np.where(seen > 0, means, means[seen > 0].min(initial=0) - 1)


def importance_order(cells: Values, seed: int = 0) -> NDArray[np.int64]:
    """Cells (row-major), most important first; equal ones in a random order, so that a flat map is a random one."""
    chance = np.random.default_rng(seed).random(cells.size)
    return np.lexsort((chance, -cells.ravel()))


def centre_prior(height: int, width: int) -> Picture:
    """A map that falls off from the middle of the image, in units of its half-axes, (H, W)."""
    ys, xs = (np.abs((np.arange(size) + 0.5) / size * 2 - 1) for size in (height, width))
    return (-np.hypot(ys[:, None], xs[None, :])).astype(np.float32)


@dataclass(frozen=True)
class Curves:
    """The margin of one query while its cells are taken away.

    Attributes:
        shares: of the cells that are gone, (S,), from 0 up.
        deletion: margin without the most important ones, (S,).
        insertion: margin without the least important ones, (S,).
    """

    shares: Values
    deletion: Values
    insertion: Values

    @property
    def score(self) -> float:
        """(area under insertion − area under deletion) / 2, in units of the distance."""
        return float(np.trapezoid(self.insertion - self.deletion, self.shares)) / 2


def faithfulness_curves(
    model: CCAN,
    image: Tensor,
    maps: Mapping[str, Picture],
    margin: RetrievalMargin,
    *,
    shares: Sequence[float] = SHARES,
    seed: int = 0,
) -> dict[str, Curves]:
    """Curves of every map for one query, and of the rivals `random` and `centre`.

    Args:
        model: any network that gives the descriptors of the margin's gallery; a `fast_for_inference` copy is quicker.
        image: the prepared query, (3, H, W).
        maps: name → (H, W).
        shares: ascending, each above 0 and below 1.
        seed: of the noise, the random order and ties.

    Raises: ShapeError for a map of another size; ConfigError for shares out of range.
    """
    if not shares or list(shares) != sorted(set(shares)) or not 0 < shares[0] <= shares[-1] < 1:
        raise ConfigError(f"shares must ascend between 0 and 1, both left out, got {shares}")
    height, width = image.shape[1:]
    wrong = [name for name, picture in maps.items() if picture.shape != (height, width)]
    if wrong:
        raise ShapeError(
            f"expected maps ({height}, {width}), got {wrong[0]!r} {maps[wrong[0]].shape}"
        )
    orders = {
        name: importance_order(cell_values(picture), seed)
        for name, picture in {**maps, CENTRE: centre_prior(height, width)}.items()
    }
    count = (height // STRIDE_I1) * (width // STRIDE_I1)
    orders[RANDOM] = np.random.default_rng([seed, 1]).permutation(count)
    with evaluating(model), torch.inference_mode():
        device = next(model.parameters()).device
        found = {}
        for name, order in orders.items():
            gone = [
                impute(image, _kept(way, share, height, width), seed)
                for way in (order, order[::-1])
                for share in shares
            ]
            batch = torch.stack([image.float().cpu(), *gone]).to(device, image.dtype)
            values = margin(model(batch).descriptor)
            intact, deletion, insertion = np.split(values, [1, 1 + len(shares)])
            found[name] = Curves(
                np.array([0.0, *shares]),
                np.concatenate([intact, deletion]),
                np.concatenate([intact, insertion]),
            )
    return found


def _kept(order: NDArray[np.int64], share: float, height: int, width: int) -> NDArray[np.bool_]:
    """Mask of the pixels that stay when this share of the cells is gone in this order."""
    rows, columns = height // STRIDE_I1, width // STRIDE_I1
    keep = np.ones(rows * columns, bool)
    keep[order[: round(share * len(order))]] = False
    large = keep.reshape(rows, columns).repeat(STRIDE_I1, axis=0).repeat(STRIDE_I1, axis=1)
    whole = np.ones((height, width), bool)  # pixels beyond the last whole cell always stay
    whole[: large.shape[0], : large.shape[1]] = large
    return whole


@dataclass(frozen=True)
class Faithfulness:
    """How well one map did over many queries; scores in units of the distance.

    Attributes:
        score: mean over queries.
        over_random, over_centre: mean gain over the rivals on the same queries, with intervals over resampled
            identities.
        deletion, insertion: mean margin at each share, (S,).
    """

    score: float
    over_random: Interval
    over_centre: Interval
    deletion: Values
    insertion: Values

    @property
    def verdict(self) -> str:
        """In words: what the intervals allow to say."""
        if self.over_random.low > 0 and self.over_centre.low > 0:
            return "faithful"
        if self.over_random.low > 0:
            return "better than random, not than the centre"
        if self.over_random.high < 0:
            return "misleading: worse than random"
        return "not shown"


def join_faithfulness(
    curves: Sequence[Mapping[str, Curves]],
    identities: Sequence[int],
    *,
    samples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, Faithfulness]:
    """One line a map from the curves of many queries.

    Args:
        curves: of each query, as `faithfulness_curves` gives them.
        identities: of each query: resamples draw identities, since queries of one person succeed and fail together.
        samples, seed, level: of the bootstrap.

    Raises: ShapeError if the numbers differ; ProtocolError for fewer than two identities.
    """
    if len(curves) != len(identities):
        raise ShapeError(
            f"expected an identity for each of {len(curves)} queries, got {len(identities)}"
        )
    people, person = np.unique(identities, return_inverse=True)
    if len(people) < 2:
        raise ProtocolError(f"intervals need queries of two identities at least, got {len(people)}")
    sizes = np.bincount(person).astype(np.float64)
    scores = {name: np.array([one[name].score for one in curves]) for name in curves[0]}
    drawn = np.concatenate(list(resamples(len(people), samples, seed)))  # samples × identities

    def interval(values: Values) -> Interval:
        sums = np.bincount(person, weights=values)
        return percentile_interval(float(values.mean()), drawn @ sums / (drawn @ sizes), level)

    return {
        name: Faithfulness(
            float(own.mean()),
            interval(own - scores[RANDOM]),
            interval(own - scores[CENTRE]),
            np.mean([one[name].deletion for one in curves], axis=0),
            np.mean([one[name].insertion for one in curves], axis=0),
        )
        for name, own in scores.items()
    }
