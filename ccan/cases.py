"""What people have found out about images: tags, notes, and verdicts on pairs, in a file that only grows.

One line of JSON for each thing that somebody did, put on disk before it counts; the state is what the lines add up to.
So several people and programs write at once and nothing is lost, and a line that a crash cut off is left out.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, get_args

from ccan.data.records import ReIDDataset
from ccan.errors import ConfigError
from ccan.files import data_folder
from ccan.tables import Table

Deed = Literal["tag", "untag", "note", "unnote", "verdict"]
Verdict = Literal["same", "different", "unsure"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
TAG_LENGTH, NOTE_LENGTH = 40, 2000
"""Characters."""


@dataclass(frozen=True)
class Entry:
    """One thing that somebody did.

    Attributes:
        id: of the line.
        time: UTC, ISO 8601.
        who: login name; "" where nobody logs in.
        model: checkpoint that was looked at.
        do: what was done.
        about: the image, or the two images of a verdict in ascending order.
        value: the tag, the note, the verdict; of `unnote` the note's id.
    """

    id: str
    time: str
    who: str
    model: str
    do: Deed
    about: tuple[str, ...]
    value: str


@dataclass
class _State:
    tags: dict[str, dict[str, Entry]] = field(default_factory=dict)
    notes: dict[str, dict[str, Entry]] = field(default_factory=dict)
    verdicts: dict[tuple[str, ...], Entry] = field(default_factory=dict)

    def add(self, entry: Entry) -> None:
        image = entry.about[0]
        if entry.do == "tag":
            self.tags.setdefault(image, {}).setdefault(entry.value, entry)
        elif entry.do == "untag":
            self.tags.get(image, {}).pop(entry.value, None)
        elif entry.do == "note":
            self.notes.setdefault(image, {})[entry.id] = entry
        elif entry.do == "unnote":
            self.notes.get(image, {}).pop(entry.value, None)
        else:
            self.verdicts[entry.about] = entry


class Cases:
    """Tags, notes and verdicts of one dataset.

    Args:
        path: the file; made, with its folder, by the first thing that is written.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._lock = threading.Lock()
        self._state, self._read, self._file = _State(), 0, (0, 0)

    # Writing

    def tag(self, image: str, tag: str, *, who: str = "", model: str = "") -> None:
        """Give an image a tag. Raises: ConfigError for an empty or too long one."""
        self._write("tag", [image], _words(tag, TAG_LENGTH, "tag"), who, model)

    def tag_all(self, images: Sequence[str], tag: str, *, who: str = "", model: str = "") -> None:
        """Give many images a tag, by one write. Raises: ConfigError for an empty or too long one."""
        words = _words(tag, TAG_LENGTH, "tag")
        self._append([_entry("tag", [image], words, who, model) for image in images])

    def untag_all(self, images: Sequence[str], tag: str, *, who: str = "", model: str = "") -> None:
        """Take a tag away from many images, by one write."""
        words = _words(tag, TAG_LENGTH, "tag")
        self._append([_entry("untag", [image], words, who, model) for image in images])

    def untag(self, image: str, tag: str, *, who: str = "", model: str = "") -> None:
        """Take a tag away."""
        self._write("untag", [image], _words(tag, TAG_LENGTH, "tag"), who, model)

    def note(self, image: str, note: str, *, who: str = "", model: str = "") -> None:
        """Add a note; those of others stay. Raises: ConfigError for an empty or too long one."""
        self._write("note", [image], _words(note, NOTE_LENGTH, "note"), who, model)

    def remove_note(self, image: str, id_: str, *, who: str = "", model: str = "") -> None:
        """Take a note away by its id."""
        self._write("unnote", [image], id_, who, model)

    def judge(
        self, first: str, second: str, verdict: str, *, who: str = "", model: str = ""
    ) -> None:
        """Say whether two images show the same person; the last verdict counts. Raises: ConfigError for another."""
        if verdict not in VERDICTS:
            raise ConfigError(f"expected a verdict of {', '.join(VERDICTS)}, got {verdict[:40]!r}")
        self._write("verdict", sorted([first, second]), verdict, who, model)

    def _write(self, do: Deed, about: Sequence[str], value: str, who: str, model: str) -> None:
        self._append([_entry(do, about, value, who, model)])

    def _append(self, entries: Sequence[Entry]) -> None:
        lines = [json.dumps(asdict(entry), ensure_ascii=False) + "\n" for entry in entries]
        line = "".join(lines).encode("utf-8")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self._lock, self.path.open("a+b", buffering=0) as file:
            _lock_file(file)
            size = file.seek(0, os.SEEK_END)
            if size:
                file.seek(size - 1)
                if file.read(1) != b"\n":  # somebody died while writing
                    line = b"\n" + line
            written = 0
            while written < len(line):
                written += file.write(line[written:])
            os.fsync(file.fileno())

    # Reading

    @contextmanager
    def _now(self) -> Iterator[_State]:
        """What all finished lines add up to; only what is new is read. Nobody changes it meanwhile."""
        with self._lock:
            self._catch_up()
            yield self._state

    def _catch_up(self) -> None:
        try:
            with self.path.open("rb") as file:
                about = os.fstat(file.fileno())
                identity = (about.st_dev, about.st_ino)
                if identity != self._file or about.st_size < self._read:  # another file
                    self._state, self._read, self._file = _State(), 0, identity
                file.seek(self._read)
                found = file.read()
        except FileNotFoundError:
            self._state, self._read, self._file = _State(), 0, (0, 0)
            return
        whole = found[: found.rfind(b"\n") + 1]  # the rest is being written at this moment
        self._read += len(whole)
        for line in whole.splitlines():
            entry = _parse(line)
            if entry is not None:
                self._state.add(entry)

    def tags(self, image: str) -> list[str]:
        """Tags of an image, first given first."""
        with self._now() as state:
            return list(state.tags.get(image, {}))

    def common(self, images: Sequence[str]) -> list[str]:
        """Tags that all of some images have."""
        with self._now() as state:
            found = [state.tags.get(image, {}) for image in images]
        shared = set.intersection(*map(set, found)) if found else set()
        return sorted(shared)

    def notes(self, image: str) -> list[Entry]:
        """Notes on an image, first written first."""
        with self._now() as state:
            return list(state.notes.get(image, {}).values())

    def verdict(self, first: str, second: str) -> Entry | None:
        """The last verdict on two images."""
        with self._now() as state:
            return state.verdicts.get(tuple(sorted([first, second])))

    def counts(self) -> dict[str, int]:
        """Tag → images that have it, most first."""
        with self._now() as state:
            found = Counter(tag for tags in state.tags.values() for tag in tags)
        return dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))

    def images(self, tag: str | None = None) -> list[str]:
        """Images with this tag; with any tag or note if it is None."""
        with self._now() as state:
            if tag is not None:
                return [image for image, tags in state.tags.items() if tag in tags]
            known = dict.fromkeys([*state.tags, *state.notes])
            return [image for image in known if state.tags.get(image) or state.notes.get(image)]

    def table(self) -> Table:
        """One line an image that has a tag or a note."""
        rows = []
        with self._now() as state:
            for image in dict.fromkeys([*state.tags, *state.notes]):
                tags, notes = state.tags.get(image, {}), state.notes.get(image, {})
                entries = [*tags.values(), *notes.values()]
                if entries:
                    words = (", ".join(tags), " | ".join(note.value for note in notes.values()))
                    whose = [
                        sorted({getattr(e, one) for e in entries} - {""})
                        for one in ("who", "model")
                    ]
                    last = max(entry.time for entry in entries)
                    rows.append([image, *words, *map(", ".join, whose), last])
        header = ["image", "tags", "notes", "who", "model", "last change"]
        return Table.of_rows(
            "cases", header, rows, "Tagged images with their notes; times are UTC."
        )

    def verdict_table(self) -> Table:
        """One line a pair that was judged."""
        with self._now() as state:
            rows = [
                [*entry.about, entry.value, entry.who, entry.model, entry.time]
                for entry in state.verdicts.values()
            ]
        header = ["image", "other image", "verdict", "who", "model", "time"]
        note = (
            "Do the two images show the same person? The last verdict on each pair; times are UTC."
        )
        return Table.of_rows("verdicts", header, rows, note)


