"""Tags and notes: what is written stays, whoever writes at the same time and whatever dies while writing."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ccan.cases import Cases, case_file
from ccan.data.records import ReIDDataset, Sample
from ccan.errors import ConfigError


def test_tags_notes_and_verdicts_are_there_after_a_restart(tmp_path: Path):
    cases = Cases(tmp_path / "new" / "cases.jsonl")
    assert cases.images() == [] and cases.counts() == {}
    cases.tag("a.jpg", "occlusion", who="anna", model="demo")
    cases.tag("a.jpg", "  bad   crop\n")
    cases.tag("b.jpg", "occlusion")
    cases.note("c.jpg", "the bag is missing: “=1+1” <b>", who="ben")
    cases.judge("z.jpg", "a.jpg", "same")
    cases.judge("a.jpg", "z.jpg", "different", who="anna")
    again = Cases(cases.path)
    for one in (cases, again):
        assert one.tags("a.jpg") == ["occlusion", "bad crop"]
        assert one.counts() == {"occlusion": 2, "bad crop": 1}
        assert one.images() == ["a.jpg", "b.jpg", "c.jpg"]
        assert one.images("occlusion") == ["a.jpg", "b.jpg"]
        assert [note.value for note in one.notes("c.jpg")] == ["the bag is missing: “=1+1” <b>"]
        verdict = one.verdict("z.jpg", "a.jpg")
        assert verdict is not None and (verdict.value, verdict.who) == ("different", "anna")
        assert one.verdict("a.jpg", "b.jpg") is None
    rows = again.table().rows()
    assert [row[:4] for row in rows] == [
        ["a.jpg", "occlusion, bad crop", "", "anna"],
        ["b.jpg", "occlusion", "", ""],
        ["c.jpg", "", "the bag is missing: “=1+1” <b>", "ben"],
    ]
    assert again.verdict_table().rows()[0][:4] == ["a.jpg", "z.jpg", "different", "anna"]


def test_what_is_taken_away_is_gone_and_leaves_no_empty_line(tmp_path: Path):
    cases = Cases(tmp_path / "cases.jsonl")
    cases.tag("a.jpg", "crop")
    cases.note("a.jpg", "one")
    cases.note("a.jpg", "two")
    cases.untag("a.jpg", "crop")
    cases.untag("never.jpg", "crop")
    cases.remove_note("a.jpg", cases.notes("a.jpg")[0].id)
    assert [note.value for note in Cases(cases.path).notes("a.jpg")] == ["two"]
    cases.remove_note("a.jpg", cases.notes("a.jpg")[0].id)
    assert cases.images() == [] and len(cases.table()) == 0 and cases.counts() == {}


@pytest.mark.parametrize("words", ["", "  \n", "x" * 41])
def test_a_tag_that_is_none_is_refused(tmp_path: Path, words: str):
    cases = Cases(tmp_path / "cases.jsonl")
    with pytest.raises(ConfigError, match=r"expected a tag of 1 to 40 characters, got (0|41)"):
        cases.tag("a.jpg", words)
    with pytest.raises(ConfigError, match="expected a verdict of same, different, unsure"):
        cases.judge("a", "b", "perhaps")
    assert not cases.path.exists()


@pytest.mark.parametrize(
    "damage",
    [b'{"id": "1", "ti', b"\xff\xfe\x00", b"[]", b"{}", b'{"about": 3}', b"null", b"\n\n"],
)
def test_a_line_that_a_crash_cut_off_costs_nothing_else(tmp_path: Path, damage: bytes):
    cases = Cases(tmp_path / "cases.jsonl")
    cases.tag("a.jpg", "one")
    with cases.path.open("ab") as file:
        file.write(damage)
    assert cases.tags("a.jpg") == ["one"]
    cases.tag("a.jpg", "two")
    assert cases.tags("a.jpg") == Cases(cases.path).tags("a.jpg") == ["one", "two"]


def test_a_file_that_was_replaced_is_read_from_its_beginning(tmp_path: Path):
    cases = Cases(tmp_path / "cases.jsonl")
    cases.tag("a.jpg", "one")
    assert cases.tags("a.jpg") == ["one"]
    other = Cases(tmp_path / "other.jsonl")
    other.tag("b.jpg", "a much longer tag than that")
    os.replace(other.path, cases.path)
    assert cases.tags("a.jpg") == [] and cases.images() == ["b.jpg"]
    cases.path.unlink()
    assert cases.images() == []


def _write_many(path: Path, who: str, count: int) -> None:
    cases = Cases(path)
    for number in range(count):
        cases.tag(f"{number}.jpg", f"{who} {number}", who=who)


def test_four_people_at_once_lose_nothing(tmp_path: Path):
    path, names, count = tmp_path / "cases.jsonl", ["anna", "ben", "cleo", "dan"], 60
    spawn = multiprocessing.get_context("spawn")
    people = [spawn.Process(target=_write_many, args=(path, name, count)) for name in names]
    for one in people:
        one.start()
    watching = Cases(path)
    while any(one.is_alive() for one in people):
        watching.counts()
    for one in people:
        one.join()
    lines = path.read_text("utf-8").splitlines()
    assert len(lines) == len(names) * count and all(json.loads(line) for line in lines)
    for cases in (watching, Cases(path)):
        assert len(cases.counts()) == len(names) * count
        assert set(cases.tags("7.jpg")) == {f"{name} 7" for name in names}


def test_what_was_said_to_be_written_survives_kill_9(tmp_path: Path):
    path, said = tmp_path / "cases.jsonl", tmp_path / "said"
    code = (
        "import sys; from ccan.cases import Cases\n"
        "cases, said = Cases(sys.argv[1]), open(sys.argv[2], 'w')\n"
        "for k in range(10**6):\n"
        "    cases.tag(f'{k}.jpg', 'seen'); print(k, file=said, flush=True)\n"
    )
    for _ in range(3):
        before = len(Cases(path).images())
        said.unlink(missing_ok=True)
        writer = subprocess.Popen([sys.executable, "-c", code, str(path), str(said)])
        while not said.exists() or len(said.read_text().splitlines()) < before + 20:
            assert writer.poll() is None
            time.sleep(0.01)
        os.kill(writer.pid, signal.SIGKILL)
        writer.wait()
        told = int(said.read_text().splitlines()[-1])
        cases = Cases(path)
        assert {f"{k}.jpg" for k in range(told + 1)} <= set(cases.images("seen"))
        cases.tag("after.jpg", "still works")
        assert Cases(path).tags("after.jpg") == ["still works"]


def test_the_file_of_a_dataset_follows_its_images_and_its_name_is_harmless(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("CCAN_DATA", str(tmp_path))

    def file(*names: str, name: str = "mine", root: str = "/some/where") -> Path:
        samples = tuple(Sample(Path(root) / one, 1, 1) for one in names)
        return case_file(ReIDDataset(name, Path(root), (), samples, ()))

    first = file("a.jpg", "b.jpg")
    assert first.parent == tmp_path / "cases" and first.name.startswith("mine-")
    assert first == file("a.jpg", "b.jpg", root="/else/where")
    assert first != file("a.jpg", "c.jpg")
    assert file("a.jpg", name="../../etc/x").parent == tmp_path / "cases"
