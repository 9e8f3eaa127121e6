"""What a person has chosen: small plain values, the whole state of a page, and its form in a link.

Every view shows the same selection. It holds names of images, never the images, and everything in a link is checked
against the store before it is believed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Literal, get_args
from urllib.parse import quote, unquote, urlencode

from app import lessons
from app.judged import NotYet
from app.maps import COLOURINGS, read_lasso
from app.masks import mask_text
from ccan.explain.attention import SUMMARIES, Summary
from ccan.projection import LIMIT, MAPS

if TYPE_CHECKING:
    from app.store import Store

Tab = Literal["overview", "rank", "attention", "parts", "map", "errors", "compare", "learn", "runs"]
Order = Literal["name", "hardest"]
Verdict = Literal["all", "right", "wrong"]
Lens = Literal["probe", "votes", "trip", "across"]
Matrix = Literal["A", "C", "Ct"]
Target = Literal["similarity", "identity"]
Side = Literal["query", "match"]
TABS: tuple[Tab, ...] = get_args(Tab)
ORDERS: tuple[Order, ...] = get_args(Order)
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
LENSES: tuple[Lens, ...] = get_args(Lens)
MATRICES: tuple[Matrix, ...] = get_args(Matrix)
SIDES: tuple[Side, ...] = get_args(Side)
TARGETS: tuple[Target, ...] = get_args(Target)
SHOWN_LEAST, SHOWN_MOST = 5, 60
WEIGHT_MOST = 3.0
"""Largest weight of a branch or part."""


@dataclass(frozen=True)
class Scoring:
    """By what the gallery is ordered.

    Attributes:
        flip: by descriptors averaged with those of the mirrored images.
        rerank: by k-reciprocal re-ranking.
        weights: w_G, w_1 … w_kp on the plain descriptor's branches and parts; () = all 1. Not with the other two.
    """

    flip: bool = False
    rerank: bool = False
    weights: tuple[float, ...] = ()


@dataclass(frozen=True)
class Selection:
    """The state of one page.

    Attributes:
        query: id of the query, an image of the query set or an upload.
        match: id of the image beside it, of the gallery or an upload; None = the nearest that counts.
        tab: the view on top.
        subset: which queries one walks through (`Store.subset`); "" = all.
        order: how the list of all queries is sorted.
        page: page of the list; None = where the query is.
        shown: how many ranked images are shown.
        ignored: whether images that the protocol ignores are shown in their place.
        cameras: gallery cameras that are shown; empty = all.
        identity: the one identity that is shown; None = all.
        verdict: whether only right or only wrong images are shown.
        flip, rerank, weights: by what the gallery is ordered (`Scoring`).
        threshold: distance up to which two images count as one person; None = not asked.
        slot: the attention slot; "" = the network's first.
        cell: position in the slot; None = where attention adds most.
        summary: which map lies over the images.
        own_scale: each picture on a colour scale of its own.
        lens: what is asked of the cell.
        matrix: which matrix the probe reads: A, A′ (``C``) or A′ᵀ (``Ct``).
        part: the stream that is looked at closely; "" = the first.
        target: what Grad-CAM explains.
        hidden: painted cells of the query, a bit each, as hexadecimal digits; "" = none.
        blur: whether faces are blurred.
        slice_by: column by which the errors are sliced; "" = the first.
        metric: what is drawn of runs; "" = the loss.
        curves: runs that are drawn; empty = the newest.
        maps: the embedding map that is drawn; "" = all side by side.
        whole: whether the maps show all images, however many.
        colour: by what the points of a map are coloured.
        trust: whether points fade whose neighbours the map has not kept.
        lasso: what was drawn around on a map (`app.maps`); "" = nothing.
        sheet: page of the images in the lasso.
        changes: page of the largest changes between two checkpoints.
        lesson: the round of questions (`app.lessons`); "" = none.
        answers: what was answered in it, question by question.
        guess: place of the image that is chosen and not yet answered; "" = none.
        region: cells that are marked on the query, as hexadecimal digits; "" = none.
        revealed: whether the last question that was answered is still shown, with the truth.
        prepared: codes of the queries that a teacher collects.
        side: whose maps two checkpoints show side by side: the query's or those of the image beside it.
        focus: id of the image whose true neighbours a map shows; "" = the query.
        who: name of the one who logged in; never in a link.
    """

    query: str
    match: str | None = None
    tab: Tab = "overview"
    subset: str = ""
    order: Order = "name"
    page: int | None = None
    shown: int = 20
    ignored: bool = True
    cameras: tuple[int, ...] = ()
    identity: int | None = None
    verdict: Verdict = "all"
    flip: bool = False
    rerank: bool = False
    weights: tuple[float, ...] = ()
    threshold: float | None = None
    slot: str = ""
    cell: int | None = None
    summary: Summary = "added_energy"
    own_scale: bool = False
    lens: Lens = "probe"
    matrix: Matrix = "A"
    part: str = ""
    target: Target = "similarity"
    hidden: str = ""
    blur: bool = False
    slice_by: str = ""
    metric: str = ""
    curves: tuple[str, ...] = ()
    maps: str = ""
    whole: bool = False
    colour: str = "identity"
    trust: bool = False
    lasso: str = ""
    focus: str = ""
    side: Side = "query"
    sheet: int = 0
    changes: int = 0
    lesson: str = ""
    answers: tuple[str, ...] = ()
    guess: str = ""
    region: str = ""
    revealed: bool = False
    prepared: tuple[str, ...] = ()
    who: str = ""

    @property
    def scoring(self) -> Scoring:
        """By what the gallery is ordered."""
        return Scoring(self.flip, self.rerank, self.weights)


def to_link(selection: Selection, store: Store) -> str:
    """The selection as ``?query=…``, without what is as usual; an upload is not named, it lives on one page only."""
    values: dict[str, str] = {}
    if not store.is_upload(selection.query):
        values["query"] = selection.query
    for field in fields(Selection):
        value = getattr(selection, field.name)
        if field.name not in _READERS or field.name == "query" or value == field.default:
            continue
        if isinstance(value, str) and store.is_upload(value):
            continue
        values[field.name] = _as_text(value)
    return "?" + urlencode(values, safe="/,:", quote_via=quote)


def _as_text(value: object) -> str:
    if isinstance(value, tuple):  # a comma within a name is not one between names
        return ",".join(quote(_as_text(one), safe="/=+.-") for one in value)
    if isinstance(value, float):
        return f"{value:g}"
    return str(int(value)) if isinstance(value, bool) else str(value)


def from_link(values: Mapping[str, str], store: Store) -> tuple[Selection, str]:
    """The selection that a link names, and a sentence about what of it this store does not have."""
    selection, unknown, later = Selection(store.query_ids[0]), [], ""
    for name, read in _READERS.items():
        if name not in values:
            continue
        try:
            selection = replace(selection, **{name: read(values[name], store, selection)})
        except NotYet as error:
            later = f" {error} Then open this link again; without it, {name} was left out."
        except (KeyError, ValueError, OverflowError):
            unknown.append(f"{name}={values[name][:80]}")
    if not unknown:
        return selection, later.strip()
    words = f"This link names what is not here and was left out: {', '.join(unknown)}."
    return selection, words + later


def one_of(value: object, allowed: object) -> Any:
    """The value if it is a text that is allowed. Raises: KeyError otherwise."""
    if not isinstance(value, str) or value not in allowed:  # type: ignore[operator]
        raise KeyError(value)
    return value


def shown_count(value: object) -> int:
    """A number of ranked images within its limits. Raises: ValueError for what is no number."""
    return min(SHOWN_MOST, max(SHOWN_LEAST, int(str(value))))


def yes_or_no(value: object) -> bool:
    """True for "1", False for "0". Raises: KeyError otherwise."""
    return one_of(value, ("0", "1")) == "1"


def weight(value: object) -> float:
    """A weight, rounded to hundredths. Raises: ValueError out of range."""
    number = round(float(str(value)), 2)
    if not 0 <= number <= WEIGHT_MOST:
        raise ValueError(value)
    return number


def distance(value: object) -> float:
    """A threshold, rounded to thousandths. Raises: ValueError for what is no distance."""
    number = round(float(str(value)), 3)
    if not (math.isfinite(number) and 0 <= number < 1e6):
        raise ValueError(value)
    return number


def painted_cells(value: object, store: Store) -> str:
    """Painted cells as text; nothing painted is "". Raises: ValueError for what is no mask of this network's input."""
    text = str(value).lower()
    return mask_text(store.mask(text)) if text.strip("0") else ""


