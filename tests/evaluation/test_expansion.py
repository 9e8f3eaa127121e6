"""Query expansion and database augmentation: by hand, by the loop twin, in blocks, and where they help."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from ccan.errors import ConfigError, ShapeError
from ccan.evaluation import FeatureSet, evaluate_features, expansion
from ccan.evaluation.expansion import augment_database, average_query_expansion
from tests.reference import multi_query as twin


def angles(*degrees: float, length: float = 1.0) -> FeatureSet:
    turned = np.deg2rad(np.array(degrees))
    rows = length * np.stack([np.cos(turned), np.sin(turned)], axis=1)
    return FeatureSet(rows, np.arange(len(rows)), [1] * len(rows))


def directions(features: FeatureSet) -> list[float]:
    np.testing.assert_allclose(features.features.norm(dim=1), 1, atol=1e-12)
    return torch.rad2deg(torch.atan2(features.features[:, 1], features.features[:, 0])).tolist()


Expand = Callable[..., FeatureSet]


def check_hand_case(expand: Expand = average_query_expansion) -> None:
    """Similarities of 0° to 60°, 90°, 180°: ½, 0, -1."""
    query, gallery = angles(0, length=7), angles(60, 90, 180, length=3)
    # α = 0, one neighbour: 0° + 60° → 30°. Two: 0° + 60° + 90° → atan((√¾ + 1) / 1½) = 51.2°.
    assert directions(expand(query, gallery, 1, 0)) == pytest.approx([30])
    two = np.rad2deg(np.arctan((0.75**0.5 + 1) / 1.5))
    assert directions(expand(query, gallery, 2, 0)) == pytest.approx([two])
    # α = 1: the weights are ½, 0, 0, whatever the number of neighbours: atan((½·√¾) / (1 + ¼)).
    one = np.rad2deg(np.arctan(0.5 * 0.75**0.5 / 1.25))
    for neighbours in (1, 2, 3):
        assert directions(expand(query, gallery, neighbours, 1)) == pytest.approx([one])


def test_hand_case():
    check_hand_case()


def without_the_query(query: FeatureSet, gallery: FeatureSet, k: int, alpha: float) -> FeatureSet:
    found = average_query_expansion(query, gallery, k, alpha)
    return found.with_features(found.features - query.normalized().features).normalized()


def lengths_as_weights(query: FeatureSet, gallery: FeatureSet, k: int, alpha: float) -> FeatureSet:
    nearest = gallery.features[:k].sum(0, keepdim=True)
    return query.with_features(query.features + nearest).normalized()


def negative_weights(query: FeatureSet, gallery: FeatureSet, k: int, alpha: float) -> FeatureSet:
    own, images = query.normalized().features, gallery.normalized().features[:k]
    return query.with_features(own + (own @ images.T) ** alpha @ images).normalized()


def alpha_ignored(query: FeatureSet, gallery: FeatureSet, k: int, alpha: float) -> FeatureSet:
    return average_query_expansion(query, gallery, k, 0)


@pytest.mark.parametrize(
    "mistake", [without_the_query, lengths_as_weights, negative_weights, alpha_ignored]
)
def test_the_hand_case_rejects_a_planted_error(mistake: Expand):
    with pytest.raises(AssertionError):
        check_hand_case(mistake)


def test_augmentation_by_hand():
    """0°, 20°, 90°: each takes its nearest other image, itself exactly once, twins included."""
    assert directions(augment_database(angles(0, 20, 90), 1, 0)) == pytest.approx([10, 10, 55])
    assert directions(augment_database(angles(30, 30, 90), 1, 0)) == pytest.approx([30, 30, 60])


@pytest.mark.parametrize("block_bytes", [1, 200, 2**26])
def test_equal_to_the_loop_twin(block_bytes: int, monkeypatch: pytest.MonkeyPatch):
    """600 cases on a small grid: ties, zero vectors, opposite directions; neighbours up to the whole gallery."""
    monkeypatch.setattr(expansion, "BLOCK_BYTES", block_bytes)
    generator = np.random.default_rng(block_bytes)
    for case in range(200):
        queries, images = int(generator.integers(1, 6)), int(generator.integers(2, 14))
        # Vectors of squared length 0, 1 and 4 have exact unit vectors, so that ties are exact on both sides.
        pool = np.array(
            [
                *(np.eye(4)),
                *(-np.eye(4)),
                *(0.5 * np.eye(4)),
                np.ones(4),
                np.zeros(4),
                [1, 1, -1, 1],
            ]
        )
        q, g = (pool[generator.integers(0, len(pool), n)] for n in (queries, images))
        query = FeatureSet(q, [1] * queries, [1] * queries)
        gallery = FeatureSet(g, [1] * images, [1] * images)
        k, alpha = int(generator.integers(1, images + 1)), (0.0, 1.0, 3.0)[case % 3]
        expected = [twin.expand(row, g.tolist(), k, alpha) for row in q.tolist()]
        found = average_query_expansion(query, gallery, k, alpha)
        np.testing.assert_allclose(found.features, expected, atol=1e-12)
        k = min(k, images - 1)
        expected = [
            twin.expand(row, [*g.tolist()[:n], *g.tolist()[n + 1 :]], k, alpha)
            for n, row in enumerate(g.tolist())
        ]
        found = augment_database(gallery, k, alpha)
        np.testing.assert_allclose(found.features, expected, atol=1e-12)


def test_facts_stay_and_inputs_are_untouched():
    query = FeatureSet(torch.ones(2, 3), [4, 5], [6, 7], ["a", "b"], {"view": ["x", "y"]})
    before = query.features.clone()
    found = average_query_expansion(query, query, 2)
    assert found.names == ("a", "b") and found.metadata["view"].tolist() == ["x", "y"]
    assert found.identities.tolist() == [4, 5] and torch.equal(query.features, before)


def test_both_find_more_where_a_person_looks_different_in_steps():
    """Images along an arc for each person: the neighbours lead from one end to the other."""
    generator = torch.Generator().manual_seed(0)
    people, steps = 11, 9
    ends = torch.nn.functional.normalize(torch.randn(2, people, 37, generator=generator), dim=2)
    share = torch.linspace(0, 1, steps)[:, None, None]
    arcs = ends[0] * (1 - share) + ends[1] * share  # (steps, people, D)
    arcs = arcs + 0.1 * torch.randn(arcs.shape, generator=generator)
    identities = torch.arange(people).repeat(steps - 1) + 1
    gallery = FeatureSet(arcs[1:].flatten(0, 1), identities, [2] * len(identities)).normalized()
    query = FeatureSet(arcs[0], torch.arange(people) + 1, [1] * people).normalized()
    plain = evaluate_features(query, gallery).mAP
    expanded = evaluate_features(average_query_expansion(query, gallery, 3), gallery).mAP
    augmented = evaluate_features(query, augment_database(gallery, 3)).mAP
    assert expanded > plain + 0.02 and augmented > plain + 0.02


def test_what_is_refused():
    query, gallery = angles(0), angles(1, 2, 3)
    for bad in (0, 4):
        with pytest.raises(ConfigError, match=f"neighbours must be between 1 and 3, .* got {bad}"):
            average_query_expansion(query, gallery, bad)
    with pytest.raises(ConfigError, match=r"neighbours must be between 1 and 2, .* got 3"):
        augment_database(gallery, 3)
    for alpha in (-1.0, float("nan")):
        with pytest.raises(ConfigError, match="alpha must be at least 0"):
            average_query_expansion(query, gallery, 1, alpha)
    with pytest.raises(ShapeError, match="same width D, got 3 and 2"):
        average_query_expansion(FeatureSet(torch.ones(1, 3), [1], [1]), gallery, 1)
