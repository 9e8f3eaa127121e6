"""README's own round, as a newcomer types it: render a world, train on it, judge it, look at it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.system.commands import ROOT, commands

README = (ROOT / "README.md").read_text(encoding="utf-8")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def readme_block(language: str, first: str) -> str:
    """The fenced block of README that begins with some words."""
    block = re.search(
        rf"^```{language}\n{re.escape(first)}.*?^```", README, re.MULTILINE | re.DOTALL
    )
    assert block is not None, f"README has no {language} block that begins with {first!r}"
    return block[0]


def run(words: list[str], folder: Path, cache: Path) -> str:
    """What a command prints; it runs in a folder of its own, with this Python's programs first on PATH."""
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": programs, "CCAN_CACHE": str(cache)}
    ran = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, f"{words}\n{ran.stdout}\n{ran.stderr}"
    return ran.stdout


def test_the_printed_round_works_on_a_fresh_world(tmp_path: Path, own_cache: Path):
    synth, train, evaluate, look = commands(readme_block("bash", "ccan synth --out"))
    told = run(synth, tmp_path, own_cache)
    assert "ccan train" in told, "each step says what comes next"
    told = run(train, tmp_path, own_cache)
    assert "ccan evaluate" in told and "app/demo.py" in told
    assert "mAP" in run(evaluate, tmp_path, own_cache)
    each = json.loads(run([*evaluate, "--per-query", "-"], tmp_path, own_cache))
    assert len(each["ap"]) == len(each["names"]) > 0
    assert look[:2] == ["python", "app/demo.py"]
    dashboard = [sys.executable, str(ROOT / "app" / "demo.py"), *look[2:], "--check"]
    assert "check passed" in run(dashboard, tmp_path, own_cache)


def test_the_printed_python_works(tmp_path: Path, own_cache: Path):
    program = readme_block("python", "from ccan import").strip("`").removeprefix("python\n")
    told = run([sys.executable, "-W", "error", "-c", program], tmp_path, own_cache)
    marks = re.match(r"\((?:'(?:right|wrong|ignored)',? ?)+\) ", told)
    assert marks is not None, told
