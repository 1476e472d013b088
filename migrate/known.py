"""The table of node types: those of other packs, and those that graphs are converted into.

`packs/*.json` hold a table for each pack. An entry says what a node has (`sockets`, `widgets` in
the order in which graphs store their values, `outputs`) and what becomes of it:

- `to`: another node, with `inputs` from its names to ours, `set` for values that are always the
  same, `choices` for values that have another name, `neutral` for values that make no difference
  where they have no counterpart ("any" for all), and `outputs` from its outputs to ours;
- `rule`: a function in `rules` converts it, alone or together with others;
- `stays`: it stays, and the pack is still needed;
- `none`: it has no counterpart; `instead` names the nearest thing;
- `refused`: graphs with it are not converted.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

_FOLDER = Path(__file__).parent

# Values that the frontend stores after a widget without an input of their own.
CONTROL, UPLOAD = "control", "upload"
_FITTING: dict[str, tuple[type, ...]] = {
    "int": (int,),
    "float": (int, float),
    "bool": (bool,),
    "string": (str,),
    "combo": (str, int, float, bool),
    CONTROL: (str,),
    UPLOAD: (str, int, type(None)),
}


@dataclass(frozen=True)
class Known:
    """A node type of another pack; see the module for the fields."""

    type: str
    pack: str
    title: str
    sockets: dict[str, str] = field(default_factory=dict)
    widgets: dict[str, str] = field(default_factory=dict)
    older: tuple[dict[str, str], ...] = ()
    outputs: tuple[tuple[str, str], ...] = ()
    to: str = ""
    rule: str = ""
    inputs: dict[str, str] = field(default_factory=dict)
    set: dict[str, Any] = field(default_factory=dict)
    choices: dict[str, dict[str, Any]] = field(default_factory=dict)
    neutral: dict[str, Any] = field(default_factory=dict)
    output_map: dict[str, int] = field(default_factory=dict)
    stays: str = ""
    none: str = ""
    instead: str = ""
    refused: str = ""
    says: str = ""

    def named(self, values: Any) -> dict[str, Any]:
        """Return a node's widget values by name, as far as they can be told.

        Args:
            values: what the graph holds: values by position, or by name.
        """
        if isinstance(values, dict):
            return dict(values)
        if not isinstance(values, list):
            return {}
        orders = [self.widgets, *self.older]
        order = max(orders, key=lambda each: _fit(each, values))
        names = list(order)
        return {
            name: value
            for name, value in zip(names, values, strict=False)
            if order[name] != UPLOAD and isinstance(value, _FITTING[order[name]])
        }


def _fit(order: dict[str, str], values: list[Any]) -> tuple[int, int]:
    """Return how well values fit an order: how many in a row, and how close their number is."""
    fitting = 0
    for kind, value in zip(order.values(), values, strict=False):
        is_bool = isinstance(value, bool) and kind in ("int", "float")
        if is_bool or not isinstance(value, _FITTING[kind]):
            break
        fitting += 1
    return fitting, -abs(len(order) - len(values))


@dataclass(frozen=True)
class Target:
    """A node type that graphs are converted into.

    Attributes:
        type: the node's id.
        title: the name that the frontend shows.
        sockets: types of the inputs without a widget, by name; optional ones end in "?".
        widgets: type and default of each widget, by name and in order.
        outputs: types by name, in order.
    """

    type: str
    title: str
    sockets: dict[str, str]
    widgets: dict[str, tuple[str, Any]]
    outputs: dict[str, str]


@cache
def packs() -> dict[str, dict[str, Any]]:
    """Return the tables of the packs: title, address and nodes of each, by the file's name."""
    files = sorted((_FOLDER / "packs").glob("*.json"))
    return {file.stem: json.loads(file.read_text(encoding="utf-8")) for file in files}


@cache
def known_nodes() -> dict[str, Known]:
    """Return all node types of other packs by their ids."""
    return {
        node_type: _known(node_type, pack, entry)
        for pack, table in packs().items()
        for node_type, entry in table["nodes"].items()
    }


def _known(node_type: str, pack: str, entry: dict[str, Any]) -> Known:
    fields = dict(entry)
    fields["outputs"] = tuple((name, kind) for name, kind in entry.get("outputs", []))
    fields["older"] = tuple(entry.get("older", ()))
    return Known(type=node_type, pack=pack, **fields)


@cache
def targets() -> dict[str, Target]:
    """Return all node types that graphs are converted into, by their ids."""
    table = json.loads((_FOLDER / "targets.json").read_text(encoding="utf-8"))
    return {
        node_type: Target(
            node_type,
            entry["title"],
            entry["sockets"],
            {name: (kind, default) for name, (kind, default) in entry["widgets"].items()},
            entry["outputs"],
        )
        for node_type, entry in table.items()
    }
