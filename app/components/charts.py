"""Small charts as SVG: sharp at every size, no WebGL, and what can be clicked can be reached by key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from app.components.html import tag, text
from ccan.plots import ColourScale

STREAM_COLOURS = (
    "#009e73",
    "#56b4e9",
    "#cc79a7",
    "#8c6d31",
    "#7b61c4",
    "#4b8b3b",
    "#b5651d",
    "#5f6b7a",
)
"""Of the parts, in turn; none is a colour of a mark. The global stream is ink. Letters stand beside the colours."""


def stream_colour(stream: str) -> str:
    """The colour of a stream; ``P1`` … and the rest in grey."""
    if stream.startswith("P") and stream[1:].isdigit():
        return STREAM_COLOURS[(int(stream[1:]) - 1) % len(STREAM_COLOURS)]
    return "var(--ink)" if stream == "G" else "var(--quiet)"


def cmc_chart(cmc: NDArray[np.floating], chosen: int | None, ranks: int = 20) -> str:
    """CMC as a line with a point at each rank; a point asks for the queries behind it."""
    width, height, left, bottom, top = 460, 210, 44, 30, 12
    values = cmc[:ranks]
    low = max(0.0, np.floor(10 * float(values[0]) - 0.5) / 10)

    def at(rank: int, value: float) -> tuple[float, float]:
        x = left + (width - left - 14) * (rank - 1) / max(1, len(values) - 1)
        return x, height - bottom - (height - bottom - top) * (value - low) / max(1e-9, 1 - low)

    lines = ""
    for value in np.linspace(low, 1, 5):
        y = at(1, value)[1]
        lines += f'<line x1="{left}" x2="{width - 8}" y1="{y:.1f}" y2="{y:.1f}" class="grid"/>'
        lines += (
            f'<text x="{left - 7}" y="{y + 4:.1f}" text-anchor="end">{100 * value:.0f} %</text>'
        )
    points = [at(rank, float(value)) for rank, value in enumerate(values, start=1)]
    drawn = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    marks = ""
    for rank, ((x, y), value) in enumerate(zip(points, values, strict=True), start=1):
        if rank in (1, 5, 10, 15, 20):
            marks += f'<text x="{x:.1f}" y="{height - 10}" text-anchor="middle">{rank}</text>'
        name = f"rank {rank}: {100 * value:.1f} % matched; show the queries that are not"
        marks += tag(
            "g",
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="11" class="reach"/>'
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" class="point"/><title>{name}</title>',
            role="button",
            tabindex=0,
            data_do="subset",
            data_value=f"miss:{rank}",
            aria_label=name,
            aria_pressed=str(rank == chosen).lower(),
        )
    body = lines + f'<polyline points="{drawn}" class="line"/>' + marks
    return f'<svg class="chart" viewBox="0 0 {width} {height}" role="group" aria-label="CMC curve">{body}</svg>'


def precision_chart(ranks: Sequence[int], precisions: Sequence[float], last: int) -> str:
    """Precision at each match of one query, over the rank (a step for each rank would hide where they are)."""
    width, height, left, bottom = 460, 120, 44, 26

    def x(rank: int) -> float:
        return left + (width - left - 14) * np.log(max(1, rank)) / max(1e-9, np.log(max(2, last)))

    def y(value: float) -> float:
        return 10 + (height - bottom - 10) * (1 - value)

    body = ""
    for value in (0, 0.5, 1):
        body += f'<line x1="{left}" x2="{width - 8}" y1="{y(value):.1f}" y2="{y(value):.1f}" class="grid"/>'
        body += f'<text x="{left - 7}" y="{y(value) + 4:.1f}" text-anchor="end">{value:g}</text>'
    for rank, value in zip(ranks, precisions, strict=True):
        body += f'<line x1="{x(rank):.1f}" x2="{x(rank):.1f}" y1="{y(0):.1f}" y2="{y(value):.1f}" class="stem"/>'
        body += f'<circle cx="{x(rank):.1f}" cy="{y(value):.1f}" r="4" class="point right"/>'
    shown: list[int] = []
    for rank in [1, *ranks, last]:
        if all(abs(x(rank) - x(other)) > 26 for other in shown):
            shown.append(rank)
            body += f'<text x="{x(rank):.1f}" y="{height - 8}" text-anchor="middle">{rank}</text>'
    return (
        f'<svg class="chart" viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="precision at each match, by rank">{body}</svg>'
    )


def mini_bars(terms: Mapping[str, float], limit: float) -> str:
    """The streams' terms of one distance as small bars, up if they add to it and down if they take from it."""
    names = [name for name in terms if not name.startswith("bias")]
    step, middle, body = 88 / max(1, len(names)), 24, ""
    for place, name in enumerate(names):
        size = 22 * min(1.0, abs(terms[name]) / max(limit, 1e-12))
        up = terms[name] >= 0
        x = place * step + 1
        shown = middle - size if up else middle
        body += (
            f'<rect x="{x:.1f}" y="{shown:.1f}" width="{step - 3:.1f}" height="{max(size, 0.7):.1f}" '
            f'fill="{stream_colour(name)}" opacity="{1 if up else 0.5}"/>'
            f'<text x="{x + step / 2 - 1.5:.1f}" y="42" text-anchor="middle">{name.removeprefix("P")}</text>'
        )
    body += f'<line x1="0" x2="88" y1="{middle}" y2="{middle}" class="grid"/>'
    said = ", ".join(f"{name} {value:+.2f}" for name, value in terms.items())
    return f'<svg class="mini" viewBox="0 0 88 46" role="img" aria-label="{said}"><title>{said}</title>{body}</svg>'


