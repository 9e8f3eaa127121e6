"""What every test may rely on: where Chromium is, and that nothing is left out unseen.

On a build server (CI is set) a test that would be skipped fails instead, unless it is marked ``gpu``: a suite that
passes there has run everything that the machine can run.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from app.browser import find_chromium

ON_BUILD_SERVER = os.environ.get("CI", "").lower() not in ("", "0", "false")


@pytest.fixture(scope="session")
def chromium_path() -> str:
    """A Chromium for browser tests. Without one the test is skipped, on a build server it fails."""
    path = find_chromium()
    if path is None:
        pytest.skip(
            "no Chromium found: install chromium or google-chrome, or name one in $CHROMIUM "
            "(docs/troubleshooting.md, “Browser tests”)"
        )
    return path


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Worlds, indices and tags that tests make are kept for this run only, never in the user's folders."""
    folder = tmp_path_factory.mktemp("ccan-cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CCAN_CACHE", str(folder))
        patch.setenv("CCAN_DATA", str(tmp_path_factory.mktemp("ccan-data")))
        yield folder


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what is marked gpu where torch sees no CUDA device."""
    if item.get_closest_marker("gpu") is None:
        return
    import torch

    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device (run `make gpu` on a machine that has one)")


LEFT_OUT = "left out on a build server, where everything must run"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn a skipped test into a failure on a build server, but for GPU tests and expected failures."""
    report = yield
    excused = item.get_closest_marker("gpu") is not None or hasattr(report, "wasxfail")
    if ON_BUILD_SERVER and report.skipped and not excused:
        report.outcome, report.longrepr = "failed", f"{LEFT_OUT}: {report.longrepr}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Turn a file of tests that skips itself into a failure on a build server."""
    report = yield
    if ON_BUILD_SERVER and report.skipped:
        report.outcome, report.longrepr = "failed", f"{LEFT_OUT}: {report.longrepr}"
    return report
