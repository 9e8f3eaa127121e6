"""The paper's ablations as questions: what is changed, and what the paper found (Table 6, Fig. 2, 4a, 4b).

A variant is a small change of a recipe. Variants of several ablations with the same settings are one cell, so that
CCAN itself is trained once for all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

from ccan.config import Recipe, changed_settings
from ccan.errors import ConfigError

AblationName = Literal["table6", "embedding-dim", "parts", "attention", "decisions"]

BASE = "base"
"""Name of the cell with the recipe's own settings."""


@dataclass(frozen=True)
class Variant:
    """One row of an ablation.

    Attributes:
        label: what the row is called.
        change: from the recipe to this row's settings.
        paper: the paper's (mAP, rank-1) on Market-1501 in per cent, where it prints them.
    """

    label: str
    change: Callable[[Recipe], Recipe]
    paper: tuple[float, float] | None = None


@dataclass(frozen=True)
class Ablation:
    """A question, the rows that answer it, and the row that the others are compared with."""

    asks: str
    source: str
    variants: tuple[Variant, ...]
    against: str

    def variant(self, label: str) -> Variant:
        """The row of a label."""
        return next(one for one in self.variants if one.label == label)


@dataclass(frozen=True)
class Cell:
    """One training and evaluation: settings and a seed, whatever ablations ask for them.

    Attributes:
        name: of its folder, made from the settings that differ from the recipe's.
        recipe: every setting, the seed included.
    """

    name: str
    recipe: Recipe

    @property
    def folder(self) -> str:
        """Below the sweep's folder: NAME/seed-K."""
        return f"{self.name}/seed-{self.recipe.train.seed}"


def with_model(**settings: Any) -> Callable[[Recipe], Recipe]:
    """A change of the network's settings."""
    return lambda recipe: replace(recipe, model=replace(recipe.model, **settings))


def with_loss(**settings: Any) -> Callable[[Recipe], Recipe]:
    """A change of the loss's settings."""
    return lambda recipe: replace(recipe, loss=replace(recipe.loss, **settings))


def anywhere(recipe: Recipe) -> Recipe:
    """The recipe without the setting that may differ from cell to cell: the device."""
    return replace(recipe, train=replace(recipe.train, device="auto"))


def unchanged(recipe: Recipe) -> Recipe:
    """The recipe itself."""
    return recipe


_CCAN = "CCAN"

ABLATIONS: dict[AblationName, Ablation] = {
    "table6": Ablation(
        asks="What do the local branch and the two kinds of attention add?",
        source="Table 6; Decisions D3 and D16",
        against=_CCAN,
        variants=(
            Variant("G", with_model(local_branch=False, ssa=False, cca=False), (81.7, 92.7)),
            Variant("L", with_model(global_branch=False, ssa=False, cca=False), (79.5, 92.1)),
            Variant("G+L", with_model(ssa=False, cca=False), (83.6, 93.3)),
            Variant("G+SS1", with_model(local_branch=False, cca=False), (83.3, 92.9)),
            Variant("G+L+CC2", with_model(ssa=False), (85.6, 94.3)),
            Variant(_CCAN, unchanged, (87.0, 94.6)),
        ),
    ),
    "embedding-dim": Ablation(
        asks="How wide must an embedding be?",
        source="Fig. 4a; Decision D15",
        against="d = 1024",
        variants=tuple(
            Variant(f"d = {d}", with_model(embedding_dim=d)) for d in (128, 256, 512, 1024)
        ),
    ),
    "parts": Ablation(
        asks="Into how many parts should a person be cut?",
        source="Fig. 4b; Decision D15",
        against="kp = 4",
        variants=tuple(Variant(f"kp = {kp}", with_model(parts=kp)) for kp in (1, 2, 4, 6, 8)),
    ),
    "attention": Ablation(
        asks="Is cross-correlated attention better than none, and than the non-local one that it starts from?",
        source="Fig. 2; Decision D18",
        against="cross-correlated",
        variants=(
            Variant("none", with_model(ssa=False, cca=False)),
            Variant("non-local", with_model(attention="non_local")),
            Variant("cross-correlated", unchanged),
        ),
    ),
    "decisions": Ablation(
        asks="What do our readings of the paper cost or bring?",
        source="docs/decisions.md, those marked ◇",
        against="as decided",
        variants=(
            Variant("as decided", unchanged),
            Variant("D4: Q = global strip", with_model(cca_target="global")),
            Variant("D6: W_w at full scale", with_model(attention_init="symmetric_full_w")),
            Variant("D6: all of PyTorch's scale", with_model(attention_init="default")),
            Variant("D8: triplets on raw embeddings", with_loss(normalize=False)),
            Variant("D17: values from Q′", with_model(attention_values="source")),
        ),
    ),
}


def cell_of(base: Recipe, variant: Variant, seed: int) -> Cell:
    """The training that a row asks for, with a seed."""
    recipe = variant.change(base)
    changes = changed_settings(base.to_dict(), recipe.to_dict())
    parts = [f"{name.rsplit('.', 1)[-1]}={new}" for name, (_, new) in changes.items()]
    return Cell("+".join(parts) or BASE, replace(recipe, train=replace(recipe.train, seed=seed)))


def cells_of(name: AblationName, base: Recipe, seeds: int) -> list[Cell]:
    """Every training of an ablation, all rows with the first seed before any with the second.

    Seeds count from the recipe's own. Raises: ConfigError if seeds < 1.
    """
    if seeds < 1:
        raise ConfigError(f"seeds must be at least 1, got {seeds}")
    first = base.train.seed
    return [
        cell_of(base, variant, seed)
        for seed in range(first, first + seeds)
        for variant in ABLATIONS[name].variants
    ]
