"""From images to features, from features to rankings, from rankings to figures. Needs torch and NumPy only."""

from ccan.evaluation.comparison import PairedComparison, compare
from ccan.evaluation.confidence import Confidence, bootstrap
from ccan.evaluation.expansion import augment_database, average_query_expansion
from ccan.evaluation.feature_set import FeatureSet
from ccan.evaluation.features import extract_features
from ccan.evaluation.files import (
    load_feature_set,
    load_features,
    save_feature_set,
    save_features,
)
from ccan.evaluation.metrics import APRule, MatchPositions
from ccan.evaluation.multi_query import pool_multi_query
from ccan.evaluation.protocol import evaluate_features
from ccan.evaluation.ranking import Distance, Mark, Ranking, pairwise_distance, rank_gallery
from ccan.evaluation.report import EvaluationReport
from ccan.evaluation.rerank import ReRanking
from ccan.evaluation.single_shot import SingleShotReport, evaluate_single_shot
from ccan.evaluation.slices import CameraPairs, Slice, camera_pairs, slice_report
from ccan.evaluation.verification import Roc, VerificationReport, verify

__all__ = [
    "APRule",
    "CameraPairs",
    "Confidence",
    "Distance",
    "EvaluationReport",
    "FeatureSet",
    "Mark",
    "MatchPositions",
    "PairedComparison",
    "Ranking",
    "ReRanking",
    "Roc",
    "SingleShotReport",
    "Slice",
    "VerificationReport",
    "augment_database",
    "average_query_expansion",
    "bootstrap",
    "camera_pairs",
    "compare",
    "evaluate_features",
    "evaluate_single_shot",
    "extract_features",
    "load_feature_set",
    "load_features",
    "pairwise_distance",
    "pool_multi_query",
    "rank_gallery",
    "save_feature_set",
    "save_features",
    "slice_report",
    "verify",
]
