"""Recognition of checkpoints, VAEs and text encoders."""

from __future__ import annotations

from typing import Any

from .architectures import architecture_of, with_article
from .kinds import Finding, Keys
from .tensor_specs import Shapes
from .text_encoder_layout import infer_text_encoder_config
from .tiny_decoder import LATENT_CHANNELS, tiny_decoder_layout
from .unet_layout import UNET_PREFIXES, infer_unet_config, unet_names
from .vae_layout import VAE_PREFIXES, infer_vae_config, vae_names

_SD15_ONLY = "This pack runs Stable Diffusion 1.5 only."


def _refused(phrase: str, base_model: str, layout: str = "LDM") -> Finding:
    return Finding("checkpoint", phrase, base_model, layout, advice=_SD15_ONLY)


def _other_architecture(keys: Keys) -> Finding | None:
    other = architecture_of(keys)
    if other is None:
        return None
    return _refused(f"{with_article(other.name)} model", other.label, layout="")


def _checkpoint(keys: Keys) -> Finding | None:
    for prefix in UNET_PREFIXES:
        shapes = {n[len(prefix) :]: s for n, s in keys.shapes.items() if n.startswith(prefix)}
        names = unet_names(shapes)
        config = infer_unet_config(shapes, layout=names)
        if config:
            layout = "LDM" if names == "ldm" else "diffusers"
            return _other_base(keys, config, layout) or _sd15(keys, config, layout)
    return None


def _other_base(keys: Keys, config: dict[str, Any], layout: str) -> Finding | None:
    cross = config["cross_attention_dim"]
    if keys.has("time_stack.", "time_mixer.", "temporal_transformer_blocks"):
        return _refused("a Stable Video Diffusion checkpoint", "SVD", layout)
    if keys.has("label_emb.", "add_embedding.") or cross == 2048:
        phrase = "an SDXL refiner checkpoint" if cross == 1280 else "an SDXL checkpoint"
        return _refused(phrase, "SDXL", layout)
    if cross == 1024 or keys.starts("cond_stage_model.model."):
        return _refused("a Stable Diffusion 2 checkpoint", "SD2", layout)
    return None


def _sd15(keys: Keys, config: dict[str, Any], layout: str) -> Finding:
    contents = _contents(keys, config)
    channels = config["in_channels"]
    if channels != 4:
        sort = {9: "an inpainting", 8: "an InstructPix2Pix"}.get(channels, f"a {channels}-channel")
        return Finding(
            "checkpoint",
            f"{sort} checkpoint of Stable Diffusion 1.5",
            "SD1.5",
            layout,
            contents,
            advice=f"Its UNet takes {channels} channels; this pack needs one that takes 4.",
        )
    if keys.has("cond_proj.weight"):
        phrase = "an LCM checkpoint of Stable Diffusion 1.5, whose UNet takes the guidance scale"
        advice = "Use the checkpoint that it was distilled from, with an LCM LoRA."
        return Finding("checkpoint", phrase, "SD1.5", layout, contents, advice=advice)
    phrase = "a checkpoint of Stable Diffusion 1.5"
    if contents.startswith("UNet only"):
        phrase = "the UNet of Stable Diffusion 1.5 alone"
    advice = "Use it as the checkpoint."
    return Finding("checkpoint", phrase, "SD1.5", layout, contents, usable=True, advice=advice)


def _contents(keys: Keys, config: dict[str, Any]) -> str:
    vae = keys.starts("first_stage_model.")
    text = keys.starts("cond_stage_model.transformer.")
    old = text and not keys.starts("cond_stage_model.transformer.text_model.")
    parts = ["UNet" if vae or text else "UNet only"]
    parts += ["VAE" if vae else "no VAE"] if vae or text else []
    parts += ["text encoder" if text else "no text encoder"] if vae or text else []
    parts[-1] += " (old layout)" if old else ""
    parts += ["a second UNet (EMA), which is ignored"] if keys.starts("model_ema.") else []
    if config["block_out_channels"] != (320, 640, 1280, 1280):
        parts.append(
            f"of its own size: channels {'-'.join(map(str, config['block_out_channels']))}"
        )
    return ", ".join(parts)


def _vae(keys: Keys) -> Finding | None:
    for prefix in VAE_PREFIXES:
        shapes = {n[len(prefix) :]: s for n, s in keys.shapes.items() if n.startswith(prefix)}
        names = vae_names(shapes)
        config = infer_vae_config(shapes, layout=names)
        if config:
            return _known_vae(config, shapes, "LDM" if names == "ldm" else "diffusers")
    return _tiny_vae(keys)


def _tiny_vae(keys: Keys) -> Finding | None:
    found = tiny_decoder_layout(keys.shapes)
    if found is not None:
        channels = keys.shapes[found.first][1]
        layout = "diffusers" if found.layout == "diffusers" else "original"
        if channels != LATENT_CHANNELS:
            phrase = f"the decoder of a tiny VAE (TAESD) with {channels} latent channels"
            return Finding("VAE", phrase, layout=layout, advice=_SD15_ONLY)
        return Finding(
            "VAE",
            "the decoder of a tiny VAE (TAESD)",
            layout=layout,
            usable=True,
            advice="Use it as the VAE for drafts: it decodes, and the checkpoint's VAE encodes.",
        )
    if keys.has("taesd_encoder.") or keys.starts("encoder.layers.0."):
        advice = "This pack needs its decoder, taesd_decoder, or the whole VAE."
        return Finding("VAE", "the encoder of a tiny VAE (TAESD)", layout="original", advice=advice)
    return None


def _known_vae(config: dict[str, Any], shapes: Shapes, layout: str) -> Finding:
    channels = config["latent_channels"]
    if channels != 4 or "post_quant_conv.weight" not in shapes:
        phrase = f"a VAE with {channels} latent channels, as Stable Diffusion 3 and Flux have"
        return Finding("VAE", phrase, "SD3 or Flux", layout, advice=_SD15_ONLY)
    return Finding(
        "VAE",
        "a VAE",
        "SD1.5",
        layout,
        contents=f"channels {'-'.join(map(str, config['block_out_channels']))}",
        usable=True,
        advice="Use it as the VAE; one made for SDXL has the same keys, and gives wrong colours.",
    )


def _text_encoder(keys: Keys) -> Finding | None:
    prefix = "text_model."
    shapes = {n[len(prefix) :]: s for n, s in keys.shapes.items() if n.startswith(prefix)}
    config = infer_text_encoder_config(shapes)
    if config is None:
        return None
    if config["hidden_size"] > 768:
        phrase = f"a CLIP text encoder of width {config['hidden_size']}"
        return Finding("text encoder", phrase, "SD2 or SDXL", "transformers", advice=_SD15_ONLY)
    return Finding(
        "text encoder",
        "the CLIP text encoder of Stable Diffusion 1.5",
        "SD1.5",
        "transformers",
        contents=f"{config['num_hidden_layers']} layers",
        usable=True,
        advice="Use it as the text encoder of a checkpoint that has none.",
    )


RULES = (_other_architecture, _checkpoint, _vae, _text_encoder)
