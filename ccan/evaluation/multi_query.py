"""Multi query (Market-1501's second protocol): all images of one person under one camera ask together.

Letters: Q queries, E extra images, D numbers of a descriptor, V views, that is, distinct pairs (identity, camera).
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ccan.data.records import JUNK, UNKNOWN_CAMERA
from ccan.errors import ConfigError, ProtocolError
from ccan.evaluation.feature_set import FeatureSet, unit_rows
from ccan.evaluation.ranking import check_widths

Pooling = Literal["mean", "max"]


def pool_multi_query(query: FeatureSet, extra: FeatureSet, pooling: Pooling = "mean") -> FeatureSet:
    """Replace each query by its identity's extra images under its own camera.

    All features are brought to unit length, pooled, and brought to unit length again. The query's own image takes no
    part, since in Market-1501 the extra images hold another box of it; only a query without extra images stands for
    itself. That is also every query whose camera is unknown, and junk.

    Rank the result against `gallery.normalized()`, or by a distance that does not see lengths.

    Args:
        query: Q images.
        extra: E further images, for Market-1501 those of `gt_bbox`; images of other views are ignored.
        pooling: `mean`, or `max` (the largest value of each of the D numbers).

    Returns: Q pooled features with the facts of the queries, in their order.
    Raises: ConfigError for another pooling; ShapeError if the widths differ; ProtocolError if no query has an extra
    image, which means that the two lists do not belong together.
    """
    if pooling not in ("mean", "max"):
        raise ConfigError(f"pooling must be mean or max, got {pooling!r}")
    check_widths(query.features, extra.features, "extra")
    view_of_query, view_of_extra, views = _views(query, extra)
    shared = np.intersect1d(view_of_query[_known(query)], view_of_extra[_known(extra)])
    if not len(shared):
        raise ProtocolError(
            f"none of the {len(query)} queries has an extra image of its identity and camera among {len(extra)}; "
            "check that both lists come from one data set and that their cameras are known"
        )
    usable = np.flatnonzero(_known(extra) & np.isin(view_of_extra, shared))
    own = unit_rows(query.features)
    rows = unit_rows(extra.features).to(own)[torch.as_tensor(usable).to(own.device)]
    pooled = _pool(rows, torch.as_tensor(view_of_extra[usable]).to(own.device), views, pooling)
    replaced = torch.as_tensor(_known(query) & np.isin(view_of_query, shared)).to(own.device)
    together = pooled[torch.as_tensor(view_of_query).to(own.device)]  # (Q, D)
    return query.with_features(torch.where(replaced[:, None], unit_rows(together), own))


def _views(
    query: FeatureSet, extra: FeatureSet
) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
    """The number of each image's view, (Q,) and (E,), and V."""
    pairs = np.concatenate(
        [np.stack([part.identities, part.cameras], axis=1) for part in (query, extra)]
    )
    found, view = np.unique(pairs, axis=0, return_inverse=True)
    view = view.reshape(-1)
    return view[: len(query)], view[len(query) :], len(found)


def _known(part: FeatureSet) -> NDArray[np.bool_]:
    """Which images belong to a view at all."""
    return (part.identities != JUNK) & (part.cameras != UNKNOWN_CAMERA)


def _pool(rows: Tensor, view: Tensor, views: int, pooling: Pooling) -> Tensor:
    """(E, D) rows and their views (E,) → (V, D), zero where a view has no row."""
    pooled = rows.new_zeros(views, rows.shape[1])
    if pooling == "mean":  # the sum has the mean's direction
        return pooled.index_add_(0, view, rows)
    return pooled.scatter_reduce_(
        0, view[:, None].expand_as(rows), rows, "amax", include_self=False
    )
