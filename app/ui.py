"""The frame: a header, a tab for each view, and one road from a click to the page.

A browser sends the name of an action and a value; the action turns the selection into another; header and view are
drawn from it. A view is one or more functions (store, selection) → HTML, so a further tab is one entry of `VIEWS`.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import gradio as gr
import plotly as plotly_package

from app.actions import act
from app.components.html import tag, text
from app.maps import packed
from app.saving import Download, save
from app.selection import TABS, Selection, Tab, from_link
from app.serving import ASSETS
from app.store import Store
from app.views import attention, compare, errors, header, learn, overview, parts, rank, runs
from app.views import map as map_view
from ccan.errors import CCANError

Show = Callable[[Store, Selection], str]
VIEWS: dict[Tab, tuple[Show, ...]] = {
    "overview": (overview.show,),
    "rank": (rank.show_controls, rank.show_results),
    "attention": (attention.show,),
    "parts": (parts.show,),
    "map": (map_view.show,),
    "errors": (errors.show,),
    "compare": (compare.show,),
    "learn": (learn.show,),
    "runs": (runs.show,),
}
PIECES = [(tab, show) for tab in TABS for show in VIEWS[tab]]
"""Every piece of every view, in the order of the page."""

DRAGGED = {"weigh": rank.show_controls, "threshold": rank.show_controls}
"""Actions of sliders → the piece that holds them, which must not be drawn anew under somebody's finger."""

LOADING = '<p class="ccan pending" role="status">Loading the page …</p>'
CACHE_SECONDS = 3600
MODEL_QUEUE: dict[str, Any] = {"concurrency_id": "model", "concurrency_limit": 1}
_TURNS = count()
QUIET: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
EVERY_TIME: dict[str, Any] = {"trigger_mode": "multiple"}
"""By default Gradio drops what is asked while, or just when, an answer arrives."""


def draw(
    store: Store,
    selection: Selection,
    notice: str = "",
    *,
    still: Show | None = None,
    download: Download | None = None,
) -> list[Any]:
    """The selection, the header, and each piece: HTML for the tab on top, “as it is” for the others.

    Args:
        still: a piece that stays as it is.
        download: a file that the browser shall keep.
    """
    page = [
        _shown(show, store, selection) if tab == selection.tab and show is not still else gr.skip()
        for tab, show in PIECES
    ]
    link = ""
    if download is not None:
        link = tag("a", href=download.address, download=download.name, hidden=True, data_save=True)
    return [selection, header.show(store, selection, notice, next(_TURNS), link), *page]


def _shown(show: Show, store: Store, selection: Selection) -> str:
    """A piece, or in its place why it cannot be shown: a picture that is gone must not take all with it."""
    try:
        return show(store, selection)
    except CCANError as error:
        words = text(f"This cannot be shown: {error}", "p", class_="notice", role="alert")
        return tag("div", words, class_="ccan failed", data_event="act")


def respond(store: Store, selection: Selection, name: object, value: object) -> list[Any]:
    """Do what the page asks for; a complaint stands in the header and changes nothing else."""
    try:
        if name == "save":
            # The page stays as it is, and with it the menu that was opened.
            head = draw(store, selection, download=save(store, selection, value))[:2]
            return [*head, *(gr.skip() for _ in PIECES)]
        after = act(store, selection, name, value)
        return draw(store, after, still=_still(selection, after, name, value))
    except CCANError as error:
        return complain(store, selection, str(error))


def _still(before: Selection, after: Selection, name: object, value: object) -> Show | None:
    """The piece of a slider that is dragged, as long as nothing else in it changes."""
    switches = [(one.flip, one.rerank, one.threshold is None) for one in (before, after)]
    dragged = str(name) in DRAGGED and value not in ("on", "off")
    return DRAGGED[str(name)] if dragged and switches[0] == switches[1] else None


def complain(store: Store, selection: Selection, notice: str) -> list[Any]:
    """The page as it was, with a notice; an upload that is no longer held gives way to the first query."""
    try:
        return draw(store, selection, notice)
    except CCANError as error:
        first = store.query_ids[0]
        query = first if _gone(store, selection.query) else selection.query
        match = None if selection.match and _gone(store, selection.match) else selection.match
        fallback = replace(selection, query=query, match=match, cell=None, hidden="")
        if fallback == selection:
            fallback = Selection(first)
        return draw(store, fallback, notice or str(error))


def _gone(store: Store, image: str) -> bool:
    try:
        store.place(image)
    except CCANError:
        return True
    return False


