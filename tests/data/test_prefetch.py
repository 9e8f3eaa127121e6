"""Work ahead keeps order, hands errors on, and ends with its caller."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from ccan.data.prefetch import AHEAD, prefetched


def test_items_come_in_order_and_all_of_them() -> None:
    assert list(prefetched(iter(range(50)))) == list(range(50))
    assert list(prefetched(iter([None, None]))) == [None, None]
    assert list(prefetched(iter(()))) == []


def test_an_error_comes_where_its_item_would_have() -> None:
    def items() -> Iterator[int]:
        yield 1
        yield 2
        raise ValueError("the third is broken")

    asked = prefetched(items())
    assert [next(asked), next(asked)] == [1, 2]
    with pytest.raises(ValueError, match="the third is broken"):
        next(asked)


def test_no_more_is_made_than_waits_and_the_source_is_closed() -> None:
    made: list[int] = []
    closed = threading.Event()
    two_made = threading.Event()

    def items() -> Iterator[int]:
        try:
            for number in range(1000):
                made.append(number)
                if number == AHEAD:
                    two_made.set()
                yield number
        finally:
            closed.set()

    asked = prefetched(items())
    assert not made, "nothing is made before it is asked for"
    assert next(asked) == 0
    assert two_made.wait(5), "the next ones are made before they are asked for"
    asked.close()  # type: ignore[attr-defined]
    assert closed.is_set() and len(made) <= AHEAD + 3


def test_it_is_made_in_another_thread() -> None:
    names = [*prefetched(threading.current_thread().name for _ in range(2))]
    assert set(names) == {"ccan-prefetch"}
