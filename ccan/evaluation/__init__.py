"""From images to features, from features to rankings, from rankings to figures. Needs torch and NumPy only."""

from ccan.evaluation.feature_set import FeatureSet
from ccan.evaluation.features import extract_features
from ccan.evaluation.metrics import APRule, MatchPositions
from ccan.evaluation.protocol import evaluate_features
from ccan.evaluation.ranking import Distance, Mark, Ranking, pairwise_distance, rank_gallery
from ccan.evaluation.report import EvaluationReport

__all__ = [
    "APRule",
    "Distance",
    "EvaluationReport",
    "FeatureSet",
    "Mark",
    "MatchPositions",
    "Ranking",
    "evaluate_features",
    "extract_features",
    "pairwise_distance",
    "rank_gallery",
]
