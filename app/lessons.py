"""Predict first: rounds of questions, their candidates, what a learner answered, and what the model says to it.

A round is a text that stands in a link: ``CODE,CODE…``, codes of its queries, since names of files tell who is on them.
An answer is a text too: the code of the chosen image and the marked cells as hexadecimal digits. So an answer that
another model was given for other images is none here.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from math import comb
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from app.masks import digits_in, read_mask
from ccan.errors import ConfigError
from ccan.explain.maps import Picture
from ccan.tables import Table

if TYPE_CHECKING:
    from app.store import Store

ROUND, CANDIDATES, PREPARED = 10, 6, 20
"""Questions of a drawn round, images to choose from, most questions of a prepared one."""
ROWS, COLUMNS = 8, 4
"""Cells of the region that a learner marks on the query."""
NOTHING = "0" * digits_in(ROWS, COLUMNS)
"""No cell, as digits."""


@dataclass(frozen=True)
class Question:
    """One query and some images of the gallery, of which exactly one shows the same person.

    Attributes:
        query: its id.
        candidates: ids, in an order that tells nothing.
        right: place of the right one; model: place of the one that the model finds nearest.
        distances: of each to the query.
    """

    query: str
    candidates: tuple[str, ...]
    right: int
    model: int
    distances: tuple[float, ...]


@dataclass(frozen=True)
class Marked:
    """What came of one question.

    Attributes:
        question: what was asked.
        guess: place of the learner's choice.
        region: (ROWS, COLUMNS) cells that the learner marked.
        overlap: of region and the model's map (`overlap`); NaN where nothing was marked, or there is no map.
    """

    question: Question
    guess: int
    region: NDArray[np.bool_]
    overlap: float

    @property
    def correct(self) -> bool:
        """Whether the learner found the match."""
        return self.guess == self.question.right

    @property
    def model_correct(self) -> bool:
        """Whether the model did."""
        return self.question.model == self.question.right


def code(image: str) -> str:
    """What stands for an image in a link."""
    return hashlib.sha256(image.encode("utf-8", "surrogateescape")).hexdigest()[:10]


def round_of(queries: Sequence[str]) -> str:
    """The text of a round."""
    return ",".join(map(code, queries))


def draw(store: Store, subset: str, chance: np.random.Generator) -> list[str]:
    """Ten queries of a subset by chance. Raises: ConfigError if none can be asked."""
    found: list[str] = []
    for query in chance.permutation(np.array(list(store.subset(subset)), dtype=object)).tolist():
        if askable(store, query):
            found.append(query)
        if len(found) == ROUND:
            break
    if not found:
        raise ConfigError(
            "no query with a match and a picture is behind this; choose another slice"
        )
    return found


def queries_of(store: Store, lesson: str) -> list[str]:
    """Ids of the queries of a round. Raises: KeyError or ValueError for a text that is none."""
    found = [store.codes[one] for one in lesson.split(",")]
    if not 1 <= len(found) <= PREPARED or not all(askable(store, one) for one in found):
        raise ValueError(lesson)
    return found


def askable(store: Store, query: str) -> bool:
    """Whether a question can be made of a query: there are pictures, a match, and somebody to confuse it with."""
    if not store.report.valid[store.query_rows[query]] or not store.pictured(query):
        return False  # a grey card would tell who it is
    try:
        question(store, query)
    except ConfigError:
        return False
    return True


def question(store: Store, query: str) -> Question:
    """The question about a query. Raises: ConfigError for one without a match, or with nobody to confuse it with.

    One right image, by chance and the same for every model; the others are the nearest wrong images of different
    people: what this model could take for the query. It is always asked in the same way.
    """
    return store.questions.get_or_make((query, "question"), lambda: _question(store, query))


def _question(store: Store, query: str) -> Question:
    ranking = store.ranking(query)
    marks, people = np.array(ranking.marks), store.index.gallery.identities[ranking.order]

    def pictured(place: int) -> bool:
        return store.pictured(store.gallery_ids[ranking.order[place]])

    right = [place for place in np.flatnonzero(marks == "right").tolist() if pictured(place)]
    others: dict[int, int] = {}  # person → place of the nearest image
    for place in np.flatnonzero(marks == "wrong").tolist():
        if int(people[place]) not in others and pictured(place):
            others[int(people[place])] = place
        if len(others) == CANDIDATES - 1:
            break
    if not right or not others:
        raise ConfigError(
            "this query has no match, or nobody to be confused with: it cannot be asked"
        )
    chance = np.random.default_rng(zlib.crc32(query.encode("utf-8", "surrogateescape")))
    named = sorted(right, key=lambda place: store.gallery_ids[ranking.order[place]])
    chosen = named[int(chance.integers(len(named)))]
    places = chance.permutation(np.array([chosen, *others.values()]))
    return Question(
        query,
        tuple(store.gallery_ids[ranking.order[place]] for place in places),
        int(np.flatnonzero(places == chosen)[0]),
        int(np.argmin(places)),  # places of one ranking: the first is the nearest
        tuple(float(ranking.distances[place]) for place in places),
    )


def region_of(digits: str) -> NDArray[np.bool_]:
    """(ROWS, COLUMNS) cells from their digits; "" = none. Raises: ValueError for digits that are none."""
    return read_mask(digits, ROWS, COLUMNS)


def answer(image: str, region: str) -> str:
    """The text of an answer: the chosen image by its id, and the cells."""
    return f"{code(image)}.{region}"


def read_answer(asked: Question, text: str) -> tuple[int, NDArray[np.bool_]]:
    """Place of the chosen image, and the cells. Raises: ValueError for what is no answer to this question."""
    chosen, _, region = text.partition(".")
    return [code(one) for one in asked.candidates].index(chosen), region_of(region)


def read_answers(store: Store, lesson: str, texts: Sequence[str]) -> tuple[str, ...]:
    """Answers as they stand in a link. Raises: KeyError or ValueError unless each belongs to a question of it."""
    asked = queries_of(store, lesson)
    if len(texts) > len(asked):
        raise ValueError(texts)
    for text, query in zip(texts, asked, strict=False):
        read_answer(question(store, query), text)
    return tuple(texts)


def cells(picture: Picture) -> NDArray[np.float64]:
    """A map over the image by the cells of a region, (ROWS, COLUMNS): how much speaks for the match in each."""
    values = np.maximum(np.nan_to_num(picture), 0)
    rows = np.array_split(values, ROWS, axis=0)
    return np.array(
        [[part.mean() for part in np.array_split(row, COLUMNS, axis=1)] for row in rows]
    )


def strongest(values: NDArray[np.float64], count: int) -> NDArray[np.bool_]:
    """The cells of a map with the largest values, as many as are asked for."""
    chosen = np.zeros(values.size, bool)
    chosen[np.argsort(-values, axis=None, kind="stable")[:count]] = True
    return chosen.reshape(values.shape)


def overlap(region: NDArray[np.bool_], values: NDArray[np.float64] | None) -> float:
    """Intersection over union of a region and as many of the map's strongest cells; NaN where there is nothing."""
    count = int(region.sum())
    if values is None or not count or not values.any():
        return float("nan")
    best = strongest(values, count)
    return float((region & best).sum() / (region | best).sum())


