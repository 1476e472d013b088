"""SparseCtrl of Advanced-ControlNet, as Keyframes for AnimateDiff in front of Apply AnimateDiff."""

from __future__ import annotations

from typing import Any

from ..graph import Node, Slot, Source
from ..known import Known, known_nodes
from .motion import APPLY
from .trace import maker
from .work import Work, given, values_of

LOADER = "ACN_SparseCtrlLoaderAdvanced"
_KEYFRAMES = "ADV2V_Keyframes"
_ENCODER, _INDEX = "ACN_SparseCtrlRGBPreprocessor", "ACN_SparseCtrlIndexMethodNode"
# Widgets of the loader that Keyframes has no counterpart of, with their usual values.
_USUAL = {
    "use_motion": True,
    "motion_strength": 1.0,
    "motion_scale": 1.0,
    "context_aware": "nearest_hint",
    "sparse_hint_mult": 1.0,
    "sparse_nonhint_mult": 1.0,
    "sparse_mask_mult": 1.0,
}
# The frames of one picture, and of two, by the spread method; others depend on the video's length.
_SPREAD = {
    ("uniform", 1): "0",
    ("starting", 1): "0",
    ("ending", 1): "-1",
    ("uniform", 2): "0, -1",
}


class _Stays(Exception):
    """The reason why nodes stay."""


def keyframes(work: Work, node: Node, known: Known, loader: Node) -> None:
    """Convert an application of a SparseCtrl, unless it uses what Keyframes does not have.

    Args:
        work: The conversion.
        node: The application.
        known: What the table says of it.
        loader: The loader of the SparseCtrl.
    """
    try:
        apply = _apply(work)
        name = _model(loader)
        encoder = _made_by(work, node.slot("image"), _ENCODER)
        images = (encoder or node).slot("image")
        frames, method = _frames(work, loader, images)
    except _Stays as reason:
        work.keep(node, f"{reason}, and it acts with Apply AnimateDiff too")
        return
    values = values_of(node, known)
    for output, passed in enumerate(("positive", "negative", "model_optional")):
        slot = node.slot(passed)
        work.graph.move_consumers(Source(node.id, output), slot.source if slot else None)
    new = {
        "sparsectrl": name,
        "frames": frames,
        "strength": given(node, values, "strength", 1.0),
        "start": given(node, values, "start_percent", 0.0),
        "end": given(node, values, "end_percent", 1.0),
    }
    before = apply.slot("control")
    inputs: dict[str, Slot | Source | None] = {
        "sparsectrl": loader.slot("sparsectrl_name"),
        "frames": method.slot("indexes") if method else None,
        "images": images.source if images else None,
        "mask": node.slot("mask_optional"),
        "control": before.source if before else None,
        "strength": node.slot("strength"),
        "start": node.slot("start_percent"),
        "end": node.slot("end_percent"),
    }
    work.become(node, _KEYFRAMES, new, inputs, {})
    _connect(work, apply, "control", Source(node.id, 0))
    vae = encoder.slot("vae") if encoder else None
    if vae is not None:
        _connect(work, apply, "vae", vae.source)
    work.note(node, "It acts through Apply AnimateDiff, on each window, instead of the prompts.")
    for part in (encoder, loader, method):
        if part is not None:
            work.use(part, by=node)
            if not work.graph.has_consumers(part):
                work.absorb(part)


def _apply(work: Work) -> Node:
    """Return the Apply AnimateDiff of the graph."""
    found = [each for each in work.graph.nodes.values() if each.type == APPLY]
    if len(found) != 1:
        raise _Stays(f"the graph has {len(found) or 'no'} Apply AnimateDiff to connect it to")
    return found[0]


def _model(loader: Node) -> str:
    """Return the file of a loader whose other settings are the usual ones."""
    values = values_of(loader, known_nodes()[loader.type])
    if _is_linked(loader, "tk_optional"):
        raise _Stays("its timestep keyframes have no counterpart")
    for name, usual in _USUAL.items():
        if _is_linked(loader, name) or values.get(name, usual) != usual:
            raise _Stays(f"{name} of its loader is not {usual}, which Keyframes has no widget for")
    return str(values.get("sparsectrl_name", ""))


def _frames(work: Work, loader: Node, images: Slot | None) -> tuple[str, Node | None]:
    """Return the frames of the pictures, and the node that names them."""
    method = maker(work.graph, loader.slot("sparse_method"))
    if method is None and not _is_linked(loader, "sparse_method"):
        values: dict[str, Any] = {}
    elif method is None or method[0].type not in known_nodes():
        raise _Stays("its sparse method comes from another node")
    else:
        values = values_of(method[0], known_nodes()[method[0].type])
    count = _count(work, images)
    if method is not None and method[0].type == _INDEX:
        indexes = str(values.get("indexes", "0")).replace(" ", "").strip(",").split(",")
        return ", ".join(indexes[:count]), method[0]
    spread = values.get("spread", "uniform")
    frames = _SPREAD.get((spread, count or 0))
    if frames is None:
        raise _Stays(
            f"its frames are spread over the video ({spread}): use SparseCtrl Index Method, whose "
            "frames have numbers"
        )
    return frames, method[0] if method else None


def _count(work: Work, images: Slot | None) -> int | None:
    """Return the number of pictures, if the graph tells it."""
    made = maker(work.graph, images)
    if made is None:
        return None
    node = made[0]
    if node.type == "LoadImage":
        return 1
    if node.type == "ImageBatch":
        counts = [_count(work, node.slot(name)) for name in ("image1", "image2")]
        return None if None in counts else sum(each or 0 for each in counts)
    return None


def _made_by(work: Work, slot: Slot | None, kind: str) -> Node | None:
    made = maker(work.graph, slot)
    return made[0] if made and made[0].type == kind else None


def _is_linked(node: Node, name: str) -> bool:
    slot = node.slot(name)
    return slot is not None and slot.source is not None


def _connect(work: Work, node: Node, name: str, source: Source | None) -> None:
    slot = node.slot(name)
    assert slot is not None
    work.graph.link(node, slot, source)
