"""An index on disk: what it holds, that it is whole or not there, and that nothing damaged or foreign is trusted."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ccan.search.build
from ccan.config import SearchConfig
from ccan.errors import CCANError, CheckpointError, ConfigError, SearchError
from ccan.evaluation import FeatureSet
from ccan.evaluation.extraction import fingerprint
from ccan.search import Source, build_index, exact_index, open_index
from ccan.search.folder import Names
from tests.search.people import built, people
from tests.small import small_predictor

GALLERY = people(6, 53)
Damage = Callable[[Path], object]


def test_an_index_holds_what_it_was_given(tmp_path: Path) -> None:
    source = Source("people", str(tmp_path / "pictures"), "demo", "abc")
    with build_index(tmp_path / "index", GALLERY, source=source) as made:
        assert made.describe() == "exact search in this process: 53 images of 7 numbers, exact"
    with open_index(tmp_path / "index") as index:
        assert len(index) == 53 and index.exact and index.root == tmp_path / "pictures"
        np.testing.assert_array_equal(index.identities, GALLERY.identities)
        np.testing.assert_array_equal(index.cameras, GALLERY.cameras)
        assert tuple(index.names) == GALLERY.names
        assert index.description.source == source and index.name == "exact search in this process"
    assert [path.name for path in tmp_path.iterdir()] == ["index"], "no work folder is left"
    values = json.loads((tmp_path / "index" / "index.json").read_text())
    assert (values["format"], values["engine"]) == ("ccan search index", "exact")
    assert (values["metric"], values["recall"]) == ("euclidean", None)


def test_names_are_texts_of_any_kind() -> None:
    texts = ["", "a.jpg", "Zoë/図.png", "\udcff.jpg", "b"]
    names = Names.of(texts)
    assert len(names) == 5 and list(names) == texts
    assert names[-1] == "b" and names[2] == texts[2] and names[1:4] == texts[1:4]
    with pytest.raises(IndexError):
        names[5]
    assert list(Names.of([])) == [] and list(Names.of(["", ""])) == ["", ""]


def test_images_without_names_are_called_by_their_row(tmp_path: Path) -> None:
    bare = FeatureSet(GALLERY.features, GALLERY.identities, GALLERY.cameras)
    with build_index(tmp_path / "index", bare) as index:
        assert index.names[7] == "7"
    assert exact_index(bare).names[7] == "7"
    assert exact_index(GALLERY).names[7] == "7.jpg"


def test_pictures_are_found_in_their_folder_and_nowhere_else(tmp_path: Path) -> None:
    root = tmp_path / "pictures"
    (root / "below").mkdir(parents=True)
    for path in (root / "a.jpg", root / "below" / "b.jpg", tmp_path / "secret.txt"):
        path.write_bytes(b"picture")
    names = ["a.jpg", "below/b.jpg", "none.jpg", "../secret.txt", str(tmp_path / "secret.txt"), ""]
    gallery = FeatureSet(GALLERY.features[:6], [1] * 6, [1] * 6, names)
    with build_index(tmp_path / "index", gallery, source=Source(root=str(root))) as index:
        pictures = [index.picture(row) for row in range(6)]
        assert pictures == [root / "a.jpg", root / "below" / "b.jpg", None, None, None, None]
        assert index.name_of(root / "below" / "b.jpg") == "below/b.jpg"
        assert index.name_of(tmp_path / "secret.txt") == str(tmp_path / "secret.txt")
    assert exact_index(gallery).picture(0) is None


def test_a_gallery_without_identities_is_one_of_unknown_people(tmp_path: Path) -> None:
    unknown = FeatureSet(GALLERY.features, [-1] * 53, [-1] * 53)
    with pytest.warns(UserWarning, match="no image has an identity: all are indexed"):
        index = build_index(tmp_path / "index", unknown)
    assert index.search(GALLERY.features[0], 53).rows.min() == 0
    assert set(index.identities.tolist()) == {0}


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "index").mkdir()
    (tmp_path / "index" / "mine.txt").write_text("mine")
    for engine in ("exact", "HNSW"):
        with pytest.raises(SearchError, match="index: is there already; remove it or choose"):
            built(tmp_path / "index", GALLERY, engine)
    assert [path.name for path in (tmp_path / "index").iterdir()] == ["mine.txt"]


def test_an_empty_gallery_is_no_index(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no image to index"):
        build_index(tmp_path / "index", GALLERY.select([]))
    assert not (tmp_path / "index").exists()


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
@pytest.mark.parametrize("step", ["write_numbers", "_move"])
def test_a_failure_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[BaseException], step: str
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(ccan.search.build, step, fail)
    with pytest.raises(error):
        build_index(tmp_path / "index", GALLERY)
    assert list(tmp_path.iterdir()) == []


def rewrite(change: Callable[[dict[str, Any]], object]) -> Damage:
    """A damage to index.json."""

    def damage(folder: Path) -> None:
        values = json.loads((folder / "index.json").read_text())
        change(values)
        (folder / "index.json").write_text(json.dumps(values))

    return damage


def flip(name: str, place: int) -> Damage:
    """A damage of one bit."""

    def damage(folder: Path) -> None:
        data = bytearray((folder / name).read_bytes())
        data[place] ^= 1
        (folder / name).write_bytes(data)

    return damage


def cut(name: str, length: int) -> Damage:
    """A file that ends too early."""
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:length])


def lose(name: str) -> Damage:
    """A file that is gone."""
    return lambda folder: (folder / name).unlink()


DAMAGES: dict[str, tuple[Damage, str]] = {
    "no index.json": (lose("index.json"), "expected an index, a folder with index.json, got none"),
    "half of index.json": (cut("index.json", 90), "index.json: damaged"),
    "a list": (lambda f: (f / "index.json").write_text("[1]"), "not written by ccan"),
    "nested too deeply": (
        lambda f: (f / "index.json").write_text("[" * 10**5),
        "index.json: damaged",
    ),
    "another program's": (rewrite(lambda v: v.update(format="x")), "not written by ccan index"),
    "a later version": (rewrite(lambda v: v.update(version=2)), "expected version 1, got 2"),
    "an unknown key": (rewrite(lambda v: v.update(colour=1)), "index.json: damaged"),
    "no source": (rewrite(lambda v: v.pop("source")), "index.json: damaged"),
    "a number as text": (rewrite(lambda v: v.update(count="53")), "index.json: damaged"),
    "a truth as number": (rewrite(lambda v: v.update(width=True)), "index.json: damaged"),
    "a root that is none": (rewrite(lambda v: v["source"].update(root=3)), "index.json: damaged"),
    "a length as text": (rewrite(lambda v: v.update(longest="1")), "index.json: damaged"),
    "another metric": (rewrite(lambda v: v.update(metric="cosine")), "index.json: damaged"),
    "another count": (rewrite(lambda v: v.update(count=54)), "expected 54 images, got"),
    "another width": (rewrite(lambda v: v.update(width=8)), "53 images, 8 each, got .53, 7."),
    "another engine": (rewrite(lambda v: v.update(engine="faiss")), "no engine 'faiss'"),
    "milvus without all": (rewrite(lambda v: v.update(engine="milvus")), "no engine 'milvus' with"),
    "no facts": (lose("facts.safetensors"), "facts.safetensors: cannot be read"),
    "other facts": (flip("facts.safetensors", -1), "not those that were written"),
    "no features": (lose("features.safetensors"), "features.safetensors: cannot be read"),
    "half of the features": (cut("features.safetensors", 900), "cannot be read"),
    "another bit": (flip("features.safetensors", -9), "not those that were written"),
    "swapped files": (
        lambda f: (f / "facts.safetensors").replace(f / "features.safetensors"),
        "cannot be read",
    ),
}


@pytest.mark.parametrize("what", DAMAGES)
def test_what_is_damaged_or_foreign_is_told(tmp_path: Path, what: str) -> None:
    damage, words = DAMAGES[what]
    build_index(tmp_path / "index", GALLERY)
    damage(tmp_path / "index")
    with pytest.raises(SearchError, match=words):
        open_index(tmp_path / "index")


@pytest.mark.parametrize("name", ["none", "file.txt"])
def test_no_folder_is_no_index(tmp_path: Path, name: str) -> None:
    (tmp_path / "file.txt").write_text("x")
    with pytest.raises(SearchError, match=f"{name}: expected an index, a folder with index.json"):
        open_index(tmp_path / name)


def test_an_index_with_another_address_sends_no_token_by_query(tmp_path: Path) -> None:
    build_index(tmp_path / "index", GALLERY)
    change = {
        "engine": "milvus",
        "kind": "FLAT",
        "collection": "c",
        "uri": "http://user:secret@somewhere:19530",
    }
    rewrite(lambda values: values.update(change))(tmp_path / "index")
    with pytest.raises(CCANError, match="must not hold credentials") as told:
        open_index(tmp_path / "index")
    assert "secret" not in str(told.value)


def test_an_index_belongs_to_one_network(tmp_path: Path) -> None:
    predictor, other = small_predictor(tmp_path, seed=0), small_predictor(tmp_path, seed=1)
    features = FeatureSet(np.ones((2, 16), np.float32), [1, 2], [1, 1])
    source = Source(checkpoint="0.safetensors", fingerprint=fingerprint(predictor.model, ()))
    with build_index(tmp_path / "index", features, source=source) as index:
        index.check_model(predictor)
        with pytest.raises(
            CheckpointError, match=r"the index was made with \(0.safetensors\), got"
        ):
            index.check_model(other)
    with pytest.raises(CheckpointError, match="made of a file of features, whose network is not"):
        exact_index(features).check_model(predictor)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"uri": "http://host:19530"}, "belong to the engine milvus"),
        ({"kind": "HNSW"}, "belong to the engine milvus"),
        ({"effort": 9}, "belong to the engine milvus"),
        ({"engine": "milvus", "effort": 9}, "effort is a number from 1, and not for FLAT"),
        ({"engine": "milvus", "kind": "HNSW", "effort": 0}, "effort is a number from 1"),
        ({"engine": "milvus", "uri": "ftp://host"}, "such as http://host:19530, got 'ftp"),
        ({"engine": "milvus", "uri": "gallery.db"}, "such as http://host:19530"),
        ({"engine": "milvus", "uri": "http://host/gallery.db"}, "such as http://host:19530"),
        ({"engine": "milvus", "uri": "http://"}, "such as http://host:19530"),
        ({"engine": "milvus", "uri": "http://a:b@host"}, "put the token into the environment"),
        ({"engine": "milvus", "uri": "http://host?token=b"}, "must not hold credentials"),
        ({"engine": "milvus", "uri": "http://[::1"}, "uri is not an address"),
    ],
)
def test_settings_that_do_not_go_together(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        SearchConfig(**settings)
