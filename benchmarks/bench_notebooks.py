"""How long every notebook of the course runs, and its solutions: in a kernel of its own, one after the other.

    python benchmarks/bench_notebooks.py [--profiles ci reader] [--only 03 07] [--refresh]

Seconds from asking for a kernel to the last cell, by papermill. The cache is empty but for the worlds, whose
drawing a reader waits for once. `--refresh` keeps the outputs of the profile `reader` in the notebooks themselves,
tidied; `make course` calls it. With --only the usual cache is used. Results:
benchmarks/results/notebooks.json, written when both profiles of all notebooks have run.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import nbformat
from measuring import RESULTS, commit, write_result

from ccan.course import open_world
from ccan.files import write_text
from ccan.notebooks import FOLDER, find_notebook, run_notebook, tidy

PROFILES = ("ci", "reader")


def notebooks(only: Sequence[str]) -> list[Path]:
    """Lessons and solutions in the order of the course, each lesson before its solutions."""
    lessons = [find_notebook(name) for name in only] or sorted(FOLDER.glob("*.ipynb"))
    return [path for lesson in lessons for path in (lesson, FOLDER / "solutions" / lesson.name)]


def seconds_of_run(path: Path, profile: str, out: Path) -> float:
    """Run a notebook into a file; the seconds that it took."""
    changed = {} if profile == "reader" else {"profile": profile}
    began = time.perf_counter()
    run_notebook(path, out, changed, progress=False)
    return time.perf_counter() - began


def keep(executed: Path, path: Path) -> None:
    """Put an executed notebook, tidied, in the place of the one it was made from."""
    write_text(path, nbformat.writes(tidy(nbformat.read(executed, as_version=4))))


def main() -> None:
    """Run, tell, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--profiles", nargs="+", choices=PROFILES, default=PROFILES)
    parser.add_argument("--only", nargs="*", default=(), help="numbers or names of lessons")
    parser.add_argument(
        "--refresh", action="store_true", help="keep the reader's outputs in the notebooks"
    )
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    if options.refresh and "reader" not in options.profiles:
        parser.error("--refresh keeps the outputs of the profile reader; add it to --profiles")
    commit()  # a run of many minutes names the commit that it began with
    result: dict[str, object] = {}
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "executed.ipynb"
        if not options.only:
            os.environ["CCAN_CACHE"] = str(Path(folder) / "cache")  # for the kernels, too
        for profile in options.profiles:
            for train in (False, True):
                open_world(profile, train=train)
        for profile in options.profiles:
            seconds: dict[str, float] = {}
            for path in notebooks(options.only):
                name = path.relative_to(FOLDER).with_suffix("").as_posix()
                seconds[name] = round(seconds_of_run(path, profile, out), 1)
                if options.refresh and profile == "reader":
                    keep(out, path)
                print(f"{profile:7} {name:42} {seconds[name]:7.1f} s", flush=True)
            print(f"{profile:7} {'together':42} {sum(seconds.values()):7.1f} s", file=sys.stdout)
            result[profile] = {"seconds": seconds, "together": round(sum(seconds.values()), 1)}
    if not options.only and set(options.profiles) == set(PROFILES):
        write_result("notebooks", result, folder=options.results)


if __name__ == "__main__":
    main()
