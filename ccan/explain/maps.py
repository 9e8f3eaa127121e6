"""Every map that tells where one image's forward looked, by name, over the image: what tables, reports and pages show.

    SS1 gathered, CC2 gathered    how much each position is gathered from (mean of its column of A, over MN)
    SS1 added, CC2 added          how strongly attention changes each position, ‖φ(y W_w)‖
    G energy, parts energy        ‖x_r‖ of the streams' last maps before GAP
    G gradcam … parts eigencam    the Grad-CAM family for the similarity to another image, one stage before the last map
    G gradcam last, parts …       Grad-CAM on the last map, as it is usually drawn (twice as coarse)
    G ledger, parts ledger        what each position of the last map adds to the inner product with that image

``parts`` and ``CC2`` join the part streams over the image, on one scale; where strips overlap, their mean. Ledger maps
are signed, the others not negative.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ccan.explain.attention import (
    AttentionRecord,
    Summary,
    joined_pictures,
    record_of,
    slot_names,
)
from ccan.explain.embedding import embedding_maps
from ccan.explain.gradcam import CAM_METHODS, CamMaps, grad_cams, similarity_score
from ccan.explain.parts import stream_activations, stream_geometry
from ccan.explain.similarity import Ledger, ledger
from ccan.explain.trace import GLOBAL, Trace, trace
from ccan.model.network import CCAN

Picture = NDArray[np.float32]
"""(H, W) over the network's input; NaN where a map does not reach."""


def image_maps(model: CCAN, image: Tensor, reference: Tensor) -> dict[str, Picture]:
    """Every map of one image, those of similarity with respect to another; what a network lacks is left out.

    Shapes: image, reference (1, 3, H, W), as `Predictor.prepare` makes them → name → (H, W).
    """
    mine, other = trace(model, image), trace(model, reference)
    pictures = attention_pictures(
        record_of(model.config, mine.output, mine.slots)
    ) | energy_pictures(model, mine)
    score = similarity_score(other.output.descriptor[0])
    for method, cam in grad_cams(model, image, score, level="middle").items():
        pictures |= cam_pictures(cam, method)
    last = grad_cams(model, image, score, ("gradcam",), level="last")["gradcam"]
    pictures |= cam_pictures(last, "gradcam last")
    return pictures | ledger_pictures(
        model, ledger(model, embedding_maps(model), mine, other), mine
    )


def map_names(model: CCAN) -> list[str]:
    """Names of the maps that `image_maps` gives for a network, in its order."""
    slots = slot_names(model.config)
    sides = [GLOBAL] if model.global_branch is not None else []
    sides += ["parts"] if model.streams else []
    kinds = [*(["SS1"] if "SS1" in slots else []), *(["CC2"] if "CC2_1" in slots else [])]
    names = [f"{kind} {what}" for what in ("gathered", "added") for kind in kinds]
    names += [f"{side} energy" for side in sides]
    for method in (*CAM_METHODS, "gradcam last", "ledger"):
        names += [f"{side} {method}" for side in sides]
    return names


def attention_pictures(record: AttentionRecord) -> dict[str, Picture]:
    """What SS1 and the parts' CC2 did, over the image."""
    pictures: dict[str, Picture] = {}
    words: dict[Summary, str] = {"gathered_share": "gathered", "added_energy": "added"}
    for summary, word in words.items():
        if "SS1" in record.slots:
            pictures[f"SS1 {word}"] = record.slots["SS1"].on_image(summary)
        if set(record.slots) - {"SS1"}:
            pictures[f"CC2 {word}"] = record.parts_on_image(summary)
    return pictures


def energy_pictures(model: CCAN, found: Trace) -> dict[str, Picture]:
    """Energy of every stream's last map, over the image."""
    activations = stream_activations(model.config, found, top=1)
    return _by_side(
        {name: one.geometry.to_image(one.energy) for name, one in activations.items()}, "energy"
    )


def cam_pictures(cam: CamMaps, name: str) -> dict[str, Picture]:
    """One method's positive maps, over the image."""
    return _by_side({stream: cam.on_image(stream) for stream in cam.raw}, name)


def ledger_pictures(model: CCAN, found: Ledger, query: Trace) -> dict[str, Picture]:
    """What each position of the query adds to the inner product, over the image; signed."""
    pictures: dict[str, Picture] = {}
    for stream, last in query.last.items():
        place = stream_geometry(model.config, stream, *last.shape[2:])
        pictures[stream] = place.to_image(found.query_map(stream))
    return _by_side(pictures, "ledger")


def _by_side(pictures: Mapping[str, Picture], name: str) -> dict[str, Picture]:
    """The streams' pictures as ``G NAME`` and ``parts NAME``."""
    sides: dict[str, Picture] = {}
    if GLOBAL in pictures:
        sides[f"{GLOBAL} {name}"] = pictures[GLOBAL]
    parts = [picture for stream, picture in pictures.items() if stream != GLOBAL]
    if parts:
        sides[f"parts {name}"] = joined_pictures(parts)
    return sides
