"""Explanations: pure functions on the maps of a real forward. See docs/explanations.md for which to believe."""

from ccan.explain.account import DistanceAccount, distance_accounts, waterfall
from ccan.explain.attention import (
    AttentionRecord,
    SlotGeometry,
    SlotMaps,
    record_attention,
    silent_slots,
    slot_geometry,
    slot_names,
)
from ccan.explain.counterfactual import counterfactuals
from ccan.explain.embedding import embedding_maps
from ccan.explain.gradcam import CamMaps, grad_cams, identity_score, similarity_score
from ccan.explain.maps import image_maps
from ccan.explain.parts import align_parts, knocked_out, stream_activations
from ccan.explain.similarity import cross_image_attention, ledger
from ccan.explain.trace import Trace, trace
from ccan.explain.votes import round_trip, split_votes, summarise

__all__ = [
    "AttentionRecord",
    "CamMaps",
    "DistanceAccount",
    "SlotGeometry",
    "SlotMaps",
    "Trace",
    "align_parts",
    "counterfactuals",
    "cross_image_attention",
    "distance_accounts",
    "embedding_maps",
    "grad_cams",
    "identity_score",
    "image_maps",
    "knocked_out",
    "ledger",
    "record_attention",
    "round_trip",
    "silent_slots",
    "similarity_score",
    "slot_geometry",
    "slot_names",
    "split_votes",
    "stream_activations",
    "summarise",
    "trace",
    "waterfall",
]
