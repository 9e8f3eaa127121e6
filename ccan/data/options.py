"""Options of loaders: what a loader's own signature offers, and `name=value` words as typed values."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from ccan.errors import ConfigError

_TRUTH = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}

Kind = Any
"""A type as a signature spells it: bool, int, str, a Literal of texts, or a union of these."""


def options_of(*loaders: Callable[..., Any]) -> dict[str, Kind]:
    """Keyword-only parameters of one or several loaders with their types; the first loader's type counts."""
    found: dict[str, Kind] = {}
    for loader in loaders:
        types = get_type_hints(loader)
        for parameter in inspect.signature(loader).parameters.values():
            if parameter.kind is parameter.KEYWORD_ONLY:
                found.setdefault(parameter.name, types.get(parameter.name, str))
    return found


def check_options(dataset: str, known: Mapping[str, Kind], options: Mapping[str, Any]) -> None:
    """Raises: ConfigError for an option that the loader does not have, or a value of another type."""
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise _no_such_option(dataset, ", ".join(unknown), known)
    for name, value in options.items():
        if not any(_fits(kind, value) for kind in _alternatives(known[name])):
            raise ConfigError(
                f"option {name} of dataset {dataset!r} must be {describe(known[name])}, got {value!r}"
            )


def parse_words(dataset: str, known: Mapping[str, Kind], words: Sequence[str]) -> dict[str, Any]:
    """Words like ``box=detected`` or ``train-only=true`` as typed options.

    Raises: ConfigError for a word of another form, an unknown or repeated option, or a value that does not fit.
    """
    options: dict[str, Any] = {}
    for word in words:
        name, equals, text = word.partition("=")
        name = name.strip().replace("-", "_")
        if not equals or not name:
            raise ConfigError(
                f"options are written name=value, for example box=detected; got {word!r}"
            )
        if name not in known:
            raise _no_such_option(dataset, name, known)
        if name in options:
            raise ConfigError(f"option {name} is given twice; keep one of them")
        options[name] = _parse(dataset, name, known[name], text.strip())
    return options


def describe(kind: Kind) -> str:
    """A type in words, for people."""
    words = [_in_words(alternative) for alternative in _alternatives(kind)]
    return " or ".join(words)


def _no_such_option(dataset: str, names: str, known: Mapping[str, Kind]) -> ConfigError:
    return ConfigError(
        f"dataset {dataset!r} has no option {names}; it has: {', '.join(known) or 'none'}"
    )


def _parse(dataset: str, name: str, kind: Kind, text: str) -> Any:
    for alternative in _alternatives(kind):
        if alternative is bool and text.lower() in _TRUTH:
            return _TRUTH[text.lower()]
        if alternative is int and text.removeprefix("-").isdecimal() and len(text) < 19:
            return int(text)
        if alternative is str or (
            get_origin(alternative) is Literal and text in get_args(alternative)
        ):
            return text
    raise ConfigError(
        f"option {name} of dataset {dataset!r} must be {describe(kind)}, got {text!r}"
    )


def _alternatives(kind: Kind) -> tuple[Kind, ...]:
    return get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)


def _fits(kind: Kind, value: Any) -> bool:
    if get_origin(kind) is Literal:
        return value in get_args(kind)
    return type(value) is kind


def _in_words(kind: Kind) -> str:
    if get_origin(kind) is Literal:
        return f"one of {', '.join(get_args(kind))}"
    return {bool: "true or false", int: "an integer", str: "a text"}.get(kind, str(kind))
