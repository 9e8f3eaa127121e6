"""Learn: predict first. Which image shows the same person, and what decides it? Then truth, model and score.

In a round nothing on the page gives the answer away before one has answered. A teacher prepares a set
and sends its link.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from app import lessons
from app.components.html import (
    button,
    cells,
    empty,
    facts,
    panel,
    pending,
    person,
    queries,
    save_menu,
    tag,
    text,
)
from app.images import jpeg_source
from app.lessons import COLUMNS, PREPARED, ROUND, ROWS, Marked, Question
from app.selection import Selection, to_link
from app.store import Store
from app.views import help
from app.views.header import subset_words
from ccan.errors import CCANError
from ccan.plots import ColourScale, overlay

HEIGHT = 384
LETTERS = "abcdef"


def show(store: Store, selection: Selection) -> str:
    """The view's HTML."""
    if store.index.folder is None:
        words = (
            "There are no pictures here, only features: nothing to look at. Start with --images FOLDER, the folder "
            "that the names in the file are paths in."
        )
        body = panel("Predict first", empty(words))
    elif not selection.lesson:
        body = _begin(store, selection) + _prepare(store, selection)
    else:
        asked = lessons.queries_of(store, selection.lesson)
        number = current(selection)
        if number < len(asked):
            for ahead in asked[
                number : number + 2
            ]:  # what the answer needs is made while one looks
                store.lesson_job(lessons.question(store, ahead))
            body = _question(store, selection, asked, number)
        else:
            body = _report(store, selection)
    return tag("div", help.panel("learn") + body, class_="ccan learn", data_event="act")


def current(selection: Selection) -> int:
    """Number of the question that is shown, from 0; the number of questions = the report."""
    return len(selection.answers) - int(selection.revealed)


# Before a round


def _begin(store: Store, selection: Selection) -> str:
    job = store.diagnosis()
    job.wait(0.2)
    slices = {"": "all queries", "miss:1": "queries whose first image is wrong"}
    if selection.subset not in slices:
        slices[selection.subset] = f"those I walk through: {subset_words(selection.subset)}"
    if selection.lasso:
        slices[f"lasso:{selection.lasso}"] = "queries in the lasso (Map)"
    if job.value is not None:
        slices |= {
            f"kind:{kind.name}": kind.name
            for kind in job.value.failures.kinds
            if kind.judged and kind.holds.any()
        }
    slices |= {f"tag:{name}": f"tagged “{name}”" for name in list(store.cases.counts())[:6]}
    rows = ""
    for subset, words in slices.items():
        count = len(store.subset(subset))
        if count:
            begin = button(escape(words), "lesson", subset)
            rows += tag("li", begin + text(queries(count), class_="none"))
    note = (
        f"A round asks {ROUND} of them, in an order of its own. Each time: which of six images shows the same person, "
        "and which region of the query decides it? The five wrong ones are those that the model finds nearest. Only "
        "then you see the truth, the model's choice, and what its account rests on. In a slice of failures the model "
        "is wrong each time: that is what the slice is."
    )
    waits = "" if job.value is not None else pending(job, "more slices: the failures")
    return panel(
        "A round of ten: what shall it be about?",
        tag("ul", rows, class_="slices") + waits + text(note, "p", class_="note"),
    )


def _prepare(store: Store, selection: Selection) -> str:
    """The teacher's page: a set of cases and its link."""
    have, add = [store.codes[one] for one in selection.prepared], ""
    room = PREPARED - len(have)
    known = selection.query in store.query_rows and selection.query not in have
    if known and room and lessons.askable(store, selection.query):
        name = escape(store.name(selection.query))
        add = button(f"Add the query {name}", "prepare", selection.query)
    if selection.subset and room:
        add += button(
            f"Add those I walk through (up to {room} more)",
            "prepare_all",
            title="Those of them that can be asked",
        )
    words = (
        "For teachers: walk through the queries (n, p; Errors and Map have slices and tags), come back and add what is "
        f"worth asking, at most {PREPARED}. The link opens the same queries with the same matches, in this order, on "
        "any dashboard over the same dataset; the wrong images are those that its own model finds nearest."
    )
    body = text(words, "p", class_="note") + tag("div", add, class_="controls")
    if not selection.prepared:
        return panel("Prepare a set of cases", body)
    pictures = "".join(
        button(
            tag("img", src=store.thumbnail(one, selection.blur), alt=store.name(one))
            + text(f"{number} ✕", class_="ap"),
            "unprepare",
            one,
            title="Take this one out",
        )
        for number, one in enumerate(have, start=1)
    )
    link = to_link(
        Selection(
            store.query_ids[0],
            tab="learn",
            lesson=",".join(selection.prepared),
            blur=selection.blur,
        ),
        store,
    )
    address = tag(
        "input",
        type="text",
        readonly=True,
        class_="address",
        data_address=link,
        value=link,
        aria_label="Link of this set",
    )
    controls = (
        tag("span", "Its link: ", class_="label")
        + address
        + button("Try it", "lesson", "prepared")
        + button("Begin anew", "unprepare", "all")
    )
    return panel(
        f"Prepare a set of cases: {len(selection.prepared)}",
        body
        + tag("div", pictures, class_="queries wide")
        + tag("div", controls, class_="controls linked"),
    )


