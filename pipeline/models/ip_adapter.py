"""IP-Adapters: networks that turn images into prompts.

Follows tencent-ailab/IP-Adapter (Apache-2.0; arXiv 2308.06721), ip_adapter/ip_adapter.py and
resampler.py. Modules have the key names of the files.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from ..errors import AnimateDiffV2VError
from ..files import IpAdapterSizes, IpAdapterWeights, load_ip_adapter
from .ops.eager import attend
from .ops.image_prompt import cross_attentions
from .spatial_unet import SpatialUNet

_HEAD_CHANNELS = 64  # in every published resampler; it does not follow from a tensor's shape


class ImageProjection(nn.Module):
    """Turns CLIP's embedding of an image into a few tokens."""

    def __init__(self, sizes: IpAdapterSizes) -> None:
        """Create the layers in these sizes."""
        super().__init__()
        self.proj = nn.Linear(sizes.image_channels, sizes.tokens * sizes.text_channels)
        self.norm = nn.LayerNorm(sizes.text_channels)

    def forward(self, embeddings: Tensor) -> Tensor:
        """Map [images, image channels] to [images, tokens, text channels]."""
        normed: Tensor = self.norm(
            self.proj(embeddings).view(len(embeddings), -1, *self.norm.normalized_shape)
        )
        return normed


class TokenProjection(nn.Module):
    """Turns each token of CLIP's vision model into a token for the UNet: IP-Adapter Full Face."""

    def __init__(self, sizes: IpAdapterSizes) -> None:
        """Create the layers in these sizes."""
        super().__init__()
        self.proj = nn.Sequential(
            nn.Linear(sizes.image_channels, sizes.image_channels),
            nn.GELU(),
            nn.Linear(sizes.image_channels, sizes.text_channels),
            nn.LayerNorm(sizes.text_channels),
        )

    def forward(self, embeddings: Tensor) -> Tensor:
        """Map [images, tokens, image channels] to [images, tokens, text channels]."""
        projected: Tensor = self.proj(embeddings)
        return projected


class PerceiverAttention(nn.Module):
    """Attention of learned queries to the image's tokens and to each other."""

    def __init__(self, width: int, inner: int) -> None:
        """Create the layers in these sizes."""
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.norm2 = nn.LayerNorm(width)
        self.to_q = nn.Linear(width, inner, bias=False)
        self.to_kv = nn.Linear(width, 2 * inner, bias=False)
        self.to_out = nn.Linear(inner, width, bias=False)

    def forward(self, tokens: Tensor, queries: Tensor) -> Tensor:
        """Attend from queries [images, queries, width] to tokens [images, tokens, width]."""
        tokens, queries = self.norm1(tokens), self.norm2(queries)
        key, value = self.to_kv(torch.cat([tokens, queries], dim=1)).chunk(2, dim=-1)
        heads = key.shape[-1] // _HEAD_CHANNELS
        attended: Tensor = self.to_out(attend(self.to_q(queries), key, value, heads=heads))
        return attended


class Resampler(nn.Module):
    """Turns all tokens of CLIP's vision model into a few: IP-Adapter Plus."""

    latents: nn.Parameter

    def __init__(self, sizes: IpAdapterSizes) -> None:
        """Create the layers in these sizes."""
        super().__init__()
        width = sizes.width
        self.latents = nn.Parameter(torch.empty(1, sizes.tokens, width))
        self.proj_in = nn.Linear(sizes.image_channels, width)
        self.proj_out = nn.Linear(width, sizes.text_channels)
        self.norm_out = nn.LayerNorm(sizes.text_channels)
        self.layers = nn.ModuleList(
            [
                nn.ModuleList([PerceiverAttention(width, sizes.attention), _feed_forward(width)])
                for _ in range(sizes.depth)
            ]
        )

    def forward(self, embeddings: Tensor) -> Tensor:
        """Map [images, tokens, image channels] to [images, tokens, text channels]."""
        queries = self.latents.expand(len(embeddings), -1, -1)
        tokens = self.proj_in(embeddings)
        for layer in self.layers:
            attention, forward = layer.children()
            queries = attention(tokens, queries) + queries
            queries = forward(queries) + queries
        projected: Tensor = self.norm_out(self.proj_out(queries))
        return projected


def _feed_forward(width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.LayerNorm(width),
        nn.Linear(width, 4 * width, bias=False),
        nn.GELU(),
        nn.Linear(4 * width, width, bias=False),
    )


class ImageKeys(nn.Module):
    """Projections to the keys and values of image tokens, for one cross-attention."""

    def __init__(self, width: int, text_channels: int) -> None:
        """Create the layers in these sizes."""
        super().__init__()
        self.to_k_ip = nn.Linear(text_channels, width, bias=False)
        self.to_v_ip = nn.Linear(text_channels, width, bias=False)


class IpAdapter(nn.Module):
    """The networks of one file."""

    def __init__(self, weights: IpAdapterWeights, *, name: str) -> None:
        """Build the network on the meta device; `load_ip_adapter_network` adds the weights.

        Args:
            weights: The file, with the network's sizes.
            name: The file's name, for error sentences.
        """
        super().__init__()
        projections = {"base": ImageProjection, "plus": Resampler, "full": TokenProjection}
        self.name, self.family, self.sizes = name, weights.family, weights.sizes
        self.image_proj = projections[weights.family](weights.sizes)
        self.layers = nn.ModuleList(
            [ImageKeys(width, weights.sizes.text_channels) for width in weights.sizes.layers]
        )

    @property
    def takes_tokens(self) -> bool:
        """True for adapters that take CLIP's tokens before the last layer, not its embedding."""
        return self.family != "base"

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return self._any_weight.device

    @property
    def dtype(self) -> torch.dtype:
        """Dtype to compute in."""
        return self._any_weight.dtype

    @property
    def _any_weight(self) -> Tensor:
        return next(self.parameters())

    def check_fits(self, unet: SpatialUNet) -> None:
        """Raise AnimateDiffV2VError unless the UNet's cross-attentions have the adapter's sizes."""
        theirs = tuple(attention.to_k.weight.shape for attention in cross_attentions(unet))
        ours = tuple((width, self.sizes.text_channels) for width in self.sizes.layers)
        if ours != theirs:
            raise AnimateDiffV2VError(
                f"{self.name} was made for a UNet with {len(ours)} cross-attentions for text of "
                f"{self.sizes.text_channels} channels, and this checkpoint's has {len(theirs)} for "
                f"{unet.config.cross_attention_dim}, or of other sizes: use one for the same base "
                "model."
            )

    def tokens(self, embeddings: Tensor) -> Tensor:
        """Return tokens [images, tokens, text channels], float32, on the CPU.

        Args:
            embeddings: The output of CLIP's vision model, [images, channels]; with `takes_tokens`
                [images, tokens, channels].
        """
        tokens: Tensor = self.image_proj(embeddings.to(self.device, self.dtype))
        return tokens.float().cpu()


def load_ip_adapter_network(path: Path, *, device: torch.device, dtype: torch.dtype) -> IpAdapter:
    """Load an IP-Adapter for Stable Diffusion 1.5.

    Raises:
        AnimateDiffV2VError: the file is missing, is of another kind, or is damaged.
    """
    weights = load_ip_adapter(path)
    with torch.device("meta"):
        adapter = IpAdapter(weights, name=path.name)
    moved = {name: tensor.to(device, dtype) for name, tensor in weights.tensors.items()}
    adapter.load_state_dict(moved, strict=True, assign=True)
    return adapter.eval().requires_grad_(False)
