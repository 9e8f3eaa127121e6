"""Triplet losses: the paper's (Eq. 5), and two of today's to compare it with.

B images of a P×K batch, d embedding channels. Losses are computed in float32 or wider, whatever autocast did before.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from ccan.config import LossConfig
from ccan.errors import ConfigError, ShapeError


@dataclass(frozen=True)
class TripletReport:
    """A triplet loss with its bookkeeping; all scalars live on the embeddings' device.

    Attributes:
        loss: mean over what was mined, with gradient.
        mined: number of mined triplets |P|; for the losses that weigh all of an anchor's pairs, number of anchors.
        active: number of them that are not yet as they should be: a hinge, or what stands in the soft margin's place
            inside log(1 + e^x), is above zero.
    """

    loss: Tensor
    mined: Tensor
    active: Tensor


def triplet_loss(config: LossConfig) -> nn.Module:
    """The triplet loss that the settings name; each maps embeddings (B, d) and identities (B,) → TripletReport."""
    if config.triplet == "soft_margin":
        return SoftMarginTripletLoss(config.normalize)
    if config.triplet == "circle":
        return CircleLoss(config.circle_margin, config.circle_scale)
    return SemiHardTripletLoss(config.margin, config.negatives, config.normalize)


def pairwise_squared_euclidean(embeddings: Tensor) -> Tensor:
    """‖a − b‖² between all rows: (B, d) → (B, B), never below 0."""
    products = embeddings @ embeddings.T
    squares = products.diagonal()
    return (squares[:, None] + squares[None, :] - 2 * products).clamp(min=0)


class SemiHardTripletLoss(nn.Module):
    """Triplet loss on the top-r semi-hard negatives (Eq. 5; Decisions D8, D9).

    For each anchor a and positive p with D_p = ‖a − p‖², the negatives are the r nearest with D_p < D_n, and

        Tri = 1/|P| Σ max(0, D_p − D_n + τ)

    over all mined triplets P. A pair without such a negative gives no triplet; with none at all the loss is a zero
    that still back-propagates.

    Args:
        margin: τ, in squared distance.
        negatives: r.
        normalize: compare L2-normalised embeddings (Decision D8); False compares them raw.

    Shapes: embeddings (B, d), identities (B,) integers → TripletReport.
    Raises: ShapeError for other shapes.
    """

    def __init__(self, margin: float = 1.0, negatives: int = 10, normalize: bool = True) -> None:
        super().__init__()
        if not margin > 0 or negatives < 1:
            raise ConfigError(
                f"margin must be > 0 and negatives at least 1, got {margin!r} and {negatives!r}"
            )
        self.margin, self.negatives, self.normalize = margin, negatives, normalize

    def forward(self, embeddings: Tensor, identities: Tensor) -> TripletReport:
        """See the class."""
        embeddings = _comparable(embeddings, identities, self.normalize)
        with torch.autocast(embeddings.device.type, enabled=False):
            distances = pairwise_squared_euclidean(embeddings)  # B B
        chosen, mined = self.mine(distances.detach(), identities)  # B B r
        rows = torch.arange(len(distances), device=distances.device)[:, None, None]
        hinge = functional.relu(
            distances[:, :, None] - distances[rows, chosen] + self.margin
        )  # B B r
        hinge = hinge.masked_fill(~mined, 0)
        count = mined.sum()
        return TripletReport(hinge.sum() / count.clamp(min=1), count, (hinge > 0).sum())

    def mine(self, distances: Tensor, identities: Tensor) -> tuple[Tensor, Tensor]:
        """Semi-hard negatives of every (anchor, positive) pair.

        Shapes: distances (B, B), identities (B,) → negatives (B, B, r) as places in the batch, and a mask (B, B, r)
        of those that count. With fewer than r images the last axis is B.
        """
        size = len(identities)
        same = identities[:, None] == identities[None, :]
        others = torch.where(same, torch.inf, distances)
        ascending, order = others.sort(dim=1, stable=True)  # nearest negative first
        nearer = torch.searchsorted(ascending, distances, right=True)  # first with D_n > D_p
        steps = torch.arange(min(self.negatives, size), device=distances.device)
        place = nearer[:, :, None] + steps  # B B r
        positive = same & ~torch.eye(size, dtype=torch.bool, device=same.device)
        count = (~same).sum(dim=1)[:, None, None]
        mined = positive[:, :, None] & (place < count)
        rows = torch.arange(size, device=distances.device)[:, None, None]
        return order[rows, place.clamp(max=size - 1)], mined


class SoftMarginTripletLoss(nn.Module):
    """Batch-hard triplet loss with a soft margin (Hermans, Beyer, Leibe 2017).

        Tri = 1/|A| Σ log(1 + exp(max D_p − min D_n))

    over the anchors A that have a positive and a negative in the batch: D_p is the Euclidean distance (not squared, as
    in that paper) to the farthest positive, D_n to the nearest negative. Without such an anchor the loss is a zero that
    still back-propagates.

    Args:
        normalize: compare L2-normalised embeddings; that paper compares raw ones, between which D_p − D_n is not
            bounded by 2.

    Shapes: embeddings (B, d), identities (B,) integers → TripletReport.
    Raises: ShapeError for other shapes.
    """

    def __init__(self, normalize: bool = True) -> None:
        super().__init__()
        self.normalize = normalize

    def forward(self, embeddings: Tensor, identities: Tensor) -> TripletReport:
        """See the class."""
        embeddings = _comparable(embeddings, identities, self.normalize)
        positive, negative = _pairs(identities)
        with torch.autocast(embeddings.device.type, enabled=False):
            # By differences: a distance from products would be noise between near-equal embeddings.
            exactly = "donot_use_mm_for_euclid_dist"
            distances = torch.cdist(embeddings, embeddings, compute_mode=exactly)  # B B
        farthest = distances.masked_fill(~positive, -torch.inf).max(dim=1).values
        nearest = distances.masked_fill(~negative, torch.inf).min(dim=1).values
        return _soft_report(farthest - nearest, positive, negative)


class CircleLoss(nn.Module):
    """Circle loss on pairs (Sun et al. 2020), each anchor with all of its positives and negatives.

        L = 1/|A| Σ log(1 + Σ_n exp(γ α_n (s_n − m)) · Σ_p exp(−γ α_p (s_p − (1 − m))))
        α_p = max(0, 1 + m − s_p)        α_n = max(0, s_n + m)

    s are cosine similarities; α weighs a pair by how far it is from where it should be, and passes no gradient. A are
    the anchors that have a positive and a negative in the batch; without one the loss is a zero that still
    back-propagates.

    Args:
        margin: m.
        scale: γ.

    Shapes: embeddings (B, d), identities (B,) integers → TripletReport.
    Raises: ShapeError for other shapes.
    """

    def __init__(self, margin: float = 0.25, scale: float = 128.0) -> None:
        super().__init__()
        if not (0 < margin < 1 and scale > 0):
            raise ConfigError(
                f"margin must lie in (0, 1) and scale be > 0, got {margin!r} and {scale!r}"
            )
        self.margin, self.scale = margin, scale

    def forward(self, embeddings: Tensor, identities: Tensor) -> TripletReport:
        """See the class."""
        embeddings = _comparable(embeddings, identities, normalize=True)
        positive, negative = _pairs(identities)
        with torch.autocast(embeddings.device.type, enabled=False):
            cosine = embeddings @ embeddings.T  # B B
        seen, m = cosine.detach(), self.margin
        to_pull = -self.scale * (1 + m - seen).clamp(min=0) * (cosine - (1 - m))
        to_push = self.scale * (seen + m).clamp(min=0) * (cosine - m)
        nothing = (
            torch.finfo(cosine.dtype).min / 4
        )  # e^nothing = 0, and no ∞ that would spoil gradients
        pull = to_pull.masked_fill(~positive, nothing).logsumexp(dim=1)
        push = to_push.masked_fill(~negative, nothing).logsumexp(dim=1)
        return _soft_report(push + pull, positive, negative)


def _comparable(embeddings: Tensor, identities: Tensor, normalize: bool) -> Tensor:
    """Embeddings in float32 or wider, of unit length if asked for. Raises: ShapeError."""
    if embeddings.dim() != 2 or identities.shape != embeddings.shape[:1]:
        raise ShapeError(
            f"expected embeddings (B, d) and identities (B,), got {tuple(embeddings.shape)} and "
            f"{tuple(identities.shape)}"
        )
    if embeddings.dtype in (torch.float16, torch.bfloat16):
        embeddings = embeddings.float()
    return functional.normalize(embeddings, dim=1) if normalize else embeddings


def _pairs(identities: Tensor) -> tuple[Tensor, Tensor]:
    """Which (anchor, other) are a positive and which a negative pair, (B, B) each."""
    same = identities[:, None] == identities[None, :]
    itself = torch.eye(len(identities), dtype=torch.bool, device=identities.device)
    return same & ~itself, ~same


def _soft_report(excess: Tensor, positive: Tensor, negative: Tensor) -> TripletReport:
    """Mean of log(1 + e^x) over the anchors with both kinds of pairs: excess x (B,), pairs (B, B)."""
    anchors = positive.any(dim=1) & negative.any(dim=1)
    count = anchors.sum()
    each = functional.softplus(excess.masked_fill(~anchors, 0)) * anchors
    return TripletReport(each.sum() / count.clamp(min=1), count, ((excess > 0) & anchors).sum())
