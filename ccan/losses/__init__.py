"""What training minimises: the sum of Eq. 4, its triplet losses, and attention diversity."""

from ccan.losses.diversity import AttentionDiversityLoss
from ccan.losses.total import CCANLoss, IdentityLoss, LossReport
from ccan.losses.triplets import (
    CircleLoss,
    SemiHardTripletLoss,
    SoftMarginTripletLoss,
    TripletReport,
    pairwise_squared_euclidean,
)

__all__ = [
    "AttentionDiversityLoss",
    "CCANLoss",
    "CircleLoss",
    "IdentityLoss",
    "LossReport",
    "SemiHardTripletLoss",
    "SoftMarginTripletLoss",
    "TripletReport",
    "pairwise_squared_euclidean",
]
