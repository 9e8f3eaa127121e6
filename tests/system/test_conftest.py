"""On a build server nothing is left out unseen: what would be skipped fails there, GPU tests excepted."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
SUITE = """
import pytest

def test_left_out():
    pytest.skip("no reason at all")

@pytest.mark.browser
def test_browser(chromium_path):
    assert chromium_path

@pytest.mark.gpu
def test_gpu():
    raise AssertionError("there is no GPU here")

@pytest.mark.xfail
def test_known_to_fail():
    raise AssertionError("as expected")
"""
NO_GPU = "class cuda:\n    @staticmethod\n    def is_available():\n        return False\n"


def run_suite(folder: Path, **environment: str) -> str:
    """pytest's report on SUITE with this project's conftest, on a machine without GPU."""
    shutil.copy(ROOT / "tests" / "conftest.py", folder)
    (folder / "torch.py").write_text(NO_GPU)
    (folder / "test_suite.py").write_text(SUITE)
    (folder / "pytest.ini").write_text(
        f"[pytest]\nmarkers =\n  gpu\n  browser\npythonpath = . {ROOT}\n"
    )
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-ra", "-p", "no:cacheprovider"],
        cwd=folder,
        capture_output=True,
        text=True,
        env={
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
            "PATH": str(folder),
            "CHROMIUM": "",
            "HOME": str(folder),
        }
        | environment,
    )
    return ran.stdout


def test_a_person_s_machine_says_what_it_left_out(tmp_path: Path):
    report = run_suite(tmp_path)
    assert "3 skipped, 1 xfailed" in report
    assert "no Chromium found: install chromium or google-chrome" in report


def test_a_build_server_fails_instead_except_for_gpu_tests(tmp_path: Path):
    report = run_suite(tmp_path, CI="true")
    assert "1 failed, 1 skipped, 1 xfailed, 1 error" in report
    assert "FAILED test_suite.py::test_left_out" in report
    assert "ERROR test_suite.py::test_browser" in report


def test_a_file_that_skips_itself_fails_on_a_build_server(tmp_path: Path):
    (tmp_path / "test_optional.py").write_text(
        "import pytest\npytest.importorskip('no_such_thing')"
    )
    assert "ERROR test_optional.py" in run_suite(tmp_path, CI="true")
    assert "1 error" not in run_suite(tmp_path)


def test_a_browser_that_is_named_is_used(tmp_path: Path):
    browser = tmp_path / "chrome"
    browser.touch()
    assert "1 passed, 2 skipped, 1 xfailed" in run_suite(tmp_path, CHROMIUM=str(browser))


def test_tests_keep_their_worlds_out_of_the_user_s_cache(own_cache: Path):
    assert os.environ["CCAN_CACHE"] == str(own_cache)
    assert Path.home() not in own_cache.parents