# A question


def _question(store: Store, selection: Selection, asked: Sequence[str], number: int) -> str:
    question = lessons.question(store, asked[number])
    found = lessons.marked(store, selection.lesson, selection.answers)
    shown = found[number] if selection.revealed else None
    title = f"Question {number + 1} of {len(asked)}"
    score = _score(found)
    region = shown.region if shown else lessons.region_of(selection.region)
    easel = _easel(store, selection, question, region, shown)
    cards = "".join(
        _candidate(store, selection, question, place, shown)
        for place in range(len(question.candidates))
    )
    words = (
        "1 · Which of these shows the same person? &nbsp; 2 · Paint on the query what decides it. &nbsp; 3 · Answer."
        if shown is None
        else _verdict(shown)
    )
    go = (
        button(
            "Answer",
            "answer",
            number,
            title="See the truth" if selection.guess else "Choose an image first",
            hot="Enter",
            class_="go",
        )
        if shown is None
        else button(
            "Next" if number + 1 < len(asked) else "To the report",
            "next",
            number,
            hot="Enter",
            class_="go",
        )
        + button("Look at it in Rank", "tab", "rank")
        + button("Attention", "tab", "attention")
    )
    right = (
        tag("p", words, class_="verdict")
        + tag("div", cards, class_="candidates")
        + tag("div", go, class_="controls")
    )
    if shown is not None:
        right += _said(store, shown)
    return panel(
        title,
        tag("div", easel + tag("div", right, class_="outcome"), class_="painting"),
        extra=tag("div", score + button("End the round", "lesson_end"), class_="inline"),
    )


def _score(found: Sequence[Marked]) -> str:
    if not found:
        return ""
    mine, theirs = lessons.score(found)
    return text(f"you {mine} of {len(found)} · model {theirs} of {len(found)}", class_="score")


def _verdict(shown: Marked) -> str:
    you = "✓ You found the match." if shown.correct else "✗ That was another person."
    model = "The model found it too." if shown.model_correct else "The model was wrong."
    if not shown.correct:
        model = "The model found it." if shown.model_correct else "The model was wrong as well."
    return f"<b>{you}</b> {model}"


def _easel(
    store: Store,
    selection: Selection,
    question: Question,
    region: NDArray[np.bool_],
    shown: Marked | None,
) -> str:
    """The query to be painted on; afterwards beside it the model's account of the match."""
    photo = _photo(store, selection, question.query)
    source = store.thumbnail(question.query, selection.blur)
    if photo is not None:
        ratio = photo.width / photo.height
        large = photo.resize((round(HEIGHT * ratio), HEIGHT), Image.Resampling.BICUBIC)
        source = jpeg_source(large)
    image = tag("img", src=source, alt="the query", draggable="false")
    painted = tag("div", cells(region), class_="cells", aria_hidden="true")
    if shown is None:
        canvas = tag(
            "div",
            image + painted,
            class_="brush region",
            data_action="region",
            data_mask=selection.region or lessons.NOTHING,
            data_rows=ROWS,
            data_columns=COLUMNS,
            tabindex="0",
            role="application",
            aria_label="Paint what decides who this is: drag, or move with the arrow keys and press space",
        )
        tools = button("clear", "region", "") if selection.region else ""
        return tag("div", canvas + tools, class_="easel")
    mine = tag("div", image + painted, class_="brush region still")
    sides = tag("figure", text("what you marked", "figcaption") + mine)
    job = store.lesson_job(question)
    job.wait(0.4)
    if job.value is not None and photo is not None:
        values = np.maximum(job.value, 0)
        drawn = overlay(photo, values, ColourScale.covering([values]), height=HEIGHT)
        best = lessons.strongest(lessons.cells(job.value), int(region.sum()))
        inside = tag("img", src=jpeg_source(drawn), alt="the model's account") + tag(
            "div", cells(best), class_="cells", aria_hidden="true"
        )
        sides += tag(
            "figure",
            text("what the model's account rests on", "figcaption")
            + tag("div", inside, class_="brush region still"),
        )
    elif not job.ended:
        sides += pending(job, "the model's account")
    return tag("div", sides, class_="easel pairs")


def _photo(store: Store, selection: Selection, image: str) -> Image.Image | None:
    """The picture itself; None where it cannot be read any more, and the thumbnail must do."""
    try:
        return store.photo(image, selection.blur)
    except CCANError:
        return None


