"""`ccan score`: the figures of features that any model made."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from ccan.cli.judging import Judging
from ccan.config import EvalConfig


@dataclass(frozen=True)
class Score:
    """Judge features from a file, whatever made them: CMC, mAP, mINP."""

    features: Positional[Path]
    """.npz or .safetensors with query_features, query_ids, query_cameras, gallery_features, gallery_ids,
    gallery_cameras; as `ccan extract` writes it."""
    distance: Literal["euclidean", "squared_euclidean", "cosine"] = "euclidean"
    """Distance between descriptors (paper: Euclidean)."""
    ap: Literal["rank-sum", "trapezoid"] = "rank-sum"
    """Rule of average precision (Decision D14)."""
    rerank: bool = False
    """Re-rank by k-reciprocal neighbours (Zhong et al. 2017) with that paper's numbers."""
    device: str = "cpu"
    """Where distances are computed: `cpu`, `auto`, or a torch device."""
    judging: Annotated[Judging, arg(name="")] = field(default_factory=Judging)
    """By which protocol, and what is reported."""

    def run(self) -> None:
        """Judge, print a table, write the files."""
        from ccan.device import choose_device
        from ccan.evaluation.files import load_features

        with self.judging.outputs() as outputs:
            device = choose_device(self.device)
            query, gallery = (side.to(device) for side in load_features(self.features))
            settings = EvalConfig(distance=self.distance, ap=self.ap, rerank=self.rerank)
            self.judging.run(query, gallery, None, settings, outputs)
