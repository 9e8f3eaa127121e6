"""The errors that people meet: one family, and ordinary ValueErrors where a value was wrong."""

from __future__ import annotations

import inspect

import pytest

import ccan.errors as errors

FAMILY = [kind for _, kind in inspect.getmembers(errors, inspect.isclass)]


@pytest.mark.parametrize("kind", FAMILY)
def test_every_error_is_caught_as_ccan_error_and_says_when_it_comes(kind: type[Exception]) -> None:
    assert issubclass(kind, errors.CCANError)
    assert kind.__doc__ and kind.__doc__.endswith(".")
    with pytest.raises(errors.CCANError, match="expected 3, got 4"):
        raise kind("expected 3, got 4")


def test_wrong_values_are_value_errors_and_the_state_of_a_disk_is_not() -> None:
    wrong_values = {kind.__name__ for kind in FAMILY if issubclass(kind, ValueError)}
    assert wrong_values == {"ShapeError", "ConfigError", "ProtocolError"}
