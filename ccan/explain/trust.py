"""Which pictures can be trusted: every test of the maps on one model and one world, in three tables.

Faithfulness on the retrieval margin against a random order and the centre; randomisation, stage by stage; and, where
label maps exist, whether streams look at their parts and whether attention avoids what stands in front of people.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ccan.data.synthetic.world import Region
from ccan.errors import ProtocolError
from ccan.evaluation.feature_set import FeatureSet
from ccan.explain.faithfulness import (
    CENTRE,
    RANDOM,
    SHARES,
    Curves,
    Faithfulness,
    RetrievalMargin,
    faithfulness_curves,
    join_faithfulness,
)
from ccan.explain.grounding import Grounding, ground, mean_grounding
from ccan.explain.maps import Picture, image_maps
from ccan.explain.parts import stream_activations
from ccan.explain.randomisation import SURVIVES, Randomisation, randomisation_test
from ccan.explain.trace import GLOBAL, trace
from ccan.model.fast import fast_for_inference
from ccan.model.network import CCAN
from ccan.tables import Table

Labels = NDArray[np.integer]
Progress = Callable[[int, int, str], None]
"""Called with (steps done, steps in all, what is being done)."""

PARTS = (Region.HEAD_SHOULDER, Region.UPPER_BODY, Region.THIGHS, Region.CRUS_FOOT)
"""The paper's parts (a)–(d): what the streams of a network with kp = 4 should look at."""
PERSON = (Region.CARRIED, Region.ARMS, *PARTS)
LEAST_OCCLUDED = 0.05
"""Share of the image that an occluder must cover to be counted."""


@dataclass(frozen=True)
class TrustReport:
    """What every test found.

    Attributes:
        faithfulness: map → how it did on the margin, the rivals among them.
        randomisation: map → what is left of it, stage by stage.
        parts: ``P1 → head_shoulder`` … → means over images, and their number; only for kp = 4 where labels exist.
        person: ``G``, ``P1`` … → the same against the whole person.
        occluders: map → the same against occluders, over images that have one.
        queries, identities: that the faithfulness is averaged over.
        tested: images of the randomisation test.
    """

    faithfulness: Mapping[str, Faithfulness]
    randomisation: Mapping[str, Randomisation]
    parts: Mapping[str, tuple[Grounding, int]]
    person: Mapping[str, tuple[Grounding, int]]
    occluders: Mapping[str, tuple[Grounding, int]]
    queries: int
    identities: int
    tested: int

    def tables(self) -> list[Table]:
        """Three tables, or two where there are no labels."""
        tables = [
            self._faithfulness_table(),
            self._randomisation_table(),
            self._grounding_table(),
        ]
        return [table for table in tables if len(table)]

    def verdict(self, name: str) -> str:
        """What may be said of a map, in words."""
        words = self.faithfulness[name].verdict
        tested = self.randomisation.get(name)
        return f"{words}; decoration" if tested is not None and tested.survives else words

    def _faithfulness_table(self) -> Table:
        rows = []
        ordered = sorted(self.faithfulness.items(), key=lambda item: -item[1].score)
        for name, one in ordered:
            rival = name in (RANDOM, CENTRE)
            rows.append(
                [
                    name,
                    one.score,
                    *(one.over_random.value, one.over_random.low, one.over_random.high),
                    *(one.over_centre.value, one.over_centre.low, one.over_centre.high),
                    "rival" if rival else self.verdict(name),
                ]
            )
        header = [
            *("map", "score", "over random", "from", "to"),
            *("over centre", "from ", "to ", "verdict"),
        ]
        note = (
            f"Retrieval margin while cells are taken away, {self.queries} queries of {self.identities} identities; "
            f"shares taken away: {', '.join(f'{share:g}' for share in SHARES)}. score = (area under insertion − area "
            "under deletion) / 2, in units of the distance; gains over a random order and over the centre prior with "
            "95 % intervals over identities. Faithful: both intervals lie above 0."
        )
        return Table.of_rows("faithfulness", header, rows, note)

    def _randomisation_table(self) -> Table:
        stages = list(next(iter(self.randomisation.values())).correlation)
        rows = [
            [
                name,
                *one.correlation.values(),
                f"decoration (≥ {SURVIVES:g})" if one.survives else "depends on what was learnt",
            ]
            for name, one in self.randomisation.items()
        ]
        note = (
            f"Rank correlation of each map with that of the trained network, mean over {self.tested} images, when a "
            "stage and all behind it have their weights in a random order."
        )
        return Table.of_rows("randomisation", ["map", *stages, "reading"], rows, note)

    def _grounding_table(self) -> Table:
        rows: list[list[Any]] = []
        for found, what in (
            (self.parts, "own part"),
            (self.person, "person"),
            (self.occluders, "occluder"),
        ):
            for name, (mean, count) in found.items():
                rows.append(
                    [name, what, count, mean.hit, mean.area, mean.iou, mean.blind_iou, mean.share]
                )
        header = ["map", "region", "images", "hit", "area", "IoU", "blind IoU", "share"]
        note = (
            "Maps against the generator's label maps. hit: the highest cell shows the region (pointing game; a blind "
            "map: area). IoU of the region and the map's highest pixels, as many as the region has (a blind map: blind "
            "IoU). share: of the map's mass on the region (a blind map: area); on occluders less is better."
        )
        return Table.of_rows("grounding", header, rows, note)


