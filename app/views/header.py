"""The head of the page: what is loaded, how good it is, and the query that every view shows."""

from __future__ import annotations

from html import escape

from app.components.html import button, camera_name, facts, percent, person, tag, text
from app.selection import Selection, to_link
from app.store import Store


def show(store: Store, selection: Selection, notice: str = "", turn: int = 0) -> str:
    """The header's HTML; `data-link` is the page's address, and a new `turn` tells the browser of an answer."""
    body = _loaded(store) + _query_bar(store, selection)
    if notice:
        body += tag("div", escape(notice), class_="notice", role="alert")
    return tag(
        "header",
        body,
        class_="ccan",
        data_event="ask" if selection.tab == "attention" else "act",
        data_link=to_link(selection, store),
        data_turn=turn,
    )


def _loaded(store: Store) -> str:
    report = store.report
    world = (
        f"{store.dataset.name} · {len(store.query_ids):,} queries · "
        f"{len(store.gallery_ids):,} gallery images"
    )
    rules = report.conventions
    protocol = f"single query, {rules['distance']} distance, AP by {rules['ap']}"
    hint = "; ".join(f"{name}: {rule}" for name, rule in rules.items())
    brand = tag("h1", f"{LOGO}<span>CCAN</span>", title="Cross-Correlated Attention Networks")
    about = "".join(
        text(value, class_="chip", title=title)
        for value, title in (
            (world, str(store.dataset.root.name)),
            (f"checkpoint {_short(store.checkpoint)}", store.checkpoint),
            (protocol, hint),
        )
    )
    scores = "".join(
        tag("div", text(percent(value), "b") + text(name), class_="score")
        for name, value in (("mAP", report.mAP), ("rank-1", report.rank(1)))
    )
    theme = tag(
        "button", "◐", type="button", class_="theme", data_theme=True, title="Light or dark"
    )
    return tag("div", brand + tag("div", about, class_="about") + scores + theme, class_="loaded")


def _short(checkpoint: str) -> str:
    parts = checkpoint.replace("\\", "/").rstrip("/").split("/")
    return "/".join(parts[-2:])


def _query_bar(store: Store, selection: Selection) -> str:
    query = selection.query
    sample, ranking = store.sample(query), store.ranking(query)
    picture = tag("img", src=store.thumbnail(query), alt="")
    name = text(store.name(query), class_="file")
    if sample is None:
        about = facts([("identity", "unknown (upload)")])
    else:
        place = store.by_difficulty.index(query) + 1
        about = facts(
            [
                ("identity", person(sample.identity)),
                ("camera", camera_name(sample.camera)),
                ("AP", f"<b>{percent(ranking.ap)}</b>"),
                ("INP", f"<b>{percent(ranking.inp)}</b>"),
                ("hardness", f"{place} of {len(store.query_ids)}"),
            ]
        )
    walk = tag(
        "nav",
        button("‹", "step", -1, title="Previous query in the list")
        + button("›", "step", 1, title="Next query in the list")
        + button("Random", "random")
        + button("Hardest", "hardest", title="The query of the lowest AP; › goes on from there"),
        aria_label="Choose a query",
    )
    who = tag("div", text("Query", class_="label") + name, class_="who")
    return tag("div", picture + who + about + walk, class_="querybar")


LOGO = (
    '<svg viewBox="0 0 24 24" width="22" height="22" aria-hidden="true">'
    '<rect x="2" y="2" width="9" height="20" rx="2.5" fill="none" stroke="currentColor" stroke-width="2"/>'
    '<rect x="13" y="2" width="9" height="20" rx="2.5" fill="none" stroke="currentColor" stroke-width="2"/>'
    '<path d="M6.5 7 L17.5 16 M6.5 16 L17.5 7" stroke="#e69f00" stroke-width="2" stroke-linecap="round"/></svg>'
)
"""Two images, and the attention between them."""
