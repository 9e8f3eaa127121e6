"""The ablations change what they say, and share the cells that they have in common."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ccan.config import ModelConfig, Recipe, changed_settings
from ccan.errors import ConfigError
from ccan.experiments.ablations import ABLATIONS, BASE, AblationName, cell_of, cells_of
from ccan.experiments.recipes import demo, paper

# Table 6 of the paper: which modules a row has, and (mAP, rank-1) on Market-1501.
TABLE_6 = {
    "G": (True, False, False, False, 81.7, 92.7),
    "L": (False, True, False, False, 79.5, 92.1),
    "G+L": (True, True, False, False, 83.6, 93.3),
    "G+SS1": (True, False, True, False, 83.3, 92.9),
    "G+L+CC2": (True, True, False, True, 85.6, 94.3),
    "CCAN": (True, True, True, True, 87.0, 94.6),
}


def changes_of(name: AblationName, label: str, base: Recipe) -> dict[str, object]:
    recipe = ABLATIONS[name].variant(label).change(base)
    found = changed_settings(base.to_dict(), recipe.to_dict())
    return {setting: new for setting, (_, new) in found.items()}


def test_table6_has_the_papers_rows_and_figures():
    rows = ABLATIONS["table6"].variants
    assert [row.label for row in rows] == list(TABLE_6)
    for row in rows:
        model = row.change(paper()).model
        *modules, mAP, rank1 = TABLE_6[row.label]
        assert [model.global_branch, model.local_branch, model.ssa, model.cca] == modules
        assert row.paper == (mAP, rank1)


def test_each_row_changes_its_settings_and_nothing_else():
    base = paper()
    assert changes_of("embedding-dim", "d = 256", base) == {"model.embedding_dim": 256}
    assert changes_of("embedding-dim", "d = 1024", base) == {}
    assert changes_of("parts", "kp = 6", base) == {"model.parts": 6}
    assert changes_of("attention", "non-local", base) == {"model.attention": "non_local"}
    assert changes_of("attention", "none", base) == {"model.ssa": False, "model.cca": False}
    assert changes_of("decisions", "D8: triplets on raw embeddings", base) == {
        "loss.normalize": False
    }
    assert [changes_of("decisions", row.label, base) for row in ABLATIONS["decisions"].variants][
        :4
    ] == [
        {},
        {"model.cca_target": "global"},
        {"model.attention_init": "symmetric_full_w"},
        {"model.attention_init": "default"},
    ]


@pytest.mark.parametrize("name", ABLATIONS)
def test_every_row_differs_and_one_of_them_is_the_reference(name: AblationName):
    ablation = ABLATIONS[name]
    recipes = [row.change(demo()) for row in ablation.variants]
    assert len({one.to_json() for one in recipes}) == len(recipes)
    assert ablation.variant(ablation.against) in ablation.variants
    assert ablation.asks.endswith("?")


def test_the_sizes_are_those_of_the_figures():
    sizes = [row.change(paper()).model for row in ABLATIONS["embedding-dim"].variants]
    assert [one.embedding_dim for one in sizes] == [128, 256, 512, 1024]
    parts = [row.change(paper()).model for row in ABLATIONS["parts"].variants]
    assert [one.parts for one in parts] == [1, 2, 4, 6, 8]


def test_settings_that_are_the_same_are_one_cell():
    base = paper()
    everything = {
        cell_of(base, row, 3).folder for name in ABLATIONS for row in ABLATIONS[name].variants
    }
    # 6 + 3 + 4 + 1 + 5: CCAN is in all five, and the attention's "none" is Table 6's G+L.
    assert len(everything) == 19
    assert f"{BASE}/seed-3" in everything
    assert "cca=False+local_branch=False+ssa=False/seed-3" in everything


def test_the_base_is_whatever_recipe_is_given():
    narrow = replace(paper(), model=ModelConfig(embedding_dim=256))
    assert cell_of(narrow, ABLATIONS["embedding-dim"].variant("d = 256"), 0).name == BASE
    assert (
        cell_of(narrow, ABLATIONS["embedding-dim"].variant("d = 1024"), 0).name
        == "embedding_dim=1024"
    )


def test_seeds_count_from_the_recipes_own_and_come_one_after_the_other():
    base = replace(paper(), train=replace(paper().train, seed=5))
    cells = cells_of("attention", base, 2)
    assert [cell.recipe.train.seed for cell in cells] == [5, 5, 5, 6, 6, 6]
    assert [cell.name for cell in cells[:3]] == [cell.name for cell in cells[3:]]
    with pytest.raises(ConfigError, match="seeds must be at least 1, got 0"):
        cells_of("attention", base, 0)
