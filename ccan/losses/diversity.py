"""Attention diversity: the positions of a part shall gather from different places (the paper's future work).

The paper names such a loss and does not define it; this is ours. B images, kp parts, MN positions.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from ccan.errors import ShapeError


class AttentionDiversityLoss(nn.Module):
    """Mean cosine similarity between the rows of A of each part stream's CC2.

        Div = mean over images and parts of  1/(n(n−1)) Σ_{i≠j} cos(A_i, A_j)

    Row i of A says where position i gathers from (Eq. 2), so the loss is 1 where all positions of a part gather from
    one and the same place, and 0 where no two of them share one. Rows without any weight tell no place and are left out
    (n counts the others, and a map with n < 2 is left out as a whole), so that nothing is won by an attention that
    dies. Streams are not compared with each other: their strips of the image are different places already.

    Σ_{i≠j} r_i·r_j = ‖Σ r_i‖² − Σ ‖r_i‖² makes it as cheap as reading A once.

    Shapes: attention (B, kp, MN, MN), values ≥ 0 → scalar; 0 if every map is left out.
    Raises: ShapeError for other shapes.
    """

    def forward(self, attention: Tensor) -> Tensor:
        """See the class."""
        if attention.dim() != 4 or attention.shape[2] != attention.shape[3]:
            raise ShapeError(
                f"expected attention maps (B, kp, MN, MN), got {tuple(attention.shape)}"
            )
        if attention.dtype in (torch.float16, torch.bfloat16):
            attention = attention.float()
        rows = functional.normalize(attention, dim=3)  # B kp MN MN
        n = (attention > 0).any(dim=3).sum(dim=2)  # B kp
        pairs = rows.sum(dim=2).square().sum(dim=2) - rows.square().sum(dim=(2, 3))  # B kp
        each = pairs / (n * (n - 1)).clamp(min=1) * (n > 1)
        return each.sum() / (n > 1).sum().clamp(min=1)
