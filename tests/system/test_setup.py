"""The set-up holds together: pyproject's ranges, the lock, environment.yml, the Makefile's menu and its one install."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import stat
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import ccan
from ccan.cli import Synth, Train, parse

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
LOCK_LINES = [
    line
    for line in (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    if line and not line.startswith("#")
]
LOCK = [Requirement(line) for line in LOCK_LINES]
CORE = {"torch", "torchvision", "numpy", "pillow", "safetensors", "tqdm", "tyro", "accelerate"}
LINUX_ONLY = re.compile(r"^(nvidia-|cuda-|triton$)")
MACHINES = {
    "linux": {"sys_platform": "linux", "os_name": "posix", "platform_machine": "x86_64"},
    "darwin": {"sys_platform": "darwin", "os_name": "posix", "platform_machine": "arm64"},
    "win32": {"sys_platform": "win32", "os_name": "nt", "platform_machine": "AMD64"},
}


def direct_dependencies() -> list[Requirement]:
    """Every dependency that pyproject names, of the core and of each extra."""
    extras = PROJECT["optional-dependencies"]
    named = [*PROJECT["dependencies"], *(one for extra in extras.values() for one in extra)]
    return [Requirement(text) for text in named if not text.startswith("ccan[")]


def locked_on(system: str, python: str) -> dict[str, str]:
    """Package → version that the lock installs on a system with a Python."""
    machine = MACHINES[system] | {"python_version": python, "python_full_version": f"{python}.7"}
    lines = [one for one in LOCK if one.marker is None or one.marker.evaluate(machine)]
    names = [canonicalize_name(one.name) for one in lines]
    assert len(names) == len(set(names)), f"a package is locked twice on {system} {python}"
    return {name: str(one.specifier)[2:] for name, one in zip(names, lines, strict=True)}


def test_core_dependencies_are_what_a_bare_gpu_node_needs():
    assert {Requirement(text).name for text in PROJECT["dependencies"]} == CORE
    extras = PROJECT["optional-dependencies"]
    everything = re.fullmatch(r"ccan\[(.+)\]", extras["all"][0])
    assert everything is not None
    assert set(everything[1].split(",")) == set(extras) - {"all"}


@pytest.mark.parametrize("system", MACHINES)
@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13"])
def test_lock_holds_every_direct_dependency_within_its_range(system: str, python: str):
    locked = locked_on(system, python)
    for wanted in direct_dependencies():
        version = locked.get(canonicalize_name(wanted.name))
        assert version is not None, f"{wanted} is not locked for {system}, Python {python}"
        assert wanted.specifier.contains(version), f"{wanted.name} {version} is not {wanted}"


def test_lock_has_exact_versions_and_no_addresses():
    for line, one in zip(LOCK_LINES, LOCK, strict=True):
        assert re.match(r"[\w.-]+==[\w.+!]+( ;|$)", line), f"not an exact version: {line}"
        assert one.url is None
    for name in ("requirements.lock", "environment.yml", "pyproject.toml"):
        text = (ROOT / name).read_text(encoding="utf-8")
        assert not re.search(r"https?:|file:|--(extra-)?index|--find-links|--hash", text), name


def test_platform_bound_packages_carry_markers():
    linux, darwin, windows = (locked_on(system, "3.12") for system in MACHINES)
    gpu_packages = {name for name in linux if LINUX_ONLY.match(name)}
    assert len(gpu_packages) > 5, "the Linux build of torch brings CUDA packages"
    assert not gpu_packages & (darwin.keys() | windows.keys())
    assert "appnope" in darwin and "appnope" not in linux | windows
    assert "colorama" in windows and "colorama" not in linux | darwin
    assert "pywinpty" in windows and "pywinpty" not in linux | darwin


def test_torch_and_torchvision_are_the_pair_that_is_known_to_fit():
    for system in MACHINES:
        locked = locked_on(system, "3.11")
        assert (locked["torch"], locked["torchvision"]) == ("2.14.1", "0.29.2")


def test_conda_environment_uses_the_same_lock_and_python():
    conda = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    *plain, pip = conda["dependencies"]
    assert "pip" in plain
    assert pip == {"pip": ["-r requirements.lock", "-e ."]}
    (python,) = [Requirement(text) for text in plain if text.startswith("python")]
    oldest = PROJECT["requires-python"].removeprefix(">=")
    assert python.specifier.contains(oldest) and not python.specifier.contains("3.10")
    assert Marker("python_version >= '3.11'").evaluate({"python_version": oldest})


def test_citation_names_the_version_and_the_paper():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == ccan.__version__
    assert citation["license"] == PROJECT["license"] == "MIT"
    assert "2006.09597" in str(citation["preferred-citation"])
    assert f"## {ccan.__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def run_make(*arguments: str, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """`make` as a newcomer calls it, in a folder."""
    return subprocess.run(
        ["make", "--no-print-directory", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        env={name: value for name, value in os.environ.items() if not name.startswith("MAKE")},
    )


def test_make_alone_prints_every_task():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    phony = re.search(r"^\.PHONY: (.+)$", makefile, re.MULTILINE)
    assert phony is not None
    menu = run_make()
    assert menu.returncode == 0
    listed = re.findall(r"^  make (\w+) +\S", menu.stdout, re.MULTILINE)
    assert sorted([*listed, "menu"]) == sorted(phony[1].split())


@pytest.fixture
def sandbox(tmp_path: Path) -> Path:
    """The set-up's files alone, and a `python` that writes down what it is asked instead of doing it."""
    for name in ("Makefile", "pyproject.toml", "requirements.lock"):
        shutil.copy(ROOT / name, tmp_path)
    fake = tmp_path / "python"
    fake.write_text(
        '#!/bin/bash\necho "$@" >> "$(dirname "$0")/calls"\n'
        'if [ "$2" = venv ]; then mkdir -p "$3/bin"; cp "$0" "$3/bin/python"; cp "$0" "$3/bin/pip"; fi\n'
        '[ ! -e refuse ] || { echo "ERROR: no such package" >&2; exit 1; }\n'
        'case "$*" in *sys.version_info*) [ ! -e old ] ;; --version) echo "Python 3.9.2" ;; esac\n'
    )
    fake.chmod(fake.stat().st_mode | stat.S_IXUSR)
    return tmp_path


