"""Cross-Correlated Attention Networks (CCAN) for person re-identification.

The names below are the ones to begin with; they are imported when they are first used, so that `import ccan` stays
light (PEP 562).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOME = {
    "CCAN": "ccan.model",
    "CCANLoss": "ccan.losses",
    "CCANOutput": "ccan.model",
    "EvaluationReport": "ccan.evaluation",
    "FeatureSet": "ccan.evaluation",
    "GalleryIndex": "ccan.gallery",
    "ModelConfig": "ccan.config",
    "Predictor": "ccan.predictor",
    "ReIDDataset": "ccan.data",
    "Recipe": "ccan.config",
    "build_ccan": "ccan.model",
    "evaluate_features": "ccan.evaluation",
    "fit": "ccan.training",
    "index_dataset": "ccan.gallery",
    "load_dataset": "ccan.data",
}
__all__ = sorted(_HOME)

if TYPE_CHECKING:
    from ccan.config import ModelConfig as ModelConfig
    from ccan.config import Recipe as Recipe
    from ccan.data import ReIDDataset as ReIDDataset
    from ccan.data import load_dataset as load_dataset
    from ccan.evaluation import EvaluationReport as EvaluationReport
    from ccan.evaluation import FeatureSet as FeatureSet
    from ccan.evaluation import evaluate_features as evaluate_features
    from ccan.gallery import GalleryIndex as GalleryIndex
    from ccan.gallery import index_dataset as index_dataset
    from ccan.losses import CCANLoss as CCANLoss
    from ccan.model import CCAN as CCAN
    from ccan.model import CCANOutput as CCANOutput
    from ccan.model import build_ccan as build_ccan
    from ccan.predictor import Predictor as Predictor
    from ccan.training import fit as fit


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(
            f"module 'ccan' has no attribute {name!r}; it offers {', '.join(__all__)}"
        )
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
