"""Query expansion and database augmentation: a descriptor is averaged with its nearest neighbours in the gallery.

Both know descriptors only, neither identities nor cameras: what a method may use in the field. Take junk out of the
gallery before. Letters: Q queries, G gallery images, k neighbours, B rows of a block, D numbers of a descriptor.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ccan.errors import ConfigError
from ccan.evaluation.feature_set import FeatureSet, unit_rows
from ccan.evaluation.ranking import check_widths, full_precision

BLOCK_BYTES = 64 * 2**20
"""Size of a block of similarities; a few arrays of that size exist at a time."""

ALPHA = 3.0
"""Exponent of the similarity in Radenović et al. (2018)."""


def average_query_expansion(
    query: FeatureSet, gallery: FeatureSet, neighbours: int, alpha: float = ALPHA
) -> FeatureSet:
    """Add to each query its k nearest gallery images and ask again (αQE).

        q′ = normalise(q + Σᵢ max(0, ⟨q, gᵢ⟩)^α gᵢ)      q, gᵢ of unit length, i over the k most similar images

    With α = 0 every neighbour weighs 1 (average query expansion). Sources: Chum et al., “Total Recall: Automatic Query
    Expansion with a Generative Feature Model for Object Retrieval”, ICCV 2007 (the average); Radenović, Tolias and
    Chum, “Fine-tuning CNN Image Retrieval with No Human Annotation”, TPAMI 2018 (the weights).

    Args:
        query: Q images.
        gallery: G images.
        neighbours: k; the paper that gave the weights takes 50 in galleries with many matches, people have fewer.
        alpha: α ≥ 0.

    Returns: Q features of unit length with the facts of the queries; rank them against `gallery.normalized()`. Equal
    similarities count in gallery order.
    Raises: ConfigError for neighbours that are not 1 … G or a negative α; ShapeError if the widths differ.
    """
    _check(neighbours, len(gallery), alpha)
    check_widths(query.features, gallery.features)
    images = unit_rows(gallery.features)
    return query.with_features(
        _expand(unit_rows(query.features.to(images)), images, neighbours, alpha, itself=False)
    )


def augment_database(gallery: FeatureSet, neighbours: int, alpha: float = ALPHA) -> FeatureSet:
    """Add to each gallery image its k nearest others, before anyone asks (database-side feature augmentation).

        g′ = normalise(g + Σᵢ max(0, ⟨g, gᵢ⟩)^α gᵢ)      i over the k most similar other images

    Source: Arandjelović and Zisserman, “Three Things Everyone Should Know to Improve Object Retrieval”, CVPR 2012;
    weights as in `average_query_expansion`, whose remarks and errors hold here too (neighbours: 1 … G - 1). Rank
    `query.normalized()` against the result.
    """
    _check(neighbours, len(gallery) - 1, alpha)
    images = unit_rows(gallery.features)
    return gallery.with_features(_expand(images, images, neighbours, alpha, itself=True))


def _check(neighbours: int, most: int, alpha: float) -> None:
    if not 1 <= neighbours <= most:
        raise ConfigError(
            f"neighbours must be between 1 and {most}, the images that there are, got {neighbours}"
        )
    if not alpha >= 0:
        raise ConfigError(f"alpha must be at least 0 (0 = equal weights), got {alpha}")


def _expand(rows: Tensor, images: Tensor, k: int, alpha: float, itself: bool) -> Tensor:
    """Rows (Q, D) with their weighted neighbours among the images (G, D), all of unit length.

    Args:
        itself: row n is image n, which is no neighbour of its own.
    """
    expanded = torch.empty_like(rows)
    block = max(1, BLOCK_BYTES // (len(images) * images.itemsize))
    for start in range(0, len(rows), block):
        part = rows[start : start + block]
        with full_precision(part.device.type):
            similarity = part @ images.T  # (B, G)
        if itself:
            own = torch.arange(len(part), device=part.device)
            similarity[own, start + own] = -torch.inf
        nearest = _most_similar(similarity, k)  # (B, k)
        weights = similarity.gather(1, nearest).clamp_(min=0) ** alpha
        added = torch.einsum("bk,bkd->bd", weights, images[nearest])
        expanded[start : start + block] = unit_rows(part + added)
    return expanded


def _most_similar(similarity: Tensor, k: int) -> Tensor:
    """Columns of the k largest values of each row, (B, G) → (B, k); of equal values the first ones."""
    # Which of several equal values topk takes is not defined, so that only its smallest value is used.
    bound = similarity.topk(k, dim=1).values[:, -1:]
    above, equal = similarity > bound, similarity == bound
    wanted = k - above.sum(dim=1, keepdim=True)
    chosen = above | (equal & (equal.cumsum(dim=1) <= wanted))
    return chosen.nonzero()[:, 1].view(len(similarity), k)
