"""Commands that our pages tell people to type: read from fenced blocks, and checked without being run."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
FENCE = re.compile(r"^```bash\n(.*?)^```", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`((?:make|ccan) [^`\n]+)`")
ASSIGNMENT = re.compile(r"^[A-Z_]+=")
SHELL = re.compile(r"^[a-z_]+=\$\(")  # name=$(command …): for people and a cluster
SEPARATORS = {"&&", "||", "|", ";", "&"}

# Programs that are not ours; their lines are read by people and by the set-up's own tests.
FOREIGN = {
    "apt-get",
    "brew",
    "cd",
    "conda",
    "git",
    "grep",
    "head",
    "mkdir",
    "papermill",
    "pip",
    "sbatch",
    "ssh",
    "touch",
}
LAUNCHERS = {"torchrun", "accelerate", "srun"}


def pages() -> list[Path]:
    """Every page of ours that may hold commands."""
    found = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *ROOT.glob("*/README.md")]
    return sorted(path for path in found if not path.parent.name.startswith("."))


def commands(text: str) -> list[list[str]]:
    """The words of each command in the ```bash blocks of a page, in order."""
    found: list[list[str]] = []
    for block in FENCE.findall(text):
        for line in block.replace("\\\n", " ").splitlines():
            lexer = shlex.shlex(line, posix=True, punctuation_chars=";&|")
            lexer.whitespace_split = True
            words: list[str] = []
            for word in [*lexer, ";"]:
                if word not in SEPARATORS:
                    words.append(word)
                elif words:
                    found.append(words)
                    words = []
    return found


def mentions(text: str) -> list[list[str]]:
    """The words of each `make …` and `ccan …` that a page names within a sentence or a table."""
    return [shlex.split(command) for command in INLINE.findall(FENCE.sub("", text))]


def check(command: list[str]) -> None:
    """Raise AssertionError or SystemExit for a command that could not work.

    `make` must know its targets, `ccan` and `app/demo.py` must parse their options, files that are named must exist.
    """
    words = list(command)
    while words and (ASSIGNMENT.match(words[0]) or words[0] == "sudo"):
        words.pop(0)
    if not words or SHELL.match(command[0]):
        return
    program, rest = Path(words[0]).name, words[1:]
    if ">" in rest:
        rest = rest[: rest.index(">")]
    if program == "make":
        dry = subprocess.run(["make", "-n", *rest], cwd=ROOT, capture_output=True, text=True)
        assert dry.returncode == 0, f"{shlex.join(command)}: {dry.stderr}"
    elif program == "ccan":
        from ccan.cli import parse

        parse(rest)
    elif program in LAUNCHERS:
        from ccan.cli import parse

        module = rest.index("-m")  # what is launched is ours; the launcher's own options are not
        assert rest[module + 1] == "ccan.cli", f"launches another module: {shlex.join(command)}"
        parse(rest[module + 2 :])
    elif program in ("python", "python3"):
        check_python(rest)
    elif program == "pre-commit":
        assert rest == ["install"], f"unknown use: {shlex.join(command)}"
    else:
        assert program in FOREIGN, f"nothing checks `{shlex.join(command)}`"


def check_python(rest: list[str]) -> None:
    """`python -m module …` must name a module that is there, `python FILE …` a file; the dashboard's options parse."""
    if rest[0] == "-m":
        assert rest[1] in ("venv", "pip", "pytest"), f"nothing checks python {shlex.join(rest)}"
        named = [word for word in rest[2:] if word.startswith(("tests/", "requirements.lock"))]
        missing = [word for word in named if not (ROOT / word.split("::")[0]).exists()]
        assert not missing, f"python {shlex.join(rest)} names {missing}"
    elif rest[0] == "app/demo.py":
        from app.demo import parse

        parse(rest[1:])
    else:
        assert (ROOT / rest[0]).is_file(), f"python {shlex.join(rest)}: no such file"