def heat_table(
    values: NDArray[np.floating],
    rows: Sequence[str],
    columns: Sequence[str],
    scale: ColourScale,
    fmt: str,
    *,
    corner: str = "",
    do: Mapping[tuple[int, int], tuple[str, str]] | None = None,
    marked: Sequence[tuple[int, int]] = (),
) -> str:
    """A small matrix as a table with coloured cells; with an action it is a button: (row, column) → (value, words)."""
    head = "".join(text(name, "th", scope="col") for name in ("", *columns))
    body = tag("tr", head.replace('<th scope="col"></th>', text(corner, "th", scope="col"), 1))
    for i, name in enumerate(rows):
        cells = text(name, "th", scope="row")
        for j in range(len(columns)):
            value = float(values[i, j])
            if value != value:
                cells += text("–", "td", class_="none")
                continue
            red, green, blue = (int(x) for x in scale.paint(np.array([value]))[0])
            light = 0.299 * red + 0.587 * green + 0.114 * blue > 140
            style = f"background:rgb({red},{green},{blue});color:{'#10141a' if light else '#fff'}"
            words = fmt.format(value)
            inside = words
            if do and (i, j) in do:
                asked, said = do[i, j]
                inside = tag(
                    "button", words, type="button", data_do="subset", data_value=asked, title=said
                )
            class_ = "marked" if (i, j) in marked else None
            cells += tag("td", inside, style=style, class_=class_)
        body += tag("tr", cells)
    return tag("table", body, class_="heat")


CURVE_COLOURS = (
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#cc79a7",
    "#8c6d31",
    "#56b4e9",
    "#5f6b7a",
    "#7b61c4",
)
DASHES = ("", "7 3", "2 3", "9 3 2 3")


def curve_colour(place: int) -> str:
    """The colour of the place-th curve."""
    return CURVE_COLOURS[place % len(CURVE_COLOURS)]


def curve_chart(series: Mapping[str, Sequence[tuple[int, float]]], metric: str) -> str:
    """Curves over epochs on one scale; colour and dashes tell them apart, their names stand at a pointer's rest."""
    points = [point for one in series.values() for point in one]
    if not points:
        return text("Nothing was measured yet.", "p", class_="empty")
    width, height, left, bottom, top = 940, 280, 58, 30, 12
    last = max(2, *(x for x, _ in points))
    low, high = min(y for _, y in points), max(y for _, y in points)
    low, high = (low, high) if high > low else (low - 0.5, high + 0.5)

    def at(x: float, y: float) -> tuple[float, float]:
        return (
            left + (width - left - 20) * (x - 1) / (last - 1),
            height - bottom - (height - bottom - top) * (y - low) / (high - low),
        )

    body = ""
    for value in np.linspace(low, high, 5):
        y = at(1, float(value))[1]
        body += f'<line x1="{left}" x2="{width - 10}" y1="{y:.1f}" y2="{y:.1f}" class="grid"/>'
        body += f'<text x="{left - 7}" y="{y + 4:.1f}" text-anchor="end">{value:.3g}</text>'
    for epoch in sorted({1, *np.linspace(1, last, 6).round().astype(int).tolist()}):
        body += f'<text x="{at(epoch, low)[0]:.1f}" y="{height - 8}" text-anchor="middle">{epoch}</text>'
    for place, (name, one) in enumerate(series.items()):
        if not one:
            continue
        drawn = " ".join(f"{x:.1f},{y:.1f}" for x, y in (at(*point) for point in one))
        x, y = at(*one[-1])
        stroke = (
            f"stroke:{curve_colour(place)};stroke-dasharray:{DASHES[place % len(DASHES)] or 'none'}"
        )
        body += tag(
            "g",
            text(f"{name}: {metric} {one[-1][1]:.4g} after epoch {one[-1][0]}", "title")
            + f'<polyline points="{drawn}" class="curve" style="{stroke}"/>'
            + f'<path d="M{x - 4:.1f} {y:.1f}h8M{x:.1f} {y - 4:.1f}v8" class="curve" style="{stroke}"/>',
        )
    return (
        f'<svg class="chart wide" viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="curves over epochs">{body}</svg>'
    )


OUTCOME_COLOURS = {
    "fixed": "var(--right)",
    "broken": "var(--wrong)",
    "both right": "var(--quiet)",
    "both wrong": "var(--ignored)",
}
_SIGNS = {"fixed": "M0-4.5l4.5 4.5l-4.5 4.5l-4.5-4.5z", "broken": "M-4-4l8 8m0-8l-8 8"}
_RING = "M3 0a3 3 0 1 1-6 0a3 3 0 1 1 6 0"


