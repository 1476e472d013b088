"""VideoHelperSuite's nodes for batches of images and latents, as ComfyUI's own."""

from __future__ import annotations

from ..graph import Node, Slot, Source
from ..known import Known
from .work import Work, given, values_of

# More images than a batch has: up to its end.
_TO_THE_END = 4096


def split(work: Work, node: Node, known: Known) -> None:
    """Convert a split of a batch in two into two selections."""
    values = values_of(node, known)
    if node.slot("split_index") and _source(node, "split_index"):
        work.keep(node, "its split_index is calculated, which ComfyUI's node for batches cannot do")
        return
    index = int(given(node, values, "split_index", 0))
    if index < 0:
        work.keep(node, "it counts from the end, which ComfyUI's node for batches does not do")
        return
    socket, kind = known.inputs["batch"], known.to
    batch = node.slot(known.set["batch"])
    source = batch.source if batch else None
    second_values = {"batch_index": index, "length": _TO_THE_END}
    second = Source(node.id, 2)
    if work.graph.consumers(second):
        links: dict[str, Slot | Source | None] = {socket: source}
        added = work.add(node, kind, second_values, links, "the second part of the split")
        work.graph.move_consumers(second, Source(added.id, 0))
    work.become(node, kind, {"batch_index": 0, "length": max(index, 1)}, {socket: batch}, {0: 0})


def merge(work: Work, node: Node, known: Known) -> None:
    """Convert a merge of two batches; ComfyUI's nodes have no choice of the size."""
    values = values_of(node, known)
    if given(node, values, "merge_strategy", "match A") != "match A":
        work.note(node, "The size is that of the first batch here.")
    inputs = {new: node.slot(old) for old, new in known.inputs.items()}
    work.become(node, known.to, {}, inputs, {0: 0})


def _source(node: Node, name: str) -> Source | None:
    slot = node.slot(name)
    return slot.source if slot else None
