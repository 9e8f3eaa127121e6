"""What our pages tell people to type and to open is there: commands parse, targets exist, links lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.system.commands import ROOT, check, commands, pages

LINK = re.compile(r"\]\((?!https?:|mailto:|#)([^)\s#]+)")


def name_of(page: Path) -> str:
    """Path of a page as one writes it in the repository."""
    return page.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("page", pages(), ids=name_of)
def test_every_command_on_the_page_is_one_that_works(page: Path):
    for command in commands(page.read_text(encoding="utf-8")):
        try:
            check(command)
        except SystemExit:
            pytest.fail(f"{name_of(page)}: does not parse: {' '.join(command)}")


@pytest.mark.parametrize("page", pages(), ids=name_of)
def test_every_link_on_the_page_leads_to_a_file(page: Path):
    targets = LINK.findall(page.read_text(encoding="utf-8"))
    missing = [target for target in targets if not (page.parent / target).exists()]
    assert not missing


def test_commands_are_read_from_bash_blocks_only():
    text = (
        "`make nothing`\n```python\nmake()\n```\n"
        "```bash\nmake test  # all of it\nccan train \\\n  --data 'my data' && cd x | grep y\nA=1 make\n```\n"
    )
    assert commands(text) == [
        ["make", "test"],
        ["ccan", "train", "--data", "my data"],
        ["cd", "x"],
        ["grep", "y"],
        ["A=1", "make"],
    ]


@pytest.mark.parametrize(
    "wrong",
    [
        ["make", "tea"],
        ["ccan", "train", "--data", "DIR", "--out", "RUN", "--no-such-option"],
        ["ccan", "trian"],
        ["python", "app/demo.py", "--no-such-option"],
        ["python", "app/no_such_file.py"],
        ["python", "-m", "pytest", "tests/no_such_file.py"],
        ["unknown-program"],
    ],
    ids=" ".join,
)
def test_a_command_that_cannot_work_is_refused(wrong: list[str]):
    with pytest.raises((AssertionError, SystemExit)):
        check(wrong)
