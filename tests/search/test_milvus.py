"""Milvus behind the search: recall that is measured, an embedded database, a server by URL, and what goes wrong."""

from __future__ import annotations

import gc
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ccan.search.connection
import ccan.search.milvus
from ccan.config import SearchConfig
from ccan.errors import ConfigError, SearchError
from ccan.evaluation import FeatureSet
from ccan.search import SearchIndex, Views, Where, build_index, exact_index, open_index
from ccan.search.connection import Place, connect, disconnect
from ccan.search.milvus import settings_of
from tests.search.people import assert_ranks_like_the_protocol, built, clusters, people

ROOT = Path(__file__).parents[2]
GALLERY = people(6, 211)
KNOWN = int(np.flatnonzero(GALLERY.identities > 0)[0])
APPROXIMATE = ("HNSW", "IVF_FLAT", "IVF_SQ8")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """The address of a Milvus server: the embedded edition, reached as a cluster is."""
    from milvus_lite.adapter.grpc.server import start_server_in_thread

    running, database, port = start_server_in_thread(str(tmp_path / "server"))
    yield f"http://127.0.0.1:{port}"
    running.stop(grace=0).wait()
    database.close()


def collections(uri: str) -> list[str]:
    """Names of what a server holds."""
    place = Place(uri, Path())
    client = connect(place)
    try:
        names: Any = client.list_collections()
        return list(names)
    finally:
        disconnect(client, place)


def share_found(index: SearchIndex, gallery: FeatureSet, queries: np.ndarray, top: int) -> float:
    """Recall by hand: for each query the share of the true nearest rows that are among those found."""
    asked = gallery.select(queries)
    where = Where(own=Views(asked.identities, asked.cameras))
    found = index.search(asked.features, top, where).rows
    rows = gallery.features.double().numpy()
    shares = []
    for place, query in enumerate(queries):
        distances = np.linalg.norm(rows - rows[query], axis=1)
        own = gallery.identities == gallery.identities[query]
        distances[own & (gallery.cameras == gallery.cameras[query])] = np.inf
        shares.append(len({*np.argsort(distances)[:top]} & {*found[place]}) / top)
    return float(np.mean(shares))


@pytest.mark.parametrize("kind", APPROXIMATE)
def test_recall_is_measured_and_told(tmp_path: Path, kind: str) -> None:
    gallery = clusters(3000)
    with built(tmp_path / "index", gallery, kind) as index:
        recall = index.description.recall
        assert not index.exact and recall is not None
        assert (recall.top, recall.queries) == (10, 200)
        queries = np.linspace(0, 2999, 200).astype(int)
        assert recall.value == pytest.approx(share_found(index, gallery, queries, 10), abs=1e-9)
        assert 0.9 < recall.value <= 1
        words = (
            f"Milvus {kind} (embedded): 3,000 images of 24 numbers, recall@10 {recall.value:.3f}"
        )
        assert index.describe().startswith(words)


def test_little_effort_finds_less_and_says_so(tmp_path: Path) -> None:
    gallery = clusters(3000)
    values = []
    for effort in (1, 70):
        config = SearchConfig("milvus", "IVF_FLAT", effort=effort)
        with build_index(tmp_path / str(effort), gallery, config) as index:
            recall = index.description.recall
            assert recall is not None
            values.append(recall.value)
            assert index.description.settings["nprobe"] == effort
    assert values[0] < 0.95 and values[1] > values[0] + 0.05


@pytest.mark.parametrize("few", [0, 1024])
@pytest.mark.parametrize("kind", APPROXIMATE)
def test_filters_are_kept_and_hide_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, few: int
) -> None:
    """A filter that leaves one image in fifty; fetched and compared, or searched with more effort."""
    monkeypatch.setattr(ccan.search.milvus, "FEW", few)
    gallery = clusters(3000)
    queries = gallery.select([5, 700, 1234])
    where = Where((2, 5), (3, 9, 11), Views(np.full(3, 3), np.full(3, 2)))
    allowed = where.mask(gallery) & ~((gallery.identities == 3) & (gallery.cameras == 2))
    assert 40 < allowed.sum() < 80
    with built(tmp_path / "index", gallery, kind) as index:
        found = index.search(queries.features, 20, where)
    wanted = exact_index(gallery).search(queries.features, 20, where)
    assert (found.rows >= 0).all() and allowed[found.rows].all()
    shares = [len({*a} & {*b}) / 20 for a, b in zip(found.rows, wanted.rows, strict=True)]
    assert min(shares) == 1 if few else np.mean(shares) > 0.7
    rows = gallery.features.double().numpy()
    true = np.linalg.norm(rows[found.rows] - queries.features.double().numpy()[:, None], axis=2)
    np.testing.assert_allclose(found.distances, true, rtol=1e-12)
    assert (np.diff(true) >= 0).all()


