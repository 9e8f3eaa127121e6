"""Errors: which queries fail and by which rule, who is taken for whom, which labels look wrong; tags and notes on it.

Tags, notes and verdicts are written at once (`ccan.cases`), so a restart or somebody else's page loses nothing.
"""

from __future__ import annotations

from html import escape

import numpy as np

from app.components.html import (
    button,
    choices,
    empty,
    field,
    pager,
    panel,
    pending,
    percent,
    person,
    queries,
    tag,
    text,
)
from app.components.html import save_menu as saves
from app.selection import Selection
from app.store import Store
from app.views import help
from app.views.header import subset_words
from app.views.overview import camera_table
from ccan.cases import NOTE_LENGTH, VERDICTS
from ccan.diagnosis import Diagnosis
from ccan.diagnosis.rankings import NOBODY

ROWS, EDGES, HUBS, SUSPECTS = 8, 12, 12, 8
"""Lines of each list."""
QUICK_TAGS = {
    "o": "occlusion",
    "l": "look-alike",
    "v": "no similar view",
    "c": "bad crop",
    "w": "wrong label",
    "i": "interesting",
}
"""Key → tag; any other tag can be written."""
KEYS = {"same": "s", "different": "d", "unsure": "u"}


def show(store: Store, selection: Selection) -> str:
    """The view's HTML."""
    job = store.diagnosis()
    job.wait(0.3)
    top = help.panel("errors") + tag(
        "div", _case(store, selection) + _tagged(store, selection), class_="two"
    )
    if job.value is None:
        return tag(
            "div", top + pending(job, "the failures"), class_="ccan errors", data_event="act"
        )
    found = job.value
    left = _kinds(selection, found) + _slices(store, selection) + camera_table(store)
    right = _hardest(store, selection, found)
    columns = tag("div", left, class_="column") + tag("div", right, class_="column")
    lists = _suspects(store, selection, found) + tag(
        "div", _confusers(store, selection) + _hubs(store, selection, found), class_="two"
    )
    return tag(
        "div",
        top + tag("div", columns, class_="two") + lists,
        class_="ccan errors",
        data_event="act",
    )


# What people say


def _case(store: Store, selection: Selection) -> str:
    """Tags and notes of the query."""
    query = selection.query
    title = "What is wrong with this query?"
    if store.is_upload(query):
        return panel(
            title, empty("An upload is not kept, and neither would be what is said about it.")
        )
    given = store.cases.tags(query)
    known = dict.fromkeys([*QUICK_TAGS.values(), *given, *list(store.cases.counts())[:12]])
    keys = {name: key for key, name in QUICK_TAGS.items()}
    chips = "".join(
        button(
            escape(name),
            "untag" if name in given else "tag",
            name,
            pressed=name in given,
            hot=keys.get(name),
        )
        for name in known
    )
    tags = tag("div", chips, class_="choices tags", role="group", aria_label="Tags")
    fields = field("tag", "another tag (t)", "t") + field(
        "note", "a note (m), Enter keeps it", "m", longest=NOTE_LENGTH
    )
    notes = "".join(
        tag(
            "li",
            text(note.value)
            + text(" ".join([note.time[:16].replace("T", " "), note.who]).strip(), class_="none")
            + button("✕", "remove_note", note.id, title="Take this note away"),
        )
        for note in store.cases.notes(query)
    )
    return panel(
        title,
        tags + tag("div", fields, class_="controls") + tag("ul", notes, class_="notes"),
    )


def _tagged(store: Store, selection: Selection) -> str:
    """All that is tagged, what can be taken along, and the report of it."""
    counts = store.cases.counts()
    images = store.cases.images()
    if not images:
        words = (
            "Nothing is tagged yet. Go through the hardest queries (n), look, and press a letter: what is written here "
            "stays on this computer, for everybody who opens this dataset."
        )
        return panel("Tagged so far", empty(words))
    chips = "".join(
        _walked(store, selection, subset, words, number)
        for subset, words, number in (
            ("tagged", "all", len(images)),
            *((f"tag:{name}", name, number) for name, number in counts.items()),
        )
    )
    body = tag("div", chips, class_="choices tags", role="group", aria_label="Tagged queries")
    note = "Click a tag to walk through its queries. Saved: all tags, notes and who gave them."
    return panel(
        "Tagged so far",
        body + _report(store, selection) + text(note, "p", class_="note"),
        extra=saves("cases", ("csv", "json", "png")),
    )


def _walked(store: Store, selection: Selection, subset: str, words: str, number: int) -> str:
    """How many images have a tag, as a button to the queries among them."""
    asked = len(store.subset(subset))
    label = f"{words} {number}" + (f", {queries(asked)}" if asked != number else "")
    if not asked:
        return text(label, class_="still")
    return button(escape(label), "subset", subset, pressed=selection.subset == subset)


