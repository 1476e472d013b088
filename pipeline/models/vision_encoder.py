"""CLIP's vision model, which encodes images for IP-Adapters.

The network of github.com/openai/CLIP and mlfoundations/open_clip, under the key names of Hugging
Face's CLIPVisionModelWithProjection. Images are prepared as in ComfyUI.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..errors import AnimateDiffV2VError
from ..files import read_weights
from ..files.recognition import refusal
from .text_encoder import ClipLayer, embedding_table

# Mean and standard deviation of the red, green and blue of CLIP's training images.
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_DEVIATION = (0.26862954, 0.26130258, 0.27577711)
_MOST_HEADS, _HEAD_CHANNELS = 16, 64
# ViT-H and ViT-bigG of open_clip; OpenAI's models use the quick approximation.
_WIDTHS_WITH_EXACT_GELU = (1280, 1664)


class ClipVisionModel(nn.Module):
    """The network; its sizes follow from a file's tensors."""

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        """Create the layers in these sizes."""
        super().__init__()
        patches = tensors["vision_model.embeddings.patch_embedding.weight"]
        positions = tensors["vision_model.embeddings.position_embedding.weight"]
        projection = tensors["visual_projection.weight"]
        inner = tensors["vision_model.encoder.layers.0.mlp.fc1.weight"].shape[0]
        width, self.patch = patches.shape[0], patches.shape[-1]
        self.image_size = self.patch * round((positions.shape[0] - 1) ** 0.5)
        depth = len({name.split(".")[3] for name in tensors if ".encoder.layers." in name})
        model: Any = nn.Module()
        self.vision_model = model
        model.embeddings = nn.Module()
        model.embeddings.class_embedding = nn.Parameter(torch.empty(width))
        model.embeddings.patch_embedding = nn.Conv2d(
            3, width, self.patch, stride=self.patch, bias=False
        )
        model.embeddings.position_embedding = embedding_table(positions.shape[0], width)
        model.pre_layrnorm = nn.LayerNorm(width)
        layers = (
            ClipLayer(
                width,
                inner,
                min(_MOST_HEADS, max(1, width // _HEAD_CHANNELS)),
                is_causal=False,
                has_quick_gelu=width not in _WIDTHS_WITH_EXACT_GELU,
            )
            for _ in range(depth)
        )
        model.encoder = nn.ModuleDict({"layers": nn.ModuleList(layers)})
        model.post_layernorm = nn.LayerNorm(width)
        self.visual_projection = nn.Linear(width, projection.shape[0], bias=False)

    def forward(self, pixels: Tensor, *, as_tokens: bool) -> Tensor:
        """Encode prepared pixels [images, 3, size, size] for an IP-Adapter.

        Args:
            pixels: See `encode`, which prepares them.
            as_tokens: Return the tokens before the last layer, [images, tokens, width], instead of
                one embedding for each image, [images, channels].
        """
        model: Any = self.vision_model
        patches = model.embeddings.patch_embedding(pixels).flatten(2).transpose(1, 2)
        first = model.embeddings.class_embedding.expand(len(pixels), 1, -1)
        tokens = torch.cat([first, patches], dim=1)
        tokens = model.pre_layrnorm(tokens + model.embeddings.position_embedding.weight)
        layers = list(model.encoder["layers"])
        for layer in layers[:-1]:
            tokens = layer(tokens)
        if as_tokens:
            result: Tensor = tokens
            return result
        pooled: Tensor = model.post_layernorm(layers[-1](tokens)[:, 0])
        embedding: Tensor = self.visual_projection(pooled)
        return embedding

    @torch.inference_mode()
    def encode(self, image: Tensor, *, as_tokens: bool) -> Tensor:
        """Encode the middle square of an image [height, width, 3], 0..1; float32, on the CPU.

        Args:
            image: The image.
            as_tokens: See `forward`.
        """
        weight = self.visual_projection.weight
        pixels = _prepared(image, self.image_size).to(weight.device, weight.dtype)
        encoded: Tensor = self(pixels, as_tokens=as_tokens).float().cpu()
        return encoded

    def empty(self, *, as_tokens: bool) -> Tensor:
        """Return the encoding of "no image" used in training: zeros, or an encoded grey image."""
        grey = torch.tensor(CLIP_MEAN).expand(self.image_size, self.image_size, 3)
        encoded = self.encode(grey, as_tokens=as_tokens)
        return encoded if as_tokens else torch.zeros_like(encoded)


def load_vision_model(path: Path, *, device: torch.device, dtype: torch.dtype) -> ClipVisionModel:
    """Load CLIP's vision model.

    Raises:
        AnimateDiffV2VError: the file is missing, is of another kind, or is damaged.
    """
    tensors = read_weights(path)
    wrong = refusal(tensors, path, wanted=("vision model",))
    if wrong:
        raise AnimateDiffV2VError(wrong)
    unused = ("position_ids", "logit_scale")
    tensors = {name: tensor for name, tensor in tensors.items() if not name.endswith(unused)}
    try:
        with torch.device("meta"):
            model = ClipVisionModel(tensors)
        moved = {name: tensor.to(device, dtype) for name, tensor in tensors.items()}
        model.load_state_dict(moved, strict=True, assign=True)
    except (KeyError, RuntimeError) as error:
        raise AnimateDiffV2VError(
            f"{path} is not the vision model in the layout of Hugging Face's CLIP, or is damaged: "
            "use CLIP-ViT-H-14-laion2B-s32B-b79K, as model.safetensors of its image_encoder."
        ) from error
    return model.eval().requires_grad_(False)


def _prepared(image: Tensor, size: int) -> Tensor:
    """Bring an image to [1, 3, size, size]: the middle square, rounded to bytes, normalized."""
    pixels = image[..., :3].movedim(-1, 0).unsqueeze(0)
    scale = size / min(pixels.shape[2:])
    height, width = (round(scale * side) for side in pixels.shape[2:])
    pixels = functional.interpolate(pixels, (height, width), mode="bicubic", antialias=True)
    top, left = (height - size) // 2, (width - size) // 2
    pixels = pixels[:, :, top : top + size, left : left + size]
    pixels = (255.0 * pixels).clamp(0, 255).round() / 255.0
    mean, deviation = (torch.tensor(each).view(3, 1, 1) for each in (CLIP_MEAN, CLIP_DEVIATION))
    return (pixels - mean) / deviation
