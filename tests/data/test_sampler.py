"""Identity-balanced batches (Decision D12)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest

from ccan.data.sampler import IdentityBalancedSampler
from ccan.errors import DatasetError


def labels_with(*counts: int, seed: int = 0) -> list[int]:
    """A shuffled list in which label i occurs counts[i] times."""
    labels = np.repeat(np.arange(len(counts)), counts)
    return np.random.default_rng(seed).permutation(labels).tolist()


def epoch_of(labels: Sequence[int], identities: int, images: int, seed: int = 0) -> list[list[int]]:
    sampler = IdentityBalancedSampler(labels, identities, images)
    return sampler.epoch(np.random.default_rng(seed))


def assert_p_times_k(
    batches: list[list[int]], labels: Sequence[int], identities: int, images: int
) -> None:
    for batch in batches:
        assert len(batch) == identities * images
        groups = [batch[i : i + images] for i in range(0, len(batch), images)]
        people = [{labels[index] for index in group} for group in groups]
        assert all(len(person) == 1 for person in people)
        assert len(set.union(*people)) == identities  # no identity twice in a batch


@pytest.mark.parametrize(("identities", "images"), [(3, 4), (2, 2), (5, 3), (1, 2)])
def test_every_batch_is_p_times_k(identities: int, images: int) -> None:
    rng = np.random.default_rng(1)
    for seed in range(20):
        labels = labels_with(*rng.integers(1, 15, rng.integers(identities, 12)), seed=seed)
        batches = epoch_of(labels, identities, images, seed)
        assert batches
        assert_p_times_k(batches, labels, identities, images)


def test_no_image_comes_twice_where_there_are_enough() -> None:
    labels = labels_with(9, 8, 13, 4, 7)
    drawn = [index for batch in epoch_of(labels, 3, 4) for index in batch]
    assert max(Counter(drawn).values()) == 1


def test_few_images_are_drawn_with_replacement_and_once() -> None:
    """An identity with 1, 2 or 3 images gives one group of 4, from its own images."""
    labels = labels_with(1, 2, 3, 4)
    (batch,) = epoch_of(labels, 4, 4)
    counts = Counter(labels[index] for index in batch)
    assert counts == {0: 4, 1: 4, 2: 4, 3: 4}
    assert len({index for index in batch if labels[index] == 0}) == 1
    assert len({index for index in batch if labels[index] == 3}) == 4
    seen = {frozenset(i for i in epoch_of(labels, 4, 4, s)[0] if labels[i] == 2) for s in range(30)}
    assert max(map(len, seen)) == 3 and min(map(len, seen)) < 3  # drawn, not cycled


def test_left_over_images_and_incomplete_batches_are_dropped() -> None:
    """9, 8, 7 images in fours: 2 + 2 + 1 groups. Three to a batch: one batch; two to a batch: two of five groups."""
    labels = labels_with(9, 8, 7)
    assert len(epoch_of(labels, 3, 4)) == 1
    for seed in range(20):
        batches = epoch_of(labels, 2, 4, seed)
        assert len(batches) == 2  # the fifth group stays alone
        counts = Counter(labels[i] for batch in batches for i in batch)
        assert counts[0] in (4, 8) and counts[1] in (4, 8) and counts[2] in (0, 4)


def test_it_goes_on_until_fewer_than_p_identities_have_groups() -> None:
    """Three identities with one group, one with many: two batches of two at most, never one person alone."""
    labels = labels_with(4, 4, 4, 40)
    for seed in range(20):
        batches = epoch_of(labels, 2, 4, seed)
        left = {0: 1, 1: 1, 2: 1, 3: 10}
        for batch in batches:
            for person in {labels[i] for i in batch}:
                left[person] -= 1
        assert min(left.values()) >= 0
        assert sum(count > 0 for count in left.values()) < 2


def test_over_epochs_every_image_is_seen() -> None:
    labels = labels_with(5, 6, 7, 9, 11)
    generator = np.random.default_rng(0)
    sampler = IdentityBalancedSampler(labels, 2, 4)
    drawn = {i for _ in range(40) for batch in sampler.epoch(generator) for i in batch}
    assert drawn == set(range(len(labels)))


def test_identities_meet_in_every_combination() -> None:
    """Batches are not the same people together each time."""
    labels = labels_with(*[4] * 6)
    pairs = {
        frozenset(labels[i] for i in batch)
        for seed in range(60)
        for batch in epoch_of(labels, 2, 4, seed)
    }
    assert len(pairs) == 15


def test_the_generator_alone_decides() -> None:
    labels = labels_with(9, 8, 13, 4, 7)
    assert epoch_of(labels, 3, 4, seed=5) == epoch_of(labels, 3, 4, seed=5)
    assert epoch_of(labels, 3, 4, seed=5) != epoch_of(labels, 3, 4, seed=6)
    np.random.seed(0)
    first = epoch_of(labels, 3, 4, seed=5)
    np.random.seed(1)
    assert epoch_of(labels, 3, 4, seed=5) == first
    sampler, generator = IdentityBalancedSampler(labels, 3, 4), np.random.default_rng(0)
    assert sampler.epoch(generator) != sampler.epoch(generator)


def test_labels_need_not_be_dense_or_sorted() -> None:
    labels = [1501, -3, 1501, 88, -3, 88]
    (batch,) = epoch_of(labels, 3, 2)
    assert_p_times_k([batch], labels, 3, 2)
    assert sorted(batch) == [0, 1, 2, 3, 4, 5]
    assert all(type(index) is int for index in batch)


@pytest.mark.parametrize(("labels", "found"), [([], 0), ([3, 3, 3, 3], 1), ([0, 0, 1, 1], 2)])
def test_too_few_identities(labels: list[int], found: int) -> None:
    with pytest.raises(
        DatasetError,
        match=rf"a batch takes 16 identities, but the training set has {found}; "
        rf"pass --data\.identities-per-batch {max(2, found)} or fewer",
    ):
        IdentityBalancedSampler(labels, 16, 4)
