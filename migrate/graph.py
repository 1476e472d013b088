"""A graph of ComfyUI as nodes and links, the same for every format that it may be saved in."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

NodeId = int | str

# Modes of a node, as the frontend saves them.
MUTED, BYPASSED = 2, 4


class Source(NamedTuple):
    """An output that a link comes from."""

    node: NodeId
    output: int


@dataclass(eq=False)
class Slot:
    """An input of a node that may have a link.

    Attributes:
        name: of the input.
        type: of the values that it takes, or "*".
        source: where its link comes from; None without a link.
        is_widget: True for a widget that was made into an input.
        link_id: of its link in the file; None for a new link.
        raw: the input as it was saved.
    """

    name: str
    type: str
    source: Source | None = None
    is_widget: bool = False
    link_id: int | None = None
    raw: dict[str, Any] = field(default_factory=dict)


@dataclass(eq=False)
class Output:
    """An output of a node; `raw` is the output as it was saved."""

    name: str
    type: str
    raw: dict[str, Any] = field(default_factory=dict)


@dataclass(eq=False)
class Node:
    """A node.

    Attributes:
        id: unique within its graph.
        type: the id of the node's class.
        inputs: those that can have a link.
        outputs: in order.
        values: of widgets, by name; None while only their positions are known.
        title: the user's own title, or "".
        mode: MUTED, BYPASSED, or another number.
        raw: the node as it was saved; empty for a new node.
        was: the type that it was converted from; "" for other nodes.
        renamed: the new names of its inputs that have another name now.
    """

    id: NodeId
    type: str
    inputs: list[Slot] = field(default_factory=list)
    outputs: list[Output] = field(default_factory=list)
    values: dict[str, Any] | None = None
    title: str = ""
    mode: int = 0
    raw: dict[str, Any] = field(default_factory=dict)
    was: str = ""
    renamed: dict[str, str] = field(default_factory=dict)

    def slot(self, name: str) -> Slot | None:
        """Return the input of that name, if it has a link or can have one."""
        return next((each for each in self.inputs if each.name == name), None)

    @property
    def is_active(self) -> bool:
        """True unless the node is muted or bypassed."""
        return self.mode not in (MUTED, BYPASSED)


class Graph:
    """The nodes of a graph, or of one subgraph, by id and in the order of the file."""

    def __init__(self, name: str = "") -> None:
        """Create an empty graph; `name` is a subgraph's, and empty for the graph itself."""
        self.name = name
        self.nodes: dict[NodeId, Node] = {}
        # Inputs of nodes that name a value, by the name; filled when the first one is looked up.
        self.named_values: dict[str, Slot] = {}
        self._consumers: dict[Source, dict[Slot, Node]] = {}

    def add(self, node: Node) -> None:
        """Add a node, whose inputs may have links already."""
        self.nodes[node.id] = node
        for slot in node.inputs:
            if slot.source is not None:
                self._consumers.setdefault(slot.source, {})[slot] = node

    def remove(self, node: Node) -> None:
        """Remove a node, its links, and the links from it."""
        for slot in node.inputs:
            self.link(node, slot, None)
        for output in range(len(node.outputs)):
            self.move_consumers(Source(node.id, output), None)
        self.nodes.pop(node.id, None)

    def link(self, node: Node, slot: Slot, source: Source | None) -> None:
        """Connect an input of a node, or disconnect it."""
        if slot.source is not None:
            self._consumers.get(slot.source, {}).pop(slot, None)
        slot.source = source
        if source is not None:
            self._consumers.setdefault(source, {})[slot] = node

    def replace_inputs(self, node: Node, inputs: list[Slot]) -> None:
        """Give a node other inputs; links of inputs that it had before and has no more end."""
        kept = {id(each) for each in inputs}
        for slot in node.inputs:
            if id(slot) not in kept:
                self.link(node, slot, None)
        node.inputs = inputs
        for slot in inputs:
            self.link(node, slot, slot.source)

    def consumers(self, source: Source) -> list[tuple[Node, Slot]]:
        """Return the inputs that an output is connected to."""
        return [(node, slot) for slot, node in self._consumers.get(source, {}).items()]

    def has_consumers(self, node: Node) -> bool:
        """Return whether any output of a node is connected."""
        return any(self._consumers.get(Source(node.id, each)) for each in range(len(node.outputs)))

    def move_consumers(self, source: Source, to: Source | None) -> None:
        """Connect the inputs that an output is connected to with another one, or with none."""
        for node, slot in self.consumers(source):
            self.link(node, slot, to)