def scatter_chart(
    points: Mapping[str, NDArray[np.floating]],
    chosen: tuple[float, float] | None,
    across: str,
    up: str,
    do: str,
) -> str:
    """Points (n, 2) in the unit square by outcome; a click sends shares of the square's width and height, from its top.

    Signs tell outcomes apart as well as colours do.
    """
    size, left, top, bottom = 420, 46, 10, 40

    def at(x: float, y: float) -> tuple[float, float]:
        return left + (size - left - 10) * x, top + (size - top - bottom) * (1 - y)

    (x0, y0), (x1, y1) = at(0, 0), at(1, 1)
    body = ""
    for value in (0, 0.25, 0.5, 0.75, 1):
        x, y = at(value, value)
        body += f'<line x1="{x0}" x2="{x1}" y1="{y:.1f}" y2="{y:.1f}" class="grid"/>'
        body += f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{y0}" y2="{y1}" class="grid"/>'
        body += f'<text x="{x0 - 6}" y="{y + 4:.1f}" text-anchor="end">{100 * value:.0f}</text>'
        body += f'<text x="{x:.1f}" y="{y0 + 16:.1f}" text-anchor="middle">{100 * value:.0f}</text>'
    body += f'<line x1="{x0}" x2="{x1}" y1="{y0}" y2="{y1}" class="diagonal"/>'
    for outcome in ("both right", "both wrong", "broken", "fixed"):
        for x, y in (at(*point) for point in points.get(outcome, [])):
            body += (
                f'<path d="{_SIGNS.get(outcome, _RING)}" transform="translate({x:.1f} {y:.1f})" fill="none" '
                f'stroke="{OUTCOME_COLOURS[outcome]}" stroke-width="1.6"/>'
            )
    if chosen is not None:
        x, y = at(*chosen)
        body += f'<circle cx="{x:.1f}" cy="{y:.1f}" r="9" class="ring"/>'
    body += text(
        f"{across} (%)", "text", x=f"{(x0 + x1) / 2:.0f}", y=f"{size - 6}", text_anchor="middle"
    )
    middle = (y0 + y1) / 2
    body += text(
        f"{up} (%)",
        "text",
        x="12",
        y=f"{middle:.0f}",
        text_anchor="middle",
        transform=f"rotate(-90 12 {middle:.0f})",
    )
    reach = f'<rect x="{x0}" y="{y1}" width="{x1 - x0}" height="{y0 - y1}" class="reach plane" data-plane="{do}"/>'
    return (
        f'<svg class="chart half" viewBox="0 0 {size} {size}" role="img" aria-label="AP of queries, before and now">'
        f"{body}{reach}</svg>"
    )


def slope_chart(
    lines: Sequence[tuple[str, int, int, str]], chosen: str, before: str, now: str
) -> str:
    """A line a query (id, rank before, rank now, outcome); ranks on a logarithmic scale, 1 on top."""
    width, height, left, top = 460, 420, 60, 30
    last = max(2, *(rank for _, *ranks, _ in lines for rank in ranks))

    def y(rank: int) -> float:
        return top + (height - top - 20) * float(np.log(rank) / np.log(last))

    x0, x1 = left, width - left
    body = f'<line x1="{x0}" x2="{x0}" y1="{top}" y2="{height - 20}" class="grid"/>'
    body += f'<line x1="{x1}" x2="{x1}" y1="{top}" y2="{height - 20}" class="grid"/>'
    steps = [rank for rank in (1, 2, 3, 5, 10, 20, 50, 100, 200, 500, 1000, 5000) if rank <= last]
    for rank in steps:
        body += f'<text x="{x0 - 8}" y="{y(rank) + 4:.1f}" text-anchor="end">{rank}</text>'
        body += f'<text x="{x1 + 8}" y="{y(rank) + 4:.1f}">{rank}</text>'
    body += text(before, "text", x="4", y="16")
    body += text(now, "text", x=f"{width - 4}", y="16", text_anchor="end")
    for image, first, second, outcome in sorted(lines, key=lambda one: one[0] == chosen):
        words = f"{image}: first match at {first} before, at {second} now ({outcome})"
        ends = f'x1="{x0}" x2="{x1}" y1="{y(first):.1f}" y2="{y(second):.1f}"'
        colour = "var(--pick)" if image == chosen else OUTCOME_COLOURS[outcome]
        dash = ' stroke-dasharray="6 3"' if outcome == "broken" else ""
        wide = 3 if image == chosen else 1.6
        body += tag(
            "g",
            text(words, "title")
            + f'<line {ends} class="reachline"/>'
            + f'<line {ends} stroke="{colour}" stroke-width="{wide}"{dash}/>',
            role="button",
            tabindex=0,
            data_do="choose",
            data_value=image,
            aria_label=words,
            aria_pressed=str(image == chosen).lower(),
        )
    return (
        f'<svg class="chart half" viewBox="0 0 {width} {height}" role="group" '
        f'aria-label="rank of the first match, before and now">{body}</svg>'
    )
