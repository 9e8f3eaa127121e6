"""The head of the page: what is loaded, how good it is, and the query and match that every view shows."""

from __future__ import annotations

from html import escape

from app.components.html import button, camera_name, facts, mark_badge, percent, person, tag, text
from app.lessons import queries_of
from app.selection import TABS, Selection, Tab, to_link
from app.store import Store
from ccan.evaluation.confidence import Interval

TITLES: dict[Tab, str] = {
    "overview": "Overview",
    "rank": "Rank",
    "attention": "Attention",
    "parts": "Parts",
    "map": "Map",
    "errors": "Errors",
    "compare": "Compare",
    "learn": "Learn",
    "runs": "Runs",
}
MODEL_TABS = ("attention", "parts", "compare")
"""Views that ask the network, and wait in its queue."""


def show(
    store: Store, selection: Selection, notice: str = "", turn: int = 0, download: str = ""
) -> str:
    """The header's HTML; `data-link` is the page's address, and a new `turn` tells the browser of an answer."""
    bar = _covered() if asked(store, selection) else _query_bar(store, selection)
    body = _loaded(store, selection) + bar
    if notice:
        body += tag("div", escape(notice), class_="notice", role="alert")
    body += _tabs(selection)
    return tag(
        "header",
        body + download,
        class_="ccan",
        data_event="ask" if selection.tab in MODEL_TABS else "act",
        data_link=to_link(selection, store),
        data_turn=turn,
        data_tab=selection.tab,
    )


def _tabs(selection: Selection) -> str:
    """The views; those that ask the network wait for it."""
    tabs = "".join(
        tag(
            "button",
            TITLES[tab],
            type="button",
            role="tab",
            id=f"ccan-tab-{tab}",
            aria_selected=str(tab == selection.tab).lower(),
            aria_controls=f"ccan-view-{tab}",
            title=f"{TITLES[tab]} ({number})",
            data_do="tab",
            data_value=tab,
            data_event="ask" if tab in MODEL_TABS else "act",
        )
        for number, tab in enumerate(TABS, start=1)
    )
    return tag("div", tabs, class_="tabs", role="tablist", aria_label="Views")


def _loaded(store: Store, selection: Selection) -> str:
    report = store.report
    world = (
        f"{store.dataset.name} · {len(store.query_ids):,} queries · "
        f"{len(store.gallery_ids):,} gallery images"
    )
    rules = report.conventions
    protocol = f"single query, {rules['distance']} distance, AP by {rules['ap']}"
    hint = "; ".join(f"{name}: {rule}" for name, rule in rules.items())
    brand = tag("h1", f"{LOGO}<span>CCAN</span>", title="Cross-Correlated Attention Networks")
    model = "checkpoint" if store.predictor else "features"
    about = "".join(
        text(value, class_="chip", title=title)
        for value, title in (
            (world, str(store.dataset.root.name)),
            (f"{model} {_short(store.checkpoint)}", store.checkpoint),
            (protocol, hint),
        )
    )
    confidence = store.confidence
    scores = _score("mAP", report.mAP, confidence.mAP if confidence else None) + _score(
        "rank-1", report.rank(1), confidence.rank1 if confidence else None
    )
    blur = button(
        "◍",
        "blur",
        int(not selection.blur),
        pressed=selection.blur,
        title="Blur faces (b)",
        class_="round",
    )
    theme = tag(
        "button", "◐", type="button", class_="round", data_theme=True, title="Light or dark"
    )
    return tag(
        "div", brand + tag("div", about, class_="about") + scores + blur + theme, class_="loaded"
    )


def _score(name: str, value: float, interval: Interval | None) -> str:
    words, hint = name, None
    if interval is not None:
        words = f"{name} · {100 * interval.low:.1f}–{100 * interval.high:.1f}"
        hint = "95 % interval over resampled identities"
    return tag("div", text(percent(value), "b") + text(words), class_="score", title=hint)


def _short(checkpoint: str) -> str:
    parts = checkpoint.replace("\\", "/").rstrip("/").split("/")
    return "/".join(parts[-2:])


