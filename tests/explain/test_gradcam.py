"""Grad-CAM: the package's formulas on the right numbers, and every trap that a network of several streams sets."""

from __future__ import annotations

import subprocess
import sys
import threading

import numpy as np
import pytest
import torch
from torch import nn

from ccan.errors import ConfigError, ShapeError
from ccan.explain.gradcam import (
    CAM_METHODS,
    CamMethod,
    Level,
    grad_cams,
    identity_score,
    similarity_score,
)
from ccan.explain.trace import stream_stages, trace
from ccan.model.fast import fast_for_inference
from ccan.model.network import CCAN
from tests.explain.networks import CONFIGS, images, network


def by_hand(model: CCAN, identity: int, level: Level) -> dict[str, dict[str, np.ndarray]]:
    """stream → activations, gradients of the identity's score, from the definition: each stage run on by itself."""
    found = trace(model, images(1))
    result: dict[str, dict[str, np.ndarray]] = {}
    for stream in found.last:
        tapped = (found.last if level == "last" else found.t)[stream].clone().requires_grad_()
        x = tapped if level == "last" else stream_stages(model, stream)[1](tapped)
        pooled = {name: value.clone() for name, value in found.pooled.items()}
        pooled[stream] = x.mean(dim=(2, 3))
        score = torch.zeros(1, dtype=torch.float64)
        if "G" in pooled:
            assert model.global_branch is not None
            score = score + model.global_branch.head(pooled["G"]).logits[:, identity]
        parts = [value for name, value in pooled.items() if name != "G"]
        if parts:
            assert model.local_branch is not None
            score = score + model.local_branch.head(torch.cat(parts, dim=1)).logits[:, identity]
        (gradient,) = torch.autograd.grad(score.sum(), tapped)
        result[stream] = {
            "x": tapped.detach().numpy()[0],
            "g": gradient.numpy()[0],
            "score": score.detach().numpy(),
        }
    return result


@pytest.mark.parametrize("level", ["last", "middle"])
@pytest.mark.parametrize("name", ["whole", "global only", "local only", "neck", "one part"])
def test_maps_are_the_formulas_on_each_streams_own_numbers(name: str, level: Level):
    model = network(CONFIGS[name])
    found = grad_cams(model, images(1), identity_score(3), level=level)
    assert tuple(found) == CAM_METHODS
    for stream, own in by_hand(model, 3, level).items():
        x, g = own["x"], own["g"]
        second, third = g**2, g**3
        alpha = second / (2 * second + x.sum(axis=(1, 2), keepdims=True) * third + 1e-6)
        weights = (np.maximum(g, 0) * np.where(g != 0, alpha, 0)).sum(axis=(1, 2))
        expected = {
            "gradcam": np.einsum("c,cmn->mn", g.mean(axis=(1, 2)), x),
            "gradcam++": np.einsum("c,cmn->mn", weights, x),
            "hirescam": (g * x).sum(axis=0),
            "layercam": (np.maximum(g, 0) * x).sum(axis=0),
        }
        for method, values in expected.items():
            maps = found[method]  # type: ignore[index]
            assert maps.raw[stream] == pytest.approx(values, abs=1e-10), (stream, method)
            assert maps.score == pytest.approx(float(own["score"][0]), abs=1e-10)
            assert maps.level == level and maps.method == method
            assert np.array_equal(maps.positive(stream), np.maximum(maps.raw[stream], 0))


def test_behind_gap_grad_cam_is_hirescam_and_before_it_is_not():
    model = network()
    for level in ("last", "middle"):
        found = grad_cams(model, images(1), identity_score(0), ("gradcam", "hirescam"), level)
        gap = max(
            np.abs(found["gradcam"].raw[s] - found["hirescam"].raw[s]).max()
            for s in found["gradcam"].raw
        )
        # A mean gives every position the same gradient.
        assert (gap < 1e-12) == (level == "last")


