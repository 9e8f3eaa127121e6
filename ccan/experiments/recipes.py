"""Recipes by name: functions that return every setting of a training run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from ccan.config import (
    DataConfig,
    EvalConfig,
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


def scratch(dataset: str = "market1501") -> Recipe:
    """The paper's training without ImageNet weights: the same settings, longer, with a warm-up.

    - 350 epochs, as long as OSNet is trained from scratch on the same datasets (Zhou et al. 2019).
    - The full learning rate for three quarters of them, then ×0.1 every 50, as in the paper.
    - Ten epochs of warm-up from a tenth of the learning rate (Luo et al. 2019): fresh norms and attentions first find
      their scale.
    - Random erasing after the first quarter, as in the paper.

    Not run on real images yet. OSNet reached 81.0 mAP and 93.6 rank-1 on Market-1501 from scratch.
    """
    recipe = paper(dataset)
    return replace(
        recipe,
        name="scratch",
        data=replace(recipe.data, erasing_from_epoch=90),
        optim=replace(recipe.optim, decay_start=260, decay_every=50, warmup_epochs=10),
        train=replace(recipe.train, epochs=350, initial_weights="none"),
    )


def strong(dataset: str = "market1501") -> Recipe:
    """Today's practice on the paper's architecture; each setting's docstring says more and names its source.

    - BN-neck, ten epochs of warm-up, random erasing from the start (Luo et al. 2019); last stride 1 (Sun et al. 2018).
    - Soft-margin triplets on raw embeddings, as Hermans et al. 2017 have them; `--loss.triplet circle
      --loss.normalize` is the other choice.
    - A cosine over all epochs, and colour jitter by 0.15, 0.15, 0.1 and 0.1 (fast-reid, He et al. 2020).
    - An average of weights over some thousand steps, five epochs of Market-1501 (Tarvainen and Valpola 2017).
    - Attention diversity, the paper's future work, with a weight of 0.1 that is our guess.
    - Evaluation averages each image with its mirror: give `ccan evaluate` its `--flip`.

    Epochs, learning rate and weight decay are the paper's. The goal is to be above the paper's own 87.0 mAP and 94.6
    rank-1 on Market-1501, and above 81.0 and 93.6 from random weights (`--train.initial-weights none --train.epochs
    350`). Neither has been measured: no real dataset was at hand.
    """
    recipe = paper(dataset)
    return replace(
        recipe,
        name="strong",
        model=replace(recipe.model, neck="batch_norm", last_stride=1),
        loss=LossConfig(triplet="soft_margin", normalize=False, attention_diversity=0.1),
        data=replace(
            recipe.data,
            erasing_from_epoch=0,
            jitter_probability=0.5,
            jitter_brightness=0.15,
            jitter_contrast=0.15,
            jitter_saturation=0.1,
            jitter_hue=0.1,
        ),
        optim=replace(recipe.optim, schedule="cosine", warmup_epochs=10),
        train=replace(recipe.train, ema_decay=0.999),
        eval=EvalConfig(flip=True),
    )


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


RECIPES: dict[str, Callable[[str], Recipe]] = {
    "paper": paper,
    "scratch": scratch,
    "strong": strong,
    "demo": demo,
    "smoke": smoke,
}


def recipe(name: str, dataset: str) -> Recipe:
    """The recipe of a name for a dataset. Raises: ConfigError that lists the known names."""
    if name not in RECIPES:
        raise ConfigError(f"recipe must be one of {', '.join(RECIPES)}, got {name!r}")
    return RECIPES[name](dataset)
