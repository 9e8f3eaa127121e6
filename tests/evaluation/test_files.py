"""Features come back from disk as they went; foreign files are read kindly or refused with what is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from ccan.errors import ConfigError, ProtocolError
from ccan.evaluation import FeatureSet, evaluate_features, files
from ccan.evaluation.files import (
    load_feature_set,
    load_features,
    save_feature_set,
    save_features,
)

SUFFIXES = [".npz", ".safetensors"]


def example(rows: int = 7, named: bool = True) -> FeatureSet:
    generator = np.random.default_rng(rows)
    return FeatureSet(
        generator.normal(size=(rows, 5)).astype(np.float32),
        generator.integers(0, 4, rows),
        generator.integers(1, 16, rows),
        [f"büro/{row}.jpg" for row in range(rows)] if named else None,
        {
            "view": ["front", "", "left"][:3] + [""] * (rows - 3),
            "angle": [np.nan] + [4.5] * (rows - 1),
        },
    )


def assert_same(found: FeatureSet, expected: FeatureSet) -> None:
    assert torch.equal(found.features, expected.features)
    np.testing.assert_array_equal(found.identities, expected.identities)
    np.testing.assert_array_equal(found.cameras, expected.cameras)
    assert found.names == expected.names
    assert sorted(found.metadata) == sorted(expected.metadata)
    for column, values in expected.metadata.items():
        np.testing.assert_array_equal(found.metadata[column], values)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("named", [True, False])
def test_round_trip(tmp_path: Path, suffix: str, named: bool):
    query, gallery = example(3, named), example(11)
    save_features(tmp_path / f"new/pair{suffix}", query, gallery)
    for found, expected in zip(
        load_features(tmp_path / f"new/pair{suffix}"), (query, gallery), strict=True
    ):
        assert_same(found, expected)
    save_feature_set(tmp_path / f"one{suffix}", query)
    assert_same(load_feature_set(tmp_path / f"one{suffix}"), query)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_half_precision_halves_the_file_and_is_widened(tmp_path: Path, suffix: str):
    made = FeatureSet(torch.randn(101, 97), [1] * 101, [2] * 101)
    save_feature_set(tmp_path / f"full{suffix}", made)
    save_feature_set(tmp_path / f"half{suffix}", made, "float16")
    full, half = ((tmp_path / f"{name}{suffix}").stat().st_size for name in ("full", "half"))
    assert half < 0.6 * full
    found = load_feature_set(tmp_path / f"half{suffix}")
    assert found.features.dtype == torch.float32
    torch.testing.assert_close(found.features, made.features, atol=2e-3, rtol=1e-3)
    with pytest.raises(ProtocolError, match="finite in float16, but some overflow"):
        save_feature_set(tmp_path / f"large{suffix}", FeatureSet([[1e5]], [1], [1]), "float16")
    assert not (tmp_path / f"large{suffix}").exists()
    with pytest.raises(ConfigError, match="float32 or float16, got 'int8'"):
        save_feature_set(tmp_path / f"x{suffix}", made, "int8")  # type: ignore[arg-type]


FOREIGN: dict[str, Any] = {
    "query_features": np.array([[0.0, 0.0], [4.0, 0.0]], np.float32),
    "query_ids": np.array([1.0, 2.0]),
    "query_cameras": np.array([1, 1], np.int32),
    "gallery_features": np.array([[1.0, 0], [2, 0], [3, 0], [9, 9]], np.float32),
    "gallery_ids": np.array([2.0, 1.0, 2.0, -1.0], np.float32),
    "gallery_cameras": np.array([2, 2, 2, 2], np.uint8),
}


def write(path: Path, arrays: dict[str, Any]) -> Path:
    if path.suffix == ".npz":
        np.savez(path, **arrays)
    else:
        save_file(arrays, path)
    return path


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_foreign_files_with_whole_floats_and_junk(tmp_path: Path, suffix: str):
    path = write(tmp_path / f"matlab{suffix}", FOREIGN)
    with pytest.warns(UserWarning, match=r"left out 1 of 4 gallery images: junk \(identity -1\)"):
        query, gallery = load_features(path)
    assert query.identities.tolist() == [1, 2] and len(gallery) == 3
    report = evaluate_features(query, gallery)
    assert report.first_match.tolist() == [2, 1]
    assert report.mAP == pytest.approx((1 / 2 + (1 + 2 / 3) / 2) / 2)


def test_junk_queries_are_left_out_with_a_warning(tmp_path: Path):
    arrays = FOREIGN | {"query_ids": np.array([-1, 2]), "gallery_ids": np.array([2, 1, 2, 0])}
    with pytest.warns(UserWarning, match="left out 1 of 2 query images: junk"):
        query, gallery = load_features(write(tmp_path / "a.npz", arrays))
    assert query.identities.tolist() == [2]
    assert gallery.identities.tolist() == [2, 1, 2, 0]  # distractors stay


MISTAKES: list[tuple[str, Any, str]] = [
    (
        "query_ids",
        None,
        "expected the keys query_features, query_ids, query_cameras, and missed query_ids; got gal",
    ),
    (
        "gallery_cameras",
        np.array([1, 1, 1]),
        r"\(gallery\): cameras must have shape \(4,\), .* got \(3,\)",
    ),
    ("query_features", np.zeros(2, np.float32), r"\(query\): features must have shape \(N, D\)"),
    (
        "query_features",
        np.array([[1, np.nan], [0, 0]], np.float32),
        r"\(query\): features must be finite",
    ),
    ("query_features", np.zeros((2, 2), np.int64), "must be floating point"),
    (
        "gallery_ids",
        np.array([1.0, 2.0, 0.5, 4.0]),
        "gallery_ids must be whole numbers, got fractions",
    ),
    (
        "gallery_ids",
        np.array([1.0, 2.0, np.nan, 4.0]),
        "gallery_ids must be whole numbers, got fractions or NaN",
    ),
]


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(("key", "value", "message"), MISTAKES)
def test_what_is_refused(tmp_path: Path, suffix: str, key: str, value: Any, message: str):
    arrays = {name: values for name, values in FOREIGN.items() if name != key}
    path = write(tmp_path / f"a{suffix}", arrays if value is None else arrays | {key: value})
    with pytest.raises(ProtocolError, match=message) as raised:
        load_features(path)
    assert str(raised.value).startswith(str(path))


def test_python_objects_are_never_loaded(tmp_path: Path):
    class Trap:
        def __reduce__(self):
            return (pytest.fail, ("it was unpickled",))

    path = tmp_path / "a.npz"
    write(path, FOREIGN | {"query_ids": np.array([Trap(), Trap()], dtype=object)})
    with pytest.raises(
        ProtocolError, match="'query_ids' must be an array of numbers or text, got one of Python"
    ):
        load_features(path)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_damaged_missing_and_misnamed_files(tmp_path: Path, suffix: str):
    path = tmp_path / f"a{suffix}"
    save_feature_set(path, example())
    whole = path.read_bytes()
    for damaged in (b"", b"hello", whole[: len(whole) // 2]):
        path.write_bytes(damaged)
        with pytest.raises(ProtocolError, match="expected a "):
            load_feature_set(path)
    with pytest.raises(FileNotFoundError):
        load_features(tmp_path / f"none{suffix}")
    with pytest.raises(ConfigError, match=r"kept as \.npz or \.safetensors, got 'a.mat'"):
        load_features(tmp_path / "a.mat")
    with pytest.raises(ConfigError, match=r"kept as \.npz or \.safetensors, got 'a'"):
        save_feature_set(tmp_path / "a", example())


def test_a_set_is_not_an_evaluation(tmp_path: Path):
    save_feature_set(tmp_path / "a.npz", example())
    with pytest.raises(ProtocolError, match="missed query_features, query_ids, query_cameras; got"):
        load_features(tmp_path / "a.npz")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_failed_write_leaves_the_old_file(
    tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
):
    path = tmp_path / f"a{suffix}"
    save_feature_set(path, example())
    before = path.read_bytes()

    def disk_full(*_: Any, **__: Any) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(np, "savez", disk_full)
    monkeypatch.setattr("safetensors.torch.save_file", disk_full)
    with pytest.raises(OSError, match="no space"):
        save_feature_set(path, example(3))
    assert path.read_bytes() == before and [entry.name for entry in tmp_path.iterdir()] == [
        path.name
    ]


def test_what_is_written_is_what_the_docstring_promises(tmp_path: Path):
    save_features(tmp_path / "a.npz", example(3), example(5, named=False))
    with np.load(tmp_path / "a.npz", allow_pickle=False) as saved:
        assert sorted(saved.files) == sorted(
            ["query_names"]
            + [
                side + key
                for side in ("query_", "gallery_")
                for key in ("features", "ids", "cameras", "meta_view", "meta_angle")
            ]
        )
        assert saved["query_names"].dtype.kind == "U"
    assert files.SUFFIXES == (".npz", ".safetensors")


def foreign(path: Path, **changes: Any) -> Path:
    """A file that another program might have written, with some arrays replaced."""
    arrays = {
        "query_features": np.eye(3, 5, dtype=np.float32),
        "query_ids": np.array([1, 2, 3]),
        "query_cameras": np.array([1, 1, 1]),
        "gallery_features": np.eye(3, 5, dtype=np.float32),
        "gallery_ids": np.array([1, 2, 3]),
        "gallery_cameras": np.array([2, 2, 2]),
    }
    np.savez(path, **(arrays | changes))
    return path


def test_features_of_another_byte_order_are_read(tmp_path: Path) -> None:
    rows = np.arange(15, dtype=">f4").reshape(3, 5)
    query, _ = load_features(foreign(tmp_path / "f.npz", query_features=rows))
    np.testing.assert_array_equal(query.features.numpy(), rows)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"query_ids": np.array([1.0, np.inf, 3.0])}, "below 2\\*\\*63"),
        ({"query_ids": np.array([1, 2, 2**64 - 1], dtype=np.uint64)}, "below 2\\*\\*63"),
        ({"query_features": np.full((3, 5), "a")}, "query_features must be floating point"),
        ({"query_features": np.ones((3, 5), dtype=np.longdouble)}, "16, 32 or 64 bits"),
        ({"query_names": np.array("one")}, "query_names must be a list of texts"),
    ],
)
def test_numbers_that_mean_nothing_are_refused(
    tmp_path: Path, changes: dict[str, Any], text: str
) -> None:
    with pytest.raises(ProtocolError, match=text):
        load_features(foreign(tmp_path / "f.npz", **changes))


def test_damaged_bytes_anywhere_are_a_protocol_error(tmp_path: Path) -> None:
    path = tmp_path / "f.npz"
    np.savez_compressed(path, **dict(np.load(foreign(tmp_path / "whole.npz"))))
    whole = path.read_bytes()
    generator = np.random.default_rng(3)
    refused = 0
    for _ in range(300):
        damaged = bytearray(whole)
        damaged[int(generator.integers(len(whole)))] ^= 1 << int(generator.integers(8))
        path.write_bytes(damaged)
        try:
            load_features(path)
        except ProtocolError:
            refused += 1
    assert refused > 100


def test_a_bare_array_under_the_name_of_an_archive_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "f.npz").open("wb") as file:
        np.save(file, np.zeros((3, 2)))
    with pytest.raises(ProtocolError, match=r"expected a \.npz archive"):
        load_features(tmp_path / "f.npz")


def test_a_damaged_array_is_not_called_one_of_python_objects(tmp_path: Path) -> None:
    path = foreign(tmp_path / "f.npz")
    whole = path.read_bytes()
    place = whole.index(b"'descr'")
    path.write_bytes(whole[:place] + b"'des\xffr'" + whole[place + 7 :])
    with pytest.raises(ProtocolError, match="cannot be read") as refused:
        load_features(path)
    assert "Python objects" not in str(refused.value)
