"""Recognition of LoRAs and textual inversions."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator

from .architectures import architecture_of
from .kinds import Finding, Keys
from .lora_families import family_name
from .lora_keys import split_key, split_network
from .tensor_specs import Shape

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
}
# Layers of Stable Diffusion's UNet and of its text encoder, in diffusers' names and in LDM's.
_LAYER = re.compile(
    r"(?:down|up)_blocks_\d+_(?:attentions|resnets|downsamplers|upsamplers|motion_modules)_"
    r"|mid_block_(?:attentions|resnets|motion_modules)_|(?:input|output)_blocks_\d+_\d|middle_block_\d"
    r"|conv_(?:in|out|norm_out)$|time_embed|out_[02]$"
    r"|(?:text_model_)?(?:encoder_layers_\d+_|embeddings_|final_layer_norm)"
)


def _textual_inversion(keys: Keys) -> Finding | None:
    names = list(keys.shapes)
    shapes = [
        shape[1:] if len(shape) == 3 and shape[0] == 1 else shape for shape in keys.shapes.values()
    ]
    widths = {shape[-1] for shape in shapes if 0 < len(shape) <= 2}
    known = keys.starts("string_to_param.", "emb_params") or set(names) <= {"clip_l", "clip_g"}
    listed = all(re.match(r"\d+\.", name) for name in names)
    plain = listed or (len(names) <= 3 and all("." not in name for name in names))
    vectors = max(map(len, shapes), default=3) <= 2 and widths and widths <= {768, 1024, 1280}
    if not names or not (known or (plain and vectors and (listed or len(widths) == 1))):
        return None
    base = {1024: "SD2", 1280: "SDXL"}.get(max(widths, default=0), "SD1.5")
    usable = base == "SD1.5" or 768 in widths
    advice = "Use it in a prompt: embedding: and the file's name." if usable else _SD15_ONLY
    if usable and base == "SDXL":
        advice += " Of its two halves the one for CLIP-L counts here."
    return Finding(
        "textual inversion",
        f"a textual inversion for {_NAMES[base]}",
        base,
        usable=usable,
        advice=advice,
    )


def _lora(keys: Keys) -> Finding | None:
    if not keys.has(*_MARKS):
        return None
    splits = {name: split for name in keys.shapes if (split := split_key(name))}
    parameters = {parameter for _, parameter in splits.values()}
    if not parameters & _UNIQUE_TO_LORAS and not {"a1", "b1"} <= parameters:
        return None
    other = architecture_of(keys)
    if other is not None:
        return _not_ours(other.name, other.label, keys)
    base = _lora_base(keys, splits)
    if base not in ("SD1.5", ""):
        return _not_ours(_NAMES.get(base, base), base, keys)
    modules = {module for module, _ in splits.values()}
    adapter = keys.has(".processor.") and all(re.match(r"(down|mid|up)_block", m) for m in modules)
    families = _families(keys, splits)
    named = "a LoRA" if families in ("LoRA", "") else f"a LoRA of the family {families}"
    if ", " in families:
        named = f"a LoRA of the families {families}"
    return Finding(
        "v3 domain adapter" if adapter else "LoRA",
        "the v3 domain adapter, or a LoRA in its layout" if adapter else named,
        base,
        _lora_layout(keys),
        contents=f"{len(modules)} layers",
        usable=True,
        advice="Use it as a LoRA.",
    )


def _families(keys: Keys, splits: dict[str, tuple[str, str]]) -> str:
    """Return the families of a file's layers, the most common first: "LoHa, DoRA"."""
    layers: dict[str, dict[str, Shape]] = defaultdict(dict)
    for name, (module, parameter) in splits.items():
        layers[module][parameter] = keys.shapes[name]
    counts = Counter(filter(None, map(family_name, layers.values())))
    return ", ".join(family for family, _ in counts.most_common())


def _not_ours(name: str, label: str, keys: Keys) -> Finding:
    advice = f"This pack runs Stable Diffusion 1.5, and LoRAs do not carry over from {name}."
    return Finding("LoRA", f"a LoRA for {name}", label, _lora_layout(keys), advice=advice)


def _lora_base(keys: Keys, splits: dict[str, tuple[str, str]]) -> str:
    """Return the base model by the layers' names, or else by the width of their text input."""
    deep = keys.has("transformer_blocks_1_", "transformer_blocks.1.")
    by_name = {
        "SDXL": keys.has("lora_te2_", "text_encoder_2.", "text_encoders.clip_g.") or deep,
        "another architecture": not any(
            _LAYER.match(split_network(module)[1]) for module, _ in splits.values()
        ),
    }
    by_width = (
        BASE_BY_CROSS_ATTENTION[width]
        for layer in (r"attn2[._](processor\.)?to_k", r"self_attn[._]")
        for width in _input_widths(keys, splits, layer)
        if width in BASE_BY_CROSS_ATTENTION
    )
    return next((base for base, fits in by_name.items() if fits), None) or next(by_width, "")


def _input_widths(keys: Keys, splits: dict[str, tuple[str, str]], layer: str) -> Iterator[int]:
    pattern = re.compile(layer)
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