def test_eigencam_is_the_first_principal_axis_on_the_side_of_the_energy():
    model = network()
    found = grad_cams(model, images(1), identity_score(0), ("eigencam",))["eigencam"]
    other = grad_cams(model, images(1), identity_score(4), ("eigencam",))["eigencam"]
    for stream, x in trace(model, images(1)).last.items():
        rows = x[0].flatten(1).T.numpy()
        centred = rows - rows.mean(axis=0)
        axis = np.linalg.svd(centred)[2][0]
        projection = (centred @ axis).reshape(found.raw[stream].shape)
        assert np.abs(found.raw[stream]) == pytest.approx(np.abs(projection), abs=1e-6)
        energy = np.linalg.norm(x[0].numpy(), axis=0)
        assert (found.raw[stream] * (energy - energy.mean())).sum() >= 0
        assert np.array_equal(found.raw[stream], other.raw[stream]), "it looks at no score"


def test_the_scale_is_that_of_the_score():
    model = network()
    plain = grad_cams(model, images(1), identity_score(2), ("gradcam",))["gradcam"]
    doubled = grad_cams(model, images(1), lambda o: 2 * identity_score(2)(o), ("gradcam",))
    for stream in plain.raw:
        assert doubled["gradcam"].raw[stream] == pytest.approx(2 * plain.raw[stream])
        assert np.abs(plain.raw[stream]).max() != pytest.approx(1), "rescaled to one"


def test_similarity_is_that_to_the_other_image_held_fixed():
    model = network()
    with torch.inference_mode():
        descriptors = model(images(2)).descriptor
    score = similarity_score(descriptors[1])
    maps = grad_cams(model, images(1), score, ("hirescam",))["hirescam"]
    assert maps.score == pytest.approx(float(descriptors[0] @ descriptors[1]))
    # Moving the last map a little along itself at one position changes the similarity as the map says.
    stream, step = "P2", 1e-6
    x = trace(model, images(1)).last[stream]

    def similarity(place: tuple[int, int], by: float) -> float:
        def push(_module: nn.Module, _inputs: object, output: torch.Tensor) -> torch.Tensor:
            moved = output.clone()
            moved[0, :, place[0], place[1]] += by * x[0, :, place[0], place[1]]
            return moved

        handle = stream_stages(model, stream)[1].register_forward_hook(push)
        with torch.inference_mode():
            value = float(model(images(1)).descriptor[0] @ descriptors[1])
        handle.remove()
        return value

    for place in ((0, 0), (1, 0)):
        slope = (similarity(place, step) - similarity(place, -step)) / (2 * step)
        assert maps.raw[stream][place] == pytest.approx(slope, abs=1e-7)


def test_the_import_is_lazy():
    code = "import sys, ccan.explain.gradcam; print('pytorch_grad_cam' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "False"


def test_an_in_place_operation_behind_the_tap_does_not_reach_what_was_kept():
    model = network()
    plain = grad_cams(model, images(1), identity_score(1), ("hirescam", "eigencam"))
    last = trace(model, images(1)).last["G"]
    assert model.global_branch is not None

    def spoil(_module: nn.Module, _inputs: object, output: torch.Tensor) -> torch.Tensor:
        return output.mul_(0.5)  # as a ReLU in place would, but seen in every value

    # Registered before the tap's own hook it is part of the stage; behind it, it is what follows.
    score = identity_score(1)
    kept: list[torch.Tensor] = []

    def watch(_module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        kept.append(inputs[0].clone())

    fc1 = model.global_branch.head.fc1
    fc1.register_forward_pre_hook(watch)
    i3 = model.global_branch.i3
    original = i3.register_forward_hook

    def register(hook, **options):  # type: ignore[no-untyped-def]
        handle = original(hook, **options)
        original(spoil)  # runs behind the tap
        return handle

    i3.register_forward_hook = register  # type: ignore[method-assign]
    spoiled = grad_cams(model, images(1), score, ("hirescam", "eigencam"))
    assert torch.allclose(kept[0], 0.5 * last.mean(dim=(2, 3))), "nothing was spoiled"
    # The tap still holds what I3 gave: half the gradient, the same activations.
    assert spoiled["hirescam"].raw["G"] == pytest.approx(0.5 * plain["hirescam"].raw["G"])
    assert spoiled["eigencam"].raw["G"] == pytest.approx(plain["eigencam"].raw["G"])


def test_nothing_of_the_model_is_changed():
    model = network().train()
    model.streams[0].eval()
    modes = [module.training for module in model.modules()]
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 7)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad():
        grad_cams(model, images(1), identity_score(0))
    with torch.inference_mode():
        inferred = grad_cams(model, images(1), identity_score(0))
    with pytest.raises(RuntimeError, match="stop"):
        grad_cams(model, images(1), lambda _: (_ for _ in ()).throw(RuntimeError("stop")))
    assert [module.training for module in model.modules()] == modes
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert all(bool((p.grad == 7).all()) for p in model.parameters() if p.grad is not None)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert any(np.abs(value).max() > 0 for value in inferred["gradcam"].raw.values())


