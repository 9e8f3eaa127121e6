"""`ccan ablate`: each cell is one command, a sweep goes on where it stopped, and one failure does not stop the rest."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import cast

import pytest

from ccan.cli import main, parse
from ccan.cli.ablate import Ablate, setting_words
from ccan.config import Recipe, changed_settings

WORDS = "ablate attention --dataset synthetic --recipe smoke --seeds 2 --epochs 1"


def test_the_list_holds_one_command_for_each_cell_that_means_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    data, out = tmp_path / "my world", tmp_path / "sweep"
    words = [*shlex.split(WORDS), "--data", str(data), "--out", str(out), "--list"]
    words += ["--model.no-ssa", "--optim.betas", "0.8", "0.9", "--train.imagenet-file", "w.pth"]
    assert main(words) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 * 3
    asked = cast(Ablate, parse(words))
    for line in lines:
        again = cast(Ablate, parse(shlex.split(line)[1:]))
        assert again.data == data and again.out == out
        assert again.settings.train.epochs == 1
        assert again.settings.optim == asked.settings.optim
        assert again.settings.model == asked.settings.model
        assert again.settings.train.imagenet_file == "w.pth"
        assert again.cell is not None and again.seed in (0, 1)
    assert not out.exists(), "printing begins nothing"


def test_settings_become_words_that_set_them():
    recipe = Recipe.from_dict(
        {
            "name": "mine",
            "loss": {"normalize": False, "margin": 1.5},
            "data": {"erasing_area": [0.1, 0.3]},
        }
    )
    assert setting_words(changed_settings(Recipe().to_dict(), recipe.to_dict())) == shlex.split(
        "--data.erasing-area 0.1 0.3 --loss.margin 1.5 --loss.no-normalize --name mine"
    )


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("--cell base", "--cell and --seed go together"),
        ("--cell nonsense --seed 0", "--cell must be one of .*base for attention, got 'nonsense'"),
        ("--jobs 0", "--jobs must be at least 1"),
        ("--seeds 0", "seeds must be at least 1"),
    ],
)
def test_bad_words_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], more: str, message: str
):
    words = f"{WORDS} --data {tmp_path} --out {tmp_path / 'sweep'} {more}"
    assert main(words.split()) == 2
    assert re.search(message, capsys.readouterr().err)


@pytest.mark.slow
def test_a_sweep_runs_goes_on_and_names_what_failed(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    world, out = tmp_path / "world", tmp_path / "sweep"
    sizes = "--identities 8 --cameras 2 --images-per-camera 3 --height 64 --width 32"
    assert main(f"synth --out {world} {sizes} --workers 1".split()) == 0
    small = "--model.image-height 64 --model.image-width 32 --data.workers 0 --eval.workers 0"
    words = f"{WORDS} --seeds 1 --data {world} --out {out} {small} --jobs 3".split()
    # One cell's folder is a file: it cannot be trained, the other two can.
    out.mkdir()
    (out / "base").write_text("in the way")
    assert main(words) == 2
    told = capfd.readouterr()
    assert "1 of 3 cells failed: base/seed-0. The others are kept" in told.err
    results = {path: path.stat().st_mtime_ns for path in out.glob("*/seed-0/result.json")}
    assert len(results) == 2
    (out / "base").unlink()
    assert main(words) == 0
    assert capfd.readouterr().out.count("done before") == 2
    assert all(path.stat().st_mtime_ns == before for path, before in results.items())
    assert len(list(out.glob("*/seed-0/result.json"))) == 3
    assert main(["report", str(out)]) == 0
    assert "Is cross-correlated attention better" in capfd.readouterr().out
