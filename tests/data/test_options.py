"""Options as words of a command line and as keyword arguments."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ccan.data import DATASETS, load_dataset, read_options
from ccan.data.options import describe, options_of
from ccan.errors import ConfigError
from tests.data.layouts import msmt17


@pytest.mark.parametrize(
    ("name", "words", "options"),
    [
        ("market1501", [], {}),
        ("cuhk03", ["box=labelled", "protocol=classic", "split=13"], 
         {"box": "labelled", "protocol": "classic", "split": 13}),
        ("msmt17", ["train-only=true", "version=V2"], {"train_only": True, "version": "V2"}),
        ("msmt17", ["train_only=No"], {"train_only": False}),
        ("market1501", ["distractors=yes"], {"distractors": True}),
        ("market1501", ["distractors=my images=2"], {"distractors": "my images=2"}),
        ("image-folder", ["test-percent=-3"], {"test_percent": -3}),
        ("csv", ["file = a.csv "], {"file": "a.csv"}),
        ("csv", ["file=3"], {"file": "3"}),
        ("auto", ["box=labelled", "train-only=1"], {"box": "labelled", "train_only": True}),
        ("demo", ["progress=0"], {"progress": False}),
    ],
)  # fmt: skip
def test_words_become_typed_options(name: str, words: list[str], options: dict[str, Any]):
    found = read_options(name, words)
    assert found == options
    assert {key: type(value) for key, value in found.items()} == {
        key: type(value) for key, value in options.items()
    }


@pytest.mark.parametrize(
    ("name", "words", "message"),
    [
        ("cuhk03", ["box"], "options are written name=value, for example box=detected; got 'box'"),
        ("cuhk03", ["=detected"], "options are written name=value"),
        ("cuhk03", ["box=labeled"],
         "option box of dataset 'cuhk03' must be one of detected, labelled, got 'labeled'"),
        ("cuhk03", ["split=three"], "option split of dataset 'cuhk03' must be an integer, got 'three'"),
        ("cuhk03", ["split=²"], "must be an integer, got '²'"),
        ("cuhk03", ["split=1.0"], "must be an integer, got '1.0'"),
        ("cuhk03", ["split=true"], "must be an integer, got 'true'"),
        ("msmt17", ["train-only=maybe"], "must be true or false, got 'maybe'"),
        ("msmt17", ["train-only="], "must be true or false, got ''"),
        ("msmt17", ["box=detected"],
         "dataset 'msmt17' has no option box; it has: train_only, version, keep_junk"),
        ("msmt17", ["root=x"], "has no option root"),
        ("msmt17", ["train-only=1", "train_only=0"], "option train_only is given twice"),
        ("auto", ["colour=red"], "dataset 'auto' has no option colour; it has: keep_junk"),
        ("cuhk3", [], "dataset must be auto or one of market1501, dukemtmc"),
    ],
)  # fmt: skip
def test_words_that_are_no_options(name: str, words: list[str], message: str):
    with pytest.raises(ConfigError) as raised:
        read_options(name, words)
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("cuhk03", {"split": "3"}, "option split of dataset 'cuhk03' must be an integer, got '3'"),
        ("cuhk03", {"split": True}, "must be an integer, got True"),
        ("cuhk03", {"box": "labeled"}, "must be one of detected, labelled, got 'labeled'"),
        ("cuhk03", {"box": ["detected"]}, "must be one of detected, labelled, got ['detected']"),
        ("msmt17", {"train_only": "false"}, "must be true or false, got 'false'"),
        ("market1501", {"distractors": 5}, "must be true or false or a text, got 5"),
    ],
)
def test_keyword_arguments_of_another_type(
    tmp_path: Path, name: str, options: dict[str, Any], message: str
):
    """A text "false" would be true."""
    with pytest.raises(ConfigError) as raised:
        load_dataset(name, tmp_path, **options)
    assert message in str(raised.value)


def test_what_was_read_is_what_is_loaded(tmp_path: Path):
    root = msmt17(tmp_path)
    dataset = load_dataset("msmt17", root, **read_options("msmt17", ["train-only=true"]))
    assert dataset == load_dataset("msmt17", root, train_only=True)


def test_an_option_means_the_same_type_to_every_loader():
    """Otherwise `auto` could not read it."""
    union = options_of(*DATASETS.values())
    for loader in DATASETS.values():
        assert all(union[name] == kind for name, kind in options_of(loader).items())
    for kind in union.values():
        assert "typing." not in describe(kind) and "<class" not in describe(kind)


def test_the_page_for_people_names_every_layout_with_its_options():
    page = Path(__file__).parents[2] / "docs" / "datasets.md"
    rows = {
        line.split("`")[1]: line
        for line in page.read_text(encoding="utf-8").splitlines()
        if line.startswith("| `")
    }
    assert DATASETS.keys() - {"demo"} <= rows.keys()
    for name in DATASETS.keys() - {"demo"}:
        for option in options_of(DATASETS[name]):
            assert f"`{option}`" in rows[name], f"{option} of {name}"