def test_settings_suit_the_number_of_images() -> None:
    ivf, hnsw = SearchConfig("milvus", "IVF_FLAT"), SearchConfig("milvus", "HNSW", effort=31)
    assert settings_of(ivf, 10_000_000) == {"nlist": 1264, "nprobe": 79}
    assert settings_of(ivf, 1000) == {"nlist": 25, "nprobe": 8}
    assert settings_of(ivf, 5) == {"nlist": 1, "nprobe": 1}
    assert settings_of(hnsw, 5)["ef"] == 31
    assert settings_of(SearchConfig("milvus"), 5) == {}


@pytest.mark.slow
def test_an_embedded_index_is_opened_twice_in_a_process_and_by_no_other(tmp_path: Path) -> None:
    first = built(tmp_path / "index", GALLERY, "FLAT")
    second = open_index(tmp_path / "index")
    first.close()
    assert second.search(GALLERY.features[KNOWN], 1).distances[0, 0] == 0, (
        "the other one is still open"
    )
    program = (
        "import sys; from ccan.errors import SearchError; from ccan.search import open_index\n"
        "try: open_index(sys.argv[1])\n"
        "except SearchError as error: print(error)"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "index")]
    refused = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert "in use by another process" in refused.stdout and "--uri" in refused.stdout
    assert refused.stderr == ""
    second.close()
    allowed = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert (allowed.stdout, allowed.stderr, allowed.returncode) == ("", "", 0)


def test_an_index_may_be_moved(tmp_path: Path) -> None:
    built(tmp_path / "index", GALLERY, "FLAT").close()
    (tmp_path / "index").rename(tmp_path / "elsewhere")
    with open_index(tmp_path / "elsewhere") as index:
        assert_ranks_like_the_protocol(index, GALLERY.select([1, 50]), GALLERY, 9, own=True)


def lose_collections(database: Path) -> None:
    for path in database.glob("collections/*/partitions/*/*/*"):
        path.unlink()


def break_manifest(database: Path) -> None:
    for path in database.glob("collections/*/manifest.json*"):
        path.write_text("{")


def put_a_file(database: Path) -> None:
    database.rename(database.with_name("old"))
    database.write_text("not a database")


