"""Small networks of every kind for tests of explanations, in float64 and with embeddings that differ."""

from __future__ import annotations

from dataclasses import replace

import torch

from ccan.config import ModelConfig
from ccan.model.network import CCAN, build_ccan

SMALL = ModelConfig(
    width_multiplier=0.125, embedding_dim=7, image_height=96, image_width=32, parts=3
)
CONFIGS = {
    "whole": SMALL,
    "global only": replace(SMALL, local_branch=False, cca=False),
    "local only": replace(SMALL, global_branch=False, ssa=False, cca=False),
    "no attention": replace(SMALL, ssa=False, cca=False),
    "non-local": replace(SMALL, attention="non_local"),
    "roles swapped": replace(SMALL, cca_target="global"),
    "values of the source": replace(SMALL, attention_values="source"),
    "neck": replace(SMALL, neck="batch_norm"),
    "one part": replace(SMALL, parts=1),
}


def network(config: ModelConfig = SMALL, seed: int = 3, dtype: torch.dtype = torch.float64) -> CCAN:
    """Its batch norms have the statistics of other images, so that its embeddings depend on what it is shown."""
    torch.manual_seed(seed)
    model = build_ccan(config, num_identities=5).double().train()
    norms = [
        module
        for module in model.modules()
        if isinstance(module, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d)
    ]
    for module in norms:
        module.momentum = 1.0
    with torch.no_grad():
        model(torch.randn(8, 3, config.image_height, config.image_width, dtype=torch.float64))
    return model.to(dtype).eval()


def images(count: int = 4, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    generator = torch.Generator().manual_seed(5)
    return torch.randn(count, 3, 96, 32, generator=generator, dtype=torch.float64).to(dtype)