def installs(sandbox: Path) -> list[str]:
    """The install commands that the environment's Python was given so far."""
    calls = sandbox / ".venv" / "bin" / "calls"
    lines = calls.read_text().splitlines() if calls.exists() else []
    return [line for line in lines if line.startswith("-m pip install")]


def test_setup_installs_once_and_again_when_the_lock_changes(sandbox: Path):
    first = run_make("setup", "PYTHON=./python", folder=sandbox)
    assert first.returncode == 0, first.stderr
    lock, package = installs(sandbox)
    assert lock == "-m pip install --requirement requirements.lock"
    assert "--no-deps" in package and package.endswith("--editable .")

    assert run_make("setup", "PYTHON=./python", folder=sandbox).returncode == 0
    assert len(installs(sandbox)) == 2, "the second time there is nothing to do"

    stamp = (sandbox / ".venv" / ".installed").stat().st_mtime
    os.utime(sandbox / "requirements.lock", (stamp + 5, stamp + 5))
    assert run_make("setup", "PYTHON=./python", folder=sandbox).returncode == 0
    assert len(installs(sandbox)) == 4


def test_failed_install_fails_and_is_tried_again(sandbox: Path):
    assert run_make("setup", "PYTHON=./python", folder=sandbox).returncode == 0
    stamp = sandbox / ".venv" / ".installed"
    stamp.unlink()
    (sandbox / "refuse").touch()
    failed = run_make("setup", "PYTHON=true", folder=sandbox)
    assert failed.returncode != 0
    assert "no such package" in failed.stderr
    assert not stamp.exists()


def test_an_old_python_is_named_with_what_to_do(sandbox: Path):
    (sandbox / "old").touch()
    refused = run_make("setup", "PYTHON=./python", folder=sandbox)
    assert refused.returncode != 0
    assert "CCAN needs Python 3.11 or newer; ./python is Python 3.9.2" in refused.stderr
    assert "make setup PYTHON=python3.12" in refused.stderr
    assert not (sandbox / ".venv").exists()


def test_make_train_calls_commands_that_parse():
    printed = run_make("--dry-run", "--assume-old=.venv/.installed", "train").stdout
    commands = [shlex.split(line) for line in printed.splitlines() if "/ccan " in line]
    synth, train = (parse(words[1:]) for words in commands)
    assert isinstance(synth, Synth) and isinstance(train, Train)
    assert train.data == synth.out and train.recipe == "demo"
    assert len(synth.world.train_identities) >= 300


def test_build_server_calls_the_commands_of_the_makefile():
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert subprocess.run(["bash", "-n", str(script)]).returncode == 0
    lines = script.read_text(encoding="utf-8").splitlines()
    assert lines[-2:] == ["make lint", "make test"]
    assert "set -euo pipefail" in lines


def test_pre_commit_runs_the_same_lint_command():
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    (repository,) = hooks["repos"]
    assert repository["repo"] == "local", "hooks are local commands: nothing is cloned"
    assert [hook["entry"] for hook in repository["hooks"]] == ["make lint"]
