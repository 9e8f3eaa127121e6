"""The network of the paper: backbone stages, attention, and how they are put together."""

from ccan.model.attention import (
    CrossCorrelatedAttention,
    NonLocalAttention,
    SymmetricSelfAttention,
)
from ccan.model.network import CCAN, CCANOutput, build_ccan

__all__ = [
    "CCAN",
    "CCANOutput",
    "CrossCorrelatedAttention",
    "NonLocalAttention",
    "SymmetricSelfAttention",
    "build_ccan",
]