def test_a_network_for_inference_gives_the_same_maps():
    model = network()
    fast = fast_for_inference(model)
    assert not any(parameter.requires_grad for parameter in fast.parameters())
    plain = grad_cams(model, images(1), identity_score(1))
    folded = grad_cams(fast, images(1), identity_score(1))
    for method in CAM_METHODS:
        for stream, values in plain[method].raw.items():
            assert folded[method].raw[stream] == pytest.approx(values, abs=1e-6), (method, stream)


def test_forwards_of_other_threads_are_not_heard():
    model = network()
    alone = grad_cams(model, images(1), identity_score(1), ("gradcam",))["gradcam"]

    def score(output):  # type: ignore[no-untyped-def]
        other = threading.Thread(target=lambda: model(images(2)[1:]))
        other.start()
        other.join()
        return identity_score(1)(output)

    beside = grad_cams(model, images(1), score, ("gradcam",))["gradcam"]
    assert all(np.array_equal(beside.raw[s], alone.raw[s]) for s in alone.raw)


def test_on_the_image_each_part_lies_on_its_strip():
    model = network()
    maps = grad_cams(model, images(1), identity_score(1), ("layercam",))["layercam"]
    picture = maps.on_image("P2")
    assert picture.shape == (96, 32)
    rows = np.isfinite(picture).all(axis=1)
    assert rows.tolist() == [32 <= row < 64 for row in range(96)]
    joined = maps.parts_on_image()
    assert np.isfinite(joined).all() and np.array_equal(joined[32:64], picture[32:64])
    assert np.isfinite(maps.on_image("G")).all()
    with pytest.raises(ShapeError, match="expected a network with part streams"):
        other = network(CONFIGS["global only"])
        grad_cams(other, images(1), identity_score(1), ("layercam",))["layercam"].parts_on_image()


def test_errors_say_what_to_do():
    model = network()
    with pytest.raises(ShapeError, match="expected one prepared image"):
        grad_cams(model, images(2), identity_score(0))
    with pytest.raises(ShapeError, match=r"class of the training set, 0…4, got 5"):
        grad_cams(model, images(1), identity_score(5))
    with pytest.raises(ShapeError, match=r"expected a descriptor \(14,\)"):
        grad_cams(model, images(1), similarity_score(np.zeros(3)))
    unknown: CamMethod = "scorecam"  # type: ignore[assignment]
    with pytest.raises(ConfigError, match="method must be one of gradcam, "):
        grad_cams(model, images(1), identity_score(0), (unknown,))
    level: Level = "first"  # type: ignore[assignment]
    with pytest.raises(ConfigError, match="level must be one of last, middle"):
        grad_cams(model, images(1), identity_score(0), level=level)


def test_without_the_package_the_error_names_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "pytorch_grad_cam", None)
    with pytest.raises(ConfigError, match=r'pip install "ccan\[explain\]"'):
        grad_cams(network(), images(1), identity_score(0))
