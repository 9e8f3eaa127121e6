"""CUHK03's single-shot protocol by plain loops, written from the two rules alone."""

from __future__ import annotations

from collections.abc import Sequence

from tests.reference.evaluation import Image, distance


def is_removed(query: Image, image: Image, rule: str) -> bool:
    """Whether a gallery image can never be drawn for this query."""
    if image.identity == -1:
        return True
    if rule == "classic":
        return image.camera == query.camera
    return image.camera == query.camera and image.identity == query.identity


def allowed_of(query: Image, gallery: Sequence[Image], rule: str) -> dict[int, list[int]]:
    """Places of the images that may be drawn for each person."""
    people: dict[int, list[int]] = {}
    for place, image in enumerate(gallery):
        if not is_removed(query, image, rule):
            people.setdefault(image.identity, []).append(place)
    return people


def position(query: Image, gallery: Sequence[Image], rule: str, priority: Sequence[int]) -> int:
    """Place of the match when each person is shown by the allowed image of the lowest priority number; -1 without."""
    drawn = [
        min(places, key=lambda place: priority[place])
        for places in allowed_of(query, gallery, rule).values()
    ]
    drawn.sort(
        key=lambda place: (distance(query.feature, gallery[place].feature, "euclidean"), place)
    )
    for number, place in enumerate(drawn):
        if gallery[place].identity == query.identity:
            return number + 1
    return -1


def chance_of_rank_one(query: Image, gallery: Sequence[Image], rule: str) -> float | None:
    """Probability, over uniform draws, that the match comes first; None without a match."""

    def key(place: int) -> tuple[float, int]:
        return distance(query.feature, gallery[place].feature, "euclidean"), place

    people = allowed_of(query, gallery, rule)
    own = people.pop(query.identity, [])
    if not own:
        return None
    total = 0.0
    for match in own:
        chance = 1.0
        for places in people.values():
            chance *= sum(key(place) > key(match) for place in places) / len(places)
        total += chance / len(own)
    return total
