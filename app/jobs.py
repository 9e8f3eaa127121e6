"""Work that takes longer than a person waits for a page: it runs beside, and the page says how far it is."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from ccan.errors import CCANError

Value = TypeVar("Value")
Report = Callable[[float, float, str], None]
"""Called with (done, of how much, what is being done)."""


class Stopped(CCANError):
    """The work was stopped by the person who asked for it."""


class Job(Generic[Value]):
    """One piece of work in a thread of its own.

    Args:
        work: called with a `Report`, which raises `Stopped` once the job is stopped.
    """

    def __init__(self, work: Callable[[Report], Value]) -> None:
        self.progress: tuple[float, float, str] = (0, 1, "starting")
        self.value: Value | None = None
        self.error: str = ""
        self._stop, self._ended = threading.Event(), threading.Event()
        threading.Thread(target=self._run, args=(work,), daemon=True).start()

    def _run(self, work: Callable[[Report], Value]) -> None:
        try:
            self.value = work(self._report)
        except CCANError as error:
            self.error = str(error)
        except Exception as error:  # a person must not wait for ever for what has died
            self.error = f"{type(error).__name__}: {error}"
        finally:
            self._ended.set()

    def _report(self, done: float, total: float, what: str) -> None:
        if self._stop.is_set():
            raise Stopped("stopped")
        self.progress = (done, total, what)

    def stop(self) -> None:
        """Ask the work to end at its next report."""
        self._stop.set()

    def wait(self, seconds: float) -> bool:
        """Whether the work has ended, after at most so many seconds."""
        return self._ended.wait(seconds)

    @property
    def ended(self) -> bool:
        """Whether there is a value or an error."""
        return self._ended.is_set()


KEPT = 64
"""Jobs that are remembered; of those that have ended, the oldest are forgotten first."""


class Jobs:
    """Jobs by name: each runs once until it is dropped."""

    def __init__(self) -> None:
        self._jobs: dict[Any, Job[Any]] = {}
        self._lock = threading.Lock()

    def begin(self, name: Any, work: Callable[[Report], Value]) -> Job[Value]:
        """The job of this name, started where there is none."""
        with self._lock:
            if name not in self._jobs:
                ended = [known for known, job in self._jobs.items() if job.ended]
                for known in ended[: max(0, len(self._jobs) + 1 - KEPT)]:
                    del self._jobs[known]
                self._jobs[name] = Job(work)
            return self._jobs[name]

    def found(self, name: Any) -> Job[Any] | None:
        """The job of this name, or None."""
        return self._jobs.get(name)

    def drop(self, name: Any) -> None:
        """Stop and forget a job, so that it may be asked for again."""
        with self._lock:
            job = self._jobs.pop(name, None)
        if job is not None:
            job.stop()
