"""Small pieces of HTML. Every text is escaped here, and only here are tags built from values.

What can be clicked carries `data-do` (the action's name) and `data-value`; `assets/page.js` sends them to the server.
Pieces inside an element with `data-event="ask"` wait in the model's queue, the others are answered at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

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
    return opened if name in ("img", "input", "br") else f"{opened}{content}</{name}>"


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
) -> str:
    """A button that asks for an action; `pressed` makes it a switch."""
    return tag(
        "button",
        content,
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


def labelled(label: str, control: str) -> str:
    """A control with its name before it."""
    return tag("div", text(label, class_="label") + control, class_="control")


def mark_badge(mark: Mark) -> str:
    """The sign of a mark in its colour."""
    return text(MARKS[mark].sign, class_=f"mark {mark}", aria_hidden="true")


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


def person(identity: int) -> str:
    """An identity in words (Market-1501's convention)."""
    return {0: "distractor", -1: "junk"}.get(identity, person_number(identity))


def person_number(identity: int) -> str:
    """An identity as file names write it."""
    return f"{identity:04d}" if identity >= 0 else str(identity)


def camera_name(camera: int) -> str:
    """A camera in words."""
    return "unknown" if camera < 0 else str(camera)