def read_weights(text: str, store: Store) -> tuple[float, ...]:
    """Weights of all streams from numbers with commas. Raises: ValueError for another number of them."""
    found = tuple(weight(part) for part in text.split(","))
    if len(found) != len(store.streams) or len(found) < 2:
        raise ValueError(text)
    return found if set(found) != {1.0} else ()


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


def prepared_set(codes: Sequence[str], store: Store) -> tuple[str, ...]:
    """Codes of queries that can be asked, each once. Raises: KeyError or ValueError for others, or too many."""
    known = tuple(dict.fromkeys(codes))
    if len(known) > lessons.PREPARED or not all(
        lessons.askable(store, store.codes[one]) for one in known
    ):
        raise ValueError(codes)
    return known


def _names(text: str) -> list[str]:
    return [unquote(name) for name in text.split(",") if name]


def _curves(text: str, store: Store) -> tuple[str, ...]:
    known = {run.name for run in store.runs.all()}
    return tuple(one_of(name, known) for name in _names(text))


def _lasso(text: str, store: Store) -> str:
    """A lasso of a map that is here, or is being made: then it is seen later whether it is of this one."""
    if read_lasso(text)[0] not in MAPS:
        raise KeyError(text)
    with suppress(NotYet):
        store.lassoed(text)
    return text


