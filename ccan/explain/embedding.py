"""How the last maps become the embeddings: f_L = Σ_s B_s p_s + b and f_G = B_G p_G + b_G, exactly (section 3.3–3.4).

B_s are the columns of the local FC1 that read part s. A batch norm behind FC1 (``neck``) is affine in evaluation and is
folded into B and b, so that every explanation speaks of the very vectors that the descriptor joins.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ccan.explain.trace import GLOBAL, Trace, stream_names
from ccan.model.network import CCAN, EmbeddingHead

LOCAL = "L"


def branch_of(stream: str) -> str:
    """``G`` for the global stream, ``L`` for every part."""
    return GLOBAL if stream == GLOBAL else LOCAL


@dataclass(frozen=True)
class EmbeddingMaps:
    """The affine maps from pooled streams to embeddings.

    Attributes:
        weights: stream → B_s, (d, C).
        biases: branch (``G``, ``L``) → b, (d,).
    """

    weights: Mapping[str, Tensor]
    biases: Mapping[str, Tensor]

    def parts(self, trace: Trace) -> dict[str, Tensor]:
        """Stream → B_s p_s, (B, d): its share of the embedding, before the bias and before normalisation."""
        return {name: trace.pooled[name] @ weight.T for name, weight in self.weights.items()}

    def embedding(self, trace: Trace, branch: str) -> Tensor:
        """f_G or f_L, (B, d), put together again from its parts."""
        parts = self.parts(trace)
        own = [value for name, value in parts.items() if branch_of(name) == branch]
        return torch.stack(own).sum(dim=0) + self.biases[branch]


def embedding_maps(model: CCAN) -> EmbeddingMaps:
    """The maps of a network as they are now, detached."""
    weights: dict[str, Tensor] = {}
    biases: dict[str, Tensor] = {}
    streams = stream_names(model)
    for branch, module in ((GLOBAL, model.global_branch), (LOCAL, model.local_branch)):
        if module is None:
            continue
        weight, bias = _folded(module.head)
        own = [name for name in streams if branch_of(name) == branch]
        weights |= dict(zip(own, weight.chunk(len(own), dim=1), strict=True))
        biases[branch] = bias
    return EmbeddingMaps(weights, biases)


def _folded(head: EmbeddingHead) -> tuple[Tensor, Tensor]:
    """FC1 with the neck behind it as one affine map: (d, C) and (d,)."""
    weight, bias = head.fc1.weight.detach(), head.fc1.bias.detach()
    if not isinstance(head.neck, nn.BatchNorm1d):
        return weight, bias
    mean, variance = head.neck.running_mean, head.neck.running_var
    assert mean is not None and variance is not None
    scale = (variance + head.neck.eps).rsqrt()
    if head.neck.weight is not None:
        scale = scale * head.neck.weight.detach()
    return weight * scale[:, None], (bias - mean) * scale
