"""What our pages tell people to type and to open is there: commands parse, targets exist, links lead somewhere."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from ccan.cli import COMMANDS
from tests.system.commands import ROOT, check, commands, mentions, pages

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
def test_every_command_that_a_sentence_names_is_known(page: Path):
    for program, *rest in mentions(page.read_text(encoding="utf-8")):
        if program == "make":
            check(["make", *rest])
        else:
            assert rest[0] in COMMANDS, f"{name_of(page)} names `ccan {rest[0]}`"


@pytest.mark.parametrize("page", pages(), ids=name_of)
def test_every_link_on_the_page_leads_to_a_file(page: Path):
    targets = LINK.findall(page.read_text(encoding="utf-8"))
    missing = [target for target in targets if not (page.parent / target).exists()]
    assert not missing


def test_mentions_are_read_from_sentences_and_tables():
    text = "Say `make tea`, `makefile`, or\n| `ccan synth --out X` |\n```bash\nmake test # `make no`\n```\n"
    assert mentions(text) == [["make", "tea"], ["ccan", "synth", "--out", "X"]]


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


def test_readme_begins_with_two_commands_and_the_build_server_runs_one_of_them():
    first = commands((ROOT / "README.md").read_text(encoding="utf-8"))
    assert ["make", "demo"] in first and ["make", "test"] in first
    assert "make test" in (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()


def test_readme_gives_the_set_up_without_make_too():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for step in ("-m venv .venv", "install -r requirements.lock", "install -e . --no-deps"):
        assert step in readme


def test_readme_names_every_library_that_we_ask_for():
    readme = (ROOT / "README.md").read_text(encoding="utf-8").lower()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"].values()
    asked = [*project["dependencies"], *(one for extra in extras for one in extra)]
    names = {Requirement(text).name.lower() for text in asked} - {"ccan"}
    assert not [name for name in sorted(names) if name not in readme]


@pytest.mark.parametrize("page", pages(), ids=name_of)
def test_no_page_has_a_place_left_to_fill(page: Path):
    assert not re.findall(r"@[A-Z]+@", page.read_text(encoding="utf-8"))
