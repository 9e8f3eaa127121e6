"""What an exact engine finds is what `rank_gallery` ranks: ties, junk, filters, own views."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import ccan.search.build
import ccan.search.exact
import ccan.search.index
import ccan.search.milvus
from ccan.errors import ConfigError, ProtocolError, ShapeError
from ccan.evaluation import FeatureSet, rank_gallery
from ccan.search import SearchIndex, Views, Where, exact_index
from tests.search.people import assert_ranks_like_the_protocol, built, people

QUERIES = people(5, 13)
GALLERY = people(6, 211)


@pytest.fixture(scope="module", params=["exact", "FLAT"])
def index(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[SearchIndex]:
    with built(tmp_path_factory.mktemp("search") / "index", GALLERY, request.param) as made:
        assert made.exact
        yield made


@pytest.fixture(params=["as it is", "small blocks, few candidates"])
def work(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks so small that everything takes several, and so few candidates that more must be asked for."""
    if request.param != "as it is":
        monkeypatch.setattr(ccan.search.exact, "DISTANCE_BYTES", 3 * 4 * len(GALLERY))
        monkeypatch.setattr(ccan.search.index, "SPARE", 0)
        monkeypatch.setattr(ccan.search.milvus, "ANSWER_BYTES", 2000)


@pytest.mark.usefixtures("work")
@pytest.mark.parametrize("top", [1, 5, 300])
@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize(
    ("cameras", "identities"),
    [(None, None), ((1, 3), None), (None, (0, 2, 5)), ((2,), (4,)), ((9,), None)],
)
def test_the_ranking_is_that_of_the_protocol(
    index: SearchIndex, top: int, own: bool, cameras: Any, identities: Any
) -> None:
    answers = assert_ranks_like_the_protocol(index, QUERIES, GALLERY, top, cameras, identities, own)
    found = {row for rows in answers for row in rows}
    assert not (GALLERY.identities[sorted(found)] == -1).any()
    assert cameras == (9,) or found


def test_the_data_have_what_the_tests_are_about() -> None:
    ranking = rank_gallery(QUERIES.features[0], GALLERY, top=50)
    assert len(set(ranking.distances.tolist())) < 15, "equal distances"
    junk = GALLERY.identities == -1
    assert 20 < junk.sum() < 60
    everything = Where(own=QUERIES)
    rows = exact_index(GALLERY).search(QUERIES.features, 300, everything).rows
    counted = (rows >= 0).sum(axis=1)
    assert len(set(counted.tolist())) > 3 and counted.max() < 211 - junk.sum()


@pytest.mark.parametrize("engine", ["exact", "FLAT"])
def test_where_cameras_are_unknown_only_the_own_image_is_left_out(
    tmp_path: Path, engine: str
) -> None:
    queries, gallery = people(7, 11, unknown_cameras=True), people(8, 97, unknown_cameras=True)
    queries = FeatureSet(
        queries.features,
        queries.identities,
        queries.cameras,
        [f"{row}.jpg" for row in range(11)],
    )
    with built(tmp_path / "index", gallery, engine) as index:
        known = assert_ranks_like_the_protocol(index, queries, gallery, 97, own=True)
        everybody = assert_ranks_like_the_protocol(index, queries, gallery, 97)
    left_out = [len(all_) - len(some) for all_, some in zip(everybody, known, strict=True)]
    assert 0 < sum(left_out) < 60
    own = set(everybody[1]) - set(known[1])
    assert all(gallery.identities[row] == queries.identities[1] for row in own)


def test_float64_is_searched_in_float64(tmp_path: Path) -> None:
    draw = np.random.default_rng(2)
    features = draw.normal(size=(103, 5))
    features[1::2] = features[::2][:51] + draw.normal(size=(51, 5)) * 1e-10  # one in float32
    gallery = FeatureSet(features, GALLERY.identities[:103], GALLERY.cameras[:103])
    queries = FeatureSet(features[3:14] + 0.25, QUERIES.identities[:11], QUERIES.cameras[:11])
    with built(tmp_path / "index", gallery, "exact") as index:
        assert_ranks_like_the_protocol(index, queries, gallery, 103, own=True)


def test_rounding_hides_no_image(monkeypatch: pytest.MonkeyPatch) -> None:
    """Images whose squared distances differ by less than float32's noise come in their true order."""
    monkeypatch.setattr(ccan.search.index, "SPARE", 1)
    steps = torch.arange(60.0).roll(17)
    query = torch.full((1, 31), 1.0)
    rows = query.repeat(60, 1)
    rows[:, 0] += (steps + 1) * 2**-14
    rows[:, 1] += 0.25
    gallery = FeatureSet(rows, [1] * 60, [1] * 60)
    found = exact_index(gallery).search(query, 10)
    assert found.rows[0].tolist() == steps.argsort()[:10].tolist()
    true = np.sqrt(0.0625 + ((np.arange(10) + 1) * 2.0**-14) ** 2)
    np.testing.assert_allclose(found.distances[0], true, rtol=1e-12)
    naive = torch.topk((rows.square().sum(1) - 2 * rows @ query[0] + 31), 10, largest=False)
    assert naive.indices.tolist() != found.rows[0].tolist(), "the noise is there"


def test_a_common_offset_is_no_noise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gallery = GALLERY.with_features(GALLERY.features + 4096)
    wanted = exact_index(GALLERY).search(QUERIES.features, 30)
    for engine in ("exact", "FLAT"):
        with built(tmp_path / engine, gallery, engine) as index:
            found = index.search(QUERIES.features + 4096, 30)
        np.testing.assert_array_equal(found.rows, wanted.rows)
        np.testing.assert_array_equal(found.distances, wanted.distances)
    monkeypatch.setattr(ccan.search.build, "MOST", 200)
    with pytest.raises(ConfigError, match="subtract their mean first, or use the engine exact"):
        built(tmp_path / "other", gallery, "FLAT")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["FLAT", "exact"]


def test_a_gallery_of_equal_images_keeps_its_order(tmp_path: Path) -> None:
    rows = torch.ones(400, 3)
    gallery = FeatureSet(rows, [1] * 400, [2] * 400)
    for engine in ("exact", "FLAT"):
        with built(tmp_path / engine, gallery, engine) as index:
            assert index.search(rows[0], 7).rows[0].tolist() == list(range(7))


def test_what_cannot_be_asked_is_told(index: SearchIndex) -> None:
    with pytest.raises(ShapeError, match="expected queries of width 7, as the index has, got 5"):
        index.search(torch.ones(1, 5))
    with pytest.raises(ConfigError, match="top must be at least 1, got 0"):
        index.search(QUERIES.features, 0)
    with pytest.raises(ShapeError, match=r"where.own must be of the 13 queries, got 1"):
        index.search(QUERIES.features, where=Where(own=Views.of(1, 1)))
    with pytest.raises(ProtocolError, match="finite"):
        index.search(torch.full((7,), torch.nan))
    with pytest.raises(ProtocolError, match="squared lengths of descriptors must be finite"):
        exact_index(GALLERY.with_features(GALLERY.features * 1e30))


def test_no_query_finds_nothing(index: SearchIndex) -> None:
    assert index.search(torch.empty(0, 7), 3).rows.shape == (0, 3)