def _report(store: Store, selection: Selection) -> str:
    """The one-file report of the tagged queries."""
    if store.predictor is None:
        return text(
            "A report studies queries with the network, which is not here.", "p", class_="note"
        )
    job = store.found_report(selection.blur)
    if job is None:
        return tag(
            "p",
            button(
                "Write the report of the tagged queries", "report", title="One file, to be sent on"
            )
            + text(" some seconds for each query", class_="none"),
        )
    if job.value is None:
        return pending(job, "the report")
    size = len(job.value) / 2**20
    return tag("p", button(f"Save the report ({size:.1f} MiB)", "save", "report.html"))


# What the rules say


def _kinds(selection: Selection, found: Diagnosis) -> str:
    """Failure kinds with their rules."""
    failed = int(found.failures.failed.sum())
    rows = ""
    for kind in found.failures.kinds:
        count = int(kind.holds.sum())
        name = f"kind:{kind.name}"
        shown = (
            button(
                str(count), "subset", name, pressed=selection.subset == name, title="Its queries"
            )
            if kind.judged and count
            else text(count if kind.judged else "not judged", class_="none")
        )
        share = 100 * count / max(1, failed)
        bar = tag("span", tag("i", style=f"width:{share:.1f}%"), class_="share")
        rows += tag(
            "tr",
            text(kind.name, "th", scope="row")
            + tag("td", shown, class_="n")
            + tag("td", bar)
            + text(kind.rule.replace("`", ""), "td", class_="rule"),
        )
    note = (
        f"{failed} of {found.report.valid_queries} queries have a wrong image at rank 1. Kinds are rules, not "
        "opinions; several may hold for one query. Click a number to walk through its queries."
    )
    return panel(
        "Failures by kind",
        tag("table", rows, class_="table kinds") + text(note, "p", class_="note"),
        extra=saves("kinds"),
    )


def _slices(store: Store, selection: Selection) -> str:
    """The averages by a column of the queries' metadata."""
    columns = store.slice_columns
    column = selection.slice_by or columns[0]
    names = {name: name.replace("_", " ") for name in columns}
    table = store.slices(column)
    head = "".join(
        text(name, "th", scope="col") for name in (names[column], "queries", "mAP", "rank-1")
    )
    rows = ""
    for one in table:
        name = f"slice:{column}:{one.value}"
        link = button(escape(_rounded(one.value)), "subset", name, pressed=selection.subset == name)
        cells = (f"{one.queries:,}", percent(one.mAP), percent(one.rank1))
        rows += tag(
            "tr", tag("th", link, scope="row") + "".join(text(c, "td", class_="n") for c in cells)
        )
    return panel(
        "Where it is good, where not",
        choices("Slice by", "slice_by", names, column)
        + tag("table", tag("tr", head) + rows, class_="table"),
        extra=saves("slices"),
    )


def _rounded(value: str) -> str:
    """A range of numbers as people write it."""
    try:
        return " – ".join(f"{float(part):.3g}" for part in value.split(" – "))
    except ValueError:
        return value