@pytest.mark.parametrize("damage", [lose_collections, break_manifest, put_a_file])
def test_a_damaged_database_is_told(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    built(tmp_path / "index", GALLERY, "HNSW").close()
    damage(tmp_path / "index" / "gallery.db")
    with pytest.raises(SearchError, match=r"gallery\.db: "):
        open_index(tmp_path / "index").search(GALLERY.features[0], 3)
    gc.collect()


def test_an_embedded_database_that_is_gone_is_told(tmp_path: Path) -> None:
    built(tmp_path / "index", GALLERY, "FLAT").close()
    (tmp_path / "index" / "gallery.db").rename(tmp_path / "old")
    with pytest.raises(SearchError, match=r"expected the collection ccan_\w+, got none"):
        open_index(tmp_path / "index")


def test_a_server_is_reached_by_its_address(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CCAN_MILVUS_TOKEN", "reader:open-sesame")
    config = SearchConfig("milvus", "FLAT", uri=server)
    queries = people(5, 13)
    with build_index(tmp_path / "index", GALLERY, config) as index:
        assert index.name == f"Milvus FLAT ({server})"
        assert_ranks_like_the_protocol(index, queries, GALLERY, 20, (1, 2), None, own=True)
    files = {path.name: path.read_bytes() for path in (tmp_path / "index").iterdir()}
    assert sorted(files) == ["facts.safetensors", "index.json"], "the numbers are elsewhere"
    assert not any(b"sesame" in content for content in files.values())
    assert len(collections(server)) == 1
    with open_index(tmp_path / "index") as index:
        assert_ranks_like_the_protocol(index, queries, GALLERY, 20, (1, 2), None, own=True)


def test_the_token_is_given_to_servers_only_and_an_embedded_one_is_not_asked_for_signs_of_life(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pymilvus

    given: list[tuple[bool, str, dict[str, Any]]] = []
    client = pymilvus.MilvusClient

    def listening(uri: str, *, token: str, timeout: float, **more: Any) -> pymilvus.MilvusClient:
        given.append((uri == server, token, more))
        return client(uri, token=token, timeout=timeout, **more)

    monkeypatch.setattr(pymilvus, "MilvusClient", listening)
    monkeypatch.setenv("CCAN_MILVUS_TOKEN", "reader:open-sesame")
    assert collections(server) == []
    built(tmp_path / "index", GALLERY, "FLAT").close()
    embedded = (False, "", {"grpc_options": {"grpc.keepalive_time_ms": 2**31 - 1}})
    assert given == [(True, "reader:open-sesame", {}), embedded, embedded]


@pytest.mark.parametrize("where", ["embedded", "server"])
@pytest.mark.parametrize("step", ["progress", "create_index", "measure_recall", "_move"])
def test_a_failure_leaves_nothing(
    server: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    where: str,
    step: str,
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    if step == "create_index":
        monkeypatch.setattr("pymilvus.MilvusClient.create_index", fail)
    elif step != "progress":
        monkeypatch.setattr(f"ccan.search.build.{step}", fail)
    config = SearchConfig.from_dict(
        {"engine": "milvus", "kind": "HNSW", "uri": server if where == "server" else None}
    )
    monkeypatch.setattr(ccan.search.milvus, "INSERT_BYTES", 100 * 28)
    with pytest.raises(KeyboardInterrupt):
        progress = fail if step == "progress" else None
        build_index(tmp_path / "made" / "index", GALLERY, config, progress=progress)
    assert list((tmp_path / "made").iterdir()) == []
    assert collections(server) == []


@pytest.mark.slow
def test_a_kill_leaves_no_index_and_the_next_try_makes_it(tmp_path: Path) -> None:
    program = f"""
import os, signal, sys
from ccan.config import SearchConfig
from ccan.search import build_index
from tests.search.people import people
def kill(*_): os.kill(os.getpid(), signal.{signal.SIGKILL.name})
build_index(sys.argv[1], people(6, 211), SearchConfig("milvus", "HNSW"), progress=kill)
"""
    command = [sys.executable, "-c", program, str(tmp_path / "index")]
    killed = subprocess.run(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert killed.returncode == -signal.SIGKILL
    assert not (tmp_path / "index").exists()
    with built(tmp_path / "index", GALLERY, "HNSW") as index:
        assert index.search(GALLERY.features[KNOWN], 1).distances[0, 0] == 0


def test_a_changed_collection_is_told(server: str, tmp_path: Path) -> None:
    config = SearchConfig("milvus", "FLAT", uri=server)
    with build_index(tmp_path / "index", GALLERY, config) as index:
        name = index.description.collection
    place = Place(server, Path())
    client = connect(place)
    assert name is not None
    client.delete(name, ids=[KNOWN])
    with pytest.raises(SearchError, match=r"expected \d+ images of 7 numbers by FLAT in ccan_"):
        open_index(tmp_path / "index")
    client.drop_collection(name)
    disconnect(client, place)
    with pytest.raises(SearchError, match=f"expected the collection {name}, got none"):
        open_index(tmp_path / "index")


@pytest.mark.parametrize("answering", ["nobody", "silence"])
def test_a_server_that_does_not_answer_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answering: str
) -> None:
    monkeypatch.setattr(ccan.search.connection, "CONNECT_SECONDS", 0.5)
    with socket.socket() as waiting:
        waiting.bind(("127.0.0.1", 0))
        if answering == "silence":
            waiting.listen()
        uri = f"http://127.0.0.1:{waiting.getsockname()[1]}"
        config = SearchConfig("milvus", uri=uri)
        with pytest.raises(SearchError, match="is the server running, and the address right"):
            build_index(tmp_path / "index", GALLERY, config)
        assert list(tmp_path.iterdir()) == []


def test_a_server_that_goes_away_is_told(tmp_path: Path) -> None:
    from milvus_lite.adapter.grpc.server import start_server_in_thread

    running, database, port = start_server_in_thread(str(tmp_path / "server"))
    config = SearchConfig("milvus", uri=f"http://127.0.0.1:{port}")
    index = build_index(tmp_path / "index", GALLERY, config)
    running.stop(grace=0).wait()
    database.close()
    with pytest.raises(SearchError, match=f"127.0.0.1:{port}: Milvus failed"):
        index.search(GALLERY.features[0], 1)
    index.close()


@pytest.mark.parametrize("name", ["pymilvus", "milvus_lite"])
def test_without_the_extra_it_is_said_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    for module in [one for one in sys.modules if one.startswith("milvus_lite.")]:
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigError, match=r"pip install 'ccan\[milvus\]'"):
        built(tmp_path / "index", GALLERY, "FLAT")
    assert list(tmp_path.iterdir()) == []


def test_more_than_milvus_gives_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with built(tmp_path / "index", GALLERY, "FLAT") as index:
        monkeypatch.setattr(ccan.search.milvus.MilvusEngine, "most", 20)
        assert (index.search(GALLERY.features[KNOWN], 20).rows >= 0).all()
        with pytest.raises(ConfigError, match="gives at most 20 images, and 21 were to be looked"):
            index.search(GALLERY.features[KNOWN], 21)


def test_settings_of_another_kind_are_told(tmp_path: Path) -> None:
    built(tmp_path / "index", GALLERY, "IVF_FLAT").close()
    file = tmp_path / "index" / "index.json"
    file.write_text(file.read_text().replace('"nlist"', '"M"'))
    with pytest.raises(SearchError, match="settings of another kind of index"):
        open_index(tmp_path / "index")


def test_rows_stay_those_of_the_gallery_though_junk_is_not_kept(tmp_path: Path) -> None:
    with built(tmp_path / "index", GALLERY, "FLAT") as index:
        found = index.search(GALLERY.features, 211)
        wanted = exact_index(GALLERY).search(GALLERY.features, 211)
    np.testing.assert_array_equal(found.rows, wanted.rows)
    assert len(index) == 211 and found.rows.max() > (GALLERY.identities != -1).sum()
