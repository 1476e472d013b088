"""Checks of single values, and their error sentences."""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import fields
from fractions import Fraction
from functools import cache
from numbers import Integral, Real
from os import PathLike
from pathlib import Path
from types import UnionType
from typing import Any, Literal, NoReturn, Union, get_args, get_origin, get_type_hints

from .errors import AnimateDiffV2VError

LONGEST_WRITTEN_BITS = 128
# Up to about here, floats represent whole numbers exactly.
LARGEST_WRITTEN_FLOAT = 1e15


def checked(name: str, value: Any, choices: Any) -> Any:
    """Return `value` if it is one of the Literal type `choices`, or raise naming them all."""
    allowed = get_args(choices)
    if value not in allowed:
        raise AnimateDiffV2VError(f"{name} is {value!r}; it can be {', '.join(allowed)}.")
    return value


def in_range(
    name: str, value: float, low: float, high: float, *, hint: str = "", place: str = ""
) -> None:
    """Raise AnimateDiffV2VError unless `value` is from `low` to `high`.

    Args:
        name: The name of the setting.
        value: The value.
        low: The smallest allowed.
        high: The largest allowed.
        hint: Appended to the error sentence.
        place: Where the value stands, such as "frame 4" of a curve.
    """
    if not low <= value <= high:
        raise AnimateDiffV2VError(
            f"{name} is {_written(value)}{place and f' at {place}'}; "
            f"it must be from {_written(low)} to {_written(high)}{hint and f', {hint}'}."
        )


def _written(value: float) -> str:
    """Return a number as text, whole numbers with all digits up to a sensible length."""
    if not isinstance(value, int):
        number = float(value)
        in_full = number.is_integer() and abs(number) <= LARGEST_WRITTEN_FLOAT
        return f"{number:.0f}" if in_full else f"{number:g}"
    if value.bit_length() <= LONGEST_WRITTEN_BITS:
        return str(value)
    return f"{'-' if value < 0 else ''}2^{value.bit_length() - 1} or more"


def check_types(settings: Any) -> None:
    """Check each field of a frozen dataclass against its annotation; called first in __post_init__.

    Text for a Path is converted, and so is a list for a tuple. Ranges and finiteness are left to
    the dataclass.

    Raises:
        AnimateDiffV2VError: names the first field of a wrong type, with its value.
    """
    kind: Any = type(settings)
    for name, hint in _hints(kind).items():
        value = getattr(settings, name)
        fitted = checked_type(name, value, hint)
        if fitted is not value:
            object.__setattr__(settings, name, fitted)


def checked_type(name: str, value: Any, hint: Any) -> Any:
    """Return `value`, converted as in `check_types`.

    Raises:
        AnimateDiffV2VError: it is of another type than `hint`.
    """
    try:
        return _fitted(value, hint)
    except TypeError:
        raise AnimateDiffV2VError(
            f"{name} is {shown(value)}; it must be {_described(hint)}."
        ) from None


def checked_path(name: str, value: Any) -> Path:
    """Return a path, or the text of one, as a Path.

    Raises:
        AnimateDiffV2VError: it is neither.
    """
    path: Path = checked_type(name, value, Path)
    return path


def shown(value: Any) -> str:
    """Return a value as text for an error sentence: on one line, and shortened if long."""
    try:
        return _SHORT.repr(value)
    except Exception:  # whatever a foreign object's own __repr__ raises
        return f"a {type(value).__name__}"


_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 200


@cache
def _hints(kind: type) -> dict[str, Any]:
    hints = get_type_hints(kind)
    return {each.name: hints[each.name] for each in fields(kind)}


def _fitted(value: Any, hint: Any) -> Any:
    """Return `value` converted to an annotation; raise TypeError if it cannot be."""
    origin, parts = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return _fitted_to_one(value, parts)
    if origin is tuple:
        items = tuple(_fitted(each, parts[0]) for each in _items(value))
        return value if value == items else items
    if origin in (dict, Mapping):
        return _fitted_mapping(value, *parts)
    if hint is Path:
        return _path(value)
    fits = isinstance(value, str if origin is Literal else _KINDS.get(hint, origin or hint))
    return value if fits and (hint is bool or not isinstance(value, bool)) else _misfit()


def _fitted_to_one(value: Any, hints: tuple[Any, ...]) -> Any:
    for hint in hints:
        if get_origin(hint) is Literal and value not in get_args(hint):
            continue
        with suppress(TypeError):
            return _fitted(value, hint)
    return _misfit()


def _fitted_mapping(value: Any, key_hint: Any, value_hint: Any) -> Any:
    if not isinstance(value, Mapping):
        return _misfit()
    for key, each in value.items():
        _fitted(key, key_hint)
        _fitted(each, value_hint)
    return value


def _path(value: Any) -> Path:
    if not isinstance(value, str | PathLike) or not value or "\0" in str(value):
        return _misfit()
    return value if isinstance(value, Path) else Path(value)


def _items(value: Any) -> Any:
    return value if isinstance(value, tuple | list) else _misfit()


def _misfit() -> NoReturn:
    raise TypeError


# NumPy's numbers are accepted as numbers too.
_KINDS: dict[Any, Any] = {int: Integral, float: Real, Fraction: Real, type(None): type(None)}
_WORDS: dict[Any, str] = {
    bool: "True or False",
    int: "a whole number",
    float: "a number",
    Fraction: "a number",
    str: "text",
    Path: "a path, as pathlib.Path or text",
    Callable: "a function",
    type(None): "None",
}


def _described(hint: Any) -> str:
    """Return in words what an annotation accepts."""
    origin, parts = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        words = " or ".join(_described(part) for part in parts)
    elif origin is Literal:
        words = f"one of {', '.join(parts)}"
    elif origin is tuple:
        words = f"a list or tuple, each item {_described(parts[0])}"
    elif origin in (dict, Mapping):
        words = f"a dictionary, each value {_described(parts[1])}"
    else:
        words = _WORDS.get(origin or hint) or f"of the type {hint.__name__}"
    return words
