"""Advanced-ControlNet's nodes, ArtVentureX's sampler and their like, as ComfyUI's own."""

from __future__ import annotations

from typing import Any

from ..graph import Node, Slot, Source
from ..known import Known, known_nodes
from .keyframes import LOADER, keyframes
from .motion import APPLY
from .trace import maker
from .work import Work, given, values_of

# Inputs of Advanced-ControlNet that ComfyUI's own node does not have.
_ADVANCED = ("mask_optional", "timestep_kf", "latent_kf_override", "weights_override")
# Loaders of ControlNets that ComfyUI's own node can apply.
_PLAIN_LOADERS = (
    "ControlNetLoader",
    "DiffControlNetLoader",
    "ControlNetLoaderAdvanced",
    "ACN_ControlNetLoaderAdvanced",
    "DiffControlNetLoaderAdvanced",
)


def control_loader(work: Work, node: Node, known: Known) -> None:
    """Convert a loader of a ControlNet that has no keyframes."""
    if _linked(node, "tk_optional"):
        work.keep(node, "its timestep keyframes have no counterpart in ComfyUI")
        return
    inputs = {new: node.slot(old) for old, new in known.inputs.items()}
    values = values_of(node, known)
    new = {new: values[old] for old, new in known.inputs.items() if old in values}
    work.become(node, known.to, new, inputs, {0: 0})


def control(work: Work, node: Node, known: Known) -> None:
    """Convert an application of a ControlNet, unless it uses what only the other pack has."""
    used = [name for name in _ADVANCED if _linked(node, name)]
    made = maker(work.graph, node.slot("control_net"))
    loader = made[0].type if made else ""
    if made and loader == LOADER and set(used) <= {"mask_optional"}:
        keyframes(work, node, known, made[0])
        return
    if used or (loader in known_nodes() and loader not in _PLAIN_LOADERS):
        what = ", ".join(used) or loader
        work.keep(
            node, f"{what} has no counterpart in ComfyUI, and acts with Apply AnimateDiff too"
        )
        return
    if made and made[0].type in _PLAIN_LOADERS and _linked(made[0], "tk_optional"):
        work.keep(node, "its timestep keyframes have no counterpart in ComfyUI")
        return
    model = node.slot("model_optional")
    model_output = next((i for i, each in enumerate(node.outputs) if each.type == "MODEL"), None)
    if model_output is not None:
        source = model.source if model else None
        work.graph.move_consumers(Source(node.id, model_output), source)
    values = values_of(node, known)
    inputs = {new: node.slot(old) for old, new in known.inputs.items()}
    new = {new: values[old] for old, new in known.inputs.items() if old in values}
    work.become(node, known.to, new, inputs, {0: 0, 1: 1})


def their_sampler(work: Work, node: Node, known: Known) -> None:
    """Convert ArtVentureX's sampler into a KSampler behind Apply AnimateDiff."""
    module = maker(work.graph, node.slot("motion_module"))
    if module is None or module[0].type != "AnimateDiffModuleLoader":
        work.keep(node, "its motion module comes from outside of the subgraph")
        return
    values = values_of(node, known)
    loader = module[0]
    loaded = values_of(loader, known_nodes()[loader.type])
    name = loaded.get("model_name")
    links: dict[str, Slot | Source | None] = {
        "model": _source(node, "model"),
        "motion_module": _source(loader, "model_name"),
        "motion_lora_stack": _source(loader, "lora_stack"),
        "context_options": _source(node, "sliding_window_opts"),
    }
    new: dict[str, Any] = {"motion_module": name} if isinstance(name, str) else {}
    new["beta_schedule"] = "sqrt_linear"
    applied = work.add(node, APPLY, new, links, "the sampler had a motion module")
    work.use(loader, by=applied)
    inputs: dict[str, Slot | Source | None] = {old: node.slot(old) for old in known.inputs}
    sampler = {old: values[old] for old in known.inputs if old in values}
    inputs |= {"model": Source(applied.id, 0), "latent_image": _all_frames(work, node, values)}
    work.become(node, "KSampler", sampler, inputs, {0: 0})


def _all_frames(work: Work, node: Node, values: dict[str, object]) -> Slot | Source | None:
    """Return latents for all frames; the sampler repeated the last one up to frame_number."""
    latents = node.slot("latent_image")
    found = maker(work.graph, latents)
    empty = found[0] if found and found[0].type == "EmptyLatentImage" else None
    batch = empty.raw.get("widgets_values") if empty else None
    given_frames = batch[2] if isinstance(batch, list) and len(batch) > 2 else None
    if empty and empty.values is not None:
        given_frames = empty.values.get("batch_size")
    frames = given(node, values, "frame_number", 16)
    number = _source(node, "frame_number")
    if latents is None or given_frames is None or (given_frames != 1 and not number):
        return latents
    if given_frames == frames and not number:
        return latents
    repeat = {"amount": frames}
    links: dict[str, Slot | Source | None] = {"samples": latents.source, "amount": number}
    added = work.add(node, "RepeatLatentBatch", repeat, links, "the sampler had frame_number")
    return Source(added.id, 0)


def _source(node: Node, name: str) -> Source | None:
    slot = node.slot(name)
    return slot.source if slot else None


def _linked(node: Node, name: str) -> bool:
    return _source(node, name) is not None
