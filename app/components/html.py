"""Small pieces of HTML. Every text is escaped here, and only here are tags built from values.

What can be clicked carries `data-do` (the action's name) and `data-value`; `assets/page.js` sends them to the server.
Pieces inside an element with `data-event="ask"` wait in the model's queue, the others are answered at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.jobs import Job
from ccan.cases import TAG_LENGTH
from ccan.evaluation.ranking import Mark
from ccan.plots import MARKS, ColourScale


def tag(name: str, content: str = "", /, **attributes: str | int | float | bool | None) -> str:
    """An element around finished HTML; attribute values are escaped, `_` becomes `-`, None and False leave one out."""
    written = []
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        key = key.strip("_").replace("_", "-")
        written.append(f" {key}" if value is True else f' {key}="{escape(str(value))}"')
    opened = f"<{name}{''.join(written)}>"
    return (
        opened
        if name in ("img", "input", "br", "rect", "circle", "line", "path")
        else f"{opened}{content}</{name}>"
    )


def text(value: object, name: str = "span", /, **attributes: str | None) -> str:
    """An element around plain text."""
    return tag(name, escape(str(value)), **attributes)


def button(
    content: str,
    do: str,
    value: object = "",
    *,
    pressed: bool | None = None,
    title: str | None = None,
    class_: str | None = None,
    hot: str | None = None,
) -> str:
    """A button that asks for an action; `pressed` makes it a switch, `hot` is the key that presses it."""
    return tag(
        "button",
        content + (text(hot, "kbd") if hot else ""),
        data_hot=hot,
        type="button",
        class_=class_,
        title=title,
        data_do=do,
        data_value=str(value),
        aria_pressed=None if pressed is None else str(pressed).lower(),
    )


def choices(label: str, do: str, options: Mapping[str, str], chosen: str) -> str:
    """Buttons of which one is pressed: value → text."""
    buttons = [
        button(escape(words), do, value, pressed=value == chosen)
        for value, words in options.items()
    ]
    return tag("div", "".join(buttons), class_="choices", role="group", aria_label=label)


def switch(words: str, do: str, on: bool, title: str) -> str:
    """A button that is on or off, drawn as `choices` are."""
    inside = button(escape(words), do, int(not on), pressed=on, title=title)
    return tag("div", inside, class_="choices")


def pager(do: str, page: int, pages: int, before: str, after: str) -> str:
    """‹ 3 / 12 ›, round and round: `page` from 0; what lies before and after it in words."""
    return tag(
        "div",
        button("‹", do, (page - 1) % pages, title=before)
        + text(f"{page + 1} / {pages}")
        + button("›", do, (page + 1) % pages, title=after),
        class_="pager",
    )


def labelled(label: str, control: str) -> str:
    """A control with its name before it."""
    return tag("div", text(label, class_="label") + control, class_="control")


def mark_badge(mark: Mark) -> str:
    """The sign of a mark in its colour."""
    return text(MARKS[mark].sign, class_=f"mark {mark}", aria_hidden="true")


def slider(
    label: str,
    do: str,
    value: float,
    *,
    bounds: tuple[float, float],
    step: float,
    key: str = "",
    live: bool = False,
) -> str:
    """A slider with its number; a live one is followed while it is dragged, and sends {stream: key, weight: number}."""
    control = tag(
        "input",
        type="range",
        min=f"{bounds[0]:g}",
        max=f"{bounds[1]:g}",
        step=f"{step:g}",
        value=f"{value:g}",
        data_do=do,
        data_key=key,
        data_live=live,
        aria_label=label,
    )
    return control + text(f"{value:g}", "output")


def field(do: str, words: str, key: str, longest: int = TAG_LENGTH) -> str:
    """A line of text that asks for an action and is empty again; `key` leads to it."""
    return tag(
        "input",
        type="text",
        data_do=do,
        data_hot=key,
        placeholder=words,
        aria_label=words,
        maxlength=longest,
        data_clear=True,
        class_=do,
    )


def cells(mask: NDArray[np.bool_]) -> str:
    """Painted cells of a mask, as the browser draws them while one paints."""
    rows, columns = mask.shape
    return "".join(
        f'<i style="left:{100 * c / columns:.3f}%;top:{100 * r / rows:.3f}%;width:{100 / columns:.3f}%;'
        f'height:{100 / rows:.3f}%"></i>'
        for r, c in zip(*np.nonzero(mask), strict=True)
    )


def save_menu(name: str, kinds: Sequence[str] = ("png", "svg", "csv")) -> str:
    """Buttons that save a figure as a picture or its numbers."""
    words = {"png": "PNG", "svg": "SVG", "csv": "numbers (CSV)", "json": "JSON"}
    buttons = "".join(button(words[kind], "save", f"{name}.{kind}") for kind in kinds)
    shown = text("Save", "summary", aria_label=f"Save {name.replace('_', ' ')}")
    return tag("details", shown + tag("div", buttons, class_="menu"), class_="save")


def panel(title: str, body: str, *, extra: str = "", class_: str = "") -> str:
    """A sheet with a heading; `extra` stands at the right of it."""
    head = tag("div", text(title, "h2") + extra, class_="panelhead")
    return tag("section", head + body, class_=f"panel {class_}".strip(), aria_label=title)


def pending(job: Job[Any], what: str) -> str:
    """That something is being worked out, or what went wrong; the page looks again by itself."""
    if job.error:
        return tag("div", escape(f"{what}: {job.error}"), class_="notice", role="alert")
    done, total, doing = job.progress
    share = f"{100 * done / total:.0f} %" if total and done else ""
    words = f"{what}: {doing} {share}".strip()
    return tag("div", escape(words) + " …", class_="pending", role="status", data_poll="1000")


def empty(words: str) -> str:
    """What stands where there is nothing to show, and why."""
    return text(words, "p", class_="empty")


def bars(terms: Mapping[str, float], limit: float, meaning: str, class_: str = "") -> str:
    """Signed numbers side by side, right of the middle if positive, left of it if negative; with their numbers."""
    rows = []
    for name, value in terms.items():
        share = 0.0 if limit <= 0 else min(1.0, abs(value) / limit)
        side = "for" if value >= 0 else "against"
        bar = tag("i", class_=side, style=f"width:{50 * share:.2f}%")
        rows.append(
            text(name, "dt")
            + tag("dd", tag("span", bar, class_="track") + text(f"{value:+.3f}", class_="n"))
        )
    return tag("dl", "".join(rows), class_=f"bars {class_}".strip(), aria_label=meaning)


def facts(pairs: Sequence[tuple[str, str]]) -> str:
    """Names and values (finished HTML) side by side."""
    rows = (f"<div><dt>{escape(name)}</dt><dd>{value}</dd></div>" for name, value in pairs)
    return tag("dl", "".join(rows), class_="facts")


def legend(scale: ColourScale, meaning: str) -> str:
    """A colour bar with its numbers and what they are."""
    bar = tag(
        "div",
        class_="bar",
        style=f"background: linear-gradient(to right, {', '.join(scale.stops())})",
    )
    ticks = "".join(text(tick) for tick in scale.ticks())
    return tag(
        "div",
        bar + tag("div", ticks, class_="ticks") + tag("div", meaning, class_="meaning"),
        class_="legend",
    )


def percent(share: float) -> str:
    """A share of 1 as per cent; a dash where there is none."""
    return f"{100 * share:.1f} %" if share == share else "–"


def queries(count: int) -> str:
    """So many queries, in words."""
    return f"{count:,} {'query' if count == 1 else 'queries'}"


def person(identity: int) -> str:
    """An identity in words (Market-1501's convention)."""
    return {0: "distractor", -1: "junk"}.get(identity, person_number(identity))


def person_number(identity: int) -> str:
    """An identity as file names write it."""
    return f"{identity:04d}" if identity >= 0 else str(identity)


def camera_name(camera: int) -> str:
    """A camera in words."""
    return "unknown" if camera < 0 else str(camera)
