"""Recipes by name: functions that return every setting of a training run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from ccan.config import (
    DataConfig,
    LossConfig,
    ModelConfig,
    OptimConfig,
    Recipe,
    TrainConfig,
)
from ccan.errors import ConfigError


def paper(dataset: str = "market1501") -> Recipe:
    """The paper's training (section 4.1): the defaults, with CUHK03's learning rate and margin where they differ.

    MSMT17 and every dataset that the paper does not name take Market-1501's values (Decision D13).
    """
    recipe = Recipe(name="paper")
    if dataset.startswith("cuhk03"):
        recipe = replace(recipe, loss=LossConfig(margin=1.5), optim=OptimConfig(learning_rate=1e-3))
    return recipe


def demo(dataset: str = "synthetic") -> Recipe:
    """The bundled model: a quarter of the width, for the synthetic world, from random weights, on a laptop's CPU."""
    return Recipe(
        name="demo",
        model=ModelConfig(
            width_multiplier=0.25, embedding_dim=256, image_height=128, image_width=64
        ),
        data=DataConfig(erasing_from_epoch=10),
        optim=OptimConfig(
            learning_rate=2e-3, weight_decay=1e-5, schedule="cosine", warmup_epochs=2
        ),
        train=TrainConfig(epochs=30, initial_weights="none"),
    )


def smoke(dataset: str = "synthetic") -> Recipe:
    """A tiny network for a few epochs: shows that the whole road works, not that CCAN does."""
    return Recipe(
        name="smoke",
        model=ModelConfig(
            width_multiplier=0.125, embedding_dim=64, image_height=128, image_width=64
        ),
        data=DataConfig(identities_per_batch=4, images_per_identity=4, erasing_from_epoch=2),
        optim=OptimConfig(learning_rate=2e-3, schedule="cosine"),
        train=TrainConfig(epochs=3, initial_weights="none"),
    )


RECIPES: dict[str, Callable[[str], Recipe]] = {"paper": paper, "demo": demo, "smoke": smoke}


def recipe(name: str, dataset: str) -> Recipe:
    """The recipe of a name for a dataset. Raises: ConfigError that lists the known names."""
    if name not in RECIPES:
        raise ConfigError(f"recipe must be one of {', '.join(RECIPES)}, got {name!r}")
    return RECIPES[name](dataset)
