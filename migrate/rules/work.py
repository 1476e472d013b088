"""The state that rules share: one graph, the means to change it, the report of the changes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..graph import Graph, Node, NodeId, Output, Slot, Source
from ..known import CONTROL, UPLOAD, Known, known_nodes, targets
from ..report import Entry, listed
from .trace import passed_on

STAYS_WITH_USER = "a node that stays uses it"
# How far below the node that it serves a new node is put, in the canvas' units.
_BELOW, _WIDTH, _HEIGHT = 60, 320, 120


class Work:
    """The conversion of one graph."""

    def __init__(self, graph: Graph, taken: set[NodeId]) -> None:
        """Start with all nodes the same.

        Args:
            graph: the graph, which is changed in place.
            taken: the ids of all nodes of the document, for new ones.
        """
        self.graph = graph
        self._taken = taken
        self._users: dict[NodeId, list[Node]] = {}
        self.entries: dict[NodeId, Entry] = {
            node.id: self._entry(node) for node in graph.nodes.values() if node.type
        }

    def _entry(self, node: Node) -> Entry:
        prefix = f"{self.graph.name}: " if self.graph.name else ""
        return Entry(f"{prefix}{node.id}", node.title or node.type, node.type)

    def note(self, node: Node, sentence: str) -> None:
        """Add what works differently to the report of a node."""
        notes = self.entries[node.id].notes
        if sentence not in notes:
            notes.append(sentence)

    def become(
        self,
        node: Node,
        target: str,
        values: Mapping[str, Any],
        inputs: Mapping[str, Slot | Source | None],
        outputs: Mapping[int, int],
    ) -> None:
        """Turn a node into one of another type, at its place and with its id.

        Args:
            node: the node.
            target: the new type.
            values: of the new node's widgets, by name; others have their defaults.
            inputs: where the links of its inputs come from, by name: a former input, whose link
                stays the same, or an output.
            outputs: the new numbers of its former outputs; links from others end.
        """
        entry = self.entries[node.id]
        if entry.outcome != "converted":
            entry.outcome, node.was = "converted", node.type
        entry.into = target
        consumers = [
            (old, self.graph.consumers(Source(node.id, old))) for old in range(len(node.outputs))
        ]
        node.type = target
        self._set_inputs(node, values, inputs)
        known = targets()[target]
        node.outputs = [Output(name, kind) for name, kind in known.outputs.items()]
        for old, slots in consumers:
            new = outputs.get(old)
            if slots and new is None:
                self._say_lost(node, [each for each, _ in slots])
            for consumer, slot in slots:
                self.graph.link(consumer, slot, None if new is None else Source(node.id, new))

    def _say_lost(self, node: Node, consumers: list[Node]) -> None:
        names = ", ".join(f"{each.title or each.type} ({each.id})" for each in consumers)
        self.note(node, f"An output has no counterpart; its links end: {names}.")

    def _set_inputs(
        self, node: Node, values: Mapping[str, Any], inputs: Mapping[str, Slot | Source | None]
    ) -> None:
        known = targets()[node.type]
        slots = []
        for name, kind in known.sockets.items():
            slots.append(_slot(name.rstrip("?"), kind, inputs.get(name.rstrip("?"))))
        for name, (kind, _) in known.widgets.items():
            if inputs.get(name) is not None:
                slots.append(_slot(name, kind.upper(), inputs[name], is_widget=True))
        for slot in slots:
            former = inputs.get(slot.name)
            if isinstance(former, Slot) and former.name != slot.name:
                node.renamed[former.name] = slot.name
        self.graph.replace_inputs(node, slots)
        node.values = {
            name: values.get(name, default)
            for name, (kind, default) in known.widgets.items()
            if kind not in (CONTROL, UPLOAD) or name in values
        }

    def add(
        self,
        near: Node,
        target: str,
        values: Mapping[str, Any],
        inputs: Mapping[str, Slot | Source | None],
        why: str,
    ) -> Node:
        """Add a node below another one, and return it."""
        number = max([0, *(each for each in self._taken if isinstance(each, int))]) + 1
        is_text = isinstance(near.id, str)
        if is_text:
            numbers = [int(each) for each in self._taken if str(each).isdecimal()]
            number = max(numbers, default=0) + 1
        node = Node(str(number) if is_text else number, target, mode=near.mode)
        self._taken.add(node.id)
        node.outputs = [Output(name, kind) for name, kind in targets()[target].outputs.items()]
        self.graph.add(node)
        self._set_inputs(node, values, inputs)
        if not is_text:
            node.raw = _placed(near)
        node.was = near.was or near.type
        self.entries[node.id] = Entry(
            self._entry(node).node, target, node.was, "added", target, reason=why
        )
        return node

    def drop(self, node: Node, reason: str) -> None:
        """Remove a node; what it only passes on goes past it."""
        entry = self.entries[node.id]
        entry.outcome, entry.reason = "dropped", reason
        for output in range(len(node.outputs)):
            self.graph.move_consumers(Source(node.id, output), passed_on(node, output))
        self.graph.remove(node)

    def use(self, node: Node, by: Node) -> None:
        """Remember that another node has the values of a node now."""
        self._users.setdefault(node.id, []).append(by)

    def absorb(self, node: Node) -> None:
        """Remove a node whose values others have now; drop it if none has them."""
        users = self._users.get(node.id)
        if not users:
            self.drop(node, "no node that was converted uses it")
            return
        entry = self.entries[node.id]
        entry.outcome, entry.into = "converted", users[0].type
        nodes = listed([f"node {each.id} ({targets()[each.type].title})" for each in users])
        entry.reason = f"its values are in {nodes} now"
        self.graph.remove(node)

    def serves_kept(self, node: Node) -> bool:
        """Return whether a node that stays uses a node."""
        return any(
            self.entries[consumer.id].outcome == "kept"
            for output in range(len(node.outputs))
            for consumer, _ in self.graph.consumers(Source(node.id, output))
            if consumer.id in self.entries
        )

    def keep(self, node: Node, reason: str) -> None:
        """Say that a node stays as it is, and why."""
        entry = self.entries[node.id]
        entry.outcome, entry.reason = "kept", reason


def known_of(node: Node) -> Known | None:
    """Return what the table says of a node that has not been converted."""
    known = None if node.was else known_nodes().get(node.type)
    if known and known.rule == "their_load_video" and not _is_theirs(node):
        return None  # ComfyUI has a node with the same id
    return known


def _is_theirs(node: Node) -> bool:
    names = {each.name for each in node.inputs} | set(node.values or {})
    return "frame_limit" in names or any(each.type == "IMAGE" for each in node.outputs)


def values_of(node: Node, known: Known) -> dict[str, Any]:
    """Return a node's widget values by name: text, numbers and truth values.

    Those of widgets that are linked are left out.
    """
    values = node.values
    if values is None:
        values = known.named(node.raw.get("widgets_values"))
        named = node.raw.get("widgets_values_named")
        if isinstance(named, dict):
            values |= {name: value for name, value in named.items() if name in known.widgets}
    linked = {each.name for each in node.inputs if each.source is not None}
    return {
        name: value
        for name, value in values.items()
        if name not in linked and isinstance(value, str | int | float)
    }


def given(node: Node, values: Mapping[str, Any], name: str, default: Any) -> Any:
    """Return a widget's value, or its default if the graph holds none of that type."""
    value = values.get(name, default)
    number = (int, float)
    fits = isinstance(value, number if type(default) in number else type(default))
    return value if fits and isinstance(value, bool) == isinstance(default, bool) else default


def _slot(name: str, kind: str, link: Slot | Source | None, *, is_widget: bool = False) -> Slot:
    if isinstance(link, Slot):
        return Slot(name, kind, link.source, is_widget, link.link_id, link.raw)
    return Slot(name, kind, link, is_widget)


def _placed(near: Node) -> dict[str, Any]:
    position = near.raw.get("pos")
    size = near.raw.get("size")
    x, y = _pair(position, 0.0)
    _, height = _pair(size, float(_HEIGHT))
    return {
        "pos": [x, y + height + _BELOW],
        "size": [_WIDTH, _HEIGHT],
        "flags": {},
        "order": 0,
        **{key: near.raw[key] for key in ("color", "bgcolor") if key in near.raw},
    }


def _pair(value: Any, default: float) -> tuple[float, float]:
    if isinstance(value, dict):
        value = [value.get("0"), value.get("1")]
    if not isinstance(value, list) or len(value) < 2:
        return default, default
    first, second = (each if isinstance(each, int | float) else default for each in value[:2])
    return float(first), float(second)
