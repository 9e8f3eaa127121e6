"""The loss: L = CE_G + Tri_G + CE_L + Tri_L (section 3.5, Eq. 4–5).

B images of a P×K batch, K identities. Losses are computed in float32 or wider, whatever autocast did before.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from ccan.config import LossConfig
from ccan.errors import ShapeError
from ccan.losses.diversity import AttentionDiversityLoss
from ccan.losses.triplets import TripletReport, triplet_loss
from ccan.model.network import CCANOutput


@dataclass(frozen=True)
class LossReport:
    """The total loss and its terms; a branch that is off gives None.

    Attributes:
        loss: the sum of the terms, with gradient.
        identity_global, triplet_global, identity_local, triplet_local: the four terms of Eq. 4.
        attention_diversity: the fifth term, before its weight; None where it is off.
    """

    loss: Tensor
    identity_global: Tensor | None
    triplet_global: TripletReport | None
    identity_local: Tensor | None
    triplet_local: TripletReport | None
    attention_diversity: Tensor | None = None

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
        if self.attention_diversity is not None:
            found["attention_diversity"] = float(self.attention_diversity.detach())
        return found


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
    """The four terms of Eq. 4 on one output of the network, and attention diversity where its weight is above zero.

    Shapes: CCANOutput of B images, labels (B,) → LossReport.
    Raises: ShapeError if attention diversity is asked for and the output does not hold the attention.
    """

    def __init__(self, config: LossConfig | None = None) -> None:
        super().__init__()
        config = LossConfig() if config is None else config
        self.identity = IdentityLoss(config.label_smoothing)
        self.triplet = triplet_loss(config)
        self.diversity = AttentionDiversityLoss()
        self.diversity_weight = config.attention_diversity

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
        diversity = None
        if self.diversity_weight > 0:
            diversity = self.diversity(_attention_of(output))
            terms.append(self.diversity_weight * diversity)
        total = torch.stack(terms).sum()
        return LossReport(
            total, identity_global, triplet_global, identity_local, triplet_local, diversity
        )

    def _branch(
        self, embedding: Tensor | None, logits: Tensor | None, labels: Tensor
    ) -> tuple[Tensor | None, TripletReport | None]:
        if embedding is None or logits is None:
            return None, None
        return self.identity(logits, labels), self.triplet(embedding, labels)


def _attention_of(output: CCANOutput) -> Tensor:
    if output.part_attention is None:
        raise ShapeError(
            "the attention-diversity loss expected part_attention in the network's output, got None; set "
            "gives_part_attention = True on the network before its forward"
        )
    return output.part_attention
