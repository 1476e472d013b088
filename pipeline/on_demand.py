"""Packages that import their modules when one of their names is first used.

Loading PyTorch takes seconds. Settings, which the command and servers check first, do not need it.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from types import ModuleType
from typing import Any, cast


def on_demand(package: str, names: Mapping[str, Sequence[str]]) -> None:
    """Let a package export names of its modules without importing them yet.

    Args:
        package: Its `__name__`, while it is being imported.
        names: The exported names by module.
    """
    module = sys.modules[package]
    modules = {name: module_name for module_name, given in names.items() for name in given}
    module.__class__ = _OnDemand
    cast(_OnDemand, module)._modules = modules


class _OnDemand(ModuleType):
    _modules: dict[str, str]

    def __getattr__(self, name: str) -> Any:
        modules = self.__dict__.get("_modules", {})
        if name in modules.values() and name not in modules:
            return import_module(f".{name}", self.__name__)
        module_name = modules.get(name)
        if module_name is None:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        value = getattr(import_module(f".{module_name}", self.__name__), name)
        setattr(self, name, value)
        return value

    def __setattr__(self, name: str, value: Any) -> None:
        # If a module is named like a function in it, the name keeps referring to the function.
        if isinstance(value, ModuleType) and name in self.__dict__.get("_modules", {}):
            return
        super().__setattr__(name, value)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self._modules})
