"""AnimateDiff-Evolved's multivals: a number, or one for each frame, times a mask."""

from __future__ import annotations

from dataclasses import dataclass

from ..graph import Node, Source
from ..known import known_nodes
from .trace import maker
from .work import Work, given, values_of

CURVE = "ADV2V_StrengthCurve"
# Their masks multiply a number, or one for each frame.
_NUMBERS = ("ADE_MultivalDynamic", "ADE_MultivalDynamicFloatInput")
# From a number where the mask is black to another where it is white.
_SCALED_MASK = "ADE_MultivalScaledMask"


@dataclass(frozen=True)
class Multival:
    """The strength and the mask that a multival stands for."""

    number: float = 1.0
    numbers: Source | None = None
    """Where the number of each frame comes from."""
    mask: Source | None = None


def multival(work: Work, node: Node, holder: Node, kind: str) -> Multival:
    """Return what a node's multival is here, and report one that has no counterpart.

    Args:
        work: The conversion.
        node: The node that it is reported at.
        holder: The node that has the input.
        kind: scale or effect.
    """
    slot = holder.slot(f"{kind}_multival")
    found = maker(work.graph, slot)
    if found is None:
        if slot is not None and slot.source is not None:
            work.note(
                node, f"Its motion {kind} comes through a subgraph; set motion_{kind} by hand."
            )
        return Multival()
    made = found[0]
    result = read_multival(made)
    if result is None:
        work.note(
            node,
            f"Its motion {kind} came from {made.type}, which has no counterpart as it is set; "
            f"motion_{kind} is a number or a Strength Curve, and motion_{kind}_mask multiplies it.",
        )
        return Multival()
    work.use(made, by=node)
    if result.mask is not None:
        work.note(
            node,
            f"motion_{kind}_mask takes one mask for all frames, or one for each; AnimateDiff-"
            "Evolved repeats the last one.",
        )
    return result


def effect_of(work: Work, node: Node, effect: Multival) -> Source | None:
    """Return the link of motion_effect, which takes no number but that of a node."""
    if effect.numbers is not None or effect.number == 1.0:
        return effect.numbers
    values = {"curve": f"0: {effect.number:g}", "start": 0.0, "end": 1.0}
    added = work.add(node, CURVE, values, {}, "motion_effect takes the number of a node")
    return Source(added.id, 0)


def read_multival(made: Node) -> Multival | None:
    """Return what a node's multival is here; None if it has no counterpart."""
    known = known_nodes().get(made.type)
    values = values_of(made, known) if known else {}
    if made.type in _NUMBERS:
        number = float(given(made, values, "float_val", 1.0))
        return Multival(number, _source(made, "float_val"), _source(made, "mask_optional"))
    is_from_zero = (
        made.type == _SCALED_MASK
        and given(made, values, "min_float_val", 0.0) == 0
        and given(made, values, "scaling", "absolute") == "absolute"
        and not _source(made, "min_float_val")
    )
    if not is_from_zero:
        return None
    number = float(given(made, values, "max_float_val", 1.0))
    return Multival(number, _source(made, "max_float_val"), _source(made, "mask"))


def _source(node: Node, name: str) -> Source | None:
    slot = node.slot(name)
    return slot.source if slot else None
