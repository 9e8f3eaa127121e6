"""Explanations: pure functions on the maps of a real forward."""

from ccan.explain.attention import (
    AttentionRecord,
    SlotGeometry,
    SlotMaps,
    record_attention,
    silent_slots,
    slot_geometry,
    slot_names,
)

__all__ = [
    "AttentionRecord",
    "SlotGeometry",
    "SlotMaps",
    "record_attention",
    "silent_slots",
    "slot_geometry",
    "slot_names",
]
