"""Tables keep their numbers in every form, and no text becomes a formula or a tag."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ccan.errors import ConfigError, ShapeError
from ccan.tables import Table

TABLE = Table(
    "some",
    {
        "name": ["=1+1", "<b>&", "–5"],
        "count": [1, -2, 3],
        "share": [0.123456, np.nan, 12345.6],
        "right": [True, False, True],
    },
    "what it shows",
)


def test_every_form_holds_the_same():
    assert len(TABLE) == 3
    assert TABLE.rows()[0] == ["=1+1", 1, 0.123456, True]
    assert TABLE.to_csv() == (
        "name,count,share,right\n'=1+1,1,0.123456,True\n<b>&,-2,,False\n–5,3,12345.6,True\n"
    )
    assert TABLE.to_dict()["columns"]["share"] == [0.123456, None, 12345.6]
    frame: Any = TABLE.to_frame()
    assert list(frame) == ["name", "count", "share", "right"] and frame["count"].sum() == 2
    assert TABLE.head(1).rows() == TABLE.rows()[:1]
    assert TABLE.to_markdown().splitlines()[2] == "| =1+1 | 1 | 0.1235 | yes |"
    assert TABLE.to_markdown().splitlines()[1] == "| --- | ---: | ---: | --- |"


@pytest.mark.parametrize("text", ["=A1", "+1", "-1", "@x", "\tx", "\rx"])
def test_no_text_becomes_a_formula(text: str):
    written = Table("t", {text: [text]}).to_csv()
    assert "'" + text in written.replace('"', "")


def test_html_is_escaped_and_numbers_are_marked():
    found = TABLE.to_html()
    assert "<b>" not in found and "&lt;b&gt;&amp;" in found
    assert '<td class="n">0.1235</td><td>yes</td>' in found
    assert '<td class="n">–</td>' in found and '<td class="n">12346</td>' in found


def test_an_empty_table_keeps_its_header():
    empty = Table.of_rows("none", ["a", "b"], [])
    assert len(empty) == 0 and empty.to_csv() == "a,b\n" and "<th" in empty.to_html()
    assert Table.of_rows("one", ["a", "b"], [[1, "x"]]).rows() == [[1, "x"]]


def test_saved_as_csv_and_json(tmp_path: Path):
    TABLE.save(tmp_path)
    assert (tmp_path / "some.csv").read_text() == TABLE.to_csv()
    assert json.loads((tmp_path / "some.json").read_text()) == TABLE.to_dict()


def test_errors(monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(ShapeError, match="expected columns of one length"):
        Table("t", {"a": [1], "b": [1, 2]})
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ConfigError, match="pip install pandas"):
        TABLE.to_frame()