def case_file(dataset: ReIDDataset) -> Path:
    """Where the cases of a dataset are kept, unless somebody says otherwise: named by its images, not by a model."""
    names = [
        sample.path.relative_to(dataset.root).as_posix()
        if sample.path.is_relative_to(dataset.root)
        else sample.path.name
        for sample in (*dataset.query, *dataset.gallery)
    ]
    digest = hashlib.sha256("\n".join(names).encode("utf-8", "surrogateescape")).hexdigest()[:12]
    plain = "".join(c if c.isalnum() or c in "._-" else "_" for c in dataset.name)[:40]
    return data_folder() / "cases" / f"{plain}-{digest}.jsonl"


def _entry(do: Deed, about: Sequence[str], value: str, who: str, model: str) -> Entry:
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    return Entry(secrets.token_hex(6), now, who, model, do, tuple(about), value)


def _words(text: str, most: int, what: str) -> str:
    """Text without line breaks and control characters. Raises: ConfigError if nothing is left, or too much."""
    plain = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    if not plain or len(plain) > most:
        raise ConfigError(f"expected a {what} of 1 to {most} characters, got {len(plain)}")
    return plain


def _parse(line: bytes) -> Entry | None:
    """An entry, or None for a line that is none."""
    try:
        values: dict[str, Any] = json.loads(line)
        entry = Entry(**{**values, "about": tuple(values["about"])})
    except (ValueError, TypeError, KeyError):
        return None
    texts = (entry.id, entry.time, entry.who, entry.model, entry.value, *entry.about)
    whole = all(isinstance(one, str) for one in texts) and entry.do in get_args(Deed)
    count = 2 if entry.do == "verdict" else 1
    return entry if whole and len(entry.about) == count else None


def _lock_file(file: Any) -> None:
    """Keep other processes from writing until the file is closed."""
    try:
        import fcntl
    except ImportError:  # Windows
        import msvcrt

        file.seek(0)
        msvcrt.locking(file.fileno(), msvcrt.LK_LOCK, 1)  # type: ignore[attr-defined]
    else:
        fcntl.flock(file, fcntl.LOCK_EX)
