"""AnimateDiff-Evolved's AnimateDiff keyframes, which change a motion module's strengths over steps.

Each keyframe acts from its place in the noise schedule to that of the next one. Where they hold
numbers, that is a Strength Curve over the steps, times the number of the multival.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from itertools import pairwise
from typing import Literal

from ..graph import Node, Slot, Source
from ..known import known_nodes
from .multivals import CURVE, Multival, read_multival
from .trace import maker
from .work import Work, given, values_of

Kind = Literal["scale", "effect"]
_KEYFRAME = "ADE_AnimateDiffKeyframe"
_WIDGETS = ("start_percent", "inherit_missing", "guarantee_steps")
# Of motion_scale and motion_effect.
_LIMITS: dict[Kind, float] = {"scale": 10.0, "effect": 1.0}


class _NoCurveError(Exception):
    """The reason why keyframes are no curve."""


@dataclass(frozen=True)
class _Keyframe:
    node: Node
    start: float
    numbers: dict[Kind, float | None]
    """None leaves it to the keyframe before, or to the multival."""
    inherits: bool
    guaranteed_steps: int
    multivals: tuple[Node, ...]


def with_keyframes(
    work: Work, node: Node, holder: Node, strengths: dict[Kind, Multival]
) -> dict[Kind, Multival]:
    """Return strengths with the changes over the steps that a node's keyframes ask for.

    Keyframes that are no curve are left out and reported.

    Args:
        work: The conversion.
        node: The node that they are reported at.
        holder: The node that has the input.
        strengths: Those of its multivals.
    """
    try:
        keyframes = sorted(_chain(work, holder.slot("ad_keyframes")), key=lambda each: each.start)
        if not keyframes:
            return strengths
        _check_guarantees(keyframes)
        points = {kind: _points(keyframes, kind, each) for kind, each in strengths.items()}
    except _NoCurveError as error:
        work.note(
            node,
            f"Dropped: AnimateDiff keyframes, as {error}. motion_scale and motion_effect take a "
            "Strength Curve, with percent over the steps.",
        )
        return strengths
    for keyframe in keyframes:
        for used in (keyframe.node, *keyframe.multivals):
            work.use(used, by=node)
    if sum(each.start > 0 and each.guaranteed_steps > 0 for each in keyframes) > 1:
        work.note(
            node,
            "Of keyframes that begin between the same two steps, only the last one acts; "
            "guarantee_steps gave each a step.",
        )
    return {kind: _changed(work, node, each, points[kind]) for kind, each in strengths.items()}


def _chain(work: Work, slot: Slot | None) -> list[_Keyframe]:
    """Return the keyframes of an input, in the order in which they were added."""
    found: list[Node] = []
    while slot is not None and slot.source is not None:
        made = maker(work.graph, slot)
        if made is None or made[0] in found:
            raise _NoCurveError("one comes through a subgraph or is switched off")
        if made[0].type != _KEYFRAME:
            raise _NoCurveError(f"{made[0].type} is among them")
        found.append(made[0])
        slot = made[0].slot("prev_ad_keyframes")
    return [_read(work, each) for each in reversed(found)]


def _read(work: Work, node: Node) -> _Keyframe:
    values = values_of(node, known_nodes()[_KEYFRAME])
    slots = [node.slot(name) for name in (*_WIDGETS, "per_block_replace")]
    if any(slot is not None and slot.source is not None for slot in slots):
        raise _NoCurveError("one has settings of single blocks, or a linked widget")
    start = float(given(node, values, "start_percent", 0.0))
    if not 0 <= start <= 1:
        raise _NoCurveError(f"one begins at {start:g}")
    numbers: dict[Kind, float | None] = {}
    multivals = []
    for kind in _LIMITS:
        slot = node.slot(f"{kind}_multival")
        numbers[kind] = None
        if slot is not None and slot.source is not None:
            made = maker(work.graph, slot)
            multival = read_multival(made[0]) if made else None
            if made is None or multival is None or multival.numbers or multival.mask:
                raise _NoCurveError(f"the {kind} of one is not a plain number")
            numbers[kind] = multival.number
            multivals.append(made[0])
    return _Keyframe(
        node,
        start,
        numbers,
        inherits=given(node, values, "inherit_missing", True),
        guaranteed_steps=given(node, values, "guarantee_steps", 1),
        multivals=tuple(multivals),
    )


def _check_guarantees(keyframes: Sequence[_Keyframe]) -> None:
    """Refuse keyframes that act longer than until the next one.

    guarantee_steps has no effect on a keyframe at the beginning, nor on the last one.
    """
    for keyframe, following in pairwise(keyframes):
        steps = keyframe.guaranteed_steps if keyframe.start > 0 else 0
        if steps > 1 or (steps == 1 and following.start == keyframe.start):
            raise _NoCurveError(f"guarantee_steps of one is {steps}, which depends on the steps")


def _points(
    keyframes: Sequence[_Keyframe], kind: Kind, strength: Multival
) -> Mapping[float, float]:
    """Return the numbers that jump, by their places in the noise schedule."""
    factors = {0.0: 1.0}
    current: float | None = None
    for keyframe in keyframes:
        if keyframe.numbers[kind] is not None or not keyframe.inherits:
            current = keyframe.numbers[kind]
        factors[keyframe.start] = 1.0 if current is None else current
    if strength.numbers is not None and set(factors.values()) != {1.0}:
        raise _NoCurveError(f"their {kind} would multiply a number for each frame")
    points = {start: factor * strength.number for start, factor in factors.items()}
    if max(points.values()) > _LIMITS[kind]:
        raise _NoCurveError(
            f"motion_{kind} would be {max(points.values()):g}, above {_LIMITS[kind]:g}"
        )
    return points


def _changed(work: Work, node: Node, strength: Multival, points: Mapping[float, float]) -> Multival:
    jumps = list(_jumps(points))
    if len(jumps) == 1:
        return replace(strength, number=jumps[0][1])
    first, *others = (f"{_percent(start)}%: {number:g}" for start, number in jumps)
    curve = ", ".join([first, *(f"{each} hold" for each in others)])
    values = {"curve": curve, "start": 0.0, "end": 1.0}
    added = work.add(node, CURVE, values, {}, "AnimateDiff keyframes are a curve over the steps")
    return replace(strength, numbers=Source(added.id, 0))


def _jumps(points: Mapping[float, float]) -> Iterator[tuple[float, float]]:
    before: float | None = None
    for start, number in points.items():
        if number != before:
            yield start, number
        before = number


def _percent(share: float) -> str:
    """Return a share in percent, with all its digits.

    >>> _percent(0.333), _percent(0.5)
    ('33.3', '50')
    """
    return f"{(Decimal(repr(share)) * 100).normalize():f}"
