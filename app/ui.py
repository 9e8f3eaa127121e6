"""The frame: a header, a tab for each view, and one road from a click to the page.

A browser sends the name of an action and a value; the action turns the selection into another; header and view are
drawn from it. Every view is `show(store, selection) → HTML`, so a further tab is one entry of `VIEWS`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import count
from typing import Any

import gradio as gr

from app.actions import act
from app.selection import TABS, Selection, Tab, from_link
from app.serving import ASSETS
from app.store import Store
from app.views import attention, header, rank
from ccan.errors import CCANError

VIEWS: dict[Tab, tuple[str, Callable[[Store, Selection], str]]] = {
    "rank": ("Rank", rank.show),
    "attention": ("Attention", attention.show),
}
CACHE_SECONDS = 3600
MODEL_QUEUE: dict[str, Any] = {"concurrency_id": "model", "concurrency_limit": 1}
_TURNS = count()
QUIET: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}


def draw(store: Store, selection: Selection, notice: str = "") -> list[Any]:
    """The selection, the header, and each view: HTML for the tab on top, “as it is” for the others."""
    page = [
        show(store, selection) if tab == selection.tab else gr.skip()
        for tab, (_, show) in VIEWS.items()
    ]
    return [selection, header.show(store, selection, notice, next(_TURNS)), *page]


def respond(store: Store, selection: Selection, name: object, value: object) -> list[Any]:
    """Do what the page asks for; a complaint stands in the header and changes nothing else."""
    try:
        return draw(store, act(store, selection, name, value))
    except CCANError as error:
        return complain(store, selection, str(error))


def complain(store: Store, selection: Selection, notice: str) -> list[Any]:
    """The page as it was, with a notice; an upload that is no longer held gives way to the first query."""
    try:
        return draw(store, selection, notice)
    except CCANError:
        fallback = replace(selection, query=store.query_ids[0], match=None, cell=None)
        return draw(store, fallback, notice)


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
        head = _html(script, "ccan-header")
        with gr.Tabs(selected="rank", elem_id="ccan-tabs") as tabs:
            panes, views = [], []
            for tab in TABS:
                with gr.Tab(VIEWS[tab][0], id=tab, elem_id=f"ccan-tab-{tab}") as pane:
                    views.append(_html(script, f"ccan-{tab}"))
                panes.append(pane)
        outputs = [selection, head, *views]

        def on_event(now: Selection, event: gr.EventData) -> list[Any]:
            asked = event._data if isinstance(event._data, dict) else {}
            return respond(store, now, asked.get("action"), asked.get("value"))

        for part in (head, *views):
            part.act(on_event, selection, outputs, queue=False, **QUIET)
            part.ask(on_event, selection, outputs, **MODEL_QUEUE, **QUIET)

        def opens(tab: Tab) -> Callable[[Selection], list[Any]]:
            def on_tab(now: Selection) -> list[Any]:
                if now.tab == tab:  # opened by a link, whose answer has drawn it
                    return [gr.skip()] * len(outputs)
                return respond(store, now, "tab", tab)

            return on_tab

        for tab, pane in zip(TABS, panes, strict=True):
            pane.select(opens(tab), selection, outputs, **MODEL_QUEUE, **QUIET)

        def on_load(request: gr.Request) -> list[Any]:
            chosen, notice = from_link(dict(request.query_params), store)
            return [*complain(store, chosen, notice), gr.Tabs(selected=chosen.tab)]

        page.load(on_load, None, [*outputs, tabs], **MODEL_QUEUE, **QUIET)

        def rank_gallery(query: str, top: int = 10) -> list[dict[str, Any]]:
            return ranked_images(store, query, top)

        gr.api(rank_gallery, api_name="rank", queue=False)
    page.queue(max_size=32)
    return page


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


def _html(script: str, elem_id: str) -> gr.HTML:
    return gr.HTML(
        "", html_template="${value}", js_on_load=script, elem_id=elem_id, apply_default_css=False
    )
