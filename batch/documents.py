"""Requests as JSON, for the ledger and for digests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

Kind = TypeVar("Kind")


def document(value: Any, *, path: Callable[[Path], Any] = str) -> Any:
    """Return a settings object as data for JSON.

    Args:
        value: A dataclass of settings, or a value of one of its fields.
        path: Returns what stands for a path.
    """
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, float):
        # 7 and 7.0 are the same setting.
        return int(value) if value.is_integer() else value
    if isinstance(value, Path):
        return path(value)
    if isinstance(value, list | tuple | dict):
        # JSON knows no dictionaries with numbers as keys.
        items = value.items() if isinstance(value, dict) else value
        return [document(each, path=path) for each in items]
    if is_dataclass(value):
        kind: Any = type(value)
        names: tuple[str, ...] = _names(kind)
        return {name: document(getattr(value, name), path=path) for name in names}
    return str(value)


@cache
def _names(kind: type) -> tuple[str, ...]:
    return tuple(each.name for each in fields(kind))


def restored(kind: type[Kind], data: dict[str, Any]) -> Kind:
    """Return the settings object that `document` described.

    The dataclasses convert text to paths and lists to tuples themselves.
    """
    hints = get_type_hints(kind)
    return kind(**{name: _restored(hints[name], value) for name, value in data.items()})


def _restored(hint: Any, value: Any) -> Any:
    choices = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    for each in choices:
        if is_dataclass(each) and isinstance(value, dict):
            return restored(each, value)  # type: ignore[arg-type]  # a class, not an instance
        if get_origin(each) is dict and isinstance(value, list):
            return dict(value)
        if get_origin(each) is tuple and isinstance(value, list):
            return tuple(_restored(get_args(each)[0], item) for item in value)
    return value
