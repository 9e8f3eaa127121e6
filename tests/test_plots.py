"""Pictures: right colours at the right pixels, one scale for what is compared, marks that differ in shape."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image, ImageDraw

from ccan.errors import ShapeError
from ccan.evaluation.ranking import Ranking
from ccan.explain.attention import AttentionRecord, SlotGeometry, SlotMaps
from ccan.plots import (
    MARKS,
    ColourScale,
    attention_figure,
    draw_mark,
    framed,
    overlay,
    ranking_figure,
)

GREY = Image.new("RGB", (20, 40), (128, 128, 128))


def pixels(picture: Image.Image) -> np.ndarray:
    return np.asarray(picture).astype(int)


@pytest.mark.parametrize("palette", ["cividis", "viridis"])
def test_palettes_are_the_published_ones(palette: str) -> None:
    matplotlib = pytest.importorskip("matplotlib")
    scale = ColourScale(0, 1, palette)  # type: ignore[arg-type]
    ours = scale.paint(np.linspace(0, 1, 256)).astype(int)
    theirs = np.round(np.array(matplotlib.colormaps[palette].colors) * 255)
    assert np.abs(ours - theirs).max() <= 11
    assert np.abs(ours - theirs).mean() <= 1


@pytest.mark.parametrize("palette", ["cividis", "viridis"])
def test_more_is_always_lighter(palette: str) -> None:
    colours = ColourScale(0, 1, palette).paint(np.linspace(0, 1, 200))  # type: ignore[arg-type]
    lightness = colours @ np.array([0.2126, 0.7152, 0.0722])
    assert (np.diff(lightness) > -0.6).all() and lightness[-1] - lightness[0] > 150


def test_a_scale_covers_all_maps_and_ignores_what_is_not_there() -> None:
    scale = ColourScale.covering([np.array([[0.5, np.nan]]), np.array([2.0])])
    assert (scale.low, scale.high) == (0, 2)
    assert scale.ticks() == ["0", "1", "2"]
    assert scale.stops(3) == ["#440154", "#21918c", "#fde725"]
    assert ColourScale.covering([np.zeros((2, 2))]).high == 1
    assert scale.paint(np.array([-5.0, 9.0])).tolist() == [[68, 1, 84], [253, 231, 37]]


def test_a_root_scale_spreads_small_numbers_and_says_so() -> None:
    scale = ColourScale(0, 4, power=0.5)
    assert scale.ticks() == ["0", "1", "4"]
    assert scale.share(np.array([0, 1, 4])).tolist() == [0, 0.5, 1]
    assert scale.stops(3) == ColourScale(0, 4).stops(3)
    assert (
        scale.paint(np.array([1.0])).tolist() == ColourScale(0, 4).paint(np.array([2.0])).tolist()
    )
    assert [scale.value(share) for share in (0, 0.5, 1)] == [0, 1, 4]


def test_low_values_leave_more_of_the_image() -> None:
    values = np.zeros((40, 20))
    values[20:] = 1
    picture = pixels(overlay(GREY, values, ColourScale(0, 1), height=40, strength=(0.0, 1.0)))
    assert picture[0, 0].tolist() == [128, 128, 128]
    assert picture[39, 0].tolist() == [253, 231, 37]


def test_an_overlay_colours_each_cell_and_leaves_the_rest_to_the_image() -> None:
    values = np.full((40, 20), np.nan)
    values[:10, :10], values[:10, 10:] = 0, 1
    picture = pixels(overlay(GREY, values, ColourScale(0, 1), height=80, strength=(0.5, 0.5)))
    assert picture.shape == (80, 40, 3)
    np.testing.assert_allclose(picture[0, 0], (np.array([68, 1, 84]) + 128) / 2, atol=1)
    np.testing.assert_allclose(picture[19, 20], (np.array([253, 231, 37]) + 128) / 2, atol=1)
    assert (picture[:20, :20] == picture[0, 0]).all()
    outside = picture[20:]
    assert (outside == outside[0, 0]).all() and len(set(outside[0, 0])) == 1
    assert outside[0, 0, 0] > 128
    with pytest.raises(ShapeError, match="expected a map"):
        overlay(GREY, np.zeros(3), ColourScale(0, 1))


def test_a_cell_is_framed_where_it_is() -> None:
    values = np.zeros((40, 20))
    bare = pixels(overlay(GREY, values, ColourScale(0, 1), height=160))
    marked = pixels(overlay(GREY, values, ColourScale(0, 1), height=160, box=(8, 16, 12, 24)))
    ys, xs = np.nonzero((bare != marked).any(axis=2))
    assert (xs.min(), xs.max(), ys.min(), ys.max()) == (30, 50, 62, 98)
    assert (marked[70:90, 38:42] == bare[70:90, 38:42]).all()
    corner = pixels(framed(GREY, (0, 0, 5, 10), (40, 20), 160))
    assert (corner[:3, :3] != 128).any() and (corner[60:, 40:] == 128).all()


def test_borders_of_strips_are_drawn() -> None:
    picture = pixels(overlay(GREY, np.zeros((40, 20)), ColourScale(0, 1), height=80, lines=[10]))
    assert (picture[20] == 255).all() and (picture[25] != 255).any()


def record_of(*slots: str) -> AttentionRecord:
    place = SlotGeometry(2, 1, 40, 20, 0, 40)
    square = np.array([[0, 1], [2, 3]], np.float32)
    maps = SlotMaps(square, square, np.array([[1], [4]], np.float32), place, place, place)
    return AttentionRecord(None, dict.fromkeys(slots, maps))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("slots", "panels"), [(("SS1", "CC2_1"), 3), (("SS1",), 2), (("CC2_1", "CC2_2"), 2)]
)
def test_the_attention_figure_has_a_panel_for_what_there_is(
    slots: tuple[str, ...], panels: int
) -> None:
    figure = attention_figure(GREY, record_of(*slots), "added_energy", height=100)
    assert figure.size == (panels * 50 + (panels + 1) * 24, 100 + 34 + 54)
    legend = pixels(figure)[34 + 100 + 8, 24 + 50 + 24 : 24 + 50 + 24 + 50]
    assert legend[0].tolist() == [68, 1, 84] and legend[-1].tolist() == [253, 231, 37]


def test_a_network_without_attention_has_no_figure() -> None:
    with pytest.raises(ShapeError, match="without SS1 and CC2"):
        attention_figure(GREY, record_of())


def test_a_ranking_shows_marks_as_frames_in_order() -> None:
    ranking = Ranking(
        order=np.array([4, 2, 9]),
        distances=np.array([0.1, 0.2, 0.3]),
        marks=("ignored", "right", "wrong"),
        positions=np.array([-1, 1, 2]),
        ap=1.0,
        inp=1.0,
        first_match=1,
        matches=1,
    )
    figure = pixels(ranking_figure(GREY, [GREY] * 3, ranking, height=64))
    for place, mark in enumerate(ranking.marks):
        left = 3 * 16 + 32 + place * 48
        colour = list(bytes.fromhex(MARKS[mark].colour[1:]))
        assert figure[34 + 32, left - 3].tolist() == colour
        assert figure[34 + 32, left + 16].tolist() == [128, 128, 128]
    with pytest.raises(ShapeError, match="each of the 3 entries, got 2"):
        ranking_figure(GREY, [GREY] * 2, ranking)


def test_marks_differ_in_shape_and_not_only_in_colour() -> None:
    shapes = set()
    for mark in MARKS:
        disc = Image.new("RGB", (60, 60), "black")
        draw_mark(ImageDraw.Draw(disc), (30, 30), 28, mark)
        shapes.add((pixels(disc) == 255).all(axis=2).tobytes())
    assert len(shapes) == len(MARKS) == 4
    assert len({style.sign for style in MARKS.values()}) == 4


def test_pictures_need_neither_matplotlib_nor_plotly() -> None:
    code = (
        "import ccan.plots, sys; print([m for m in ('matplotlib', 'plotly') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
