"""Recognition of diffusion models other than Stable Diffusion 1.5 by their layers' names.

One table covers checkpoints and LoRAs in all naming schemes: the models' own repositories,
diffusers, PEFT, kohya's trainers, SimpleTuner, OneTrainer and ComfyUI. Names are compared without
their prefixes and with underscores for dots, as kohya's trainers write them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from .kinds import Keys

_PREFIX = re.compile(
    r"^(?:module\.|base_model\.model\.|model\.diffusion_model\.|diffusion_model\.|transformer\.|"
    r"unet\.|net\.|dit\.|model\.|lora_unet__?|lora_transformer_|lycoris_|oft_unet_)+"
)


@dataclass(frozen=True)
class Architecture:
    """A diffusion model that this pack does not run.

    Attributes:
        name: the name in a sentence: "Wan 2.1 or 2.2".
        label: a short name, for `FileReport.base_model`.
        layers: a pattern that the names of its layers match from their beginning.
        widths: channels of its tokens, if the names alone are ambiguous; any, if empty.
    """

    name: str
    label: str
    layers: re.Pattern[str]
    widths: frozenset[int] = frozenset()


def _known(
    name: str, layers: str, *, label: str = "", widths: tuple[int, ...] = ()
) -> Architecture:
    return Architecture(name, label or name, re.compile(layers), frozenset(widths))


# The first match counts, so a more specific pattern comes before one that it overlaps with.
_ARCHITECTURES = (
    _known("Stable Cascade", r"lora_prior_|clip_txt_(?:pooled_)?mapper|effnet_mapper|clf_1_"
           r"|(?:down|up)_blocks_\d+_\d+_(?:attention|kv_mapper|channelwise|depthwise|mapper)"),
    _known("Kandinsky 2", r"(?:(?:down|up)_blocks_\d+|mid_block)_attentions_\d+_(?:processor_)?"
           r"(?:add_[kv]_proj|to_add_out)", label="Kandinsky"),
    _known("Kandinsky 3", r"(?:down|up)_blocks_\d+_(?:attentions_\d+_attention_to_|"
           r"resnets_(?:in|out)_)", label="Kandinsky"),
    _known("Kandinsky 5", r"(?:visual|text)_transformer_blocks_", label="Kandinsky"),
    _known("Stable Video Diffusion", r".*(?:temporal_transformer_blocks|time_stack|time_mixer)_",
           label="SVD"),
    _known("ModelScope's text-to-video", r"(?:(?:down|up)_blocks_\d+|mid_block)_temp_(?:att|conv)|"
           r"transformer_in_", label="ModelScope"),
    _known("HiDream", r"(?:double|single)_stream_blocks_\d+_block_|.*_ff_i_(?:experts|shared)"),
    _known("AuraFlow", r"joint_transformer_blocks_|(?:double|single)_layers_\d+_|cond_seq_linear"),
    _known("Chroma", r"distilled_guidance_layer_"),
    _known("Flux.2", r"(?:double|single)_stream_modulation|single_transformer_blocks_\d+_attn_"
           r"to_qkv_mlp|single_(?:transformer_)?blocks_4\d_|time_guidance_embed_guidance",
           label="Flux2"),
    _known("Flux.2", r"double_blocks_\d+_|single_blocks_\d+_|single_transformer_blocks_\d+_",
           label="Flux2", widths=(6144,)),
    _known("HunyuanVideo", r".*token_refiner_|double_blocks_\d+_(?:img|txt)_(?:mod_linear|mlp_fc)|"
           r"single_blocks_\d+_modulation_linear|double_blocks_19_|single_blocks_3[89]_|"
           r"single_transformer_blocks_3[89]_|byt5_in_"),
    _known("Flux", r"double_blocks_\d+_|single_blocks_\d+_|single_transformer_blocks_\d+_"),
    _known("Stable Diffusion 3", r"joint_blocks_\d+_|context_block_", label="SD3"),
    _known("Mochi", r"transformer_blocks_\d+_attn1_add_[qkv]_proj|t5_yproj|t5_y_embedder|"
           r"blocks_\d+_(?:attn_(?:qkv|proj)_[xy]|mlp_[xy]_|mod_[xy])"),
    _known("Krea 2", r"text_fusion_|txtfusion_|txt_fusion_", label="Krea2"),
    _known("Qwen-Image", r"transformer_blocks_\d+_(?:img|txt)_(?:mod|mlp)_|txt_norm_"),
    _known("Qwen-Image", r"transformer_blocks_\d+_attn_(?:add_[qkv]_proj|to_)", widths=(3072,)),
    _known("Stable Diffusion 3", r"transformer_blocks_\d+_attn_add_[qkv]_proj", label="SD3"),
    _known("Stable Diffusion 3", r"transformer_blocks_\d+_(?:attn_to_|ff_context)", label="SD3",
           widths=(1536, 2432)),
    _known("HunyuanDiT", r"blocks_\d+_(?:attn1_Wqkv|attn2_kv_proj|default_modulation|skip_linear|"
           r"norm1_linear)|mlp_t5_|extra_embedder_"),
    _known("HunyuanDiT", r"blocks_\d+_attn[12]_to_", widths=(1408,)),
    _known("Cosmos", r"blocks_(?:block)?\d+_(?:adaln_modulation|adaLN_modulation|blocks_\d+_block|"
           r"(?:self|cross)_attn_(?:[qkv]|output)_proj|mlp_layer[12])|"
           r"transformer_blocks_\d+_norm\d_linear_[12]"),
    _known("PixArt", r"blocks_\d+_(?:attn_(?:qkv|proj)|cross_attn_(?:q_linear|kv_linear|proj)|"
           r"mlp_fc[12])(?!_[xy]_)_|t_block_"),
    _known("Wan 2.1 or 2.2", r"blocks_\d+_(?:(?:self|cross)_attn_|attn[12]_|ffn_)|"
           r"vace_blocks_\d+_|condition_embedder_(?:text|time|image)_embedder",
           label="Wan"),
    _known("LTX-2", r"(?:transformer_blocks_\d+_)?audio_|transformer_blocks_\d+_"
           r"(?:video_to_audio|audio_to_video)|av_ca_", label="LTX"),
    _known("Sana", r"transformer_blocks_\d+_ff_conv_|blocks_\d+_mlp_(?:inverted|depth|point)_conv"),
    _known("CogView", r"transformer_blocks_\d+_(?:norm1_linear|attn1_to_)", widths=(2560,)),
    _known("CogView", r"time_condition_embed_|transformer_blocks_\d+_norm1_linear", widths=(4096,)),
    _known("CogVideoX", r"transformer_blocks_\d+_norm[12]_linear|patch_embed_text_proj"),
    _known("CogVideoX", r"transformer_blocks_\d+_attn1_to_", widths=(1920, 3072)),
    _known("Sana", r"transformer_blocks_\d+_attn[12]_to_", widths=(2240,)),
    _known("Cosmos", r"transformer_blocks_\d+_attn2_to_[kv]", widths=(1024,)),
    _known("PixArt", r"adaln_single_emb_(?:resolution|aspect)|pos_embed_proj"),
    _known("PixArt", r"transformer_blocks_\d+_attn[12]_to_", widths=(1152,)),
    _known("LTX-Video", r"patchify_proj|adaln_single_", label="LTX"),
    _known("LTX-Video", r"transformer_blocks_\d+_attn[12]_to_", label="LTX", widths=(2048, 4096)),
    _known("Z-Image", r"layers_\d+_adaLN_modulation_0|all_(?:x_embedder|final_layer)|x_pad_token|"
           r"cap_pad_token"),
    _known("Z-Image", r"(?:layers|noise_refiner|context_refiner)_\d+_(?:attention|feed_forward)_",
           widths=(3840,)),
    _known("OmniGen", r"ref_image_|llm_layers_|layers_\d+_self_attn_qkv_proj|"
           r"layers_\d+_mlp_gate_up_proj|time_caption_embed_image"),
    _known("OmniGen", r"layers_\d+_(?:attn|feed_forward)_", widths=(2520,)),
    _known("Lumina 2", r"(?:layers|noise_refiner|context_refiner)_\d+_(?:attention|attn|"
           r"feed_forward)_|cap_embedder_", label="Lumina2"),
    _known("ACE-Step", r"genre_embedder|lyric_|speaker_embedder"),
)  # fmt: skip


def architecture_of(keys: Keys) -> Architecture | None:
    """Return the other diffusion model that a checkpoint or LoRA is for; None if none matches."""
    layers = {name: _PREFIX.sub("", name, count=1) for name in keys.shapes}
    # HunyuanVideo has an underscore where Flux has a dot.
    hunyuan = any(re.match(r"double_blocks\.\d+\.(?:img|txt)_attn_", n) for n in layers.values())
    spelled = {name: layer.replace(".", "_") for name, layer in layers.items()}
    for architecture in _ARCHITECTURES:
        if any(_fits(architecture, layer, keys.shapes[name]) for name, layer in spelled.items()):
            return _HUNYUAN_VIDEO if hunyuan and architecture.label == "Flux" else architecture
    return None


_HUNYUAN_VIDEO = next(each for each in _ARCHITECTURES if each.name == "HunyuanVideo")


def _fits(architecture: Architecture, layer: str, shape: tuple[int, ...]) -> bool:
    if not architecture.layers.match(layer):
        return False
    return not architecture.widths or bool(architecture.widths.intersection(shape))


def with_article(name: str) -> str:
    """Return a name with "a" or "an" in front, depending on its pronunciation."""
    return f"an {name}" if name.startswith(("A", "O", "LTX")) else f"a {name}"
