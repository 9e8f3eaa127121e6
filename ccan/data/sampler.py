"""The identity-balanced batches of section 4.1: P identities × K images (Decision D12)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ccan.errors import DatasetError


class IdentityBalancedSampler:
    """Deals training images into batches of P identities with K images each (Decision D12).

    Images of an identity are shuffled and dealt in groups of K; an identity with fewer than K is drawn with
    replacement. Batches take one group from each of P random identities until fewer than P identities have groups
    left. Left-over images and incomplete batches are dropped, so an epoch shows most images once.

    Args:
        labels: class label of each training image.
        identities: P.
        images: K.
        processes: training processes; a batch is then dealt for all of them, P identities for each, so that no
            identity stands in two.

    Raises: DatasetError if there are fewer than P identities for each process.
    """

    def __init__(
        self, labels: Sequence[int], identities: int, images: int, processes: int = 1
    ) -> None:
        self.identities, self.images = identities * processes, images
        order = np.argsort(np.asarray(labels), kind="stable")
        _, starts = np.unique(np.asarray(labels)[order], return_index=True)
        self.images_of = np.split(order, starts[1:])
        if len(labels) == 0 or len(self.images_of) < self.identities:
            found = len(self.images_of) if len(labels) else 0
            of_all = f" in {processes} processes" if processes > 1 else ""
            raise DatasetError(
                f"a batch takes {self.identities} identities{of_all}, but the training set has {found}; "
                f"pass --data.identities-per-batch {max(2, found // processes)} or fewer, or use a larger dataset"
            )

    def epoch(self, generator: np.random.Generator) -> list[list[int]]:
        """Batches of one epoch: lists of P·K image indices, grouped by identity; those of all processes in a row."""
        groups = [self._deal(images, generator) for images in self.images_of]
        waiting = [label for label, dealt in enumerate(groups) if dealt]
        batches: list[list[int]] = []
        while len(waiting) >= self.identities:
            chosen = generator.choice(waiting, self.identities, replace=False)
            batches.append([index for label in chosen for index in groups[label].pop()])
            waiting = [label for label in waiting if groups[label]]
        return batches

    def _deal(self, images: np.ndarray, generator: np.random.Generator) -> list[list[int]]:
        """One identity's images in groups of K."""
        if len(images) < self.images:
            return [generator.choice(images, self.images, replace=True).tolist()]
        shuffled = generator.permutation(images)
        whole = len(images) // self.images * self.images
        return shuffled[:whole].reshape(-1, self.images).tolist()
