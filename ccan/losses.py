"""The loss: L = CE_G + Tri_G + CE_L + Tri_L (section 3.5, Eq. 4–5).

B images of a P×K batch, d embedding channels. Losses are computed in float32 or wider, whatever autocast did before.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from ccan.config import LossConfig
from ccan.errors import ConfigError, ShapeError
from ccan.model.network import CCANOutput


@dataclass(frozen=True)
class TripletReport:
    """A triplet loss with its bookkeeping; all scalars live on the embeddings' device.

    Attributes:
        loss: mean hinge over the mined triplets, with gradient.
        mined: number of mined triplets |P|.
        active: number of mined triplets with a hinge above zero.
    """

    loss: Tensor
    mined: Tensor
    active: Tensor


@dataclass(frozen=True)
class LossReport:
    """The total loss and its terms; a branch that is off gives None.

    Attributes:
        loss: the sum of the terms, with gradient.
        identity_global, triplet_global, identity_local, triplet_local: the four terms of Eq. 4.
    """

    loss: Tensor
    identity_global: Tensor | None
    triplet_global: TripletReport | None
    identity_local: Tensor | None
    triplet_local: TripletReport | None

    def values(self) -> dict[str, float]:
        """The terms as plain numbers by name, for logs; waits for the device."""
        found: dict[str, float] = {"loss": float(self.loss.detach())}
        for branch, identity, triplet in (
            ("global", self.identity_global, self.triplet_global),
            ("local", self.identity_local, self.triplet_local),
        ):
            if identity is not None:
                found[f"identity_{branch}"] = float(identity.detach())
            if triplet is not None:
                found[f"triplet_{branch}"] = float(triplet.loss.detach())
                found[f"mined_{branch}"] = float(triplet.mined)
                found[f"active_{branch}"] = float(triplet.active)
        return found


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
        if embeddings.dim() != 2 or identities.shape != embeddings.shape[:1]:
            raise ShapeError(
                f"expected embeddings (B, d) and identities (B,), got {tuple(embeddings.shape)} and "
                f"{tuple(identities.shape)}"
            )
        if embeddings.dtype in (torch.float16, torch.bfloat16):
            embeddings = embeddings.float()
        if self.normalize:
            embeddings = functional.normalize(embeddings, dim=1)
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


class IdentityLoss(nn.Module):
    """Cross-entropy with label smoothing, q = (1 − ε)·onehot + ε/K (section 3.5).

    Shapes: logits (B, K), labels (B,) in 0…K−1 → scalar.
    """

    def __init__(self, label_smoothing: float = 0.1) -> None:
        super().__init__()
        self.label_smoothing = label_smoothing

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """See the class."""
        if logits.dim() != 2 or labels.shape != logits.shape[:1]:
            raise ShapeError(
                f"expected logits (B, K) and labels (B,), got {tuple(logits.shape)} and "
                f"{tuple(labels.shape)}"
            )
        if logits.dtype in (torch.float16, torch.bfloat16):
            logits = logits.float()
        return functional.cross_entropy(logits, labels, label_smoothing=self.label_smoothing)


class CCANLoss(nn.Module):
    """The four terms of Eq. 4 on one output of the network.

    Shapes: CCANOutput of B images, labels (B,) → LossReport.
    """

    def __init__(self, config: LossConfig | None = None) -> None:
        super().__init__()
        config = LossConfig() if config is None else config
        self.identity = IdentityLoss(config.label_smoothing)
        self.triplet = SemiHardTripletLoss(config.margin, config.negatives, config.normalize)

    def forward(self, output: CCANOutput, labels: Tensor) -> LossReport:
        """See the class."""
        identity_global, triplet_global = self._branch(
            output.global_embedding, output.global_logits, labels
        )
        identity_local, triplet_local = self._branch(
            output.local_embedding, output.local_logits, labels
        )
        terms = [term for term in (identity_global, identity_local) if term is not None]
        terms += [term.loss for term in (triplet_global, triplet_local) if term is not None]
        total = torch.stack(terms).sum()
        return LossReport(total, identity_global, triplet_global, identity_local, triplet_local)

    def _branch(
        self, embedding: Tensor | None, logits: Tensor | None, labels: Tensor
    ) -> tuple[Tensor | None, TripletReport | None]:
        if embedding is None or logits is None:
            return None, None
        return self.identity(logits, labels), self.triplet(embedding, labels)