def build_ui(store: Store) -> gr.Blocks:
    """The page over a store, to be launched with `app.serving.launch_settings`."""
    script = (ASSETS / "page.js").read_text(encoding="utf-8")
    with gr.Blocks(
        title=f"CCAN · {store.dataset.name}",
        analytics_enabled=False,
        delete_cache=(CACHE_SECONDS, CACHE_SECONDS),
        fill_width=True,
    ) as page:
        selection = gr.State(Selection(store.query_ids[0]))
        head, pieces = _html(script, "ccan-header", LOADING), []
        for tab in TABS:
            with gr.Column(elem_id=f"ccan-view-{tab}", elem_classes="ccan-view"):
                for number in range(len(VIEWS[tab])):
                    pieces.append(_html(script, f"ccan-{tab}-{number}"))
                if tab == "map":
                    _map_server(store)
        outputs = [selection, head, *pieces]

        def on_event(now: Selection, event: gr.EventData, request: gr.Request) -> list[Any]:
            now = replace(now, who=request.username or "")
            asked = event._data if isinstance(event._data, dict) else {}
            try:
                return respond(store, now, asked.get("action"), asked.get("value"))
            except (
                Exception
            ) as error:  # a fault of ours: said on the page, told in full where it was started
                traceback.print_exc()
                return complain(
                    store, now, f"this failed ({type(error).__name__}); it was our fault"
                )

        for piece in (head, *pieces):
            piece.act(on_event, selection, outputs, queue=False, **QUIET, **EVERY_TIME)
            piece.ask(on_event, selection, outputs, **MODEL_QUEUE, **QUIET, **EVERY_TIME)

        def on_load(request: gr.Request) -> list[Any]:
            return complain(store, *from_link(dict(request.query_params), store))

        page.load(on_load, None, outputs, **MODEL_QUEUE, **QUIET)
        _typed_endpoints(store)
    page.queue(max_size=64)
    return page


# For programs


def _typed_endpoints(store: Store) -> None:
    def rank_gallery(query: str, top: int = 10) -> list[dict[str, Any]]:
        return ranked_images(store, query, top)

    def distance_account(query: str, image: str) -> dict[str, float]:
        return account(store, query, image)

    def view(link: str) -> dict[str, str]:
        return rendered_view(store, link)

    gr.api(rank_gallery, api_name="rank", queue=False)
    gr.api(distance_account, api_name="account", queue=False)
    gr.api(view, api_name="view", queue=False)


def ranked_images(store: Store, query: str, top: int = 10) -> list[dict[str, Any]]:
    """The nearest gallery images of a query, as the typed endpoint `/rank` gives them."""
    try:
        ranking = store.ranking(query)
    except CCANError as error:
        raise gr.Error(str(error)) from error
    return [
        {
            "image": store.gallery_ids[ranking.order[place]],
            "distance": float(ranking.distances[place]),
            "mark": ranking.marks[place],
            "position": int(ranking.positions[place]),
        }
        for place in range(min(max(1, top), len(ranking)))
    ]


def account(store: Store, query: str, image: str) -> dict[str, float]:
    """The squared distance of a query and an image, term by term, as the typed endpoint `/account` gives it."""
    try:
        terms = store.terms(query, [image])
    except CCANError as error:
        raise gr.Error(str(error)) from error
    return {name: float(values[0]) for name, values in terms.items()}


def rendered_view(store: Store, link: str) -> dict[str, str]:
    """What a link shows as HTML, as the typed endpoint `/view` gives it: header, view, and what was left out."""
    values = dict(parse_qsl(link.lstrip("?"), keep_blank_values=True))
    selection, notice = from_link(values, store)
    try:
        pieces = "".join(show(store, selection) for show in VIEWS[selection.tab])
        return {"header": header.show(store, selection), "view": pieces, "notice": notice}
    except CCANError as error:
        raise gr.Error(str(error)) from error


def _map_server(store: Store) -> gr.HTML:
    """What draws the maps, and what it asks for: numbers of points, their groups, one image's picture."""

    def plotly(_: object) -> str:
        package = Path(plotly_package.__file__).parent
        return (package / "package_data/plotly.min.js").read_text(encoding="utf-8")

    def points(key: object) -> dict[str, Any]:
        return _answer(lambda: store.mapped(str(key)).sent())

    def groups(asked: dict[str, Any]) -> dict[str, Any]:
        def find() -> dict[str, Any]:
            found = store.groups(store.mapped(str(asked["key"])), str(asked["colour"]))
            return {"colours": list(found.colours), "of": packed(found.of)}

        return _answer(find)

    def peek(asked: dict[str, Any]) -> dict[str, Any]:
        def look() -> dict[str, Any]:
            mapped = store.mapped(str(asked["key"]))
            return map_view.peek(store, mapped, int(asked["point"]), bool(asked["blur"]))

        return _answer(look)

    return gr.HTML(
        "",
        html_template="",
        js_on_load=(ASSETS / "map.js").read_text(encoding="utf-8"),
        elem_id="ccan-map-server",
        apply_default_css=False,
        server_functions=[plotly, points, groups, peek],
    )


def _answer(find: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What the browser asked for, or `error`: why not."""
    try:
        return find()
    except CCANError as error:
        return {"error": str(error)}
    except (KeyError, ValueError, IndexError, TypeError, OverflowError, AttributeError):
        return {"error": "the page asked for a map that is not here; reload it"}


def _html(script: str, elem_id: str, value: str = "") -> gr.HTML:
    return gr.HTML(
        value, html_template="${value}", js_on_load=script, elem_id=elem_id, apply_default_css=False
    )
