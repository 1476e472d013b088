"""Packages that import their modules when a name of theirs is first asked for.

Loading PyTorch takes seconds, and settings, which the command and servers check first, need none.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from types import ModuleType
from typing import Any, cast


def on_demand(package: str, names: Mapping[str, Sequence[str]]) -> None:
    """Have a package give names of its modules without importing them before.

    package: its `__name__`, while it is being imported.
    names: what each of its modules gives.
    """
    module = sys.modules[package]
    places = {name: place for place, given in names.items() for name in given}
    module.__class__ = _OnDemand
    cast(_OnDemand, module)._places = places


class _OnDemand(ModuleType):
    _places: dict[str, str]

    def __getattr__(self, name: str) -> Any:
        places = self.__dict__.get("_places", {})
        if name in places.values() and name not in places:
            return import_module(f".{name}", self.__name__)
        place = places.get(name)
        if place is None:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        value = getattr(import_module(f".{place}", self.__name__), name)
        setattr(self, name, value)
        return value

    def __setattr__(self, name: str, value: Any) -> None:
        # A module of the name of one of its functions: the name stays the function's.
        if isinstance(value, ModuleType) and name in self.__dict__.get("_places", {}):
            return
        super().__setattr__(name, value)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self._places})
