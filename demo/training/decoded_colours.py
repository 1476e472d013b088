"""The colours that latents are decoded to, told by a small network that a loss can go through.

The decoder makes orange redder and yellow more orange, and latents vary more with brightness and
texture than from orange to red. So a loss on latents says little of colours.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from .diffusion import means, surely
from .examples import Examples
from .keyframe_examples import Clips
from .loop import Plan, train
from .networks import LATENT_SCALE
from .scenes import COLOURS

PLAN = Plan(steps=3_000, learning_rate=3e-3)
FRAMES_DECODED, AT_ONCE, ROWS = 512, 8, 128
WIDTH, CHANNELS = 32, 4
# Shifts of the latents of object and background, so that wrong colours are known, too.
SHIFTED_SHARE, SHIFT = 0.8, 0.12
LEAST_PIXELS = 64


class DecodedColours(nn.Module):
    """Tells the colours of object and background from mean latents.

    Colours are without brightness: the largest of red, green and blue is 1.
    """

    def __init__(self, examples: Examples) -> None:
        """Set up the network with random weights, and the true colours of all examples."""
        super().__init__()
        self.painted = _painted_colours(examples)
        self.layers = nn.Sequential(
            nn.Linear(2 * CHANNELS, WIDTH),
            nn.SiLU(),
            nn.Linear(WIDTH, WIDTH),
            nn.SiLU(),
            nn.Linear(WIDTH, 3),
            nn.Sigmoid(),
        )

    def forward(self, latents: Tensor, masks: Tensor) -> Tensor:
        """Return the colours [..., 2, 3] of latents [..., 4, height, width] with these masks."""
        told: Tensor = self.layers(mean_latents(latents, masks))
        return told

    def error(self, latents: Tensor, drawn: Clips) -> Tensor:
        """Return the squared error of the colours of latents, in the shape of the clips' own.

        The right colours are those of the scene; in a style, those of the clip's latents. Frames
        that do not show both object and background do not count.
        """
        with torch.no_grad():
            decoded = self(drawn.latents, drawn.masks)
        rows, sides = drawn.pairs.T
        painted = self.painted[rows, sides].unsqueeze(1)
        wanted = torch.where(painted.isnan(), decoded, painted)
        inside, outside = (part.sum((-3, -2, -1)) > 0 for part in surely(drawn.masks))
        errors = (self(latents, drawn.masks) - wanted).square().sum((-2, -1))
        return (errors * (inside & outside)).mean()


def trained_decoded_colours(folder: Path, examples: Examples, vae: AutoencoderKL) -> DecodedColours:
    """Train the network on decoded frames, many of them in other colours than the examples."""
    path = folder / "decoded_frames.pt"
    if not path.exists():
        torch.save(_decoded_frames(examples, vae), path)
    known, seen = torch.load(path, weights_only=True)
    network = DecodedColours(examples)

    def loss(rng: np.random.Generator, _generator: torch.Generator, _step: int) -> Tensor:
        rows = rng.integers(len(known), size=ROWS)
        return (network.layers(known[rows]) - seen[rows]).square().mean()

    train("decoded_colours", PLAN, network, loss, folder)
    return network.requires_grad_(False)


def mean_latents(latents: Tensor, masks: Tensor) -> Tensor:
    """Return the mean latents of object and background, each followed by those of the other.

    Latents [..., 4, height, width] and masks [..., 1, height, width] give [..., 2, 8].
    """
    inside, outside = means(latents, masks)
    return torch.stack([torch.cat([inside, outside], -1), torch.cat([outside, inside], -1)], -2)


@torch.no_grad()
def _decoded_frames(examples: Examples, vae: AutoencoderKL) -> tuple[Tensor, Tensor]:
    """Return mean latents [n, 8], and the colours [n, 3] that they are decoded to."""
    rng, generator = np.random.default_rng(15), torch.Generator().manual_seed(15)
    plain = np.array([at for at in examples.all if examples.scenes[at[0]][at[1]].style is None])
    known, seen = [], []
    for _ in tqdm(range(0, FRAMES_DECODED, AT_ONCE), "decoded frames", mininterval=10):
        rows, sides = plain[rng.integers(len(plain), size=AT_ONCE)].T
        frames = rng.integers(examples.latents.shape[2], size=AT_ONCE)
        masks = examples.masks[rows, frames].float()
        latents = examples.latents[rows, sides, frames].float()
        inside, outside = _shifts(generator)
        latents = latents + inside * masks + outside * (1 - masks)
        pixels = vae.decode(latents / LATENT_SCALE).sample.clamp(-1, 1) / 2 + 0.5
        told = mean_latents(latents, masks)
        for index, part in enumerate(surely(masks)):
            shown = functional.interpolate(part, scale_factor=pixels.shape[-1] / part.shape[-1])
            for row in range(AT_ONCE):
                colours = pixels[row][:, shown[row, 0] > 0]
                if colours.shape[1] >= LEAST_PIXELS:
                    known.append(told[row, index])
                    seen.append(_without_brightness(colours.median(1).values))
    return torch.stack(known), torch.stack(seen)


def _shifts(generator: torch.Generator) -> Tensor:
    """Return shifts of object and background, [2, rows, channels, 1, 1]; 0 in some."""
    shifts = SHIFT * torch.randn(2, AT_ONCE, CHANNELS, 1, 1, generator=generator)
    return shifts * (torch.rand(2, AT_ONCE, 1, 1, 1, generator=generator) < SHIFTED_SHARE)


def _painted_colours(examples: Examples) -> Tensor:
    """Return the colours of object and background, [examples, 2, 2, 3]; NaN in a style."""
    colours = torch.full((len(examples.scenes), 2, 2, 3), torch.nan)
    for row, side in examples.all:
        scene = examples.scenes[row][side]
        if scene.style is None:
            names = (scene.colour, scene.background)
            colours[row, side] = _without_brightness(torch.tensor([COLOURS[n] for n in names]))
    return colours


def _without_brightness(colours: Tensor) -> Tensor:
    return colours / colours.amax(-1, keepdim=True).clamp(min=0.05)
