"""Checks of single values, with the sentence that a wrong one gets."""

from __future__ import annotations

from typing import Any, get_args

from .errors import AnimateDiffV2VError


def checked(name: str, value: Any, choices: Any) -> Any:
    """Return `value` if it is one of the Literal type `choices`, or raise naming them all."""
    allowed = get_args(choices)
    if value not in allowed:
        raise AnimateDiffV2VError(f"{name} is {value!r}; it can be {', '.join(allowed)}.")
    return value


def in_range(name: str, value: float, low: float, high: float) -> None:
    """Raise unless `value` is a number from `low` to `high`."""
    if not low <= value <= high:
        raise AnimateDiffV2VError(f"{name} is {value:g}; it must be from {low:g} to {high:g}.")