def _candidate(
    store: Store, selection: Selection, question: Question, place: int, shown: Marked | None
) -> str:
    image = question.candidates[place]
    picture = tag("img", src=store.thumbnail(image, selection.blur), alt="")
    if shown is None:
        letter = LETTERS[place]
        return button(
            picture,
            "guess",
            place,
            pressed=selection.guess == str(place),
            hot=letter,
            class_="card",
            title=f"Image {letter}",
        )
    right = place == question.right
    sign = text(
        "✓" if right else "✗", class_=f"mark {'right' if right else 'wrong'}", aria_hidden="true"
    )
    who = [
        name
        for name, theirs in (("you", shown.guess), ("model", question.model))
        if theirs == place
    ]
    badges = "".join(text(name, class_="chip who") for name in who)
    identity = int(store.index.gallery.identities[store.gallery_rows[image]])
    foot = text(f"{question.distances[place]:.3f}", class_="distance") + text(
        person(identity), class_="whose"
    )
    return tag(
        "div",
        tag("span", sign + badges, class_="cardhead") + picture + foot,
        class_=" ".join(["card", "right" if right else "wrong", *who]),
    )


def _said(store: Store, shown: Marked) -> str:
    """Overlap of the learner's region and the model's account, in words."""
    count = int(shown.region.sum())
    if not count:
        return text(
            "You marked no region: there is nothing to compare with the model's account.",
            "p",
            class_="note",
        )
    if shown.overlap != shown.overlap:
        error = store.lesson_job(shown.question).error
        why = (
            f"The model's account could not be made: {error}."
            if error
            else "There is no network here."
        )
        return text(f"{why} So there is no map to compare with.", "p", class_="note")
    chance = lessons.chance_overlap(count)
    words = (
        f"Overlap {shown.overlap:.2f} (by chance {chance:.2f}): your {count} cells against the {count} of "
        f"{ROWS * COLUMNS} that speak most for the match in the model's own account of the similarity (the ledger; "
        "intersection over union). The model's account is exact, but it is no explanation of people: a high overlap "
        "does not make you right, nor the model."
    )
    return text(words, "p", class_="note")


# After a round


def _report(store: Store, selection: Selection) -> str:
    found = lessons.marked(store, selection.lesson, selection.answers)
    mine, theirs = lessons.score(found)
    overlaps = [one.overlap for one in found if one.overlap == one.overlap]
    by_chance = [
        lessons.chance_overlap(int(one.region.sum())) for one in found if one.overlap == one.overlap
    ]
    guessing = float(np.mean([1 / len(one.question.candidates) for one in found])) if found else 0
    numbers = facts(
        [
            ("you", f"<b>{mine} of {len(found)}</b>"),
            ("the model", f"<b>{theirs} of {len(found)}</b>"),
            ("guessing would give", f"{guessing * len(found):.1f}"),
            (
                "overlap with the model",
                f"<b>{np.mean(overlaps):.2f}</b> (by chance {np.mean(by_chance):.2f})"
                if overlaps
                else "–",
            ),
        ]
    )
    head = "".join(
        text(name, "th", scope="col")
        for name in ("", "query", "match", "you", "model", "overlap", "")
    )
    rows = ""
    for number, one in enumerate(found, start=1):
        question = one.question
        images = (
            question.query,
            question.candidates[question.right],
            question.candidates[one.guess],
            question.candidates[question.model],
        )
        signs = ("", "", "✓" if one.correct else "✗", "✓" if one.model_correct else "✗")
        pictures = "".join(
            tag(
                "td",
                tag("img", src=store.thumbnail(image, selection.blur), alt=store.name(image))
                + (
                    text(sign, class_=f"mark {'right' if sign == '✓' else 'wrong'}") if sign else ""
                ),
            )
            for image, sign in zip(images, signs, strict=True)
        )
        share = f"{one.overlap:.2f}" if one.overlap == one.overlap else "–"
        look = button("look again", "again", question.query)
        rows += tag(
            "tr",
            text(number, "th", scope="row") + pictures + text(share, "td") + tag("td", look),
        )
    words = (
        "Where both were wrong: is the label right? Where only the model was: what did you see that it did not? Tag it "
        "in Errors (6). The link of this page keeps the answers."
    )
    table = tag("table", tag("tr", head) + rows, class_="table hardest session")
    controls = button("Another round", "lesson_end") + button(
        "Save the report", "save", "lesson.html"
    )
    return panel(
        "Your session",
        numbers
        + (tag("div", table, class_="scroll") if rows else empty("No question was answered."))
        + text(words, "p", class_="note")
        + tag("div", controls, class_="controls"),
        extra=save_menu("lesson", ("csv", "json", "png")),
    )
