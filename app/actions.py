"""Everything that a person can do on the page: functions (store, selection, value) → selection.

Values come from a browser and are checked here; what is not allowed raises, with a sentence for the page.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from app.selection import ORDERS, TABS, Selection, one_of, shown_count
from app.store import MAX_UPLOAD_BYTES, Store, too_large
from ccan.errors import CCANError, ConfigError, DatasetError
from ccan.explain.attention import SUMMARIES

Action = Callable[[Store, Selection, Any], Selection]

_CHANCE = np.random.default_rng()
_STEPS = {"up": (-1, 0), "down": (1, 0), "left": (0, -1), "right": (0, 1)}


def act(store: Store, selection: Selection, name: object, value: object) -> Selection:
    """Do what the page asks for. Raises: CCANError for anything that is not allowed."""
    try:
        return ACTIONS[name](store, selection, value)  # type: ignore[index]
    except CCANError:
        raise
    except (KeyError, ValueError, TypeError, OverflowError, AttributeError) as error:
        raise ConfigError(f"the page asked for something unknown: {str(name)[:40]!r}") from error


def show_query(store: Store, selection: Selection, query: str) -> Selection:
    """Another query; its nearest image comes with it."""
    store.sample(query)
    return replace(selection, query=query, match=None, cell=None, page=None)


def choose(store: Store, selection: Selection, value: Any) -> Selection:
    """The query that was clicked."""
    return show_query(store, selection, one_of(value, store.query_rows))


def step(store: Store, selection: Selection, value: Any) -> Selection:
    """The next (+1) or previous (-1) query in the order of the list."""
    ids = query_list(store, selection)
    if selection.query not in store.query_rows:
        return show_query(store, selection, ids[0])
    place = ids.index(selection.query) + {"1": 1, "-1": -1}[str(value)]
    return show_query(store, selection, ids[place % len(ids)])


def random_query(store: Store, selection: Selection, _: Any) -> Selection:
    """Any other query."""
    others = [query for query in store.query_ids if query != selection.query]
    chosen = others[int(_CHANCE.integers(len(others)))] if others else selection.query
    return show_query(store, selection, chosen)


def hardest(store: Store, selection: Selection, _: Any) -> Selection:
    """The query of the lowest AP; the list is sorted by it, so that “next” goes on from there."""
    return show_query(store, replace(selection, order="hardest"), store.by_difficulty[0])


def match(store: Store, selection: Selection, value: Any) -> Selection:
    """The gallery image beside the query."""
    return replace(selection, match=one_of(value, store.gallery_rows))


def neighbour(store: Store, selection: Selection, value: Any) -> Selection:
    """The gallery image one place further (+1) or nearer (-1) in the ranking."""
    order = store.ranking(selection.query).order
    current = selection.match or store.nearest(selection.query)
    place = int(np.flatnonzero(order == store.gallery_rows[current])[0])
    place += {"1": 1, "-1": -1}[str(value)]
    return replace(selection, match=store.gallery_ids[order[place % len(order)]])


def camera(store: Store, selection: Selection, value: Any) -> Selection:
    """Show one camera's images or hide them again; “all” shows every camera."""
    if value == "all":
        return replace(selection, cameras=())
    number = int(value)
    if number not in store.cameras:
        raise KeyError(value)
    return replace(selection, cameras=tuple(sorted({number} ^ set(selection.cameras))))


def page(store: Store, selection: Selection, value: Any) -> Selection:
    """Another page of the list of queries."""
    return replace(selection, page=max(0, int(value)))


def upload(store: Store, selection: Selection, value: Mapping[str, Any]) -> Selection:
    """A picture from outside, as {name, size, data}: base64 without its prefix, or none if it is too large."""
    name = str(value["name"])[:120] or "the picture"
    if int(value["size"]) > MAX_UPLOAD_BYTES:
        raise too_large(name, int(value["size"]))
    text = str(value["data"])
    if len(text) > 4 * (MAX_UPLOAD_BYTES // 3 + 1):
        raise too_large(name, len(text) * 3 // 4)
    try:
        data = base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise DatasetError(f"{name}: the file did not arrive whole; try again") from error
    return show_query(store, selection, store.add_upload(name, data))


def slot(store: Store, selection: Selection, value: Any) -> Selection:
    """Another attention slot, at its own default cell."""
    return replace(selection, slot=one_of(value, store.slots), cell=None)


def point(store: Store, selection: Selection, value: Mapping[str, Any]) -> Selection:
    """The cell under a click at shares x, y of a picture; over the parts, the strip that was hit is chosen."""
    x, y = float(value["x"]), float(value["y"])
    parts = [name for name in store.slots if name != "SS1"]
    current = store.slot(selection.slot)
    candidates = ["SS1"] if value["panel"] == "SS1" else [current, *parts]
    for name in candidates:
        if name not in store.slots or (name == "SS1") != (value["panel"] == "SS1"):
            continue
        place = store.geometry(name)
        cell = place.position_at(x * place.image_width, y * place.image_height)
        if cell is not None:
            return replace(selection, slot=name, cell=cell)
    return selection


def move(store: Store, selection: Selection, value: Mapping[str, Any]) -> Selection:
    """The cell beside: from cell `from`, one step `to` up, down, left or right, within the slot."""
    place = store.geometry(selection.slot)
    row, column = divmod(int(value["from"]), place.columns)
    down, right = _STEPS[value["to"]]
    row = min(max(row + down, 0), place.rows - 1)
    column = min(max(column + right, 0), place.columns - 1)
    return replace(selection, cell=row * place.columns + column)


def query_list(store: Store, selection: Selection) -> list[str]:
    """Ids of the queries in the chosen order."""
    return store.by_difficulty if selection.order == "hardest" else store.query_ids


ACTIONS: dict[str, Action] = {
    "choose": choose,
    "step": step,
    "random": random_query,
    "hardest": hardest,
    "match": match,
    "neighbour": neighbour,
    "camera": camera,
    "page": page,
    "upload": upload,
    "slot": slot,
    "point": point,
    "move": move,
    "tab": lambda _, now, value: replace(now, tab=one_of(value, TABS)),  # type: ignore[arg-type]
    "order": lambda _, now, value: replace(now, order=one_of(value, ORDERS), page=None),  # type: ignore[arg-type]
    "shown": lambda _, now, value: replace(now, shown=shown_count(value)),
    "ignored": lambda _, now, value: replace(now, ignored=one_of(value, ("0", "1")) == "1"),
    "summary": lambda _, now, value: replace(now, summary=one_of(value, SUMMARIES)),  # type: ignore[arg-type]
    "own_scale": lambda _, now, value: replace(now, own_scale=one_of(value, ("0", "1")) == "1"),
}
"""By the name that the page sends."""
