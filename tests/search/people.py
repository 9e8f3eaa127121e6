"""Galleries for the tests of the search: of whole numbers, so that distances tie, with junk and distractors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from ccan.config import SearchConfig
from ccan.evaluation import FeatureSet, rank_gallery
from ccan.search import SearchIndex, Where, build_index

WIDTH = 7


def people(seed: int, images: int, *, unknown_cameras: bool = False) -> FeatureSet:
    """Images of junk, distractors and five people in three cameras; in 7 small whole numbers, so that many tie."""
    draw = np.random.default_rng(seed)
    cameras = draw.integers(1, 4, images)
    if unknown_cameras:
        cameras[draw.random(images) < 0.5] = -1
    return FeatureSet(
        draw.integers(-1, 2, (images, WIDTH)).astype(np.float32),
        draw.integers(-1, 6, images),
        cameras,
        [f"{row % 11}.jpg" for row in range(images)],  # names of some of the queries too
    )


def clusters(images: int, width: int = 24, seed: int = 3) -> FeatureSet:
    """Unit vectors around 40 people, in six cameras."""
    draw = torch.Generator().manual_seed(seed)
    centres = torch.randn(40, width, generator=draw)
    persons = torch.randint(0, 40, (images,), generator=draw)
    rows = centres[persons] + 0.7 * torch.randn(images, width, generator=draw)
    cameras = torch.randint(1, 7, (images,), generator=draw)
    return FeatureSet(torch.nn.functional.normalize(rows), persons + 1, cameras)


def truth(
    query: FeatureSet, gallery: FeatureSet, where: Where, top: int
) -> tuple[list[int], list[float]]:
    """Rows and distances of one query by `rank_gallery` over the images that the filters leave."""
    kept = np.flatnonzero(where.mask(gallery))
    if not len(kept):
        return [], []
    asked = query if where.own is not None else query.features[0]
    ranking = rank_gallery(asked, gallery.select(kept), top=top, include_ignored=False)
    return kept[ranking.order].tolist(), ranking.distances.tolist()


def assert_ranks_like_the_protocol(
    index: SearchIndex,
    queries: FeatureSet,
    gallery: FeatureSet,
    top: int,
    cameras: tuple[int, ...] | None = None,
    identities: tuple[int, ...] | None = None,
    own: bool = False,
) -> list[list[int]]:
    """Every query's answer is that of `rank_gallery`; gives the rows."""
    where = Where(cameras, identities, queries if own else None)
    found = index.search(queries.features, top, where)
    assert found.rows.shape == found.distances.shape == (len(queries), top)
    answers: list[list[int]] = []
    for place in range(len(queries)):
        one = queries.select([place])
        rows, distances = truth(one, gallery, Where(cameras, identities, one if own else None), top)
        missing = top - len(rows)
        assert found.rows[place].tolist() == rows + [-1] * missing
        np.testing.assert_allclose(
            found.distances[place], distances + [np.inf] * missing, atol=1e-6
        )
        answers.append(rows)
    return answers


def built(folder: Path, gallery: FeatureSet, engine: str) -> SearchIndex:
    """An index by the name of its engine, or of Milvus' kind."""
    config = (
        SearchConfig()
        if engine == "exact"
        else SearchConfig.from_dict({"engine": "milvus", "kind": engine})
    )
    return build_index(folder, gallery, config)
