"""Multi query: by hand, by the loop twin, with planted errors, and on a gallery where pooling helps."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from ccan.errors import ConfigError, ProtocolError, ShapeError
from ccan.evaluation import FeatureSet, evaluate_features
from ccan.evaluation.multi_query import Pooling, pool_multi_query
from tests.reference import multi_query as twin
from tests.reference.evaluation import Image

# Person 1 in camera 1 has extra images (3, 0) and (0, -5) → mean direction (1, -1)/√2, maximum (1, 0).
# Person 2 in camera 1 has none: only in camera 2, or other people in camera 1.
QUERY = FeatureSet(
    [[0.0, 2.0], [0.6, 0.8]], [1, 2], [1, 1], ["a", "b"], {"view": ["front", "back"]}
)
EXTRA = FeatureSet([[3.0, 0.0], [0.0, -5.0], [0.0, 1.0], [-1.0, 0.0]], [1, 1, 2, 3], [1, 1, 2, 1])

Pool = Callable[..., FeatureSet]


def check_hand_case(pool: Pool = pool_multi_query) -> None:
    half = 0.5**0.5
    found = pool(QUERY, EXTRA)
    np.testing.assert_allclose(found.features, [[half, -half], [0.6, 0.8]], atol=1e-6)
    found = pool(QUERY, EXTRA, "max")
    np.testing.assert_allclose(found.features, [[1, 0], [0.6, 0.8]], atol=1e-6)
    assert found.identities.tolist() == [1, 2] and found.cameras.tolist() == [1, 1]
    assert found.names == ("a", "b") and found.metadata["view"].tolist() == ["front", "back"]


def test_hand_case():
    check_hand_case()


def same_pooling_for_both(query: FeatureSet, extra: FeatureSet, pooling: Pooling = "mean"):
    return pool_multi_query(query, extra, "mean")


def maximum_for_both(query: FeatureSet, extra: FeatureSet, pooling: Pooling = "mean"):
    return pool_multi_query(query, extra, "max")


def any_camera(query: FeatureSet, extra: FeatureSet, pooling: Pooling = "mean"):
    return pool_multi_query(
        query, FeatureSet(extra.features, extra.identities, np.ones_like(extra.cameras)), pooling
    )


def query_takes_part(query: FeatureSet, extra: FeatureSet, pooling: Pooling = "mean"):
    both = FeatureSet(
        torch.cat([query.features, extra.features]),
        np.concatenate([query.identities, extra.identities]),
        np.concatenate([query.cameras, extra.cameras]),
    )
    return pool_multi_query(query, both, pooling)


def lengths_as_weights(query: FeatureSet, extra: FeatureSet, pooling: Pooling = "mean"):
    sums = extra.features[:2].mean(0) if pooling == "mean" else extra.features[:2].amax(0)
    return query.with_features(torch.stack([sums / sums.norm(), query.features[1]]))


def not_normalised_again(query: FeatureSet, extra: FeatureSet, pooling: Pooling = "mean"):
    found = pool_multi_query(query, extra, pooling)
    return found.with_features(found.features * torch.tensor([[0.5**0.5], [1.0]]))


@pytest.mark.parametrize(
    "mistake",
    [
        same_pooling_for_both,
        maximum_for_both,
        any_camera,
        query_takes_part,
        lengths_as_weights,
        not_normalised_again,
    ],
)
def test_the_hand_case_rejects_a_planted_error(mistake: Pool):
    with pytest.raises(AssertionError):
        check_hand_case(mistake)


@pytest.mark.parametrize("pooling", ["mean", "max"])
def test_equal_to_the_loop_twin_on_random_cases(pooling):
    """1,000 cases of queries with none, one and several extra images, junk and unknown cameras."""
    generator = np.random.default_rng(len(pooling))
    pooled = 0
    for _ in range(500):
        query, extra = (
            [
                Image(
                    generator.integers(-2, 3, 3).tolist(),
                    int(generator.choice([-1, 1, 2, 3])),
                    int(generator.choice([-1, 1, 2])),
                )
                for _ in range(count)
            ]
            for count in (int(generator.integers(1, 8)), int(generator.integers(1, 20)))
        )
        query_set, extra_set = (
            FeatureSet(
                np.array([image.feature for image in side], float),
                [image.identity for image in side],
                [image.camera for image in side],
            )
            for side in (query, extra)
        )
        expected = [twin.pool(image, extra, pooling) for image in query]
        try:
            found = pool_multi_query(query_set, extra_set, pooling)
        except ProtocolError:
            assert expected == [twin.pool(image, [], pooling) for image in query]
            continue
        pooled += 1
        np.testing.assert_allclose(found.features, expected, atol=1e-12)
    assert pooled > 250


def test_pooled_queries_are_ranked_by_the_ordinary_protocol():
    """One noisy query image fails; the mean of five finds its person."""
    generator = torch.Generator().manual_seed(3)
    centres = torch.nn.functional.normalize(torch.randn(13, 31, generator=generator), dim=1)

    def images(each: int, camera: int) -> FeatureSet:
        people = torch.arange(13).repeat_interleave(each)
        noise = torch.randn(len(people), 31, generator=generator) * 0.35
        return FeatureSet(centres[people] + noise, people + 1, torch.full_like(people, camera))

    query, extra, gallery = images(1, 1), images(11, 1), images(5, 2).normalized()
    single = evaluate_features(query.normalized(), gallery)
    multi = evaluate_features(pool_multi_query(query, extra), gallery)
    assert multi.mAP > single.mAP + 0.1


def test_what_is_refused():
    with pytest.raises(ConfigError, match="pooling must be mean or max, got 'sum'"):
        pool_multi_query(QUERY, EXTRA, "sum")  # type: ignore[arg-type]
    with pytest.raises(ShapeError, match="same width D, got 2 and 5"):
        pool_multi_query(QUERY, EXTRA.with_features(torch.ones(4, 5)))
    with pytest.raises(
        ProtocolError, match=r"none of the 2 queries has an extra image .* among 1;"
    ):
        pool_multi_query(QUERY, EXTRA.select([3]))
