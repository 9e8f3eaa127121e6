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

from app import lessons
from app.images import MAX_UPLOAD_BYTES, too_large
from app.judged import WAIT, NotYet
from app.maps import COLOURINGS
from app.masks import mask_text
from app.runs import DRAWN, drawn_runs
from app.selection import (
    LENSES,
    MATRICES,
    ORDERS,
    SIDES,
    TABS,
    TARGETS,
    VERDICTS,
    Selection,
    distance,
    one_of,
    painted_cells,
    prepared_set,
    shown_count,
    weight,
    yes_or_no,
)
from app.store import Store
from ccan.errors import CCANError, ConfigError, DatasetError
from ccan.explain.attention import SUMMARIES
from ccan.projection import LIMIT, MAPS

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


# Which query


def show_query(store: Store, selection: Selection, query: str) -> Selection:
    """Another query; its nearest image comes with it, and what was painted on the old one goes."""
    store.sample(query)
    return replace(selection, query=query, match=None, cell=None, page=None, hidden="", focus="")


def choose(store: Store, selection: Selection, value: Any) -> Selection:
    """The query that was clicked."""
    return show_query(store, selection, one_of(value, store.query_rows))


def step(store: Store, selection: Selection, value: Any) -> Selection:
    """The next (+1) or previous (-1) query in the order of the list."""
    ids = _walked(store, selection)
    by = {"1": 1, "-1": -1}[str(value)]
    if selection.query not in ids:
        return show_query(store, selection, ids[0])
    return show_query(store, selection, ids[(ids.index(selection.query) + by) % len(ids)])


def random_query(store: Store, selection: Selection, _: Any) -> Selection:
    """Any other query of the list."""
    others = [query for query in query_list(store, selection) if query != selection.query]
    chosen = others[int(_CHANCE.integers(len(others)))] if others else selection.query
    return show_query(store, selection, chosen)


def hardest(store: Store, selection: Selection, _: Any) -> Selection:
    """The hardest query; the list is sorted by hardness, so that “next” goes on from there."""
    sorted_ = replace(selection, order="hardest")
    return show_query(store, sorted_, _walked(store, sorted_)[0])


def _walked(store: Store, selection: Selection) -> list[str]:
    """`query_list`, at least one. Raises: ConfigError where the last one has lost its tag."""
    ids = query_list(store, selection)
    if not ids:
        raise ConfigError("no query is left here; press ✕ beside it to walk through all again")
    return ids


def query_list(store: Store, selection: Selection) -> list[str]:
    """Ids of the queries that one walks through, in the chosen order."""
    chosen = store.subset(selection.subset)
    if selection.order == "hardest":
        return list(chosen)
    return [query for query in store.query_ids if query in chosen]


def subset(store: Store, selection: Selection, value: Any) -> Selection:
    """Walk through some of the queries only; the first of them is shown unless the query is one of them."""
    chosen = store.subset(str(value))
    if not chosen:
        raise ConfigError("no query is behind this")
    selection = replace(selection, subset=str(value), page=None)
    if selection.query in chosen:
        return selection
    return show_query(store, selection, query_list(store, selection)[0])


def page(store: Store, selection: Selection, value: Any) -> Selection:
    """Another page of the list of queries."""
    return replace(selection, page=max(0, int(value)))


# Which image beside it


def match(store: Store, selection: Selection, value: Any) -> Selection:
    """The gallery image beside the query."""
    return replace(selection, match=one_of(value, store.gallery_rows))


def neighbour(store: Store, selection: Selection, value: Any) -> Selection:
    """The gallery image one place further (+1) or nearer (-1) in the ranking."""
    order = store.ranking(selection.query, selection.scoring).order
    by = {"1": 1, "-1": -1}[str(value)]
    current = store.match(selection)
    if store.is_upload(current):
        return replace(selection, match=store.gallery_ids[order[0]])
    place = int(np.flatnonzero(order == store.gallery_rows[current])[0])
    return replace(selection, match=store.gallery_ids[order[(place + by) % len(order)]])


# What is shown of the ranking


def camera(store: Store, selection: Selection, value: Any) -> Selection:
    """Show one camera's images or hide them again; “all” shows every camera."""
    if value == "all":
        return replace(selection, cameras=())
    number = int(value)
    if number not in store.cameras:
        raise KeyError(value)
    return replace(selection, cameras=tuple(sorted({number} ^ set(selection.cameras))))


