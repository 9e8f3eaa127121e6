"""k-reciprocal re-ranking (Zhong, Zheng, Cao and Li, CVPR 2017).

    d(p, g)  = ‖p-g‖² / max over all images x of ‖p-x‖²
    R(p, k)  = images g among p's k nearest that have p among their own k nearest
    R*(p)    = R(p, k1) and every R(g, k1/2), g ∈ R(p, k1), of which more than two thirds lie in R(p, k1)
    V_p[g]   ∝ exp(-d(p, g)) for g ∈ R*(p), else 0, of sum 1; then its mean over p's k2 nearest
    final    = (1-λ) (1 - Σ min(V_p, V_g) / Σ max(V_p, V_g)) + λ d(p, g)

Queries and gallery are one set of images here, whatever their identities; an image is its own nearest, and counted in
k2 but not in k1. Where the text and the authors' program differ, the program is followed, as published figures come
from it: "more than" two thirds where the text has "at least", and k1/2 images beside the image itself, rounded down.

All that is kept of the (Q+G)² distances are each image's nearest and its largest one; V is sparse.
Letters: Q queries, B of them in a block, G gallery images, N = Q+G, K = 1+k1 nearest, H = 1+k1/2, D numbers of a
descriptor, P pairs (image, image of its set).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ccan.errors import ConfigError
from ccan.evaluation.blocks import BLOCK_BYTES, BlockDistances
from ccan.evaluation.feature_set import FeatureSet
from ccan.evaluation.ranking import DistanceTo, check_widths

AT_ONCE = 2**21
"""Most numbers that a step makes at a time, other than the distances of a block."""


@dataclass(frozen=True)
class ReRanking:
    """Settings of k-reciprocal re-ranking; the defaults are the paper's.

    Raises: ConfigError for a number of neighbours below 1 and a weight outside of 0 … 1.
    """

    k1: int = 20
    """Nearest images that may be reciprocal neighbours, the image itself not counted. All, if there are fewer."""

    k2: int = 6
    """Nearest images, the image itself included, whose encodings are averaged; 1 = none but its own."""

    weight: float = 0.3
    """λ: share of the original distance in the final one; 1 keeps the original ranking."""

    def __post_init__(self) -> None:
        for name, value in (("k1", self.k1), ("k2", self.k2)):
            if value < 1:
                raise ConfigError(f"{name} of the re-ranking must be at least 1, got {value}")
        if not 0 <= self.weight <= 1:
            raise ConfigError(
                f"weight of the original distance must be within 0 … 1, got {self.weight}"
            )


def reranked_distances(
    query: FeatureSet, gallery: FeatureSet, settings: ReRanking
) -> BlockDistances:
    """Re-ranked distances of queries start … stop to the whole gallery, on demand: (start, stop) → (B, G).

    The neighbourhoods of all images are worked out now; a block of distances is made anew at each call. Computed in
    float32 (float64 if either side is), on the gallery's device. Where computed distances are equal, the nearer image
    is the one that comes first, queries before gallery; an image is before all copies of itself.

    Raises: ShapeError if the widths differ; ProtocolError as `pairwise_distance`.
    """
    check_widths(query.features, gallery.features)
    dtype = torch.promote_types(query.features.dtype, gallery.features.dtype)
    device = gallery.features.device
    images = torch.cat([part.features.to(device, dtype) for part in (query, gallery)])  # (N, D)
    nearest, farthest = _neighbours(images, 1 + max(settings.k1, settings.k2 - 1))
    row, column = _expanded_sets(nearest[:, : 1 + settings.k1], 1 + settings.k1 // 2)
    encoding = _encoding(images, farthest, row, column)
    encoding = _averaged(encoding, nearest[:, : settings.k2])
    overlap = _Overlap(encoding, len(query))
    distance_to = DistanceTo(images[len(query) :], "squared_euclidean", dtype)

    def distances(start: int, stop: int) -> Tensor:
        shared = overlap(start, stop)  # (B, G)
        jaccard = shared.div_(2 - shared).neg_().add_(1)  # both encodings have sum 1
        original = distance_to(images[start:stop]).div_(farthest[start:stop, None])
        return jaccard.mul_(1 - settings.weight).add_(original, alpha=settings.weight)

    return distances


def _neighbours(images: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Each image's `count` nearest, itself first, (N, count) or (N, N); and its largest squared distance, (N,).

    Where all images are the same, 1 stands for the largest distance, as the divisor of zeros.
    """
    distance_to = DistanceTo(images, "squared_euclidean", images.dtype)
    rows = max(1, BLOCK_BYTES // (len(images) * images.itemsize))
    nearest: list[Tensor] = []
    farthest: list[Tensor] = []
    for start in range(0, len(images), rows):
        distances = distance_to(images[start : start + rows])  # (B, N)
        farthest.append(distances.amax(dim=1))
        distances.diagonal(start).fill_(-1)
        nearest.append(_smallest(distances, min(count, len(images))))
    largest = torch.cat(farthest)
    return torch.cat(nearest), torch.where(largest > 0, largest, 1)


def _smallest(values: Tensor, count: int) -> Tensor:
    """Columns of the `count` smallest values of each row, ascending, equal values by column: (B, N) → (B, count)."""
    found, columns = torch.topk(values, min(count + 1, values.shape[1]), largest=False)
    columns, by_column = columns[:, :count].sort(dim=1)
    by_value = found.gather(1, by_column).sort(dim=1, stable=True).indices
    columns = columns.gather(1, by_value)
    # topk may take any of several equal values; it matters if the first one left out equals the last one taken.
    cut = (found[:, count - 1] == found[:, -1]).nonzero()[:, 0] if found.shape[1] > count else None
    for part in torch.split(cut, 64) if cut is not None else ():
        columns[part] = values[part].sort(dim=1, stable=True).indices[:, :count]
    return columns


def _reciprocal(nearest: Tensor) -> Tensor:
    """Which of each image's nearest have it among their own: (N, K) → (N, K) bool."""
    own = torch.arange(len(nearest), device=nearest.device)[:, None, None]
    rows = _rows_at_once(nearest.shape[1] ** 2)
    parts = zip(torch.split(nearest, rows), torch.split(own, rows), strict=True)
    return torch.cat([(nearest[part] == mine).any(dim=2) for part, mine in parts])


def _rows_at_once(numbers: int) -> int:
    """Rows of so many numbers each that are worked on together."""
    return max(1, AT_ONCE // numbers)


def _expanded_sets(nearest: Tensor, half: int) -> tuple[Tensor, Tensor]:
    """R* of each image as pairs by image: (N, K) nearest, H → row (P,), column (P,), ascending."""
    narrow = nearest[:, :half]
    close = narrow.masked_fill(~_reciprocal(narrow), -2)  # (N, H) R(g, k1/2); -2, -1: nobody
    sets = nearest.masked_fill(~_reciprocal(nearest), -1)  # (N, K) R(p, k1)
    rows = _rows_at_once(nearest.shape[1] ** 2 * narrow.shape[1])
    pairs: list[Tensor] = []
    for start in range(0, len(nearest), rows):
        own = sets[start : start + rows]  # (B, K)
        offered = close[own]  # (B, K, H); what nobody offers is masked out below
        known = (offered[..., None] == own[:, None, None, :]).any(dim=3)
        taken = 3 * known.sum(dim=2) > 2 * (offered >= 0).sum(dim=2)  # (B, K)
        offered = offered.masked_fill(~(taken & (own >= 0))[..., None], -1).flatten(1)
        members = torch.cat([own, offered], dim=1).sort(dim=1).values  # (B, K + KH)
        fresh = members >= 0
        fresh[:, 1:] &= members[:, 1:] != members[:, :-1]
        row = fresh.nonzero()[:, 0]
        pairs.append(torch.stack([row + start, members[fresh]]))
    row, column = torch.cat(pairs, dim=1)
    return row, column


@dataclass(frozen=True, eq=False)
class _Rows:
    """A sparse matrix by rows: row n has count[n] entries, from first[n] on in `column` and `value`."""

    first: Tensor
    count: Tensor
    column: Tensor
    value: Tensor

    @staticmethod
    def of(row: Tensor, column: Tensor, value: Tensor, rows: int) -> _Rows:
        """From entries whose row numbers ascend."""
        count = torch.bincount(row, minlength=rows)
        return _Rows(count.cumsum(0) - count, count, column, value)

    def entries(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """All entries of some rows, (R,) → which of the R each belongs to (P,), where it stands (P,)."""
        count = self.count[rows]
        owner = torch.arange(len(rows), device=rows.device).repeat_interleave(count)
        within = torch.arange(len(owner), device=rows.device) - (count.cumsum(0) - count)[owner]
        return owner, self.first[rows][owner] + within


def _encoding(images: Tensor, farthest: Tensor, row: Tensor, column: Tensor) -> _Rows:
    """V before local query expansion, N rows of sum 1."""
    weight = torch.exp(-_squared_distances(images, row, column) / farthest[row])  # (P,)
    total = torch.zeros_like(farthest).index_add_(0, row, weight)
    return _Rows.of(row, column, weight / total[row], len(images))


def _squared_distances(images: Tensor, row: Tensor, column: Tensor) -> Tensor:
    """‖image row[p] - image column[p]‖², (P,); in two buffers that stay, as millions of descriptors pass through."""
    size = min(_rows_at_once(images.shape[1]), len(row))
    squared = images.new_empty(len(row))
    own, other = (images.new_empty(size, images.shape[1]) for _ in range(2))
    for start in range(0, len(row), size):
        stop = min(start + size, len(row))
        first, second = own[: stop - start], other[: stop - start]
        torch.index_select(images, 0, row[start:stop], out=first)
        torch.index_select(images, 0, column[start:stop], out=second)
        torch.sum(first.sub_(second).square_(), dim=1, out=squared[start:stop])
    return squared


def _averaged(encoding: _Rows, nearest: Tensor) -> _Rows:
    """Local query expansion: each image's encoding is the mean of those of its nearest, (N, k2)."""
    images, several = nearest.shape
    size = _rows_at_once(several * int(encoding.count.max()))
    pairs: list[Tensor] = []
    values: list[Tensor] = []
    for start in range(0, images, size):
        owner, place = encoding.entries(nearest[start : start + size].flatten())
        pair = (owner // several + start) * images + encoding.column[place]
        pair, order = pair.sort(stable=True)
        fresh = pair != torch.cat([pair.new_full((1,), -1), pair[:-1]])
        total = encoding.value.new_zeros(int(fresh.sum()))
        total.index_add_(0, fresh.cumsum(0) - 1, encoding.value[place][order])
        pairs.append(pair[fresh])
        values.append(total / several)
    pair = torch.cat(pairs)
    return _Rows.of(pair // images, pair % images, torch.cat(values), images)


class _Overlap:
    """Σ min(V_p, V_g) of queries p and gallery images g, through the list of gallery images that hold each image.

    Args:
        encoding: V of all N images.
        queries: Q; the images after the first Q are the gallery.
    """

    def __init__(self, encoding: _Rows, queries: int) -> None:
        self.encoding = encoding
        self.gallery = len(encoding.first) - queries
        offered = slice(int(encoding.count[:queries].sum()), None)
        holder = torch.arange(self.gallery, device=encoding.column.device)
        holder = holder.repeat_interleave(encoding.count[queries:])
        by_image = encoding.column[offered].argsort(stable=True)
        self.holders = _Rows.of(
            encoding.column[offered][by_image],
            holder[by_image],
            encoding.value[offered][by_image],
            len(encoding.first),
        )

    def __call__(self, start: int, stop: int) -> Tensor:
        """(B, G) for the queries start … stop."""
        shared = self.encoding.value.new_zeros((stop - start) * self.gallery)
        queries = torch.arange(start, stop, device=shared.device)
        line, place = self.encoding.entries(queries)
        held, own = self.encoding.column[place], self.encoding.value[place]
        # Cut where the running total of meetings passes a multiple of AT_ONCE.
        passed = self.holders.count[held].cumsum(0) // AT_ONCE
        sizes = torch.bincount(passed).cpu().numpy().tolist()
        parts = zip(*(torch.split(x, sizes) for x in (line, held, own)), strict=True)
        for rows, images, weights in parts:
            entry, meeting = self.holders.entries(images)
            least = torch.minimum(weights[entry], self.holders.value[meeting])
            place = rows[entry] * self.gallery + self.holders.column[meeting]
            shared.index_add_(0, place, least)
        return shared.view(stop - start, self.gallery)
