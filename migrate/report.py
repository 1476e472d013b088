"""The report of a conversion: what became of every node."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Outcome = Literal["same", "converted", "kept", "dropped", "added"]


@dataclass
class Entry:
    """A node of the graph and what became of it.

    Attributes:
        node: its id; with the subgraph's name before it in a subgraph.
        title: the user's title of it, or its type.
        type: its type in the graph that was read.
        outcome: same: nothing changed; converted: another node does its work; kept: it stays, and
            its pack is still needed; dropped: removed; added: new.
        into: the type of the node that does its work now; empty unless converted or added.
        reason: why it was dropped or kept.
        notes: what works differently now, a sentence each.
    """

    node: str
    title: str
    type: str
    outcome: Outcome = "same"
    into: str = ""
    reason: str = ""
    notes: list[str] = field(default_factory=list)


@dataclass
class Report:
    """The report of a conversion.

    Attributes:
        is_converted: False if the graph was left as it is.
        reason: why it was left as it is; empty if it was converted.
        entries: a line for each node.
        packs: titles of the packs that the converted graph still needs, as far as they are known.
    """

    is_converted: bool = False
    reason: str = ""
    entries: list[Entry] = field(default_factory=list)
    packs: list[str] = field(default_factory=list)

    def count(self, outcome: Outcome) -> int:
        """Return how many nodes had an outcome."""
        return sum(each.outcome == outcome for each in self.entries)

    @property
    def summary(self) -> str:
        """The report in one or two sentences."""
        if not self.is_converted:
            return self.reason
        counts = ", ".join(
            f"{self.count(outcome)} {outcome}"
            for outcome in ("converted", "added", "kept", "dropped", "same")
            if self.count(outcome)
        )
        needs = f" It still needs {listed(self.packs)}." if self.packs else ""
        return f"The graph was converted: {counts}.{needs}"

    @property
    def text(self) -> str:
        """The report as lines of text: a line for each node, and one for each note."""
        lines = [self.summary]
        for each in self.entries:
            into = f" into {each.into}" if each.into and each.outcome == "converted" else ""
            reason = f": {each.reason}" if each.reason else ""
            name = each.title if each.title == each.type else f"{each.title} ({each.type})"
            lines.append(f"{each.outcome:9} {each.node} {name}{into}{reason}")
            lines += [f"          - {note}" for note in each.notes]
        return "\n".join(lines)

    @property
    def as_json(self) -> dict[str, Any]:
        """The report as plain values."""
        return asdict(self) | {"summary": self.summary}


def listed(names: list[str]) -> str:
    """Return "a", "a and b" or "a, b and c"."""
    if len(names) < 2:
        return "".join(names)
    return f"{', '.join(names[:-1])} and {names[-1]}"
