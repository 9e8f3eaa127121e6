"""Settings: the paper's values by default, JSON and back without loss, and no meaningless combination."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import json
from pathlib import Path
from typing import Any

import pytest

import ccan.config
from ccan.config import (
    DataConfig,
    EvalConfig,
    LossConfig,
    ModelConfig,
    OptimConfig,
    Recipe,
    SearchConfig,
    TrainConfig,
    changed_settings,
)
from ccan.errors import ConfigError

GROUPS = (
    ModelConfig,
    LossConfig,
    DataConfig,
    OptimConfig,
    TrainConfig,
    EvalConfig,
    SearchConfig,
    Recipe,
)


def test_defaults_are_the_paper_s() -> None:
    """Sections 3 and 4.1, Decisions D1, D6, D8, D10."""
    recipe = Recipe()
    expected: dict[str, dict[str, Any]] = {
        "model": dict(
            embedding_dim=1024, parts=4, image_height=256, image_width=128, width_multiplier=1.0,
            reduction=8, global_branch=True, local_branch=True, ssa=True, cca=True,
            attention="cross_correlated", cca_target="part", attention_values="target",
            attention_init="symmetric", input_affine="none", backbone="googlenet", last_stride=2,
            neck="none",
        ),
        "loss": dict(
            label_smoothing=0.1, margin=1.0, negatives=10, normalize=True, triplet="semi_hard",
            attention_diversity=0.0,
        ),
        "data": dict(
            identities_per_batch=16, images_per_identity=4, crop_margin=1.125,
            flip_probability=0.5, erasing_probability=0.5, erasing_area=[0.02, 0.4],
            erasing_aspect=[0.3, 3.3], erasing_from_epoch=50,
        ),
        "optim": dict(
            learning_rate=5e-4, betas=[0.9, 0.99], weight_decay=1e-4, schedule="step",
            decay_start=150, decay_every=50, decay_factor=0.1, warmup_epochs=0,
        ),
        "train": dict(epochs=200, initial_weights="imagenet", validation_identities=0),
        "eval": dict(distance="euclidean", ap="rank-sum"),
    }  # fmt: skip
    found = recipe.to_dict()
    for group, values in expected.items():
        assert {name: found[group][name] for name in values} == values
    assert set(found["model"]) == set(expected["model"])
    assert recipe.data.batch_size == 64
    model = recipe.model
    assert (model.grid_z1, model.grid_z2, model.descriptor_dim) == ((32, 16), (16, 8), 2048)


def test_every_setting_has_a_docstring() -> None:
    tree = ast.parse(inspect.getsource(ccan.config))
    checked = 0
    for group in (node for node in tree.body if isinstance(node, ast.ClassDef)):
        for field, after in zip(group.body, [*group.body[1:], None], strict=True):
            if isinstance(field, ast.AnnAssign):
                assert isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant), (
                    f"{group.name}.{ast.unparse(field.target)}"
                )
                checked += 1
    assert checked == sum(len(dataclasses.fields(group)) for group in GROUPS)


def other_value(value: Any, name: str) -> Any:
    """A legal value that differs from the default."""
    special = {
        "cca": False, "ssa": False, "local_branch": True, "attention": "non_local",
        "cca_target": "global", "attention_values": "source", "attention_init": "default",
        "input_affine": "googlenet", "broken_images": "skip", "schedule": "cosine",
        "initial_weights": "none", "imagenet_file": "weights/file.pth", "device": "cuda:1",
        "precision": "bfloat16", "distance": "cosine", "ap": "trapezoid", "name": "mine",
        "image_height": 192, "image_width": 96, "label_smoothing": 0.25,
        "flip_probability": 0.25, "erasing_probability": 1.0, "backbone": "timm:resnet18",
        "last_stride": 1, "neck": "batch_norm", "triplet": "soft_margin", "crop_margin": 1.5,
    }  # fmt: skip
    if name in special:
        return special[name]
    if isinstance(value, bool):
        return value
    if isinstance(value, tuple):
        return tuple(part / 2 for part in value)
    if isinstance(value, float):
        return value / 2 or 0.5
    return value + 1


def test_json_keeps_every_setting() -> None:
    """Each setting alone, changed, survives the way through JSON text with its type."""
    changed = 0
    for group in dataclasses.fields(Recipe):
        default = getattr(Recipe(), group.name)
        names = [f.name for f in dataclasses.fields(default)] if group.name != "name" else []
        for name in names:
            value = other_value(getattr(default, name), name)
            recipe = dataclasses.replace(
                Recipe(), **{group.name: dataclasses.replace(default, **{name: value})}
            )
            again = Recipe.from_json(recipe.to_json())
            assert again == recipe
            found = getattr(getattr(again, group.name), name)
            assert found == value and type(found) is type(value)
            changed += recipe != Recipe()
    assert changed >= 45
    assert Recipe.from_json("{}") == Recipe()
    assert Recipe.from_json('{"name": "mine"}').name == "mine"


def test_whole_numbers_are_accepted_where_a_float_is_meant() -> None:
    config = LossConfig.from_dict({"margin": 2})
    assert config.margin == 2.0 and isinstance(config.margin, float)


def test_settings_cannot_be_changed_in_place() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        ModelConfig().parts = 2  # type: ignore[misc]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "a recipe must be JSON"),
        ("[]", r"Recipe expects an object of settings, got \[\]"),
        ('{"modle": {}}', r"Recipe has no setting 'modle'; it has: name, model, loss"),
        ('{"model": {"part": 2, "x": 1}}', r"ModelConfig has no setting 'part', 'x'; it has: emb"),
        ('{"model": {"parts": 2.5}}', r"ModelConfig\.parts must be int, got 2\.5"),
        ('{"model": {"parts": true}}', r"ModelConfig\.parts must be int, got True"),
        ('{"model": {"ssa": 1}}', r"ModelConfig\.ssa must be bool, got 1"),
        ('{"model": 4}', r"ModelConfig expects an object of settings, got 4"),
        ('{"loss": {"margin": "1"}}', r"LossConfig\.margin must be float, got '1'"),
        ('{"loss": {"margin": null}}', r"LossConfig\.margin must be float, got None"),
        (
            '{"model": {"attention": "nonlocal"}}',
            r"attention must be one of 'cross_correlated', 'non_local', got 'nonlocal'",
        ),
        ('{"model": {"last_stride": true}}', r"last_stride must be one of 1, 2, got True"),
        ('{"model": {"last_stride": 3}}', r"last_stride must be one of 1, 2, got 3"),
        ('{"optim": {"betas": [0.9]}}', r"OptimConfig\.betas must be a list of 2 values"),
        ('{"optim": {"betas": [0.9, "x"]}}', r"OptimConfig\.betas must be float, got 'x'"),
        ('{"train": {"imagenet_file": 3}}', r"TrainConfig\.imagenet_file must be str, got 3"),
    ],
)
def test_json_errors(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Recipe.from_json(text)


BAD: list[tuple[type[Any], dict[str, Any], str]] = [
    (ModelConfig, dict(embedding_dim=0), "embedding_dim must be a finite number > 0, got 0"),
    (ModelConfig, dict(width_multiplier=float("nan")), "width_multiplier must be a finite number"),
    (ModelConfig, dict(width_multiplier=float("inf")), "width_multiplier must be a finite number"),
    (ModelConfig, dict(parts=-1), "parts must be a finite number > 0, got -1"),
    (ModelConfig, dict(image_height=250), "image_height must be a multiple of 32 .* try 256"),
    (ModelConfig, dict(image_width=8), "image_width must be a multiple of 32 .* try 32"),
    (
        ModelConfig,
        dict(parts=17),
        "parts must be at most the 16 rows of Z2 at image_height=256, got 17",
    ),
    (ModelConfig, dict(parts=8, image_height=96), "at most the 6 rows"),
    (
        ModelConfig,
        dict(global_branch=False, local_branch=False, ssa=False, cca=False),
        "both off: there is nothing to train",
    ),
    (ModelConfig, dict(local_branch=False), "cca=True needs global_branch and local_branch"),
    (ModelConfig, dict(global_branch=False, ssa=False), "cca=True needs global_branch and"),
    (ModelConfig, dict(global_branch=False, cca=False), "ssa=True needs global_branch"),
    (ModelConfig, dict(attention="non_local", cca_target="global"), "works on Q alone .*'global'"),
    (
        ModelConfig,
        dict(attention="non_local", attention_values="source"),
        "works on Q alone .*'source'",
    ),
    (
        ModelConfig,
        dict(attention="non_local", local_branch=False),
        "cca=True needs global_branch and local_branch",
    ),
    (LossConfig, dict(label_smoothing=1.0), r"label_smoothing must lie in \[0, 1\), got 1\.0"),
    (LossConfig, dict(margin=0.0), "margin must be a finite number > 0"),
    (LossConfig, dict(negatives=0), "negatives must be a finite number > 0"),
    (
        ModelConfig,
        dict(backbone="resnet50"),
        "backbone must be 'googlenet' or 'timm:NAME' .* got 'resnet50'",
    ),
    (
        ModelConfig,
        dict(backbone="timm:"),
        "backbone must be 'googlenet' or 'timm:NAME' .* got 'timm:'",
    ),
    (
        ModelConfig,
        dict(backbone="timm:resnet18", width_multiplier=0.5),
        "width_multiplier scales GoogLeNet alone; .* got 0.5",
    ),
    (LossConfig, dict(circle_margin=1.0), r"circle_margin must lie in \(0, 1\), a cosine, got 1.0"),
    (LossConfig, dict(circle_margin=0.0), r"circle_margin must lie in \(0, 1\), a cosine, got 0.0"),
    (LossConfig, dict(circle_scale=0.0), "circle_scale must be a finite number > 0, got 0.0"),
    (LossConfig, dict(attention_diversity=-0.1), "attention_diversity must be .* got -0.1"),
    (
        LossConfig,
        dict(attention_diversity=float("inf")),
        "attention_diversity must be a finite weight ≥ 0, got inf",
    ),
    (LossConfig, dict(triplet="circle", normalize=False), "'circle' compares cosines"),
    (DataConfig, dict(images_per_identity=1), "images_per_identity must be at least 2"),
    (DataConfig, dict(identities_per_batch=0), "identities_per_batch must be"),
    (DataConfig, dict(crop_margin=0.9), "crop_margin must be .*, got 0.9"),
    (DataConfig, dict(crop_margin=float("inf")), "crop_margin must be .*, got inf"),
    (DataConfig, dict(flip_probability=1.5), "flip_probability must be a share between 0 and 1"),
    (DataConfig, dict(erasing_probability=float("nan")), "erasing_probability must be a share"),
    (DataConfig, dict(erasing_area=(0.4, 0.02)), "erasing_area must be two shares"),
    (DataConfig, dict(erasing_area=(0.0, 0.4)), "erasing_area must be two shares"),
    (DataConfig, dict(erasing_aspect=(0.0, 1.0)), "erasing_aspect must be 0 < low ≤ high"),
    (DataConfig, dict(erasing_from_epoch=-1), "erasing_from_epoch and workers must be at least 0"),
    (DataConfig, dict(workers=-2), "erasing_from_epoch and workers must be at least 0"),
    (OptimConfig, dict(learning_rate=0.0), "learning_rate must be a finite number > 0"),
    (OptimConfig, dict(betas=(0.9, 1.0)), r"betas must lie in \[0, 1\)"),
    (DataConfig, dict(erasing_aspect=(1.0, float("inf"))), "erasing_aspect must be 0 < low ≤ high"),
    (OptimConfig, dict(weight_decay=float("inf")), "weight_decay and warmup_epochs must be at"),
    (OptimConfig, dict(weight_decay=-1e-4), "weight_decay and warmup_epochs must be at least 0"),
    (TrainConfig, dict(epochs=0), "epochs must be a finite number > 0"),
    (TrainConfig, dict(ema_decay=1.0), r"ema_decay must lie in \[0, 1\), got 1\.0"),
    (TrainConfig, dict(seed=-1), "seed must be at least 0, got -1"),
    (TrainConfig, dict(validation_identities=-1), "validation_identities must be at least 0"),
    (EvalConfig, dict(batch_size=0), "batch_size must be a finite number > 0"),
    (EvalConfig, dict(workers=-1), "workers must be at least 0"),
]


@pytest.mark.parametrize(("group", "values", "message"), BAD, ids=[str(b[1]) for b in BAD])
def test_settings_without_meaning(group: type[Any], values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        group(**values)


def test_edges_that_have_a_meaning() -> None:
    ModelConfig(parts=16)
    ModelConfig(parts=99, local_branch=False, cca=False)  # without branch L nothing is cut
    ModelConfig(attention="non_local", local_branch=False, cca=False)
    LossConfig(label_smoothing=0.0)
    DataConfig(crop_margin=1.0, erasing_probability=0.0, flip_probability=1.0, workers=0)
    OptimConfig(betas=(0.0, 0.0), weight_decay=0.0)


def test_changed_settings_names_what_differs() -> None:
    old = Recipe()
    new = dataclasses.replace(
        old,
        name="mine",
        model=dataclasses.replace(old.model, parts=2, ssa=False),
        optim=dataclasses.replace(old.optim, betas=(0.8, 0.99)),
    )
    assert changed_settings(old.to_dict(), new.to_dict()) == {
        "name": ("paper", "mine"),
        "model.parts": (4, 2),
        "model.ssa": (True, False),
        "optim.betas": ([0.9, 0.99], [0.8, 0.99]),
    }
    assert changed_settings(old.to_dict(), Recipe.from_json(old.to_json()).to_dict()) == {}
    assert changed_settings({"a": 1}, {"b": {"c": 2}}) == {"a": (1, None), "b": (None, {"c": 2})}


def test_json_text_is_plain_and_ends_with_a_line_break(tmp_path: Path) -> None:
    text = Recipe().to_json()
    assert text.endswith("}\n") and json.loads(text) == Recipe().to_dict()
    (tmp_path / "config.json").write_text(
        text, encoding="ascii"
    )  # nothing that an editor could spoil
