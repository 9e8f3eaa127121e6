"""What a person has chosen: small plain values, the whole state of a page, and its form in a link.

Every view shows the same selection. It holds names of images, never the images, and everything in a link is checked
against the store before it is believed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Literal, get_args
from urllib.parse import quote, urlencode

from ccan.explain.attention import SUMMARIES, Summary

if TYPE_CHECKING:
    from app.store import Store

Tab = Literal["rank", "attention"]
Order = Literal["name", "hardest"]
TABS: tuple[Tab, ...] = get_args(Tab)
ORDERS: tuple[Order, ...] = get_args(Order)
SHOWN_LEAST, SHOWN_MOST = 5, 60


@dataclass(frozen=True)
class Selection:
    """The state of one page.

    Attributes:
        query: id of the query, an image of the query set or an upload.
        match: id of the gallery image beside it; None = the nearest that counts.
        tab: the view on top.
        shown: how many ranked images are shown.
        ignored: whether images that the protocol ignores are shown in their place.
        cameras: gallery cameras that are shown; empty = all.
        order: how the list of queries is sorted.
        page: page of that list; None = where the query is.
        slot: the attention slot; "" = the network's first.
        cell: position in the slot; None = where attention adds most.
        summary: which map lies over the images.
        own_scale: each picture on a colour scale of its own.
    """

    query: str
    match: str | None = None
    tab: Tab = "rank"
    shown: int = 20
    ignored: bool = True
    cameras: tuple[int, ...] = ()
    order: Order = "name"
    page: int | None = None
    slot: str = ""
    cell: int | None = None
    summary: Summary = "gathered_share"
    own_scale: bool = False


_IN_LINK = ("match", "tab", "shown", "ignored", "cameras", "slot", "cell", "summary", "own_scale")


def to_link(selection: Selection, store: Store) -> str:
    """The selection as ``?query=…``, without what is as usual; an upload is not named, it lives on one page only."""
    values: dict[str, str] = {}
    if not store.is_upload(selection.query):
        values["query"] = selection.query
    for field in fields(Selection):
        value = getattr(selection, field.name)
        if field.name in _IN_LINK and value != field.default:
            values[field.name] = _as_text(value)
    return "?" + urlencode(values, safe="/,", quote_via=quote)


def _as_text(value: object) -> str:
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return str(int(value)) if isinstance(value, bool) else str(value)


def from_link(values: Mapping[str, str], store: Store) -> tuple[Selection, str]:
    """The selection that a link names, and a sentence about what of it this store does not have."""
    selection, unknown = Selection(store.query_ids[0]), []
    for name in ("query", *_IN_LINK):
        if name not in values:
            continue
        try:
            selection = replace(selection, **{name: _READERS[name](values[name], store, selection)})
        except (KeyError, ValueError):
            unknown.append(f"{name}={values[name][:80]}")
    if not unknown:
        return selection, ""
    return selection, f"This link names what is not here and was left out: {', '.join(unknown)}."


def one_of(value: object, allowed: object) -> str:
    """The value as text if it is allowed. Raises: KeyError otherwise."""
    if not isinstance(value, str) or value not in allowed:  # type: ignore[operator]
        raise KeyError(value)
    return value


def shown_count(value: object) -> int:
    """A number of ranked images within its limits. Raises: ValueError for what is no number."""
    return min(SHOWN_MOST, max(SHOWN_LEAST, int(str(value))))


def _cell(text: str, store: Store, selection: Selection) -> int:
    cell = int(text)
    if not 0 <= cell < store.positions(selection.slot):
        raise KeyError(text)
    return cell


def _cameras(text: str, store: Store) -> tuple[int, ...]:
    chosen = {int(part) for part in text.split(",")}
    if not chosen <= set(store.cameras):
        raise KeyError(text)
    return tuple(sorted(chosen))


_READERS = {
    "query": lambda text, store, _: one_of(text, store.query_rows),
    "match": lambda text, store, _: one_of(text, store.gallery_rows),
    "tab": lambda text, *_: one_of(text, TABS),
    "shown": lambda text, *_: shown_count(text),
    "ignored": lambda text, *_: one_of(text, ("0", "1")) == "1",
    "cameras": lambda text, store, _: _cameras(text, store),
    "slot": lambda text, store, _: one_of(text, store.slots),
    "cell": _cell,
    "summary": lambda text, *_: one_of(text, SUMMARIES),
    "own_scale": lambda text, *_: one_of(text, ("0", "1")) == "1",
}
