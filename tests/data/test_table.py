"""Tables of images: cells of every kind, and errors that name the line."""

from __future__ import annotations

from pathlib import Path

import pytest

from ccan.data import load_dataset
from ccan.errors import DatasetError
from tests.data.layouts import facts, reasons, sizes, write

TABLE = """\
path,identity,camera,split,daytime,visible
b.jpg,7,2,train,noon,0.5
sub/a.jpg,7,,train,,1

"with, comma.png",3,-1,query,morning,
c.jpg,3,13,gallery,noon,0.25
d.jpg,0,1,gallery,,0
e.jpg,-1,1,gallery,,0
f.jpg,3,-1,multi_query,,0
"""
NAMES = ["b.jpg", "sub/a.jpg", "with, comma.png", "c.jpg", "d.jpg", "e.jpg", "f.jpg"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "0009_c3"
    write(root, NAMES)
    (root / "people.csv").write_text(TABLE)
    return root


def rewrite(root: Path, text: str) -> Path:
    (root / "people.csv").write_text(text)
    return root


def test_lines_become_samples_in_their_order(root: Path):
    dataset = load_dataset("csv", root)
    assert facts(dataset.train) == [("b.jpg", 7, 2), ("a.jpg", 7, -1)]
    assert facts(dataset.query) == [("with, comma.png", 3, -1)]
    assert facts(dataset.gallery) == [("c.jpg", 3, 13), ("d.jpg", 0, 1)]
    assert facts(dataset.multi_query) == [("f.jpg", 3, -1)]
    assert reasons(dataset) == {"e.jpg": "junk (identity -1)"}
    assert (dataset.name, dataset.root, dataset.notes) == ("csv", root, ())
    assert all(sample.path.is_file() for sample in (*dataset.train, *dataset.gallery))


def test_further_columns_are_metadata_numbers_where_all_are(root: Path):
    dataset = load_dataset("csv", root)
    assert [dict(sample.metadata) for sample in dataset.train] == [
        {"daytime": "noon", "visible": 0.5},
        {"visible": 1.0},
    ]
    mixed = rewrite(root, TABLE.replace("noon,0.25", "noon,much"))
    assert load_dataset("csv", mixed).train[0].metadata["visible"] == "0.5"
    endless = rewrite(root, TABLE.replace("noon,0.25", "noon,inf"))
    assert load_dataset("csv", endless).train[0].metadata["visible"] == "0.5"


def test_junk_stays_on_request(root: Path):
    dataset = load_dataset("csv", root, keep_junk=True)
    assert [sample.identity for sample in dataset.gallery] == [3, 0, -1]
    assert dataset.skipped == ()


def test_the_table_itself_or_one_of_several(root: Path):
    whole = load_dataset("csv", root)
    assert load_dataset("csv", root / "people.csv").gallery == whole.gallery
    (root / "other.CSV").write_text("path,identity,split\nb.jpg,1,train\n")
    with pytest.raises(DatasetError, match=r"several tables: other\.CSV, people\.csv; choose"):
        load_dataset("csv", root)
    assert sizes(load_dataset("csv", root, file="other.CSV")) == (1, 0, 0)
    with pytest.raises(DatasetError, match=r"holds no third\.csv"):
        load_dataset("csv", root, file="third.csv")


def test_windows_line_ends_a_mark_at_the_start_and_no_camera_column(root: Path):
    text = "\ufeffPath, Split ,IDENTITY\r\n\r\nsub\\a.jpg,train,5\r\n"
    (root / "people.csv").write_bytes(text.encode())
    assert facts(load_dataset("csv", root).train) == [("a.jpg", 5, -1)]


def test_an_absolute_path_and_one_beside_the_folder_are_trusted(root: Path):
    write(root.parent, ["g.jpg"])
    rewrite(root, f"path,identity,split\n{root / 'b.jpg'},1,train\n../g.jpg,2,train\n")
    assert facts(load_dataset("csv", root).train) == [("b.jpg", 1, -1), ("g.jpg", 2, -1)]


def test_files_that_are_not_there_or_no_images(root: Path):
    write(root, ["notes.txt"])
    rewrite(root, TABLE + "no.jpg,3,1,query,,\nnotes.txt,3,1,query,,\nsub,3,1,query,,\n")
    found = reasons(load_dataset("csv", root))
    assert found["no.jpg"] == "listed, but not there"
    assert found["notes.txt"] == found["sub"] == "not an image"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("b.jpg,x,1,train", "identity must be an integer of at least -1, got 'x'"),
        ("b.jpg,,1,train", "identity must be an integer of at least -1, got ''"),
        ("b.jpg,-2,1,train", "identity must be an integer of at least -1, got '-2'"),
        ("b.jpg,1.0,1,train", "identity must be an integer of at least -1, got '1.0'"),
        ("b.jpg,²,1,train", "identity must be an integer of at least -1, got '²'"),
        (f"b.jpg,{10**30},1,train", "identity must be an integer"),
        ("b.jpg,1,c1,train", "camera must be an integer of at least -1, got 'c1'"),
        ("b.jpg,1,-2,train", "camera must be an integer of at least -1, got '-2'"),
        ("b.jpg,1,1,test", "split must be one of train, query, gallery, multi_query, got 'test'"),
        ("b.jpg,1,1", "split must be one of train, query, gallery, multi_query, got ''"),
        (",1,1,train", "expected the path of an image, got none"),
        ("a, b.jpg,1,1,train", "expected 4 cells as in the first line, got 5"),
    ],
)
def test_a_line_that_cannot_be_read_is_named(root: Path, line: str, message: str):
    rewrite(root, f"path,identity,camera,split\nb.jpg,1,1,train\n\n{line}\n")
    with pytest.raises(DatasetError) as raised:
        load_dataset("csv", root)
    assert f"people.csv, line 4: {message}" in str(raised.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "got no column path, identity, split in ''"),
        ("b.jpg,1,1,train\n", "got no column path, identity, split in 'b.jpg,1,1,train'"),
        ("path;identity;split\n", "got no column path, identity, split in 'path;identity;split'"),
        ("path,identity,split,split\n", "got a column twice"),
    ],
)
def test_a_wrong_first_line(root: Path, text: str, message: str):
    with pytest.raises(DatasetError) as raised:
        load_dataset("csv", rewrite(root, text))
    assert "line 1: expected the columns path,identity,camera,split" in str(raised.value)
    assert message in str(raised.value)


@pytest.mark.parametrize("damage", [b"\xff\xfe\x00", b'path,identity,split\n"b.jpg,1,train'])
def test_a_file_that_is_no_csv(root: Path, damage: bytes):
    (root / "people.csv").write_bytes(damage)
    with pytest.raises(DatasetError, match=r"people\.csv: expected a CSV file in UTF-8, got "):
        load_dataset("csv", root)


def test_a_table_of_which_nothing_is_there(root: Path):
    rewrite(root, "path,identity,split\nno.jpg,1,train\n")
    with pytest.raises(DatasetError, match=r"got none of 1 listed; the first: .*no\.jpg: listed"):
        load_dataset("csv", root)
    rewrite(root, "path,identity,split\n")
    with pytest.raises(DatasetError, match="got none of 0 listed; paths are relative to"):
        load_dataset("csv", root)


def test_a_folder_without_a_table_shows_what_is_expected(tmp_path: Path):
    with pytest.raises(DatasetError, match="holds no CSV file: found nothing; expected") as raised:
        load_dataset("csv", tmp_path)
    assert "path,identity,camera,split" in str(raised.value)
