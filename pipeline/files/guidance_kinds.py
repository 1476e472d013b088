"""Recognition of ControlNets, T2I-Adapters and IP-Adapters.

Layouts: lllyasviel/ControlNet, huggingface/diffusers, TencentARC/T2I-Adapter, stabilityai's
control-LoRAs, kohya-ss/sd-scripts (LLLite), tencent-ailab/IP-Adapter.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from .adapter_kinds import BASE_BY_CROSS_ATTENTION
from .kinds import Finding, Keys

IpAdapterFamily = Literal["base", "plus", "full"]

_SD15_ONLY = "This pack runs Stable Diffusion 1.5 only."
_USE = "Use it with ControlNet."
_NOT_SD15 = ("SD2", "SDXL", "SDXL refiner")
_SHUFFLED_PIXELS = 64  # a T2I-Adapter takes 8x8 pixels as channels


def _refused(phrase: str, base_model: str, layout: str, advice: str = _SD15_ONLY) -> Finding:
    return Finding("ControlNet", phrase, base_model, layout, advice=advice)


def _of_a_transformer(keys: Keys) -> bool:
    """Return whether a model has no down blocks, as Flux and Stable Diffusion 3."""
    blocks = keys.has("controlnet_blocks.", "input_hint_block.", "controlnet_x_embedder.")
    return blocks and keys.has("double_blocks.", "transformer_blocks.0.attn.", "joint_blocks.")


# Files that resemble a ControlNet for Stable Diffusion 1.5 but cannot run here.
_RELATIVES: tuple[tuple[Callable[[Keys], bool], Finding], ...] = (
    (
        lambda keys: keys.starts("lora_controlnet"),
        _refused(
            "a control-LoRA",
            "",
            "original",
            "It holds only the difference from a base model; use the whole ControlNet instead.",
        ),
    ),
    (
        lambda keys: keys.starts("lllite_"),
        _refused("a ControlNet-LLLite", "SDXL", "original"),
    ),
    (
        lambda keys: keys.starts("difference") and keys.has("zero_convs."),
        _refused(
            "a ControlNet saved as the difference from Stable Diffusion 1.5",
            "SD1.5",
            "LDM",
            "Use the whole ControlNet, such as control_v11p_sd15_canny.",
        ),
    ),
    (_of_a_transformer, _refused("a ControlNet for Flux or Stable Diffusion 3", "", "diffusers")),
)


def _control_relative(keys: Keys) -> Finding | None:
    return next((finding for is_it, finding in _RELATIVES if is_it(keys)), None)


def _controlnet(keys: Keys) -> Finding | None:
    if keys.has("input_hint_block.", "zero_convs."):
        layout = "LDM"
    elif keys.has("controlnet_cond_embedding.", "controlnet_down_blocks."):
        layout = "diffusers"
    else:
        return None
    base = _base(keys, "attn2.to_k.weight")
    if base in _NOT_SD15 or keys.has("label_emb.", "add_embedding."):
        name = "Stable Diffusion 2" if base == "SD2" else "SDXL"
        return _refused(f"a ControlNet for {name}", base if base == "SD2" else "SDXL", layout)
    if keys.has("task_embedding", "control_type_proj"):
        advice = "Use the ControlNet of the one kind that you need."
        return _refused("a ControlNet for several kinds of frames at once", base, layout, advice)
    return Finding(
        "ControlNet",
        "a ControlNet for Stable Diffusion 1.5",
        "SD1.5",
        layout,
        usable=True,
        advice=_USE,
    )


def _t2i_adapter(keys: Keys) -> Finding | None:
    if keys.has("style_embedding", "ln_post.weight") and keys.has("transformer_layes."):
        return _refused("a T2I style adapter", "SD1.5", "original", "Use an IP-Adapter instead.")
    if not keys.has("block1.weight") or not keys.starts("adapter.", "body.", "conv_in."):
        return None
    layout = "diffusers" if keys.has(".resnets.") else "original"
    if not keys.has("conv_in.weight") or keys.has("out_conv."):
        advice = "Only full T2I-Adapters run here; use a ControlNet of the same kind."
        return _refused("a light T2I-Adapter", "SD1.5", layout, advice)
    channels = keys.sizes("conv_in.weight", 1)
    if channels and not channels <= {_SHUFFLED_PIXELS, 3 * _SHUFFLED_PIXELS}:
        return _refused("a T2I-Adapter for SDXL", "SDXL", layout)
    return Finding(
        "ControlNet",
        "a T2I-Adapter for Stable Diffusion 1.5",
        "SD1.5",
        layout,
        usable=True,
        advice=_USE,
    )


def is_t2i_adapter(keys: Keys) -> bool:
    """Return whether the names are those of a T2I-Adapter that runs here."""
    finding = _t2i_adapter(keys)
    return finding is not None and finding.usable


def ip_adapter_family(keys: Keys) -> IpAdapterFamily | None:
    """Return the projection of an IP-Adapter; None if it needs vectors of a face recogniser."""
    if keys.has("perceiver_resampler.") or keys.sizes("image_proj.proj.0.weight", 1) == {512}:
        return None
    if keys.starts("image_proj.latents"):
        return "plus"
    return "full" if keys.starts("image_proj.proj.0.") else "base"


def _ip_adapter(keys: Keys) -> Finding | None:
    if not keys.starts("ip_adapter.") and not (keys.starts("image_proj.") and keys.has("to_k_ip")):
        return None

    def finding(phrase: str, base_model: str, advice: str, *, usable: bool = False) -> Finding:
        return Finding("IP-Adapter", phrase, base_model, "original", usable=usable, advice=advice)

    base = _base(keys, "to_k_ip.weight")
    if base in _NOT_SD15:
        return finding("an IP-Adapter for SDXL", "SDXL", _SD15_ONLY)
    family = ip_adapter_family(keys)
    if family is None:
        advice = "It needs insightface, which this pack does not use; take ip-adapter-plus-face."
        return finding("an IP-Adapter FaceID", "SD1.5", advice)
    names = {
        "base": "an IP-Adapter",
        "plus": "an IP-Adapter Plus",
        "full": "an IP-Adapter Full Face",
    }
    return finding(names[family], "SD1.5", "Use it with IP-Adapter.", usable=True)


def _vision_model(keys: Keys) -> Finding | None:
    hugging_face = keys.starts("vision_model.embeddings.") and not keys.starts("text_model.")
    if not hugging_face and not keys.starts("visual.transformer."):
        return None
    return Finding(
        "vision model",
        "a vision model of CLIP",
        layout="Hugging Face's" if hugging_face else "OpenCLIP's",
        usable=True,
        advice="It belongs in models/clip_vision: connect Load CLIP Vision to IP-Adapter.",
    )


def _base(keys: Keys, ending: str) -> str:
    widths = keys.sizes(ending, 1)
    return next((name for width, name in BASE_BY_CROSS_ATTENTION.items() if width in widths), "")


RULES = (_ip_adapter, _control_relative, _controlnet, _t2i_adapter, _vision_model)