def identity(store: Store, selection: Selection, value: Any) -> Selection:
    """Show one identity's images only; an empty text shows all again."""
    text = str(value).strip()
    if not text:
        return replace(selection, identity=None)
    try:
        return replace(selection, identity=store.known_identity(text))
    except ValueError as error:
        raise DatasetError(
            f"there is no identity {text[:40]!r} in the gallery; expected a number as below the images"
        ) from error


def threshold(store: Store, selection: Selection, value: Any) -> Selection:
    """The distance up to which two images count as one person; “on” proposes one, “off” asks no longer."""
    if value == "off":
        return replace(selection, threshold=None)
    if value != "on":
        return replace(selection, threshold=distance(value))
    job = store.distributions()
    job.wait(1.0)
    if job.value is not None:
        return replace(selection, threshold=distance(job.value.eer_threshold))
    ranking = store.ranking(selection.query)
    return replace(selection, threshold=distance(float(np.median(ranking.distances[:20]))))


# By what the gallery is ordered


def flip(store: Store, selection: Selection, value: Any) -> Selection:
    """Order by descriptors averaged with those of the mirrored images; weights go back to 1."""
    wanted = yes_or_no(value)
    if wanted and not store.can_flip:
        raise ConfigError("these features have no mirrored twins: flip needs a network")
    return replace(selection, flip=wanted, weights=())


def rerank(store: Store, selection: Selection, value: Any) -> Selection:
    """Order by k-reciprocal re-ranking; weights go back to 1."""
    return replace(selection, rerank=yes_or_no(value), weights=())


def weigh(store: Store, selection: Selection, value: Mapping[str, Any]) -> Selection:
    """Another weight of a stream; it acts on the plain descriptor, so flip and re-ranking are switched off."""
    if len(store.streams) < 2:
        raise ConfigError("there is nothing to weigh: the descriptor has one stream")
    weights = list(selection.weights or (1.0,) * len(store.streams))
    weights[store.streams.index(one_of(value["stream"], store.streams))] = weight(value["weight"])
    plain = set(weights) == {1.0}
    return replace(selection, weights=() if plain else tuple(weights), flip=False, rerank=False)


def reset_weights(store: Store, selection: Selection, value: Any) -> Selection:
    """All weights 1; or, with a stream's name, that one alone (1) or left out (“-P2”)."""
    if not value:
        return replace(selection, weights=())
    if len(store.streams) < 2:
        raise ConfigError("there is nothing to weigh: the descriptor has one stream")
    name = one_of(str(value).removeprefix("-"), store.streams)
    without = str(value).startswith("-")
    weights = tuple(float((stream == name) != without) for stream in store.streams)
    return replace(selection, weights=weights, flip=False, rerank=False)


# Pictures from outside