def chance_overlap(count: int) -> float:
    """The overlap that so many cells have with as many others that are thrown at random, on average.

    The number of common cells is hypergeometric.
    """
    size = ROWS * COLUMNS
    total = comb(size, count)
    shared = range(max(0, 2 * count - size), count + 1)
    return sum(
        comb(count, k) * comb(size - count, count - k) / total * k / (2 * count - k) for k in shared
    )


def marked(store: Store, lesson: str, answers: Sequence[str]) -> list[Marked]:
    """What came of the questions that are answered."""
    found = []
    for query, text in zip(queries_of(store, lesson), answers, strict=False):
        asked = question(store, query)
        guess, region = read_answer(asked, text)
        values = store.lesson_map(asked) if region.any() else None
        found.append(Marked(asked, guess, region, overlap(region, values)))
    return found


def score(found: Sequence[Marked]) -> tuple[int, int]:
    """How many matches the learner and the model found."""
    return sum(one.correct for one in found), sum(one.model_correct for one in found)


def table(store: Store, found: Sequence[Marked]) -> Table:
    """The session as a table."""
    rows = [
        [
            number,
            one.question.query,
            one.question.candidates[one.question.right],
            one.question.candidates[one.guess],
            one.question.candidates[one.question.model],
            one.correct,
            one.model_correct,
            int(one.region.sum()),
            one.overlap,
            chance_overlap(int(one.region.sum())) if one.region.any() else float("nan"),
        ]
        for number, one in enumerate(found, start=1)
    ]
    header = ["question", "query", "match", "learner", "model", "learner right", "model right"]
    header += ["cells marked", "overlap", "overlap by chance"]
    right, theirs = score(found)
    note = (
        f"The learner found {right} of {len(found)} matches, the model {theirs}. Overlap: intersection over union of "
        f"the marked cells and as many of the strongest in the model's account of the match, of {ROWS * COLUMNS}."
    )
    return Table.of_rows("lesson", header, rows, note)
