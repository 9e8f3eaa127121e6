"""`ccan index` and `ccan rank`: from a folder of images to a ranking, by either engine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ccan.cli import main
from ccan.data import ReIDDataset, load_dataset
from ccan.data.synthetic import WorldConfig, write_world
from ccan.evaluation import FeatureSet, save_feature_set, save_features
from ccan.predictor import Predictor
from ccan.search import open_index
from tests.search.people import clusters
from tests.small import write_checkpoint

ENGINES = {
    "exact": [],
    "FLAT": ["--engine", "milvus"],
    "HNSW": ["--engine", "milvus", "--kind", "HNSW", "--effort", "64"],
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> ReIDDataset:
    config = WorldConfig(identities=10, cameras=3, images_per_camera=2, height=64, width=32)
    folder = write_world(
        config,
        tmp_path_factory.mktemp("world") / "w",
        workers=1,
        progress=False,
        splits=("query", "gallery"),
    )
    return load_dataset("synthetic", folder)


@pytest.fixture(scope="module")
def indices(world: ReIDDataset, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """An index by each engine, of the bundled model's descriptors."""
    folder = tmp_path_factory.mktemp("indices")
    for name, words in ENGINES.items():
        source = ["--dataset", "synthetic", "--data", str(world.root)]
        assert main(["index", "--out", str(folder / name), *source, *words]) == 0
    assert sorted(path.name for path in folder.iterdir()) == ["FLAT", "HNSW", "exact"]
    return {name: folder / name for name in ENGINES}