def upload(store: Store, selection: Selection, value: Mapping[str, Any]) -> Selection:
    """A picture as {name, size, data}: base64 without its prefix, or none if it is too large.

    With `as` = “match” it stands beside the query, to be compared; otherwise it becomes the query.
    """
    name = str(value["name"])[:120] or "the picture"
    if store.predictor is None:
        raise ConfigError("there is no network here to describe a picture, only its features")
    if int(value["size"]) > MAX_UPLOAD_BYTES:
        raise too_large(name, int(value["size"]))
    text = str(value["data"])
    if len(text) > 4 * (MAX_UPLOAD_BYTES // 3 + 1):
        raise too_large(name, len(text) * 3 // 4)
    try:
        data = base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise DatasetError(f"{name}: the file did not arrive whole; try again") from error
    image = store.add_upload(name, data)
    if value.get("as") == "match":
        return replace(selection, match=image)
    kept = selection.match if selection.match and store.is_upload(selection.match) else None
    return replace(show_query(store, selection, image), match=kept)


# Attention


def slot(store: Store, selection: Selection, value: Any) -> Selection:
    """Another attention slot, at its own default cell."""
    return replace(selection, slot=one_of(value, store.slots), cell=None)


def lens(store: Store, selection: Selection, value: Any) -> Selection:
    """Another question about the cell; across images there are only part streams."""
    chosen = one_of(value, LENSES)
    parts = [name for name in store.slots if name != "SS1"]
    if chosen == "across" and store.slot(selection.slot) == "SS1" and parts:
        return replace(selection, lens=chosen, slot=parts[0], cell=None)
    return replace(selection, lens=chosen)


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


# Parts


def paint(store: Store, selection: Selection, value: Any) -> Selection:
    """The painted cells of the query; “strip K” hides one strip of kp, “” nothing."""
    text = str(value)
    if not text.startswith("strip "):
        return replace(selection, hidden=painted_cells(text, store))
    rows, _ = store.mask_shape
    parts = store.network.config.parts
    number = int(text.removeprefix("strip "))
    if not 1 <= number <= parts:
        raise ValueError(value)
    mask = np.zeros(store.mask_shape, bool)
    mask[rows * (number - 1) // parts : rows * number // parts] = True
    return replace(selection, hidden=mask_text(mask))


def measure(store: Store, selection: Selection, _: Any) -> Selection:
    """Test the maps of this query on this query."""
    store.faithfulness(selection.query, store.match(selection))
    return selection


# Map


def dot(store: Store, selection: Selection, value: Any) -> Selection:
    """The point of a map that was clicked, by its number: a query is chosen, another image is put beside it."""
    job, number = store.mapping(selection.whole), int(value)
    job.wait(WAIT)
    if job.value is None:
        raise NotYet("the map is still being made; click again in a while")
    if not 0 <= number < len(job.value.ids):
        raise ValueError(value)
    image = job.value.ids[number]
    if image in store.query_rows:
        return replace(show_query(store, selection, image), focus=image)
    return replace(selection, match=image, focus=image)


def lasso(store: Store, selection: Selection, value: Any) -> Selection:
    """What was drawn around on a map; “” takes it away."""
    text = str(value)
    if text:
        store.lassoed(text)
    return replace(selection, lasso=text, sheet=0)


def tag_lasso(store: Store, selection: Selection, value: Any) -> Selection:
    """Give all images in the lasso a tag; an empty one is none."""
    if str(value).strip():
        images = store.lassoed(selection.lasso)
        if not images:
            raise ConfigError("no image lies in the lasso; draw it anew")
        store.cases.tag_all(images, str(value), who=selection.who, model=store.checkpoint)
    return selection


def untag_lasso(store: Store, selection: Selection, value: Any) -> Selection:
    """Take a tag away from all images in the lasso."""
    images = store.lassoed(selection.lasso)
    store.cases.untag_all(images, str(value), who=selection.who, model=store.checkpoint)
    return selection


def whole(store: Store, selection: Selection, value: Any) -> Selection:
    """Map all images, or a part of them. A map of all that is being made goes on: somebody else may wait for it."""
    wanted = yes_or_no(value) and store.mappable > LIMIT
    return replace(selection, whole=wanted, lasso="", sheet=0)


# Compare


def twin(store: Store, selection: Selection, _: Any) -> Selection:
    """Load the bundled model's ablation to compare with."""
    store.load_twin()
    return selection


def spot(store: Store, selection: Selection, value: Mapping[str, Any]) -> Selection:
    """The query nearest to a point of the AP scatter, at shares x, y of it from its left and top."""
    if store.other is None:
        raise ConfigError("there is no second checkpoint to compare with; start with --compare")
    found = store.compared
    x, y = float(value["x"]), 1 - float(value["y"])
    far = np.hypot(found.ap_a - x, found.ap_b - y)
    row = int(found.rows[int(np.argmin(far))])
    return show_query(store, selection, store.query_ids[row])


# Learn


def lesson(store: Store, selection: Selection, value: Any) -> Selection:
    """Begin a round: of ten queries of a subset, or of the “prepared” ones.

    The query of the other views stays: theirs would tell who is asked for.
    """
    codes = (
        ",".join(selection.prepared)
        if value == "prepared"
        else lessons.round_of(lessons.draw(store, str(value), _CHANCE))
    )
    lessons.queries_of(store, codes)
    return _asked(replace(selection, lesson=codes, answers=()))


def _asked(selection: Selection) -> Selection:
    """With nothing chosen or marked yet."""
    return replace(selection, guess="", region="", revealed=False)


def guess(store: Store, selection: Selection, value: Any) -> Selection:
    """The candidate that is chosen, by its place."""
    asked = _open_question(store, selection)
    place = int(value)
    if not 0 <= place < len(asked.candidates):
        raise ValueError(value)
    return replace(selection, guess=str(place))


def _open_question(store: Store, selection: Selection) -> lessons.Question:
    """The question that is not answered yet. Raises: ConfigError where there is none."""
    asked = lessons.queries_of(store, selection.lesson) if selection.lesson else []
    if selection.revealed or len(selection.answers) >= len(asked):
        raise ConfigError("there is no question to answer; begin a round")
    return lessons.question(store, asked[len(selection.answers)])


def region(store: Store, selection: Selection, value: Any) -> Selection:
    """The cells that are marked on the query."""
    _open_question(store, selection)
    digits = str(value)
    return replace(selection, region=digits if lessons.region_of(digits).any() else "")


def answer(store: Store, selection: Selection, value: Any) -> Selection:
    """Answer the question of this number with what is chosen and marked; then it is the query of all views."""
    if selection.revealed or str(value) != str(len(selection.answers)):
        return selection  # a key that was pressed twice
    asked = _open_question(store, selection)
    if not selection.guess:
        raise ConfigError("choose the image that shows the same person first, then answer")
    text = lessons.answer(asked.candidates[int(selection.guess)], selection.region)
    after = show_query(store, selection, asked.query)
    return replace(after, answers=(*selection.answers, text), revealed=True)


def next_question(_: Store, selection: Selection, value: Any) -> Selection:
    """From the question of this number to the next, or to the report after the last."""
    if not selection.revealed or str(value) != str(len(selection.answers) - 1):
        return selection
    return _asked(selection)


def lesson_end(_: Store, selection: Selection, __: Any) -> Selection:
    """Leave the round."""
    return _asked(replace(selection, lesson="", answers=()))


def again(store: Store, selection: Selection, value: Any) -> Selection:
    """Look at a query of the round in Rank."""
    return replace(choose(store, selection, value), tab="rank")


def prepare(store: Store, selection: Selection, value: Any) -> Selection:
    """Collect a query. Not a switch, as `tag` is none."""
    one = lessons.code(one_of(value, store.query_rows))
    return replace(selection, prepared=prepared_set([*selection.prepared, one], store))


def prepare_all(store: Store, selection: Selection, _: Any) -> Selection:
    """Collect those that one walks through, as many as can be asked and there is room for."""
    found = dict.fromkeys(selection.prepared)
    for query in query_list(store, selection):
        if len(found) == lessons.PREPARED:
            break
        if lessons.askable(store, query):
            found[lessons.code(query)] = None
    return replace(selection, prepared=prepared_set(list(found), store))


def unprepare(store: Store, selection: Selection, value: Any) -> Selection:
    """Take a query out of the collection, or “all”."""
    if value == "all":
        return replace(selection, prepared=())
    gone = lessons.code(one_of(value, store.query_rows))
    return replace(selection, prepared=tuple(one for one in selection.prepared if one != gone))


# Errors


def tag(store: Store, selection: Selection, value: Any) -> Selection:
    """Give the query a tag. Not a switch: on a page that is a moment old it would take away what somebody just gave."""
    image = _lasting(store, selection)
    if value not in store.cases.tags(image):
        store.cases.tag(image, str(value), who=selection.who, model=store.checkpoint)
    return selection


def untag(store: Store, selection: Selection, value: Any) -> Selection:
    """Take a tag of the query away."""
    image = _lasting(store, selection)
    store.cases.untag(image, str(value), who=selection.who, model=store.checkpoint)
    return selection


def note(store: Store, selection: Selection, value: Any) -> Selection:
    """Add a note to the query; an empty one is none."""
    if str(value).strip():
        image = _lasting(store, selection)
        store.cases.note(image, str(value), who=selection.who, model=store.checkpoint)
    return selection


def remove_note(store: Store, selection: Selection, value: Any) -> Selection:
    """Take a note of the query away."""
    image = _lasting(store, selection)
    known = [one.id for one in store.cases.notes(image)]
    store.cases.remove_note(image, one_of(value, known), who=selection.who, model=store.checkpoint)
    return selection


def _lasting(store: Store, selection: Selection) -> str:
    """The query, if it is one of the dataset. Raises: ConfigError for an upload."""
    if store.is_upload(selection.query):
        raise ConfigError("an upload is not kept, and neither would be what is said about it")
    return selection.query


def judge(store: Store, selection: Selection, value: Any) -> Selection:
    """A verdict on a label suspect: “same K”, “different K”, “unsure K”, K its number in the list."""
    verdict, _, number = str(value).partition(" ")
    first, second = store.suspect_pair(int(number))
    store.cases.judge(first, second, verdict, who=selection.who, model=store.checkpoint)
    return selection


def report(store: Store, selection: Selection, _: Any) -> Selection:
    """Begin the report of the tagged queries."""
    store.case_report(selection.blur)
    return selection


# Runs


def curve(store: Store, selection: Selection, value: Any) -> Selection:
    """Draw a run's curve, or leave it out again; “” draws the newest."""
    if not value:
        return replace(selection, curves=())
    runs = store.runs.all()
    name = one_of(value, {run.name for run in runs})
    drawn = [run.name for run in drawn_runs(selection.curves, runs)]
    left = tuple(one for one in drawn if one != name) if name in drawn else (*drawn, name)
    return replace(selection, curves=left[-DRAWN:])


ACTIONS: dict[str, Action] = {
    "choose": choose,
    "step": step,
    "random": random_query,
    "hardest": hardest,
    "subset": subset,
    "page": page,
    "match": match,
    "neighbour": neighbour,
    "camera": camera,
    "identity": identity,
    "threshold": threshold,
    "flip": flip,
    "rerank": rerank,
    "weigh": weigh,
    "reset_weights": reset_weights,
    "upload": upload,
    "slot": slot,
    "lens": lens,
    "point": point,
    "move": move,
    "paint": paint,
    "measure": measure,
    "dot": dot,
    "lasso": lasso,
    "tag_lasso": tag_lasso,
    "whole": whole,
    "maps": lambda _, now, value: replace(now, maps=one_of(value, (*MAPS, ""))),
    "colour": lambda _, now, value: replace(now, colour=one_of(value, COLOURINGS)),
    "trust": lambda _, now, value: replace(now, trust=yes_or_no(value)),
    "twin": twin,
    "spot": spot,
    "side": lambda _, now, value: replace(now, side=one_of(value, SIDES)),
    "lesson": lesson,
    "guess": guess,
    "region": region,
    "answer": answer,
    "next": next_question,
    "lesson_end": lesson_end,
    "again": again,
    "prepare": prepare,
    "prepare_all": prepare_all,
    "unprepare": unprepare,
    "changes": lambda _, now, value: replace(now, changes=max(0, int(value))),
    "sheet": lambda _, now, value: replace(now, sheet=max(0, int(value))),
    "untag_lasso": untag_lasso,
    "tag": tag,
    "untag": untag,
    "note": note,
    "remove_note": remove_note,
    "judge": judge,
    "report": report,
    "curve": curve,
    "metric": lambda _, now, value: replace(now, metric=str(value)[:60]),
    "slice_by": lambda store, now, value: replace(now, slice_by=one_of(value, store.slice_columns)),
    "look": lambda _, now, __: now,
    "tab": lambda _, now, value: replace(now, tab=one_of(value, TABS)),
    "order": lambda _, now, value: replace(now, order=one_of(value, ORDERS), page=None),
    "shown": lambda _, now, value: replace(now, shown=shown_count(value)),
    "ignored": lambda _, now, value: replace(now, ignored=yes_or_no(value)),
    "verdict": lambda _, now, value: replace(now, verdict=one_of(value, VERDICTS)),
    "summary": lambda _, now, value: replace(now, summary=one_of(value, SUMMARIES)),
    "own_scale": lambda _, now, value: replace(now, own_scale=yes_or_no(value)),
    "matrix": lambda _, now, value: replace(now, matrix=one_of(value, MATRICES)),
    "part": lambda store, now, value: replace(now, part=one_of(value, store.streams)),
    "target": lambda _, now, value: replace(now, target=one_of(value, TARGETS)),
    "blur": lambda _, now, value: replace(now, blur=yes_or_no(value)),
}
"""By the name that the page sends."""