def _query_bar(store: Store, selection: Selection) -> str:
    query = selection.query
    sample, ranking = store.sample(query), store.ranking(query)
    picture = tag("img", src=store.thumbnail(query, selection.blur), alt="")
    name = text(store.name(query), class_="file")
    if sample is None:
        about = facts([("identity", "unknown (upload)")])
    else:
        below = store.percentile(query)
        better = f"{below:.0f} % of queries" if below == below else "–"
        about = facts(
            [
                ("identity", person(sample.identity)),
                ("camera", camera_name(sample.camera)),
                ("AP", f"<b>{percent(ranking.ap)}</b>"),
                ("better than", better),
                ("hardness", f"{store.difficulty[query]} of {len(store.query_ids)}"),
            ]
        )
    walk = tag(
        "nav",
        button("‹", "step", -1, title="Previous query in the list (p)")
        + button("›", "step", 1, title="Next query in the list (n)")
        + button("Random", "random", title="Any query of the list (r)")
        + button("Hardest", "hardest", title="The hardest query; › goes on from there (h)"),
        aria_label="Choose a query",
    )
    tags = "".join(text(one, class_="chip") for one in store.cases.tags(query))
    subset = tag("span", tags, class_="tagged") * bool(tags) + _subset(store, selection)
    who = tag("div", text("Query", class_="label") + name, class_="who")
    return tag(
        "div", picture + who + about + _beside(store, selection) + subset + walk, class_="querybar"
    )


def asked(store: Store, selection: Selection) -> bool:
    """Whether a question is open and on top: the query of the other views would only confuse."""
    if selection.tab != "learn" or not selection.lesson or selection.revealed:
        return False
    return len(selection.answers) < len(queries_of(store, selection.lesson))


def _covered() -> str:
    """In place of the query, as long as a question is open."""
    words = "A round of questions: who is on the picture is told when you have answered."
    return tag("div", text(words, class_="none"), class_="querybar covered")


def _beside(store: Store, selection: Selection) -> str:
    """The image beside the query, in short."""
    match = store.match(selection)
    ranking = store.ranking(selection.query)
    distance = f"d = {store.distance(selection.query, match):.3f}"
    badge = text("upload", class_="label")
    if match in store.gallery_rows:
        place = int((ranking.order == store.gallery_rows[match]).argmax())
        badge = mark_badge(ranking.marks[place]) + text(ranking.marks[place])
    picture = tag("img", src=store.thumbnail(match, selection.blur), alt="")
    lines = tag("div", text("Beside it", class_="label") + tag("span", badge + " " + distance))
    return tag("div", picture + lines, class_="beside", title=store.name(match))


def _subset(store: Store, selection: Selection) -> str:
    """Which queries one walks through, where it is not all of them."""
    if not selection.subset:
        return ""
    count = len(store.subset(selection.subset))
    return tag(
        "div",
        text(f"{subset_words(selection.subset)} ({count})")
        + button("✕", "subset", "", title="Walk through all queries again"),
        class_="chip subset",
    )


def subset_words(name: str) -> str:
    """A subset in words."""
    kind, _, rest = name.partition(":")
    first, _, second = rest.partition(":")
    if kind == "taken":
        return f"{person(int(first))} taken for {person(int(second))}"
    return {
        "hit": f"first match by rank {rest}",
        "miss": f"no match by rank {rest}",
        "pair": f"from camera {first} to camera {second}",
        "kind": rest,
        "slice": f"{first.replace('_', ' ')} {second}",
        "hub": f"misled by {rest.rsplit('/', 1)[-1]}",
        "tag": f"tagged “{rest}”",
        "tagged": "tagged",
        "lasso": "in the lasso",
        "outcome": f"{rest} at rank 1",
        "": "all queries",
    }[kind]


LOGO = (
    '<svg viewBox="0 0 24 24" width="22" height="22" aria-hidden="true">'
    '<rect x="2" y="2" width="9" height="20" rx="2.5" fill="none" stroke="currentColor" stroke-width="2"/>'
    '<rect x="13" y="2" width="9" height="20" rx="2.5" fill="none" stroke="currentColor" stroke-width="2"/>'
    '<path d="M6.5 7 L17.5 16 M6.5 16 L17.5 7" stroke="#e69f00" stroke-width="2" stroke-linecap="round"/></svg>'
)
"""Two images, and the attention between them."""
