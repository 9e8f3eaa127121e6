"""The loss: L = CE_G + Tri_G + CE_L + Tri_L (section 3.5, Eq. 4–5).

B images of a P×K batch, K identities. Losses are computed in float32 or wider, whatever autocast did before.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

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

    def tensors(self) -> dict[str, Tensor]:
        """The terms by name, scalars on the device, nothing waited for."""
        found: dict[str, Tensor] = {"loss": self.loss}
        for branch, identity, triplet in (
            ("global", self.identity_global, self.triplet_global),
            ("local", self.identity_local, self.triplet_local),
        ):
            if identity is not None:
                found[f"identity_{branch}"] = identity
            if triplet is not None:
                found[f"triplet_{branch}"] = triplet.loss
                found[f"mined_{branch}"] = triplet.mined
                found[f"active_{branch}"] = triplet.active
        if self.attention_diversity is not None:
            found["attention_diversity"] = self.attention_diversity
        return found

    def values(self) -> dict[str, float]:
        """The terms as plain numbers by name, for logs; waits for the device."""
        return {name: float(value.detach()) for name, value in self.tensors().items()}


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

    def forward(
        self, output: CCANOutput, labels: Tensor, joined: Callable[[Tensor], Tensor] | None = None
    ) -> LossReport:
        """See the class. With ``joined`` triplets are mined among the rows of all training processes.

        ``joined`` gives the rows of all R processes, with gradient to the own ones only. The triplet terms' gradients
        are R times as large, so that the mean over processes that follows is the gradient of the joint loss.
        """
        identity_global, triplet_global = self._branch(
            output.global_embedding, output.global_logits, labels, joined
        )
        identity_local, triplet_local = self._branch(
            output.local_embedding, output.local_logits, labels, joined
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
        self,
        embedding: Tensor | None,
        logits: Tensor | None,
        labels: Tensor,
        joined: Callable[[Tensor], Tensor] | None,
    ) -> tuple[Tensor | None, TripletReport | None]:
        if embedding is None or logits is None:
            return None, None
        identity = self.identity(logits, labels)
        if joined is None:
            return identity, self.triplet(embedding, labels)
        everyone = joined(labels)
        triplet = self.triplet(joined(embedding), everyone)
        times = len(everyone) / len(labels)
        # The value stays; only the gradient grows.
        loss = times * triplet.loss - (times - 1) * triplet.loss.detach()
        return identity, replace(triplet, loss=loss)


def _attention_of(output: CCANOutput) -> Tensor:
    if output.part_attention is None:
        raise ShapeError(
            "the attention-diversity loss expected part_attention in the network's output, got None; set "
            "gives_part_attention = True on the network before its forward"
        )
    return output.part_attention
