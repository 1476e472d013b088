"""Motion modules: AnimateDiff-Evolved's loaders of both generations, as Apply AnimateDiff."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from ..graph import Node, Slot, Source
from ..known import Known, known_nodes
from .ad_keyframes import with_keyframes
from .multivals import Multival, effect_of, multival
from .trace import maker
from .work import Work, given, known_of, values_of

APPLY, CONTEXT = "ADV2V_ApplyMotion", "ADV2V_ContextOptions"
_FREE_INIT = "ADV2V_FreeInit"
# ComfyUI's own context windows, which need no motion module.
WINDOWS = "ContextWindowsManual"
BETA_SCHEDULES = {
    "autoselect": "autoselect",
    "use existing": "use existing",
    "sqrt_linear (AnimateDiff)": "sqrt_linear",
    "linear (HotshotXL/default)": "linear",
    "linear (AnimateDiff-SDXL)": "linear (AnimateDiff-SDXL)",
    **{
        name: name
        for name in (
            "sqrt_linear",
            "linear",
            "avg(sqrt_linear,linear)",
            "lcm avg(sqrt_linear,linear)",
            "lcm",
            "lcm[100_ots]",
            "lcm >> sqrt_linear",
            "sqrt",
            "cosine",
            "squaredcos_cap_v2",
        )
    },
}
_FULL = Multival()
# Inputs of their loaders that nothing here corresponds to, and what to do instead.
_WITHOUT_COUNTERPART = {
    "per_block": "strengths of single blocks; motion_scale is for all of them",
    "ad_settings": "changes of the motion module's weights and positions",
}


def loader(work: Work, node: Node, known: Known) -> None:
    """Convert a loader that takes a MODEL and a motion module's name (generation 1 and older)."""
    values = values_of(node, known)
    inputs: dict[str, Slot | Source | None] = {
        "model": node.slot("model"),
        "motion_module": node.slot("model_name"),
        "motion_lora_stack": node.slot("motion_lora"),
        "context_options": node.slot("context_options"),
    }
    new = _module(values) | _beta_schedule(work, node, values)
    inputs["beta_schedule"] = node.slot("beta_schedule")
    own = Multival(given(node, values, "motion_scale", 1.0), _source(node, "motion_scale"))
    strengths = _strengths(work, node, node, own)
    new["motion_scale"] = strengths.scale.number
    inputs |= strengths.inputs
    linked = own.numbers is not None
    inputs["motion_scale"] = node.slot("motion_scale") if linked else strengths.scale.numbers
    inputs["free_init"] = _free_init(work, node)
    if values.get("apply_v2_models_properly") is False and "v2" in str(new.get("motion_module")):
        work.note(
            node,
            "apply_v2_models_properly was off; a v2 motion module always acts as it was trained.",
        )
    _note_lost(work, node, node)
    latents = node.slot("latents")
    if "context_length" in known.widgets:
        inputs["context_options"] = _own_context(work, node, values)
    if latents is not None:
        work.graph.move_consumers(Source(node.id, 1), latents.source)
    work.become(node, APPLY, new, inputs, {0: 0})


def _own_context(work: Work, node: Node, values: dict[str, Any]) -> Source:
    options = {
        "length": given(node, values, "context_length", 16),
        "stride": given(node, values, "context_stride", 1),
        "overlap": given(node, values, "context_overlap", 4),
        "closed_loop": given(node, values, "closed_loop", False),
        "schedule": "looped_uniform",
        "fuse": "flat",
    }
    added = work.add(node, CONTEXT, options, {}, "the loader's window has a node of its own here")
    return Source(added.id, 0)


def evolved(work: Work, node: Node, known: Known) -> None:
    """Convert Use Evolved Sampling with the motion model that it is given (generation 2)."""
    models = node.slot("m_models")
    found = maker(work.graph, models)
    if found is None and models is not None and models.source is not None:
        work.keep(node, "its motion model comes from outside of the subgraph or is switched off")
        return
    if found is None:
        _without_motion(work, node)
        return
    applied = found[0]
    table = known_of(applied)
    if table is None or table.rule != "part":
        work.keep(node, f"its motion model comes from {applied.type}")
        return
    loaded = maker(work.graph, applied.slot("motion_model"))
    if loaded is None or loaded[0].type != "ADE_LoadAnimateDiffModel":
        origin = loaded[0].type if loaded else "outside of the subgraph"
        work.keep(node, f"its motion model comes from {origin}")
        return
    _fold(work, node, known, applied, loaded[0])


def _fold(work: Work, node: Node, known: Known, applied: Node, loaded: Node) -> None:
    values = values_of(node, known)
    span = values_of(applied, known_nodes()[applied.type])
    strengths = _strengths(work, node, applied)
    new = {
        **_module(values_of(loaded, known_nodes()[loaded.type])),
        **_beta_schedule(work, node, values),
        "motion_scale": strengths.scale.number,
        "start": given(applied, span, "start_percent", 0.0),
        "end": given(applied, span, "end_percent", 1.0),
    }
    inputs = {
        "model": node.slot("model"),
        "motion_module": _source(loaded, "model_name"),
        "motion_lora_stack": _source(applied, "motion_lora"),
        "context_options": node.slot("context_options"),
        "beta_schedule": node.slot("beta_schedule"),
        "motion_scale": strengths.scale.numbers,
        **strengths.inputs,
        "start": _source(applied, "start_percent"),
        "end": _source(applied, "end_percent"),
        "free_init": _free_init(work, node),
    }
    for each in (node, applied, loaded):
        _note_lost(work, node, each)
    if _source(applied, "prev_m_models"):
        work.note(
            node, "It had several motion models; only the last one acts, for want of a counterpart."
        )
    work.become(node, APPLY, new, inputs, {0: 0})
    work.use(applied, by=node)
    work.use(loaded, by=node)


