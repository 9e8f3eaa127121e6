"""What goes wrong, for whom, and why: from features and records alone, for any model."""

from ccan.diagnosis.checkpoints import CheckpointComparison, compare_checkpoints
from ccan.diagnosis.confusers import Confusers, Hubs, confusers, hubs
from ccan.diagnosis.failures import (
    FailureKind,
    FailureRules,
    Failures,
    failure_kinds,
    hardest_first,
    hardest_table,
)
from ccan.diagnosis.rankings import TopRankings, rank_all
from ccan.diagnosis.suspects import Suspect, Suspects, duplicates_table, halves, label_suspects
from ccan.diagnosis.thresholds import DistanceDistributions, distance_distributions
from ccan.diagnosis.whole import Diagnosis, camera_pair_table, diagnose, slice_table

__all__ = [
    "CheckpointComparison",
    "Confusers",
    "Diagnosis",
    "DistanceDistributions",
    "FailureKind",
    "FailureRules",
    "Failures",
    "Hubs",
    "Suspect",
    "Suspects",
    "TopRankings",
    "camera_pair_table",
    "compare_checkpoints",
    "confusers",
    "diagnose",
    "distance_distributions",
    "duplicates_table",
    "failure_kinds",
    "halves",
    "hardest_first",
    "hardest_table",
    "hubs",
    "label_suspects",
    "rank_all",
    "slice_table",
]
