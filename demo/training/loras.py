"""The stages that train LoRAs: a style, and a distillation to a few steps."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import torch
from animatediff_v2v.pipeline.models.motion_module import MotionModules
from animatediff_v2v.pipeline.models.text_encoder import ClipTextModel
from animatediff_v2v.pipeline.models.unet import MotionUNet
from diffusers import UNet2DConditionModel
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from .base_model import draw_batch, noised_stills
from .captions import encoded
from .diffusion import alphas_cumprod, clean, noised, picture_error, timesteps
from .examples import Examples
from .loop import Plan, frozen, train
from .scenes import FRAMES

STYLE = Plan(steps=300, learning_rate=2e-3, average_decay=0.98)
FEW_STEPS = Plan(steps=300, learning_rate=1e-3, average_decay=0.98)
RANK = 8
BATCH = 16
# For the distillation: training steps per step of the teacher's solver, and the range of guidance
# scales.
STRIDE = 40
TEACHER_GUIDANCE = (5.0, 8.0)
HUBER_WIDTH = 0.05


class _LoraLayer(nn.Module):
    """A linear or convolution layer with a low-rank change."""

    def __init__(self, layer: nn.Linear | nn.Conv2d) -> None:
        super().__init__()
        self.layer = layer
        self.down = nn.Parameter(torch.randn(RANK, layer.weight[0].numel()) * 0.02)
        self.up = nn.Parameter(torch.zeros(layer.weight.shape[0], RANK))
        self.active = True

    def forward(self, features: Tensor) -> Tensor:
        weight = self.layer.weight
        if self.active:
            weight = weight + (self.up @ self.down).view(weight.shape)
        if isinstance(self.layer, nn.Linear):
            return functional.linear(features, weight, self.layer.bias)
        return functional.conv2d(
            features, weight, self.layer.bias, self.layer.stride, self.layer.padding
        )


class LoraLayers(nn.ModuleDict):
    """The LoRA of a UNet: every layer of its transformers, and the resnets' convolutions."""

    def __init__(self, unet: UNet2DConditionModel) -> None:
        """Replace each trained layer by one with a LoRA."""
        super().__init__()
        for name, layer in list(unet.named_modules()):
            if not _is_adapted(name, layer):
                continue
            parent, _, child = name.rpartition(".")
            adapted = _LoraLayer(layer)
            setattr(unet.get_submodule(parent), child, adapted)
            self[name.replace(".", "_")] = adapted

    def switch(self, active: bool) -> None:
        """Enable or disable the LoRA."""
        for layer in self.values():
            layer.active = active

    def write(self, path: Path) -> None:
        """Write the file in kohya's layout, fp16."""
        tensors = {}
        for name, layer in self.items():
            shape = layer.layer.weight.shape
            down = layer.down.detach().view(RANK, *shape[1:])
            up = layer.up.detach().view(*shape[:1], RANK, *[1] * (len(shape) - 2))
            tensors[f"lora_unet_{name}.lora_down.weight"] = down.half().contiguous()
            tensors[f"lora_unet_{name}.lora_up.weight"] = up.half().contiguous()
            tensors[f"lora_unet_{name}.alpha"] = torch.tensor(float(RANK)).half()
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(tensors, path)


def _is_adapted(name: str, layer: nn.Module) -> bool:
    if isinstance(layer, nn.Linear):
        return "transformer_blocks" in name
    return isinstance(layer, nn.Conv2d) and ".resnets." in name and ".conv" in name


def trained_style(
    folder: Path, examples: Examples, unet: UNet2DConditionModel, text_encoder: ClipTextModel
) -> LoraLayers:
    """Train a style LoRA on outlined scenes whose captions do not mention the outlines."""
    torch.manual_seed(5)
    unet = frozen(copy.deepcopy(unet))
    frozen(text_encoder)
    layers = LoraLayers(unet)
    outlined = examples.of_style("outlined")

    def loss_of(rng: np.random.Generator, generator: torch.Generator, step: int) -> Tensor:
        batch = draw_batch(examples, rng, BATCH, among=outlined)
        seen = noised_stills(batch, timesteps(BATCH, generator), generator)
        context = encoded(text_encoder, [c.removesuffix(", outlined") for c in batch.captions])
        predicted = unet(seen.sample, seen.timesteps, context, return_dict=False)[0]
        return picture_error(predicted, seen, batch.masks[:, 0])

    train("style", STYLE, layers, loss_of, folder)
    return layers


def trained_few_steps(
    folder: Path,
    examples: Examples,
    unet: UNet2DConditionModel,
    text_encoder: ClipTextModel,
    modules: MotionModules,
) -> LoraLayers:
    """Distil the guided model into one that needs few steps and no guidance.

    Latent consistency distillation, arXiv 2310.04378 (algorithm 1) and 2311.05556 (as a LoRA), with
    the motion module, and with the student itself as the target network.
    """
    torch.manual_seed(6)
    unet = frozen(copy.deepcopy(unet))
    frozen(text_encoder)
    layers = LoraLayers(unet)
    network = MotionUNet(unet, frozen(modules), family="v2")
    alphas = alphas_cumprod("sqrt_linear")
    nothing = encoded(text_encoder, [""]).expand(FRAMES, -1, -1)

    def loss_of(rng: np.random.Generator, generator: torch.Generator, step: int) -> Tensor:
        batch = draw_batch(examples, rng, 1)
        late = (timesteps(1, generator) // STRIDE + 1) * STRIDE - 1
        early = late - STRIDE
        seen = noised(
            batch.latents, batch.twins, timesteps=late, alphas=alphas[late], generator=generator
        )
        sample = seen.sample[0]
        context = encoded(text_encoder, batch.captions).expand(FRAMES, -1, -1)

        def noise(sample: Tensor, at: Tensor, context: Tensor) -> Tensor:
            return network(sample, at, context, FRAMES)

        with torch.no_grad():
            layers.switch(active=False)
            told, untold = noise(sample, late, context), noise(sample, late, nothing)
            guided = untold + float(rng.uniform(*TEACHER_GUIDANCE)) * (told - untold)
            layers.switch(active=True)
            target = clean(sample, guided, alphas[late])
            if early >= 0:
                alpha = alphas[early]
                before = alpha.sqrt() * target + (1 - alpha).sqrt() * guided
                target = clean(before, noise(before, early, context), alpha)
        error = clean(sample, noise(sample, late, context), alphas[late]) - target
        return ((error.square() + HUBER_WIDTH**2).sqrt() - HUBER_WIDTH).mean()

    train("few_steps", FEW_STEPS, layers, loss_of, folder)
    return layers
