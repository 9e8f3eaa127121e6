"""What is wrong with a dataset, as people are told it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Literal

Severity = Literal["error", "warning", "note"]
"""error: training or evaluation fails or misleads; warning: look at it; note: worth knowing."""

EXAMPLES = 5
"""How many examples a problem names."""


@dataclass(frozen=True)
class Problem:
    """Something that people should know before they train.

    Attributes:
        severity: how bad it is.
        what: what was found.
        advice: what to do.
        examples: identities or files that show it, the first few.
    """

    severity: Severity
    what: str
    advice: str
    examples: tuple[str, ...] = ()

    def text(self) -> str:
        """All of it in one line for people."""
        shown = f" ({', '.join(self.examples)})" if self.examples else ""
        return f"{self.severity}: {self.what}{shown}; {self.advice}"


def first_few(values: Iterable[object]) -> tuple[str, ...]:
    """The first few of many as examples."""
    return tuple(map(str, islice(values, EXAMPLES)))
