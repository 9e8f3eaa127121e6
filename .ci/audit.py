"""Known vulnerabilities of the locked packages, where the service that knows them can be reached: `make audit`.

pip-audit is fetched for the run and not installed. Exit 0: nothing found, or nothing could be asked; 1: something was.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

COMMAND = [
    "pip-audit",
    "--disable-pip",
    "--no-deps",
    "--format",
    "json",
    "--progress-spinner",
    "off",
    "-r",
]


def verdict(found: Mapping[str, Any]) -> tuple[int, str]:
    """Exit code and words for what pip-audit printed as JSON."""
    packages = found["dependencies"]
    asked = [one for one in packages if "skip_reason" not in one]
    bad = [(one, known) for one in asked for known in one["vulns"]]
    if not asked:
        unknown = f"the service knows none of {len(packages)} packages"
        return 0, f"not audited: {unknown}, or cannot be reached from here"
    lines = [
        f"{one['name']} {one['version']}: {known['id']}, "
        f"mended in {', '.join(known['fix_versions']) or 'no release yet'}"
        for one, known in bad
    ]
    lines.append(
        f"{len(asked)} of {len(packages)} packages audited, {len(bad)} known vulnerabilities"
    )
    return int(bool(bad)), "\n".join(lines)


def main() -> int:
    """Ask, print, and say by the exit code."""
    root = Path(__file__).resolve().parent.parent
    uvx = Path(sys.executable).parent / "uvx"
    done = subprocess.run(
        [uvx, "--quiet", *COMMAND, root / "requirements.lock"], capture_output=True, text=True
    )
    try:
        found = json.loads(done.stdout)
    except ValueError:
        print(f"not audited: the service cannot be reached from here\n{done.stderr[-400:]}")
        return 0
    code, words = verdict(found)
    print(words)
    return code


if __name__ == "__main__":
    raise SystemExit(main())
