"""The families of LoRAs, recognised by the parameters of a layer."""

from __future__ import annotations

from collections.abc import Mapping


def _needs(*alternatives: str) -> tuple[frozenset[str], ...]:
    return tuple(frozenset(names.split()) for names in alternatives)


# Names of families -> alternatives; a layer must have all parameters of one alternative.
_REQUIRED = {
    "LoRA": _needs("lora_up lora_down"),
    "LoHa": _needs("hada_w1_a hada_w1_b hada_w2_a hada_w2_b"),
    "LoKr": _needs(
        "lokr_w1 lokr_w2",
        "lokr_w1 lokr_w2_a lokr_w2_b",
        "lokr_w1_a lokr_w1_b lokr_w2",
        "lokr_w1_a lokr_w1_b lokr_w2_a lokr_w2_b",
    ),
    "GLoRA": _needs("a1 a2 b1 b2"),
    "OFT": _needs("oft_blocks"),
    "(IA)^3": _needs("weight on_input"),
    "full difference": _needs("diff", "diff_b", "w_norm", "b_norm"),
}


def family_of(parameters: Mapping[str, object]) -> str | None:
    """Return the family that these parameters of a layer belong to, or None if unknown."""
    present = parameters.keys()
    for family, alternatives in _REQUIRED.items():
        if any(required <= present for required in alternatives):
            return family
    return None


def family_name(shapes: Mapping[str, tuple[int, ...]]) -> str:
    """Return the family of a layer's parameters and its variant, by their shapes.

    "LoCon", "DoRA", "BOFT" and so on; "" if no family has these parameters.
    """
    name = family_of(shapes)
    if name is None:
        return ""
    if name == "LoRA" and len(shapes["lora_down"]) == 4:
        name = "LoCon" if shapes["lora_down"][2:] != (1, 1) else name
        name = "LoCon (Tucker)" if "lora_mid" in shapes else name
    if name == "OFT" and len(shapes["oft_blocks"]) == 4:
        name = "BOFT"
    if "dora_scale" in shapes:
        name = "DoRA" if name == "LoRA" else f"{name} with DoRA"
    return name
