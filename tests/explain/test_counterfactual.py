"""What if: changed attention and hidden pixels are what their names say, nothing stays changed, and rankings follow."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch

from ccan.errors import ShapeError
from ccan.evaluation import FeatureSet, evaluate_features
from ccan.explain.attention import attention_slots
from ccan.explain.counterfactual import (
    Change,
    altered,
    counterfactuals,
    hide,
    standard_changes,
    strip_mask,
)
from ccan.explain.trace import trace
from tests.explain.networks import CONFIGS, SMALL, images, network


@pytest.mark.parametrize("name", ["whole", "non-local", "roles swapped"])
def test_changes_are_what_their_names_say(name: str):
    model = network(CONFIGS[name])
    plain = trace(model, images(2))
    for slot, attention in attention_slots(model).items():
        a = plain.slots[slot].attention
        expected = {
            "uniform": a.mean(dim=2, keepdim=True).expand_as(a),
            "transposed": a.transpose(1, 2),
        }
        for change, wanted in expected.items():
            with altered(model, {slot: change}):  # type: ignore[dict-item]
                found = trace(model, images(2)).slots[slot]
            # The change stands in place of A: what is gathered is gathered by it.
            assert torch.allclose(found.attention, wanted)
        with altered(model, {slot: "off"}):
            found = trace(model, images(2))
        if slot == "SS1":
            assert torch.allclose(found.z1, model.i1(images(2)))
        else:
            stream = slot.replace("CC2_", "P")
            target = found.z2_strips if name == "roles swapped" else found.u
            assert torch.allclose(found.t[stream], target[stream])
        assert attention.taps.attention._forward_hooks == {}


def test_shuffled_columns_are_the_same_for_every_row_and_seed():
    model = network()
    a = trace(model, images(1)).slots["SS1"].attention[0]
    found = []
    for seed in (0, 0, 1):
        with altered(model, {"SS1": "shuffled"}, seed):
            found.append(trace(model, images(1)).slots["SS1"].attention[0])
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])
    assert torch.equal(found[0].sort(dim=1).values, a.sort(dim=1).values)
    order = torch.randperm(a.shape[1], generator=torch.Generator().manual_seed(0))
    assert torch.equal(found[0], a[:, order])


def test_nothing_stays_changed_and_other_threads_are_left_alone():
    model = network()
    with torch.inference_mode():
        before = model(images()).descriptor
        seen: list[torch.Tensor] = []

        def elsewhere() -> None:
            with torch.inference_mode():
                seen.append(model(images()).descriptor)

        changes: dict[str, Change] = {"SS1": "off", "CC2_1": "uniform"}
        with altered(model, changes):
            assert not torch.allclose(model(images()).descriptor, before)
            other = threading.Thread(target=elsewhere)
            other.start()
            other.join()
        with pytest.raises(RuntimeError, match="stop"), altered(model, changes):
            raise RuntimeError("stop")
        assert torch.equal(model(images()).descriptor, before)
        assert torch.equal(seen[0], before)
    assert not any(module._forward_hooks for module in model.modules())
    with pytest.raises(ShapeError, match=r"expected slots among SS1, CC2_1.* got CC2_9"):
        altered(model, {"CC2_9": "off"}).__enter__()


def test_hidden_pixels_are_the_mean_and_the_rest_stays():
    mask = strip_mask(96, 32, 3, 1)
    assert mask[32:64].all() and not mask[:32].any() and not mask[64:].any()
    found = hide(images(2), mask)
    assert (found[:, :, 32:64] == 0).all()
    assert torch.equal(found[:, :, 64:], images(2)[:, :, 64:])
    assert (images(2)[:, :, 32:64] != 0).any(), "a copy was changed"
    with pytest.raises(ShapeError, match=r"expected a mask \(96, 32\)"):
        hide(images(1), np.ones((32, 96), bool))


def gallery_of(model: torch.nn.Module) -> FeatureSet:
    with torch.inference_mode():
        features = model(images()[1:]).descriptor
    return FeatureSet(features, [1, 2, 1], [2, 2, 3])


def test_effects_are_those_of_the_changed_query_against_the_same_gallery():
    model = network().train()
    gallery = gallery_of(network())
    painted = np.zeros((96, 32), bool)
    painted[10:50, 5:20] = True
    found = counterfactuals(
        model, images()[:1], gallery, identity=1, camera=1, masks={"painted": painted}
    )
    assert list(found) == [
        "unchanged", "strip 1 hidden", "strip 2 hidden", "strip 3 hidden", "painted",
        "without SS1", "without CC2_1", "without CC2_2", "without CC2_3",
        "without any attention", "all attention uniform", "all attention shuffled",
        "all attention transposed",
    ]  # fmt: skip
    assert model.training and not any(m._forward_hooks for m in model.modules())
    plain = network()
    with torch.inference_mode():
        descriptors = {
            "unchanged": plain(images()[:1]).descriptor[0],
            "painted": plain(hide(images()[:1], painted)).descriptor[0],
        }
        with altered(plain, dict.fromkeys(attention_slots(plain), "transposed")):
            descriptors["all attention transposed"] = plain(images()[:1]).descriptor[0]
    for name, descriptor in descriptors.items():
        effect = found[name]
        assert effect.descriptor == pytest.approx(descriptor.numpy(), abs=1e-10)
        moved = (descriptor - descriptors["unchanged"]).norm()
        assert effect.moved == pytest.approx(float(moved), abs=1e-7)
        report = evaluate_features(FeatureSet(descriptor[None], [1], [1]), gallery)
        assert effect.ap == report.ap[0] and effect.first_match == report.first_match[0]
        assert effect.right == (report.first_match[0] == 1)
        assert effect.ap_change == pytest.approx(effect.ap - found["unchanged"].ap)
    assert found["unchanged"].moved == 0
    assert all(found[name].moved > 1e-6 for name in found if name != "unchanged")


def test_a_network_without_attention_is_asked_about_strips_only():
    model = network(CONFIGS["no attention"])
    assert standard_changes(model) == {}
    found = counterfactuals(model, images()[:1], gallery_of(model), identity=1, camera=1)
    assert len(found) == 1 + SMALL.parts
    with pytest.raises(ShapeError, match="expected one prepared image"):
        counterfactuals(model, images(), gallery_of(model), identity=1, camera=1)
