"""How LoRAs and textual inversions are recognised."""

from __future__ import annotations

import re
from collections.abc import Iterator

from .kinds import Finding, Keys
from .lora_keys import split_key

_SD15_ONLY = "This pack runs Stable Diffusion 1.5 only."
_UNIQUE_TO_LORAS = frozenset(
    (
        "lora_up",
        "lora_down",
        "hada_w1_a",
        "lokr_w1",
        "lokr_w1_a",
        "oft_blocks",
        "on_input",
        "diff",
        "w_norm",
        "dora_scale",
    )
)
_MARKS = ("lora", "hada_w", "lokr_w", "oft_blocks", ".on_input", ".diff", ".w_norm", ".a1.weight")
_INPUT_WIDTH_AXIS = {"lora_down": 1, "hada_w1_b": 1, "b2": 1, "diff": 1}
BASE_BY_CROSS_ATTENTION = {768: "SD1.5", 1024: "SD2", 1280: "SDXL refiner", 2048: "SDXL"}
_NAMES = {
    "SD1.5": "Stable Diffusion 1.5",
    "SD2": "Stable Diffusion 2",
    "SDXL": "SDXL",
    "SDXL refiner": "the SDXL refiner",
    "SD3": "Stable Diffusion 3",
    "Flux": "Flux",
}


def _textual_inversion(keys: Keys) -> Finding | None:
    names = list(keys.shapes)
    known = keys.starts("string_to_param.", "emb_params") or set(names) <= {"clip_l", "clip_g"}
    plain = len(names) <= 3 and all("." not in name for name in names)
    shapes = list(keys.shapes.values())
    widths = {shape[-1] for shape in shapes if 0 < len(shape) <= 2}
    if not names or not (known or (plain and len(widths) == 1 and widths <= {768, 1024, 1280})):
        return None
    base = {1024: "SD2", 1280: "SDXL"}.get(max(widths, default=0), "SD1.5")
    usable = base == "SD1.5"
    return Finding(
        "textual inversion",
        f"a textual inversion for {_NAMES[base]}",
        base,
        usable=usable,
        advice="Use it in a prompt: embedding: and the file's name." if usable else _SD15_ONLY,
    )


def _lora(keys: Keys) -> Finding | None:
    if not keys.has(*_MARKS):
        return None
    splits = {name: split for name in keys.shapes if (split := split_key(name))}
    parameters = {parameter for _, parameter in splits.values()}
    if not parameters & _UNIQUE_TO_LORAS and not {"a1", "b1"} <= parameters:
        return None
    base = _lora_base(keys, splits)
    if base not in ("SD1.5", ""):
        phrase = f"a LoRA for {_NAMES.get(base, base)}"
        return Finding("LoRA", phrase, base, _lora_layout(keys), advice=_other_base(base))
    modules = {module for module, _ in splits.values()}
    adapter = keys.has(".processor.") and all(re.match(r"(down|mid|up)_block", m) for m in modules)
    return Finding(
        "v3 domain adapter" if adapter else "LoRA",
        "the v3 domain adapter, or a LoRA in its layout" if adapter else "a LoRA",
        base,
        _lora_layout(keys),
        contents=f"{len(modules)} layers",
        usable=True,
        advice="Use it as a LoRA.",
    )


def _other_base(base: str) -> str:
    name = _NAMES.get(base, base)
    return f"This pack runs Stable Diffusion 1.5, and LoRAs do not carry over from {name}."


def _lora_base(keys: Keys, splits: dict[str, tuple[str, str]]) -> str:
    """The base model by the layers' names, or else by the width of the text that they take."""
    unet = keys.has("attentions_", "attentions.", "put_blocks_", "put_blocks.", "resnets")
    deep = keys.has("transformer_blocks_1_", "transformer_blocks.1.")
    by_name = {
        "Flux": keys.has("double_blocks", "single_blocks", "single_transformer_blocks"),
        "SD3": keys.has("joint_blocks", "joint_transformer_blocks", "add_k_proj"),
        "SDXL": keys.has("lora_te2_", "text_encoder_2.") or (unet and deep),
        "another architecture": not unet
        and keys.has("transformer_blocks", "model.blocks", "model.layers"),
    }
    by_width = (
        BASE_BY_CROSS_ATTENTION[width]
        for place in (r"attn2[._](processor\.)?to_k", r"self_attn[._]")
        for width in _input_widths(keys, splits, place)
        if width in BASE_BY_CROSS_ATTENTION
    )
    return next((base for base, fits in by_name.items() if fits), None) or next(by_width, "")


def _input_widths(keys: Keys, splits: dict[str, tuple[str, str]], place: str) -> Iterator[int]:
    pattern = re.compile(place)
    for name, (module, parameter) in splits.items():
        axis = _INPUT_WIDTH_AXIS.get(parameter)
        shape = keys.shapes[name]
        if axis is not None and len(shape) > axis and pattern.search(module):
            yield shape[axis]


def _lora_layout(keys: Keys) -> str:
    if keys.starts("lora_", "oft_unet", "oft_te"):
        return "kohya"
    if keys.starts("lycoris_"):
        return "LyCORIS"
    if keys.starts("unet.", "text_encoder.") or keys.has(".processor."):
        return "diffusers"
    return "PEFT" if keys.has(".lora_A.") else ""


RULES = (_lora, _textual_inversion)
