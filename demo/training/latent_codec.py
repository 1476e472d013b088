"""The stages that train the VAE: both halves together, then the decoder by itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor

from .loop import Plan, frozen, stacked, train
from .networks import LATENT_SCALE, new_vae
from .scenes import SIZE, draw, random_scene

CODEC = Plan(steps=3_000, learning_rate=8e-4, average_decay=0.995)
DECODER = Plan(steps=900, learning_rate=4e-4, average_decay=0.998)
CROP = 64
CROPS = 8
# A little noise on the latents in training makes the decoder robust to errors of the UNet.
LATENT_NOISE = 0.03
KL_WEIGHT = 1e-5


def trained_codec(folder: Path) -> AutoencoderKL:
    """Train encoder and decoder on crops; latents are whitened and have SD1.5's scale."""
    torch.manual_seed(1)
    vae = new_vae()

    def loss_of(rng: np.random.Generator, generator: torch.Generator, step: int) -> Tensor:
        pixels = _crops(rng)
        with torch.autocast("cpu", torch.bfloat16):
            mean = vae.encode(pixels).latent_dist.mean.float()
            noise = torch.randn(mean.shape, generator=generator)
            noisy = mean + LATENT_NOISE * mean.std() * noise
            decoded = vae.decode(noisy).sample.float()
        return _difference(decoded, pixels) + KL_WEIGHT * mean.square().mean()

    train("codec", CODEC, vae, loss_of, folder)
    _whiten(vae)
    return vae


def refined_decoder(folder: Path, vae: AutoencoderKL) -> AutoencoderKL:
    """Train only the decoder, on whole pictures, so existing latents stay valid."""
    frozen(vae)
    vae.decoder.requires_grad_(True)
    vae.post_quant_conv.requires_grad_(True)

    def loss_of(rng: np.random.Generator, generator: torch.Generator, step: int) -> Tensor:
        pixels = stacked(draw(random_scene(rng), rng.random()) for _ in range(2))
        with torch.autocast("cpu", torch.bfloat16):
            with torch.no_grad():
                latents = vae.encode(pixels).latent_dist.mean.float()
            noise = torch.randn(latents.shape, generator=generator)
            decoded = vae.decode(latents + LATENT_NOISE * noise / LATENT_SCALE).sample.float()
        return _difference(decoded, pixels)

    train("decoder", DECODER, vae, loss_of, folder)
    frozen(vae)
    return vae


def _difference(decoded: Tensor, pixels: Tensor) -> Tensor:
    difference = decoded - pixels
    return difference.abs().mean() + 4 * difference.square().mean()


def _crops(rng: np.random.Generator) -> Tensor:
    crops = []
    for _ in range(CROPS // 2):
        picture = draw(random_scene(rng), rng.random())
        for _ in range(2):
            top, left = rng.integers(0, SIZE - CROP + 1, 2)
            crops.append(picture[top : top + CROP, left : left + CROP])
    return stacked(crops)


@torch.no_grad()
def _whiten(vae: AutoencoderKL) -> None:
    """Fold whitening into two 1x1 convolutions: latents times 0.18215 get covariance 1."""
    rng = np.random.default_rng(2)
    pixels = stacked(draw(random_scene(rng), rng.random()) for _ in range(256))
    found = torch.cat([vae.encode(part).latent_dist.mean for part in pixels.split(8)])
    rows = found.permute(1, 0, 2, 3).flatten(1)
    mean = rows.mean(1)
    values, vectors = torch.linalg.eigh(torch.cov(rows))
    whiten = vectors @ torch.diag(values.rsqrt()) @ vectors.T / LATENT_SCALE
    colour = torch.linalg.inv(whiten)
    into, out = vae.quant_conv, vae.post_quant_conv
    weight, bias = into.weight[:4, :, 0, 0].clone(), into.bias[:4].clone()
    into.weight[:4, :, 0, 0] = whiten @ weight
    into.bias[:4] = whiten @ (bias - mean)
    out.bias += out.weight[:, :, 0, 0] @ mean
    out.weight[:, :, 0, 0] = out.weight[:, :, 0, 0] @ colour
