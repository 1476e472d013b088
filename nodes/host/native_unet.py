"""The UNet of a MODEL, run layer by layer with motion modules in between.

The layers are ComfyUI's own, so that whatever ComfyUI does to their weights acts: LoRAs, hooks,
merges, 8 bits, offloading. Patches inside the network act too: they are called as ComfyUI calls
them. A transformer without patches whose weights are all on the device runs by this pack's own
operations, which are faster and give the same result up to rounding.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from comfy.ldm.modules.attention import SpatialTransformer
from comfy.ldm.modules.diffusionmodules.openaimodel import (
    Downsample,
    ResBlock,
    UNetModel,
    Upsample,
)
from comfy.ldm.modules.diffusionmodules.util import timestep_embedding
from torch import Tensor
from torch.nn import functional

from ...pipeline.models.batching import default_chunk_tokens
from ...pipeline.models.motion_module import MotionModule, MotionModules, blended
from ...pipeline.models.ops.eager import prompt_of_each_video
from ...pipeline.models.ops.frame_norm import norm_over_frames
from ...pipeline.models.ops.image_prompt import ImagePrompt
from ...pipeline.models.ops.window_memory import RowMemory
from ...pipeline.models.pass_strengths import FULL_STRENGTH, PassStrengths
from ...pipeline.models.residuals import NO_RESIDUALS, Residuals
from .native_transformer import (
    ATTENTION_PATCHES,
    can_run,
    cross_attention_numbers,
    is_overridden,
    run_transformer,
    with_images,
    with_memory,
)

Options = dict[str, Any]

# The patches that act; in patches_replace, those of attention.
PATCHES = frozenset(
    (
        "emb_patch",
        "forward_timestep_embed_patch",
        "input_block_patch",
        "input_block_patch_after_skip",
        "middle_block_after_patch",
        "output_block_patch",
        *ATTENTION_PATCHES,
    )
)
REPLACED = ("attn1", "attn2")


class NativeUNet:
    """A pass through the UNet of a MODEL for one window, with every conditioning in the batch."""

    def __init__(
        self,
        unet: UNetModel,
        motion: MotionModules | None,
        *,
        num_frames: int,
        spans_frames: bool,
        options: Options,
        residuals: Residuals = NO_RESIDUALS,
        images: Sequence[ImagePrompt] = (),
        strengths: PassStrengths = FULL_STRENGTH,
        memory: RowMemory | None = None,
    ) -> None:
        """Prepare a pass.

        Args:
            unet: ComfyUI's network.
            motion: The motion modules; None runs each frame by itself.
            num_frames: Frames of the window.
            spans_frames: Let every group norm span the frames, as v1 motion modules need it.
            options: ComfyUI's transformer_options, which the pass changes as ComfyUI's does.
            residuals: Those of this pack's ControlNets.
            images: Image prompts of this pack's IP-Adapters.
            strengths: Those of the motion modules in each row.
            memory: What the rows see of other windows; None without.
        """
        self._unet, self._motion = unet, motion
        self._num_frames, self._spans_frames = num_frames, spans_frames
        self._options = options
        self._patches: dict[str, list[Any]] = options.get("patches", {})
        self._residuals, self._images, self._memory = residuals, images, memory
        self._numbers = cross_attention_numbers(unet) if images or memory else {}
        self._strengths = strengths
        self._context: Tensor
        self._prompts: Tensor
        self._embedding: Tensor

    def __call__(
        self,
        sample: Tensor,
        timesteps: Tensor,
        context: Tensor,
        control: dict[str, list[Tensor | None]] | None,
    ) -> Tensor:
        """Predict the noise, or whatever the network was trained to predict.

        Args:
            sample: [rows, channels, height, width], scaled for the network.
            timesteps: [rows], the training step of each row.
            context: [rows, tokens, channels], the prompts.
            control: Residuals of ControlNets under ComfyUI's names; its lists are emptied.
        """
        if self._motion is None:
            return self._run(sample, timesteps, context, control)
        with self._motion.scaled_by(self._strengths.motion_scale, sample):
            return self._run(sample, timesteps, context, control)

    def _run(
        self,
        sample: Tensor,
        timesteps: Tensor,
        context: Tensor,
        control: dict[str, list[Tensor | None]] | None,
    ) -> Tensor:
        unet, options, residuals = self._unet, self._options, self._residuals
        options["original_shape"] = list(sample.shape)
        options["transformer_index"] = 0
        self._prompts = prompt_of_each_video(context, self._num_frames)
        self._context = context
        self._embedding = self._embedded(timesteps, sample.dtype)
        features, skips = sample, []
        motions, blocks = (
            _flat(self._motion and self._motion.down_blocks),
            list[Any](unet.input_blocks),
        )
        levels = iter(residuals.levels)
        for index, block in enumerate(blocks):
            options["block"] = ("input", index)
            has_motion = isinstance(block[0], ResBlock)
            motion = next(motions, None) if has_motion else None
            features = self._block(block, features, motion)
            features = _with_control(features, control, "input")
            if index + 1 == len(blocks) or isinstance(blocks[index + 1][0], Downsample):
                features = _plus(features, next(levels, None))
            features = self._patched("input_block_patch", features)
            skips.append(features)
            features = self._patched("input_block_patch_after_skip", features)
        options["block"] = ("middle", 0)
        features = self._middle(features)
        features = _plus(_with_control(features, control, "middle"), residuals.middle)
        for patch in self._patches.get("middle_block_after_patch", ()):
            arguments: dict[str, Any] = {
                "h": features,
                "x": sample,
                "emb": self._embedding,
                "context": context,
            }
            arguments |= {"y": None, "timesteps": timesteps, "transformer_options": options}
            features = patch(arguments)["h"]
        features = self._up(features, skips, control)
        features = self._normed(unet.out[0], features.type(sample.dtype))
        result: Tensor = unet.out[1:](features)
        return result

    def _up(
        self,
        features: Tensor,
        skips: list[Tensor],
        control: dict[str, list[Tensor | None]] | None,
    ) -> Tensor:
        """Run the output blocks, which take the features of the input blocks from `skips`."""
        options, residuals = self._options, self._residuals
        motions = _flat(self._motion and self._motion.up_blocks)
        for index, block in enumerate(self._unet.output_blocks):
            options["block"] = ("output", index)
            skip = _with_control(skips.pop(), control, "output")
            skip = _plus(skip, residuals.skips[len(skips)] if residuals.skips else None)
            for patch in self._patches.get("output_block_patch", ()):
                features, skip = patch(features, skip, options)
            if skip is not None:  # a patch may have joined them
                features = torch.cat([features, skip], dim=1)
            size = skips[-1].shape if skips else None
            features = self._block(block, features, next(motions, None), size)
        return features

    def _embedded(self, timesteps: Tensor, dtype: torch.dtype) -> Tensor:
        """Return the embedding of the time steps, [1 or rows, channels]."""
        unet = self._unet
        patches = self._patches.get("emb_patch", ())
        if not patches and bool((timesteps == timesteps[0]).all()):
            timesteps = timesteps[:1]
        embedding: Tensor = unet.time_embed(
            timestep_embedding(timesteps, unet.model_channels, repeat_only=False).to(dtype)
        )
        for patch in patches:
            embedding = patch(embedding, unet.model_channels, self._options)
        return embedding

    def _patched(self, name: str, features: Tensor) -> Tensor:
        for patch in self._patches.get(name, ()):
            features = patch(features, self._options)
        return features

    def _middle(self, features: Tensor) -> Tensor:
        """Run the middle block: a resnet and a transformer, the motion module, a resnet."""
        *layers, last = self._unet.middle_block
        middle = self._motion.mid_block if self._motion is not None else None
        motion = middle.motion_modules[0] if middle is not None else None
        features = self._block(layers, features, motion)
        return self._block([last], features, None)

    def _block(
        self,
        layers: Any,
        features: Tensor,
        motion: Any,
        size: torch.Size | None = None,
    ) -> Tensor:
        """Run the layers of a block, with the motion module at its end or before it is enlarged."""
        for layer in layers:
            if isinstance(layer, Upsample):
                features, motion = self._moved(motion, features), None
            features = self._layer(layer, features, size)
        return self._moved(motion, features)

    def _moved(self, motion: MotionModule | None, features: Tensor) -> Tensor:
        if motion is None:
            return features
        moved: Tensor = motion(features, self._num_frames, default_chunk_tokens(features.device))
        return blended(features, moved, self._strengths.motion_effect)

    def _layer(
        self,
        layer: Any,
        features: Tensor,
        size: torch.Size | None,
    ) -> Tensor:
        options = self._options
        embedding, context = self._embedding, self._context
        for kind, handler in self._patches.get("forward_timestep_embed_patch", ()):
            if isinstance(layer, kind):
                handled: Tensor = handler(
                    layer, features, embedding, context, options, size, None, None, None
                )
                return handled
        if isinstance(layer, ResBlock):
            return self._resnet(layer, features)
        if isinstance(layer, SpatialTransformer):
            features = self._transformer(layer, features)
            options["transformer_index"] += 1
            return features
        if isinstance(layer, Upsample):
            enlarged: Tensor = layer(features, output_shape=size)
            return enlarged
        result: Tensor = layer(features)
        return result

    def _resnet(self, block: Any, features: Tensor) -> Tensor:
        result: Tensor
        if is_overridden(block):
            result = block(features, self._embedding)
            return result
        norm, _, conv = block.in_layers
        hidden = conv(functional.silu(self._normed(norm, features), inplace=True))
        hidden = hidden + block.emb_layers(self._embedding).to(hidden.dtype)[:, :, None, None]
        norm, _, _, conv = block.out_layers
        hidden = conv(functional.silu(self._normed(norm, hidden), inplace=True))
        result = hidden.add_(block.skip_connection(features))
        return result

    def _transformer(self, block: Any, features: Tensor) -> Tensor:
        options = self._options
        result: Tensor
        if is_overridden(block):
            result = block(features, self._context, options)
            return result
        options["activations_shape"] = list(features.shape)
        normed = self._normed(block.norm, features)
        number = self._numbers.get(block, 0)
        if can_run(block, features, options):
            return run_transformer(
                block, features, normed, self._prompts,
                images=self._images, memory=self._memory, number=number,
            )  # fmt: skip
        rows, _, height, width = features.shape
        tokens = block.proj_in(normed).permute(0, 2, 3, 1).reshape(rows, height * width, -1)
        if self._images:
            options = with_images(block, options, self._images, number)
        if self._memory is not None:
            options = with_memory(block, options, self._memory, number)
        for index, layer in enumerate(block.transformer_blocks):
            options["block_index"] = index
            tokens = layer(tokens, context=self._context, transformer_options=options)
        tokens = tokens.reshape(rows, height, width, -1).permute(0, 3, 1, 2).contiguous()
        result = block.proj_out(tokens) + features
        return result

    def _normed(self, norm: Any, features: Tensor) -> Tensor:
        if self._spans_frames:
            return norm_over_frames(norm, features, self._num_frames)
        normed: Tensor = norm(features)
        return normed


def _flat(blocks: Any) -> Iterator[MotionModule]:
    """Yield the motion modules of all blocks, in the order of the network."""
    return (module for block in blocks or () for module in block.motion_modules)


def _with_control(
    features: Tensor, control: dict[str, list[Tensor | None]] | None, name: str
) -> Tensor:
    """Add the next residual of the kind `name`, and remove it."""
    residuals = control.get(name) if control else None
    return _plus(features, residuals.pop() if residuals else None)


def _plus(features: Tensor, residual: Tensor | None) -> Tensor:
    return features if residual is None else features.add_(residual)