def _hardest(store: Store, selection: Selection, found: Diagnosis) -> str:
    """The hardest queries of those that one walks through, with what stands before their match."""
    ids = list(store.subset(selection.subset))
    pages = max(1, -(-len(ids) // ROWS))
    here = ids.index(selection.query) // ROWS if selection.query in ids else 0
    page = min(here if selection.page is None else selection.page, pages - 1)
    rows = ""
    for query in ids[page * ROWS : (page + 1) * ROWS]:
        row = store.query_rows[query]
        right, wrong = (
            int(one[row]) for one in (found.tops.nearest_right, found.tops.nearest_wrong)
        )
        margin = float(found.tops.margin[row])
        kinds = ", ".join(found.failures.of(row))
        picture = button(
            _picture(store, selection, query),
            "choose",
            query,
            pressed=query == selection.query,
            title=f"{store.name(query)}: show in every view",
        )
        others = "".join(
            tag("td", _picture(store, selection, store.gallery_ids[k]) if k != NOBODY else "–")
            for k in (wrong, right)
        )
        words = (
            text(f"AP {percent(float(store.report.ap[row]))}", "b")
            + text(
                f"first match at {store.report.first_match[row]}"
                if store.report.valid[row]
                else "no match"
            )
            + text(f"margin {margin:+.3f}" if margin == margin else "")
            + text(kinds, class_="rule")
            + "".join(text(one, class_="chip") for one in store.cases.tags(query))
        )
        rows += tag("tr", tag("td", picture) + others + tag("td", words, class_="about"))
    head = "".join(
        text(name, "th", scope="col") for name in ("query", "✗ nearest", "✓ nearest", "")
    )
    turn = pager("page", page, pages, "Harder", "Easier")
    note = (
        "Margin: distance of the nearest wrong image − distance of the nearest right one; below 0 the query fails. "
        "n and p walk on, h begins with the hardest."
    )
    return panel(
        f"Hardest queries: {subset_words(selection.subset)}",
        tag("table", tag("tr", head) + rows, class_="table hardest")
        + text(note, "p", class_="note"),
        extra=tag("div", turn + saves("hardest", ("csv", "png")), class_="inline"),
    )


def _picture(store: Store, selection: Selection, image: str) -> str:
    return tag("img", src=store.thumbnail(image, selection.blur), alt=store.name(image))


def _suspects(store: Store, selection: Selection, found: Diagnosis) -> str:
    """Pairs of two identities that look like one, judged by one key each."""
    title = "One person under two identities?"
    suspects = found.suspects.suspects
    if not suspects:
        return panel(title, empty("Every image's nearest of another camera has its own identity."))
    judged = [store.cases.verdict(*store.suspect_pair(k)) for k in range(len(suspects))]
    open_ = [k for k, verdict in enumerate(judged) if verdict is None]
    begin = min(open_[0] if open_ else 0, max(0, len(suspects) - SUSPECTS))
    begin = max(0, begin - 1)
    cards = ""
    for k in range(begin, min(begin + SUSPECTS, len(suspects))):
        current = bool(open_) and k == open_[0]
        cards += _suspect(store, selection, found, k, current)
    done = len(suspects) - len(open_)
    note = (
        "Each pair: two identities, the second image the nearest of another camera to the first; the strongest first. "
        "The framed one answers to s (same person), d (different), u (unsure), and the next one comes."
    )
    counts = ", ".join(
        f"{sum(one is not None and one.value == verdict for one in judged)} {verdict}"
        for verdict in VERDICTS
    )
    return panel(
        f"{title} {done} of {len(suspects)} judged ({counts})",
        tag("div", cards, class_="suspects") + text(note, "p", class_="note"),
        extra=saves("verdicts", ("csv", "json", "png")),
    )


def _suspect(store: Store, selection: Selection, found: Diagnosis, k: int, current: bool) -> str:
    one = found.suspects.suspects[k]
    images = store.suspect_pair(k)
    pictures = tag(
        "div", "".join(_picture(store, selection, image) for image in images), class_="pair"
    )
    whose = " / ".join(
        person(int(found.suspects.identities[row])) for row in (one.first, one.second)
    )
    about = text(whose, "b") + text(
        f"d = {one.distance:.3f} · {'●' * one.strength}{'○' * (3 - one.strength)}"
    )
    verdict = store.cases.verdict(*images)
    answers = "".join(
        button(
            answer,
            "judge",
            f"{answer} {k}",
            pressed=verdict is not None and verdict.value == answer,
            hot=KEYS[answer] if current else None,
        )
        for answer in VERDICTS
    )
    return tag(
        "div",
        pictures
        + about
        + tag("div", answers, class_="choices", role="group", aria_label="Same person?"),
        class_="suspect current" if current else "suspect",
    )


def _confusers(store: Store, selection: Selection) -> str:
    """Who is taken for whom."""
    table = store.confusers_table()
    rows = ""
    for who, whom, failed, images, mutual in table.head(EDGES).rows():
        name = f"taken:{who}:{whom}"
        faces = _face(store, selection, who) + text("⇄" if mutual else "→", class_="arrow")
        rows += tag(
            "tr",
            tag("td", faces + _face(store, selection, whom), class_="faces")
            + text(f"{person(who)} {'and' if mutual else 'taken for'} {person(whom)}", "td")
            + tag(
                "td",
                button(str(failed), "subset", name, pressed=selection.subset == name),
                class_="n",
            )
            + text(images, "td", class_="n"),
        )
    head = "".join(text(name, "th", scope="col") for name in ("", "", "queries", "images ahead"))
    body = tag("table", tag("tr", head) + rows, class_="table") if rows else empty("Nobody is.")
    return panel("Who is taken for whom", body, extra=saves("confusers", ("csv",)))


def _face(store: Store, selection: Selection, identity: int) -> str:
    """One image of a person."""
    sides = ((store.index.query, store.query_ids), (store.index.gallery, store.gallery_ids))
    for features, ids in sides:
        rows = np.flatnonzero(features.identities == identity)
        if len(rows):
            return _picture(store, selection, ids[int(rows[0])])
    return ""


def _hubs(store: Store, selection: Selection, found: Diagnosis) -> str:
    """Gallery images that stand in too many rankings."""
    hubs = found.hubs
    cards = ""
    for row in hubs.rows[:HUBS].tolist():
        image = store.gallery_ids[row]
        name = f"hub:{image}"
        wrong = int(hubs.wrong[row])
        words = text(f"{hubs.appearances[row]}× · {wrong} wrong", class_="ap")
        picture = _picture(store, selection, image)
        cards += (
            button(
                picture + words,
                "subset",
                name,
                pressed=selection.subset == name,
                title=store.name(image),
            )
            if wrong
            else tag("span", picture + words, class_="still")
        )
    note = (
        f"In how many of the {len(store.query_ids):,} top-{hubs.top} lists an image stands (mean "
        f"{hubs.expected:.1f}); shown are those beyond three deviations. Skewness {hubs.skewness:.2f}: well "
        "above 0 means that some images get in everybody's way. Click one: the queries that it misleads."
    )
    body = tag("div", cards, class_="queries wide") if cards else empty("No image stands out.")
    return panel("Hubs", body + text(note, "p", class_="note"), extra=saves("hubs", ("csv",)))