def _without_motion(work: Work, node: Node) -> None:
    """Convert Use Evolved Sampling that only cuts a batch into windows."""
    _note_lost(work, node, node)
    found = maker(work.graph, node.slot("context_options"))
    known = known_nodes().get(found[0].type) if found else None
    if found is None or known is None or known.to != CONTEXT:
        work.drop(node, "it has no motion model, and the MODEL goes past it")
        return
    values = values_of(found[0], known)
    fuse = values.get("fuse_method", "pyramid")
    new = {
        "context_length": given(node, values, "context_length", 16),
        "context_overlap": given(node, values, "context_overlap", 0),
        "context_stride": given(node, values, "context_stride", 1),
        "closed_loop": given(node, values, "closed_loop", False),
        "context_schedule": known.set.get("schedule", "standard_static"),
        "fuse_method": fuse if fuse in ("pyramid", "flat", "overlap-linear") else "pyramid",
    }
    work.become(node, WINDOWS, new, {"model": node.slot("model")}, {0: 0})
    work.note(node, "It has no motion model, only windows, which ComfyUI has a node for.")
    work.use(found[0], by=node)
    if not work.graph.has_consumers(found[0]):
        work.absorb(found[0])


def _module(values: dict[str, Any]) -> dict[str, Any]:
    name = values.get("model_name")
    return {"motion_module": name} if isinstance(name, str) else {}


def _beta_schedule(work: Work, node: Node, values: dict[str, Any]) -> dict[str, Any]:
    name = values.get("beta_schedule", "autoselect")
    if name not in BETA_SCHEDULES:
        work.note(node, f"beta_schedule was {name!r}, which is not here; now it is autoselect.")
    before = maker(work.graph, node.slot("model"))
    if before and before[0].type == "ModelSamplingDiscrete" and name != "use existing":
        work.note(
            node,
            "AnimateDiff-Evolved overrules the Model Sampling Discrete in front of it; Apply "
            "AnimateDiff keeps what it says the MODEL predicts. Bypass it to get the same result.",
        )
    return {"beta_schedule": BETA_SCHEDULES.get(name, "autoselect")}


def _source(node: Node, name: str) -> Source | None:
    slot = node.slot(name)
    return slot.source if slot else None


@dataclass(frozen=True)
class _Strengths:
    """The motion scale, and the inputs of the effect and of both masks."""

    scale: Multival
    inputs: dict[str, Slot | Source | None]


def _strengths(work: Work, node: Node, holder: Node, own: Multival = _FULL) -> _Strengths:
    """Return the strengths of a node's multivals and keyframes; `own` is its own motion scale."""
    scale, effect = (multival(work, node, holder, kind) for kind in ("scale", "effect"))
    scale = replace(scale, number=own.number * scale.number, numbers=own.numbers or scale.numbers)
    changed = with_keyframes(work, node, holder, {"scale": scale, "effect": effect})
    scale, effect = changed["scale"], changed["effect"]
    inputs: dict[str, Slot | Source | None] = {
        "motion_effect": effect_of(work, node, effect),
        "motion_scale_mask": scale.mask,
        "motion_effect_mask": effect.mask,
    }
    return _Strengths(scale, inputs)


def _note_lost(work: Work, node: Node, holder: Node) -> None:
    """Report what the inputs of a node did that has no counterpart."""
    for name, what in _WITHOUT_COUNTERPART.items():
        if maker(work.graph, holder.slot(name)) is not None:
            work.note(node, f"Dropped: {what}.")
    settings = maker(work.graph, holder.slot("sample_settings"))
    if settings and settings[0].type == "ADE_AnimateDiffSamplingSettings":
        for sentence in _lost_settings(work, settings[0]):
            work.note(node, sentence)


def _free_init(work: Work, node: Node) -> Source | None:
    """Return the FreeInit of a node's sample settings."""
    settings = maker(work.graph, node.slot("sample_settings"))
    iterations = maker(work.graph, settings[0].slot("iteration_opts")) if settings else None
    if iterations is None or not _is_free_init(iterations[0]):
        return None
    return Source(iterations[0].id, 0)


def _is_free_init(node: Node) -> bool:
    known = known_nodes().get(node.type)
    return node.type == _FREE_INIT or (known is not None and known.to == _FREE_INIT)


def _lost_settings(work: Work, settings: Node) -> list[str]:
    values = values_of(settings, known_nodes()[settings.type])
    found = []
    noise = values.get("noise_type", "default")
    if noise != "default":
        found.append(
            f"noise_type was {noise}; KSampler draws its own noise, and only the AnimateDiff V2V "
            "Sampler has the other kinds."
        )
    for name, usual in (("seed_gen", "comfy"), ("batch_offset", 0), ("adapt_denoise_steps", False)):
        if values.get(name, usual) != usual:
            found.append(
                f"{name} of the sample settings was {values[name]}; it has no counterpart."
            )
    named = {
        "noise_layers": "noise layers",
        "iteration_opts": "iterations without FreeInit",
        "custom_cfg": "custom CFG; KSamplerAdvanced in stages gives each its own",
        "sigma_schedule": "the sigma schedule; beta_schedule of Apply AnimateDiff has the usual",
        "image_inject": "image injection",
        "ancestral_opts": "ancestral options",
    }
    found += [
        f"Dropped from the sample settings: {what}."
        for name, what in named.items()
        if (made := maker(work.graph, settings.slot(name))) and not _is_free_init(made[0])
    ]
    return found
