"""What the notebooks share: profiles, the tiny world, pictures, and exercises that say what is missing."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import pytest
from PIL import Image

from ccan.course import TINY_WORLD, choose, exercise, located, open_world, show, use_house_style
from ccan.errors import ConfigError, DatasetError
from ccan.figures import new_figure


def test_each_profile_has_its_value_and_full_takes_the_readers() -> None:
    assert [choose(p, ci=1, reader=2, full=3) for p in ("ci", "reader", "full")] == [1, 2, 3]
    assert choose("full", ci=1, reader=2) == 2
    with pytest.raises(ConfigError, match="ci, reader or full, got 'fast'"):
        choose("fast", ci=1, reader=2)


def test_the_tiny_world_is_drawn_once_and_can_be_trained_on() -> None:
    world, again = (open_world("ci", train=train) for train in (True, False))
    assert world.train and world.query == again.query
    assert len({sample.identity for sample in world.query}) == len(TINY_WORLD.test_identities)


def test_a_dataset_of_ones_own_needs_a_folder(tmp_path) -> None:
    with pytest.raises(ConfigError, match="set `data` in the parameters cell"):
        open_world("reader", "market1501")
    with pytest.raises(DatasetError):
        open_world("ci", "market1501", tmp_path)
    with pytest.raises(ConfigError, match="profile"):
        open_world("fast")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (AssertionError("answer should be 4"), "answer should be 4"),
        (NotImplementedError("write the sum"), "write the sum"),
        (TypeError("no such\n argument"), "TypeError: no such argument (at `raise error`)"),
        (AssertionError(), "AssertionError (at `raise error`)"),
    ],
)
def test_an_open_exercise_says_what_is_missing_and_goes_on(
    error: Exception, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with exercise("Exercise 1"):
        raise error
    assert capsys.readouterr().out == f"○ Exercise 1 is open: {words}\n"


def test_a_solved_exercise_is_said_to_be(capsys: pytest.CaptureFixture[str]) -> None:
    with exercise("Exercise 2"):
        assert sum((1, 2)) == 3, "a claim that holds"
    assert capsys.readouterr().out == "✓ Exercise 2: solved\n"


def test_an_interruption_is_no_answer() -> None:
    with pytest.raises(KeyboardInterrupt), exercise("Exercise 3"):
        raise KeyboardInterrupt


def test_pictures_and_figures_are_shown_no_wider_than_a_page(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shown = []
    monkeypatch.setattr("IPython.display.display", shown.append)
    show(Image.new("RGB", (1800, 900)), width=600)
    show(new_figure(2, 1), width=100)
    show(Image.new("RGB", (40, 20)))
    assert [picture.width for picture in shown] == [600, 100, 40]
    assert all(picture.data.startswith(b"\x89PNG") for picture in shown)


def test_the_house_style_is_matplotlibs_to_use() -> None:
    with matplotlib.rc_context():
        use_house_style()
        assert matplotlib.rcParams["image.cmap"] == "cividis"


def test_a_folder_is_looked_for_here_and_in_the_checkout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert (located("docs/trust") / "trust.md").is_file()  # the checkout's
    (tmp_path / "docs/trust").mkdir(parents=True)
    assert located("docs/trust") == Path("docs/trust")  # one's own comes first
    assert located("nowhere") == Path("nowhere") and located(tmp_path) == tmp_path
