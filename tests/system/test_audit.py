"""The audit of the locked packages says what it found, and what it could not ask."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

PATH = Path(__file__).parents[2] / ".ci" / "audit.py"


@pytest.fixture(scope="module")
def audit() -> ModuleType:
    spec = importlib.util.spec_from_file_location("audit", PATH)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


SOUND = {"name": "a", "version": "1", "vulns": []}
BAD = {"name": "b", "version": "2", "vulns": [{"id": "CVE-1", "fix_versions": ["2.1"]}]}
UNKNOWN = {"name": "c", "skip_reason": "not found"}


@pytest.mark.parametrize(
    ("packages", "code", "words"),
    [
        ([SOUND, UNKNOWN], 0, "1 of 2 packages audited, 0 known vulnerabilities"),
        ([SOUND, BAD], 1, "b 2: CVE-1, mended in 2.1"),
        ([UNKNOWN, UNKNOWN], 0, "not audited: the service knows none of 2 packages"),
    ],
)
def test_verdicts(audit: ModuleType, packages: list[dict], code: int, words: str) -> None:
    found, said = audit.verdict({"dependencies": packages})
    assert found == code and words in said


def test_a_service_out_of_reach_is_said(
    audit: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Done:
        stdout, stderr = "", "no route to host"

    monkeypatch.setattr(audit.subprocess, "run", lambda *_, **__: Done)
    assert audit.main() == 0
    assert (
        "not audited: the service cannot be reached from here\nno route" in capsys.readouterr().out
    )
