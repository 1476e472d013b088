"""CLIP's text encoder as Stable Diffusion 1.5 uses it.

It is written out here because the module of transformers changed its key names between releases
and takes token ids only, while textual inversions replace the token's embedding.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..errors import AnimateDiffV2VError
from ..files.finite import is_finite
from ..prompts.chunks import CHUNK_LENGTH, FindEmbedding, Token, chunk_prompt
from ..prompts.weights import check_prompt
from .tokenizer import END_TOKEN, START_TOKEN, tokenize

logger = logging.getLogger(__name__)


class TextEncoder(Protocol):
    """A network that encodes prompts for the UNet's cross-attention."""

    def encode(self, prompt: str) -> Tensor:
        """Return the encoding of a prompt, [1, 77 * chunks, channels], float32, on the CPU."""
        ...


class _Attention(nn.Module):
    def __init__(self, channels: int, heads: int, *, is_causal: bool) -> None:
        super().__init__()
        self.heads, self.is_causal = heads, is_causal
        self.q_proj = nn.Linear(channels, channels)
        self.k_proj = nn.Linear(channels, channels)
        self.v_proj = nn.Linear(channels, channels)
        self.out_proj = nn.Linear(channels, channels)

    def forward(self, tokens: Tensor) -> Tensor:
        query, key, value = (
            projection(tokens).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        attended = functional.scaled_dot_product_attention(
            query, key, value, is_causal=self.is_causal
        )
        projected: Tensor = self.out_proj(attended.transpose(1, 2).flatten(2))
        return projected


class _Mlp(nn.Module):
    def __init__(self, channels: int, inner: int, *, has_quick_gelu: bool) -> None:
        super().__init__()
        self.has_quick_gelu = has_quick_gelu
        self.fc1 = nn.Linear(channels, inner)
        self.fc2 = nn.Linear(inner, channels)

    def forward(self, tokens: Tensor) -> Tensor:
        hidden = self.fc1(tokens)
        if self.has_quick_gelu:  # github.com/openai/CLIP, clip/model.py
            hidden = hidden * torch.sigmoid(1.702 * hidden)
        else:
            hidden = functional.gelu(hidden)
        projected: Tensor = self.fc2(hidden)
        return projected


def embedding_table(count: int, channels: int) -> nn.Embedding:
    """Return an embedding to be filled.

    PyTorch's own would draw its numbers, for which the meta device loads PyTorch's compiler.
    """
    return nn.Embedding(count, channels, _weight=torch.zeros(count, channels))


class ClipLayer(nn.Module):
    """A layer of CLIP's text encoder or of its vision model."""

    def __init__(
        self,
        channels: int,
        inner: int,
        heads: int,
        *,
        is_causal: bool = True,
        has_quick_gelu: bool = True,
    ) -> None:
        """Build the layer; the defaults are those of the text encoder."""
        super().__init__()
        self.layer_norm1 = nn.LayerNorm(channels)
        self.self_attn = _Attention(channels, heads, is_causal=is_causal)
        self.layer_norm2 = nn.LayerNorm(channels)
        self.mlp = _Mlp(channels, inner, has_quick_gelu=has_quick_gelu)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map [rows, tokens, channels] to the same shape."""
        tokens = tokens + self.self_attn(self.layer_norm1(tokens))
        added: Tensor = tokens + self.mlp(self.layer_norm2(tokens))
        return added


class _TextModel(nn.Module):
    def __init__(
        self, *, vocabulary: int, channels: int, inner: int, layers: int, heads: int, positions: int
    ) -> None:
        super().__init__()
        self.embeddings = nn.ModuleDict(
            {
                "token_embedding": embedding_table(vocabulary, channels),
                "position_embedding": embedding_table(positions, channels),
            }
        )
        self.encoder = nn.ModuleDict(
            {"layers": nn.ModuleList(ClipLayer(channels, inner, heads) for _ in range(layers))}
        )
        self.final_layer_norm = nn.LayerNorm(channels)


class ClipTextModel(nn.Module):
    """The network, under the keys `text_model.*` of checkpoints."""

    def __init__(
        self,
        *,
        vocab_size: int,
        hidden_size: int,
        intermediate_size: int,
        num_hidden_layers: int,
        num_attention_heads: int,
        max_position_embeddings: int,
    ) -> None:
        """Build the network; the sizes have transformers' names."""
        super().__init__()
        self.text_model = _TextModel(
            vocabulary=vocab_size,
            channels=hidden_size,
            inner=intermediate_size,
            layers=num_hidden_layers,
            heads=num_attention_heads,
            positions=max_position_embeddings,
        )

    @property
    def channels(self) -> int:
        """Width of a token's embedding."""
        return int(self.text_model.final_layer_norm.normalized_shape[0])

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return self.text_model.final_layer_norm.weight.device

    @property
    def layer_count(self) -> int:
        """Number of transformer layers."""
        return len(self._layers)

    @property
    def _layers(self) -> nn.ModuleList:
        layers = self.text_model.encoder["layers"]
        assert isinstance(layers, nn.ModuleList)
        return layers

    def embed(self, token_ids: Tensor) -> Tensor:
        """Look up ids [...] in the vocabulary: [..., channels]."""
        embedded: Tensor = self.text_model.embeddings["token_embedding"](token_ids)
        return embedded

    def forward(self, embedded: Tensor, *, clip_skip: int = 1) -> Tensor:
        """Encode token embeddings [chunks, 77, channels] to the same shape.

        Args:
            embedded: The result of `embed`.
            clip_skip: 1 returns the last layer's output, 2 that of the layer before it, and so on;
                the final norm is applied in any case.
        """
        positions = torch.arange(embedded.shape[1], device=embedded.device)
        tokens = embedded + self.text_model.embeddings["position_embedding"](positions)
        for layer in self._layers[: self.layer_count + 1 - clip_skip]:
            tokens = layer(tokens)
        normed: Tensor = self.text_model.final_layer_norm(tokens)
        return normed


class ClipTextEncoder:
    """An encoder of prompts of any length, with weights and textual inversions."""

    def __init__(
        self,
        network: ClipTextModel,
        *,
        clip_skip: int = 1,
        find_embedding: Callable[[str], Tensor | None] | None = None,
    ) -> None:
        """Use `network`, on whatever device it is.

        Args:
            network: The network.
            clip_skip: 1 for the last layer (SD1.5's default); many anime checkpoints want 2.
            find_embedding: Returns the vectors [count, channels] of an `embedding:name` in a
                prompt, None for an unknown one.

        Raises:
            AnimateDiffV2VError: clip_skip exceeds the number of layers.
        """
        if not 1 <= clip_skip <= network.layer_count:
            raise AnimateDiffV2VError(
                f"clip_skip is {clip_skip}; this text encoder has {network.layer_count} layers, so "
                f"it can be 1 (the last) to {network.layer_count}."
            )
        self.network = network
        self.clip_skip = clip_skip
        self._find_embedding = find_embedding

    def encode(self, prompt: str) -> Tensor:
        """Return the encoding of a prompt, [1, 77 * chunks, channels], float32, on the CPU.

        Weights act as in ComfyUI: a token's output is interpolated, or extrapolated, between that
        of the empty prompt at the same position (weight 0) and its own (weight 1).
        """
        check_prompt(prompt)
        chunks = chunk_prompt(
            prompt,
            tokenize=tokenize,
            find_embedding=self._embedding,
            start_token=START_TOKEN,
            end_token=END_TOKEN,
            on_missing=_warn_of_missing,
        )
        encoded = self._run(chunks)
        weights = torch.tensor([[token.weight for token in chunk] for chunk in chunks])
        if bool((weights != 1.0).any()):
            empty = self._run([[Token(START_TOKEN), *[Token(END_TOKEN)] * (CHUNK_LENGTH - 1)]])
            weighted = (encoded - empty) * weights.unsqueeze(-1) + empty
            encoded = torch.where((weights == 1.0).unsqueeze(-1), encoded, weighted)
        return encoded.flatten(0, 1).unsqueeze(0)

    def _embedding(self, name: str) -> Tensor | None:
        vectors = self._find_embedding(name) if self._find_embedding else None
        if vectors is None:
            return None
        vectors = vectors.reshape(-1, vectors.shape[-1])
        if vectors.shape[1] != self.network.channels:
            logger.warning(
                "embedding:%s has %d channels, made for another model (this one has %d), "
                "and is left out.", name, vectors.shape[1], self.network.channels,
            )  # fmt: skip
            return vectors[:0]
        if not is_finite(vectors):
            raise AnimateDiffV2VError(
                f"embedding:{name} holds numbers that are not finite (NaN or infinite), and every "
                "frame would come out black: download it again, or leave it out."
            )
        return vectors

    @torch.inference_mode()
    def _run(self, chunks: list[list[Token]]) -> Tensor:
        """Encode chunks one by one, so that a chunk's result does not depend on its neighbours."""
        rows = [self.network(self._embed(chunk), clip_skip=self.clip_skip) for chunk in chunks]
        return torch.cat(rows).float().cpu()

    def _embed(self, chunk: list[Token]) -> Tensor:
        ids = [token.value if isinstance(token.value, int) else END_TOKEN for token in chunk]
        embedded = self.network.embed(torch.tensor([ids], device=self.network.device))
        for position, token in enumerate(chunk):
            if isinstance(token.value, Tensor):
                embedded[0, position] = token.value.to(embedded)
        return embedded


def _warn_of_missing(name: str) -> None:
    logger.warning("embedding:%s in the prompt is not installed and is left out.", name)


__all__ = ["ClipTextEncoder", "ClipTextModel", "FindEmbedding", "TextEncoder"]
