"""Results on standard output: `-` puts one result there and everything else on standard error."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from PIL import Image

from ccan.cli import main
from ccan.cli.output import Outputs, folder_only
from ccan.errors import ConfigError

SHEET = "synth --sheet --identities 8 --cameras 3 --height 128 --width 64 --out"


def test_a_contact_sheet_on_standard_output_is_a_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([*SHEET.split(), "-"]) == 0
    said = capfdbinary.readouterr()
    with Image.open(io.BytesIO(said.out)) as picture:
        assert picture.format == "PNG" and min(picture.size) > 200
    assert b"wrote -" in said.err
    assert not list(tmp_path.iterdir())


def test_a_sheet_that_is_no_picture_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*SHEET.split(), str(tmp_path / "sheet.docx")]) == 2
    assert "a sheet is a picture such as contact_sheet.png" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("words", ["synth --identities 8 --out -", "train --data . --out -"])
def test_a_folder_cannot_go_to_standard_output(
    words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(words.split()) == 2
    assert "cannot go to standard output; pass --out DIR" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_sentences_make_room_for_a_result_on_standard_output(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with Outputs("-", None, "file.npz") as outputs:
        print("a sentence")
        outputs.json("-", {"mAP": 0.5})
        outputs.json(None, {"mAP": 0.25})
    said = capsys.readouterr()
    assert json.loads(said.out) == {"mAP": 0.5}
    assert said.err == "a sentence\n"


def test_without_a_dash_sentences_stay_on_standard_output(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Outputs(str(tmp_path / "a.json"), None) as outputs:
        print("a sentence")
        outputs.json(tmp_path / "a.json", {"mAP": 0.5})
        with outputs.file(tmp_path / "b", ".txt") as path:
            path.write_text("b")
    assert capsys.readouterr().out == "a sentence\n"
    assert json.loads((tmp_path / "a.json").read_text()) == {"mAP": 0.5}
    assert (tmp_path / "b").read_text() == "b"


def test_a_result_that_fails_puts_nothing_out(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    outputs = Outputs("-")
    with pytest.raises(OSError, match="full"), outputs, outputs.file("-", ".bin") as path:
        path.write_bytes(b"half")
        raise OSError("full")
    assert capsysbinary.readouterr().out == b""


def test_two_results_cannot_share_standard_output() -> None:
    with pytest.raises(ConfigError, match="2 results are to go to standard output"):
        Outputs("-", "-", "file")


def test_folder_only_gives_the_folder() -> None:
    assert folder_only(Path("runs"), "a run") == Path("runs")