@dataclass(frozen=True)
class Case:
    """One query to be tested with.

    Attributes:
        image: prepared, (3, H, W).
        query: its descriptor and facts, one row.
        labels: its label map, or None.
    """

    image: Tensor
    query: FeatureSet
    labels: Labels | None = None


def assess(
    model: CCAN,
    cases: Sequence[Case],
    gallery: FeatureSet,
    prepare: Callable[[int], Tensor],
    *,
    tested: int = 40,
    seed: int = 0,
    progress: Progress | None = None,
) -> TrustReport:
    """Test every map of a network on some queries.

    Args:
        model: the network.
        cases: queries of at least two identities; those without a match are left out.
        gallery: as the network indexed it.
        prepare: row of the gallery → its prepared image (3, H, W): similarity maps refer to the nearest right image.
        tested: images of the randomisation test, the first so many cases.
        seed: of all that is random.
        progress: told how far the work is.

    Raises: ProtocolError if fewer than two cases have a match.
    """
    fast = fast_for_inference(model)
    margins = [(case, _margin(case, gallery)) for case in cases]
    counted = [(case, margin) for case, margin in margins if margin is not None]
    if len(counted) < 2:
        raise ProtocolError(f"expected at least two queries with a match, got {len(counted)}")
    device = next(model.parameters()).device
    curves: list[dict[str, Curves]] = []
    grounded = _Grounded()
    total = len(counted) + 1
    for done, (case, margin) in enumerate(counted):
        if progress is not None:
            progress(done, total, "hiding what maps point at")
        image, reference = case.image[None].to(device), prepare(margin.right)[None].to(device)
        maps = image_maps(fast, image, reference)
        curves.append(faithfulness_curves(fast, case.image, maps, margin, seed=seed + done))
        if case.labels is not None:
            grounded.add(fast, image, maps, case.labels)
    if progress is not None:
        progress(len(counted), total, "randomising the network")
    some = counted[: max(2, tested)]
    randomised = randomisation_test(
        model,
        torch.stack([case.image for case, _ in some]).to(device),
        torch.stack([prepare(margin.right) for _, margin in some]).to(device),
        image_maps,
        seed=seed,
    )
    identities = [int(case.query.identities[0]) for case, _ in counted]
    return TrustReport(
        faithfulness=join_faithfulness(curves, identities, seed=seed),
        randomisation=randomised,
        parts=grounded.means("parts"),
        person=grounded.means("person"),
        occluders=grounded.means("occluders"),
        queries=len(counted),
        identities=len(set(identities)),
        tested=len(some),
    )


def _margin(case: Case, gallery: FeatureSet) -> RetrievalMargin | None:
    try:
        return RetrievalMargin(case.query, gallery)
    except ProtocolError:
        return None


class _Grounded:
    """Groundings of many images: what they are held against → map → one an image."""

    def __init__(self) -> None:
        self.found: dict[str, dict[str, list[Grounding]]] = {}

    def add(self, model: CCAN, image: Tensor, maps: Mapping[str, Picture], labels: Labels) -> None:
        """Hold one image's streams and maps against its label map."""
        activations = stream_activations(model.config, trace(model, image), top=1)
        for stream, one in activations.items():
            picture = one.geometry.to_image(one.energy)
            self._keep("person", stream, picture, labels, PERSON)
            if stream != GLOBAL and len(model.streams) == len(PARTS):
                own = PARTS[int(stream[1:]) - 1]
                self._keep("parts", f"{stream} → {own.name.lower()}", picture, labels, [own])
        if (labels == Region.OCCLUDER).mean() >= LEAST_OCCLUDED:
            for name, picture in maps.items():
                self._keep("occluders", name, picture, labels, [Region.OCCLUDER])

    def _keep(
        self, kind: str, name: str, picture: Picture, labels: Labels, regions: Sequence[int]
    ) -> None:
        of_kind = self.found.setdefault(kind, {})
        of_kind.setdefault(name, []).append(ground(picture, labels, regions))

    def means(self, kind: str) -> dict[str, tuple[Grounding, int]]:
        """Map → means over images, and how many they are."""
        return {name: mean_grounding(all_) for name, all_ in self.found.get(kind, {}).items()}
