"""The families of LoRAs, told by the parameters that a layer of a file has."""

from __future__ import annotations

from collections.abc import Mapping


def _needs(*alternatives: str) -> tuple[frozenset[str], ...]:
    return tuple(frozenset(names.split()) for names in alternatives)


# By what users call a family: alternatives, of which a layer must hold all names of one.
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
    """Tell the family that these parameters of one layer belong to, None where it is not known."""
    present = parameters.keys()
    for family, alternatives in _REQUIRED.items():
        if any(required <= present for required in alternatives):
            return family
    return None


def family_name(shapes: Mapping[str, tuple[int, ...]]) -> str:
    """Name the family of a layer's parameters, by their shapes, with its variant.

    "LoCon", "DoRA", "BOFT" and so on; "" where no family has these parameters.
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
