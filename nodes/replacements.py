"""Nodes of other packs that ComfyUI replaces by itself where their pack is not installed.

ComfyUI's node replacement maps one node to one, with the same values; `migrate` does the rest.
"""

from __future__ import annotations

from collections.abc import Iterator

from comfy_api.latest import io

from ..migrate.known import Known, known_nodes


async def register_replacements() -> None:
    """Register all nodes that map one to one."""
    from comfy_api.latest import ComfyAPI  # noqa: PLC0415 - needs a running server

    api = ComfyAPI()
    for replacement in replacements():
        await api.node_replacement.register(replacement)


def replacements() -> Iterator[io.NodeReplace]:
    """Return the replacements, as the table of `migrate` describes them."""
    for known in known_nodes().values():
        if _is_one_to_one(known):
            yield io.NodeReplace(
                new_node_id=known.to,
                old_node_id=known.type,
                old_widget_ids=list(known.widgets),
                input_mapping=[
                    *({"new_id": new, "old_id": old} for old, new in known.inputs.items()),
                    *(
                        {"new_id": name, "set_value": value}
                        for name, value in known.set.items()
                        if name not in known.inputs.values()
                    ),
                ],
                output_mapping=[
                    {"new_idx": new, "old_idx": int(old)} for old, new in known.output_map.items()
                ],
            )


def _is_one_to_one(known: Known) -> bool:
    """Return whether all outputs have a counterpart, and all values but rare ones stay the same.

    Nodes with optional sockets are left out: ComfyUI cannot replace one whose socket is not linked.
    """
    if not known.inputs or known.rule not in ("", "loader", "prompts"):
        return False
    changed = [
        old
        for choices in known.choices.values()
        for old, new in choices.items()
        if old not in ("*", new)
    ]
    always_there = known.inputs.keys() <= known.sockets.keys() | known.widgets.keys()
    return always_there and len(known.output_map) == len(known.outputs) and not changed