def ranking(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    """What `ccan rank … --json -` puts on standard output."""
    capsys.readouterr()
    assert main(["rank", *words, "--json", "-"]) == 0
    return json.loads(capsys.readouterr().out)


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """What is said by a command that ends with an error of ours."""
    capsys.readouterr()
    assert main(list(words)) == 2
    return capsys.readouterr().err


@pytest.mark.parametrize("engine", ENGINES)
def test_the_ranking_is_the_librarys(
    world: ReIDDataset,
    indices: dict[str, Path],
    capsys: pytest.CaptureFixture[str],
    engine: str,
) -> None:
    query = world.query[3]
    words = [str(query.path), "--gallery", str(indices[engine]), "--top", "7"]
    own = ["--identity", str(query.identity), "--camera", str(query.camera)]
    found = ranking(capsys, *words, *own)
    predictor = Predictor.from_checkpoint("demo", "cpu")
    gallery = predictor.features(world.gallery)
    true = predictor.rank(query.path, gallery, identity=query.identity, camera=query.camera)
    counted = [mark != "ignored" for mark in true.marks]
    order, distances = true.order[counted][:7], true.distances[counted][:7]
    rows = found["ranking"]
    assert [one["image"] for one in rows] == [
        world.gallery[row].path.relative_to(world.root).as_posix() for row in order
    ]
    assert [one["row"] for one in rows] == order.tolist()
    np.testing.assert_allclose([one["distance"] for one in rows], distances, atol=1e-3)
    marks = [mark for mark in true.marks if mark != "ignored"][:7]
    assert [one["mark"] for one in rows] == marks and {*marks} == {"right", "wrong"}
    assert [one["place"] for one in rows] == list(range(1, 8))
    assert found["image"] == str(query.path) and found["index"]["count"] == len(world.gallery)


@pytest.mark.parametrize("engine", ENGINES)
def test_only_some_cameras_and_people(
    world: ReIDDataset,
    indices: dict[str, Path],
    capsys: pytest.CaptureFixture[str],
    engine: str,
) -> None:
    people = [world.query[0].identity, world.query[-1].identity]
    words = [str(world.query[0].path), "--gallery", str(indices[engine]), "--top", "50"]
    kept = ["--cameras", "1", "3", "--identities", *map(str, people)]
    found = ranking(capsys, *words, *kept)["ranking"]
    expected = [
        row
        for row, sample in enumerate(world.gallery)
        if sample.camera in (1, 3) and sample.identity in people
    ]
    assert sorted(one["row"] for one in found) == expected and len(expected) >= 2
    assert all("mark" not in one for one in found)


def test_a_person_reads_a_table(
    world: ReIDDataset, indices: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    query = world.query[0]
    words = ["rank", str(query.path), "--gallery", str(indices["HNSW"]), "--top", "2"]
    assert main([*words, "--identity", str(query.identity)]) == 0
    first, header, *rows = capsys.readouterr().out.splitlines()
    assert first.startswith("Milvus HNSW (embedded): ") and "recall@10 1.000" in first
    assert header.split() == ["place", "distance", "identity", "camera", "image", "mark"]
    assert len(rows) == 2 and rows[0].split()[-1] in ("right", "wrong")
    assert rows[0].split()[0] == "1" and len(rows[0].split()[1]) == len("0.1234")


def test_what_was_made_is_written(
    world: ReIDDataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = ["--dataset", "synthetic", "--data", str(world.root)]
    assert main(["index", "--out", str(tmp_path / "i"), *source, "--json", "-"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert made["index"] == str(tmp_path / "i") and made["engine"] == "exact"
    assert made["source"]["checkpoint"] == "demo" and made["source"]["root"] == str(world.root)
    assert made["count"] == len(world.gallery) and made["width"] == 512


def test_another_network_is_refused(
    world: ReIDDataset,
    indices: dict[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    other = write_checkpoint(tmp_path / "other.safetensors")
    words = ["rank", str(world.query[0].path), "--gallery", str(indices["exact"])]
    said = refused(capsys, *words, "--checkpoint", str(other))
    assert "expected the network that the index was made with (demo), got one with other" in said
    assert main([*words, "--checkpoint", "demo"]) == 0


def test_a_checkpoint_that_moved_is_named_again(
    world: ReIDDataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = write_checkpoint(tmp_path / "model.safetensors")
    source = ["--dataset", "synthetic", "--data", str(world.root), "--checkpoint", str(model)]
    assert main(["index", "--out", str(tmp_path / "index"), *source]) == 0
    model.rename(tmp_path / "moved.safetensors")
    words = ["rank", str(world.query[0].path), "--gallery", str(tmp_path / "index")]
    assert f"expected a checkpoint at {model}" in refused(capsys, *words)
    assert main([*words, "--checkpoint", str(tmp_path / "moved.safetensors")]) == 0


@pytest.mark.parametrize("one_list", [True, False])
def test_features_of_another_model_are_indexed_and_have_no_network(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], one_list: bool
) -> None:
    gallery, file = clusters(300), tmp_path / "features.npz"
    if one_list:
        save_feature_set(file, gallery)
    else:
        save_features(file, gallery.select([1, 2]), gallery)
    words = ["index", "--out", str(tmp_path / "index"), "--features", str(file)]
    assert main([*words, "--engine", "milvus", "--kind", "IVF_FLAT"]) == 0
    assert "300 images of 24 numbers, recall@10" in capsys.readouterr().out
    with open_index(tmp_path / "index") as index:
        assert index.search(gallery.features[9], 1).rows.tolist() == [[9]]
        assert index.root is None and index.picture(9) is None
    (tmp_path / "image.png").write_bytes(b"not looked at")
    said = refused(
        capsys, "rank", str(tmp_path / "image.png"), "--gallery", str(tmp_path / "index")
    )
    assert "made of a file of features, whose network is not known here" in said


def test_features_have_pictures_if_told_where(
    world: ReIDDataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ["elsewhere/nobody.jpg", world.gallery[4].path.name]
    names[1] = f"{world.gallery[4].path.parent.name}/{names[1]}"
    gallery = FeatureSet(np.eye(2, 5, dtype=np.float32), [1, 2], [1, 1], names)
    save_feature_set(tmp_path / "features.npz", gallery)
    words = ["index", "--features", str(tmp_path / "features.npz"), "--images"]
    assert main([*words, str(world.root), "--out", str(tmp_path / "index")]) == 0
    with open_index(tmp_path / "index") as index:
        assert [index.picture(row) for row in (0, 1)] == [None, world.gallery[4].path]
    said = refused(capsys, *words, str(tmp_path), "--out", str(tmp_path / "other"))
    assert "expected the images that features.npz names, found none of 2" in said
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("index --out X --kind HNSW", "belong to the engine milvus"),
        ("index --out X --features f.npz --dataset market1501", "--features holds its descriptors"),
        ("index --out X --images DIR", "--images belongs to --features"),
        ("index --out X --features none.npz", "none.npz"),
        ("index --out .", "is there already; remove it or choose another place"),
        ("rank me.jpg --gallery none", "expected an index, a folder with index.json, got none"),
        ("rank me.jpg --gallery none --camera 2", "give both or neither"),
    ],
)
def test_what_does_not_go_together_is_told(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: str,
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    try:
        assert said in refused(capsys, *words.split())
    except SystemExit:  # told by the parser of the words
        assert said in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_picture_that_cannot_be_read_is_told(
    indices: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "image.jpg").write_bytes(b"no picture")
    words = ["rank", str(tmp_path / "image.jpg"), "--gallery", str(indices["exact"])]
    assert "image.jpg" in refused(capsys, *words, "--json", str(tmp_path / "out.json"))
    assert not (tmp_path / "out.json").exists()
