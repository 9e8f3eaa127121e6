"""Sizes, damage and copies, read from the files."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from PIL import Image

from ccan.data.image_files import read_files, same_contents
from tests.data.layouts import paint


def test_sizes_are_those_of_the_upright_image(tmp_path: Path):
    first = paint(tmp_path / "a.png", 1, (7, 13))
    turned = tmp_path / "b.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: a quarter turn
    Image.new("RGB", (11, 5)).save(turned, exif=exif)
    read = read_files([first, turned, first])
    assert {path.name: (file.width, file.height) for path, file in read.items()} == {
        "a.png": (7, 13),
        "b.jpg": (5, 11),
    }


def test_damage_is_told_and_nothing_stops(tmp_path: Path):
    good, cut = paint(tmp_path / "good.png", 1), paint(tmp_path / "cut.png", 2)
    cut.write_bytes(cut.read_bytes()[:61])
    empty = tmp_path / "empty.jpg"
    empty.touch()
    read = read_files([good, cut, empty, tmp_path / "gone.jpg"])
    assert read[good].problem == ""
    assert "cut.png" in read[cut].problem
    assert "expected a readable image" in read[empty].problem
    assert "no such image file" in read[tmp_path / "gone.jpg"].problem


def test_copies_are_found_whatever_their_names(tmp_path: Path):
    one, other = paint(tmp_path / "a.png", 1), paint(tmp_path / "c.png", 3)
    copies = [Path(shutil.copy(one, tmp_path / name)) for name in ("b.jpg", "d.bmp")]
    gone = [tmp_path / "gone.png", tmp_path / "lost.png"]
    assert same_contents([one, other, *copies, *gone]) == [[one, *copies]]


def test_files_of_one_length_are_compared_by_content(tmp_path: Path):
    paths = [tmp_path / name for name in ("a", "b", "c", "d")]
    for path, content in zip(
        paths, (b"17 bytes, so says", b"17 bytes, so does", b"", b""), strict=True
    ):
        path.write_bytes(content)
    assert same_contents(paths) == [paths[2:]]


def test_only_files_of_one_length_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    paths = [tmp_path / f"{n}" for n in range(3)]
    for length, path in enumerate(paths):
        path.write_bytes(b"x" * length)
    monkeypatch.setattr(Path, "read_bytes", lambda self: pytest.fail(f"{self} was read"))
    assert same_contents(paths) == []
