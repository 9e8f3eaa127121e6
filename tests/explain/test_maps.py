"""Every map by name, each the one that its own function gives; groundings by hand; and the trust report of it all."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from ccan.data.synthetic.world import Region
from ccan.errors import ProtocolError, ShapeError
from ccan.evaluation import FeatureSet
from ccan.explain.attention import record_attention
from ccan.explain.grounding import ground, labels_like, mean_grounding
from ccan.explain.maps import image_maps, map_names
from ccan.explain.trace import trace
from ccan.explain.trust import Case, assess
from ccan.model.network import build_ccan
from tests.explain.networks import CONFIGS, SMALL, images, network


@pytest.mark.parametrize("name", CONFIGS)
def test_a_network_gives_the_maps_that_its_names_promise(name: str):
    model = network(CONFIGS[name])
    found = image_maps(model, images(1), images(2)[1:])
    assert list(found) == map_names(model)
    for key, picture in found.items():
        assert picture.shape == (96, 32) and np.isfinite(picture).all(), key
        assert "ledger" in key or picture.min() >= 0, key


def test_they_are_the_maps_of_their_functions():
    model = network()
    found = image_maps(model, images(1), images(2)[1:])
    record = record_attention(model, images(1))[0]
    assert np.array_equal(found["SS1 added"], record.slots["SS1"].on_image("added_energy"))
    assert np.array_equal(found["CC2 gathered"], record.parts_on_image("gathered_share"))
    energy = trace(model, images(1)).last["P3"][0].norm(dim=0)
    assert found["parts energy"][-1, -1] == pytest.approx(float(energy[-1, -1]), rel=1e-6)
    assert not np.array_equal(found["G gradcam"], found["G gradcam last"])


def test_groundings_by_hand():
    labels = np.zeros((4, 2), np.uint8)
    labels[0] = 5
    picture = np.array([[3, 1], [0, 2], [0, 0], [0, -9]], np.float32)
    found = ground(picture, labels, [5])
    assert (found.hit, found.area) == (1, 0.25)
    assert found.share == pytest.approx(4 / 6)
    assert found.iou == pytest.approx(
        1 / 3
    )  # the two highest are 3 and 2, the region holds 3 and 1
    assert found.blind_iou == pytest.approx(0.25 / 1.75)
    reach = np.full((4, 2), np.nan, np.float32)
    reach[1:3] = 1
    assert np.isnan(ground(reach, labels, [5]).hit), "the region is out of reach"
    labels[1, 0] = 5
    partly = ground(reach, labels, [5])
    assert (partly.hit, partly.area, partly.share) == (0.25, 0.25, 0.25)  # flat: as a blind map
    assert np.isnan(ground(np.zeros((4, 2), np.float32), labels, [5]).hit)
    mean, count = mean_grounding([found, ground(reach, np.zeros((4, 2), int), [5]), partly])
    assert count == 2 and mean.hit == pytest.approx(0.625)
    assert mean_grounding([])[1] == 0 and np.isnan(mean_grounding([])[0].iou)
    assert labels_like(labels, (8, 4)).tolist() == np.kron(labels, np.ones((2, 2))).tolist()
    with pytest.raises(ShapeError, match=r"expected a map and labels \(H, W\)"):
        ground(picture, labels.ravel(), [5])


@pytest.mark.slow
def test_the_trust_report_is_of_all_maps_and_regions():
    torch.manual_seed(1)
    config = replace(SMALL, parts=4, image_height=128)
    model = build_ccan(config, 5).eval()
    generator = torch.Generator().manual_seed(2)
    pictures = torch.randn(6, 3, 128, 32, generator=generator)
    with torch.inference_mode():
        features = model(pictures).descriptor
    gallery = FeatureSet(features[3:], [1, 2, 3], [2, 2, 2])
    labels = np.zeros((128, 32), np.uint8)
    for part, region in enumerate(
        (Region.HEAD_SHOULDER, Region.UPPER_BODY, Region.THIGHS, Region.CRUS_FOOT)
    ):
        labels[32 * part : 32 * part + 30, 4:28] = region
    labels[100:, :10] = Region.OCCLUDER
    cases = [
        Case(pictures[k], FeatureSet(features[k : k + 1], [k + 1], [1]), labels if k else None)
        for k in range(3)
    ]
    cases.append(Case(pictures[0], FeatureSet(features[:1], [9], [1])))  # nobody in the gallery
    told: list[tuple[int, int, str]] = []
    report = assess(
        model, cases, gallery, lambda row: pictures[3 + row], tested=2,
        progress=lambda *step: told.append(step),
    )  # fmt: skip
    assert (report.queries, report.identities, report.tested) == (3, 3, 2)
    assert list(report.randomisation) == map_names(model)
    assert set(report.faithfulness) == {*map_names(model), "random", "centre"}
    assert list(report.parts) == [
        "P1 → head_shoulder", "P2 → upper_body", "P3 → thighs", "P4 → crus_foot",
    ]  # fmt: skip
    assert list(report.person) == ["G", "P1", "P2", "P3", "P4"]
    assert set(report.occluders) == set(map_names(model))
    assert all(count == 2 for _, count in report.parts.values())
    assert told[0][:2] == (0, 4) and told[-1][0] == 3
    faithfulness, randomisation, grounding = report.tables()
    assert len(faithfulness) == len(map_names(model)) + 2
    scores = faithfulness.columns["score"]
    assert (np.diff(scores) <= 0).all()
    verdicts = dict(zip(faithfulness.columns["map"], faithfulness.columns["verdict"], strict=True))
    assert verdicts["random"] == "rival"
    assert verdicts["G energy"] == report.verdict("G energy")
    assert list(randomisation.columns) == [
        "map",
        "heads",
        "I3",
        "CC2",
        "I2",
        "SS1",
        "I1",
        "reading",
    ]
    assert len(grounding) == 4 + 5 + len(map_names(model))
    with pytest.raises(ProtocolError, match="at least two queries with a match, got 1"):
        assess(model, [cases[0], cases[3]], gallery, lambda row: pictures[3 + row])