def _whole(text: str, store: Store) -> bool:
    wanted = yes_or_no(text) and store.mappable > LIMIT
    if wanted:
        store.mapping(True)  # a lasso in the same link asks for it
    return wanted


def _subset(text: str, store: Store) -> str:
    store.subset(text)
    return text


_READERS: dict[str, Callable[[str, Store, Selection], Any]] = {
    "query": lambda text, store, _: one_of(text, store.query_rows),
    "match": lambda text, store, _: one_of(text, store.gallery_rows),
    "tab": lambda text, *_: one_of(text, TABS),
    "subset": lambda text, store, _: _subset(text, store),
    "order": lambda text, *_: one_of(text, ORDERS),
    "shown": lambda text, *_: shown_count(text),
    "ignored": lambda text, *_: yes_or_no(text),
    "cameras": lambda text, store, _: _cameras(text, store),
    "identity": lambda text, store, _: store.known_identity(text),
    "verdict": lambda text, *_: one_of(text, VERDICTS),
    "flip": lambda text, store, _: yes_or_no(text) and store.can_flip,
    "rerank": lambda text, *_: yes_or_no(text),
    "weights": lambda text, store, _: read_weights(text, store),
    "threshold": lambda text, *_: distance(text),
    "slot": lambda text, store, _: one_of(text, store.slots),
    "cell": _cell,
    "summary": lambda text, *_: one_of(text, SUMMARIES),
    "own_scale": lambda text, *_: yes_or_no(text),
    "lens": lambda text, *_: one_of(text, LENSES),
    "matrix": lambda text, *_: one_of(text, MATRICES),
    "part": lambda text, store, _: one_of(text, store.streams),
    "target": lambda text, *_: one_of(text, TARGETS),
    "hidden": lambda text, store, _: painted_cells(text, store),
    "blur": lambda text, *_: yes_or_no(text),
    "metric": lambda text, *_: text[:60],
    "curves": lambda text, store, _: _curves(text, store),
    "maps": lambda text, *_: one_of(text, (*MAPS, "")),
    "whole": lambda text, store, _: _whole(text, store),
    "colour": lambda text, *_: one_of(text, COLOURINGS),
    "trust": lambda text, *_: yes_or_no(text),
    "lasso": lambda text, store, _: _lasso(text, store),
    "side": lambda text, *_: one_of(text, SIDES),
    "lesson": lambda text, store, _: text if lessons.queries_of(store, text) else "",
    "answers": lambda text, store, now: lessons.read_answers(store, now.lesson, text.split(",")),
    "revealed": lambda text, _, now: yes_or_no(text) and bool(now.answers),
    "prepared": lambda text, store, _: prepared_set(text.split(","), store),
    "focus": lambda text, store, _: store.indexed(text),
    "slice_by": lambda text, store, _: one_of(text, store.slice_columns),
}
"""What a link may name → how it is read, in the order in which one may depend on another."""
