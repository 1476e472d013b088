"""Train the miniature: a latent diffusion model, a motion module, a ControlNet, two LoRAs.

Usage: python demo/train.py [--work FOLDER] [--out FOLDER] [--start FOLDER] [--threads N]

Everything is learned from clips that the script draws itself. A run that was stopped goes on where
it was; the same command with an empty work folder makes the weights anew.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from animatediff_v2v.pipeline.models import load_models
from animatediff_v2v.pipeline.models.motion_module import MotionModules
from animatediff_v2v.pipeline.models.text_encoder import ClipTextModel
from diffusers import AutoencoderKL, UNet2DConditionModel
from training.base_model import refined_base, trained_base
from training.captions import trained_text_encoder
from training.control import trained_controlnet
from training.examples import clips, stills
from training.latent_codec import refined_decoder, trained_codec
from training.loras import trained_few_steps, trained_style
from training.motion import refined_motion_modules, trained_motion_modules
from training.networks import write_checkpoint, write_controlnet, write_motion_module

DEMO = Path(__file__).parent
CHECKPOINT = Path("checkpoints", "miniature.safetensors")
MOTION_MODULE = Path("animatediff_models", "miniature_motion.safetensors")
Networks = tuple[AutoencoderKL, ClipTextModel, UNet2DConditionModel, MotionModules]
START_HELP = (
    "go on from the networks of a finished miniature: the stages of from_nothing are left out"
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=DEMO / "out" / "training", metavar="FOLDER")
    parser.add_argument("--out", type=Path, default=DEMO / "models", metavar="FOLDER")
    parser.add_argument("--start", type=Path, metavar="FOLDER", help=START_HELP)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), metavar="N")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    work, out = arguments.work, arguments.out
    work.mkdir(parents=True, exist_ok=True)

    networks = of_miniature(arguments.start) if arguments.start else from_nothing(work)
    vae, text_encoder, unet, modules = networks
    frames, moving = stills(work, vae), clips(work, vae)
    unet = refined_base(work, frames, unet, text_encoder)
    modules = refined_motion_modules(work, moving, unet, text_encoder, modules)
    style = trained_style(work, frames, unet, text_encoder)
    controlnet = trained_controlnet(work, frames, unet, text_encoder)
    few_steps = trained_few_steps(work, moving, unet, text_encoder, modules)

    write_checkpoint(out / CHECKPOINT, unet=unet, vae=vae, text_encoder=text_encoder)
    write_motion_module(out / MOTION_MODULE, modules)
    style.write(out / "loras" / "miniature_outlined.safetensors")
    few_steps.write(out / "loras" / "miniature_few_steps.safetensors")
    write_controlnet(out / "controlnet" / "miniature_canny.safetensors", controlnet)
    print(f"The miniature is in {out}.")
    return 0


def from_nothing(work: Path) -> Networks:
    """Train what is slow to learn: VAE, text encoder, UNet and the motion module's beginning."""
    vae = trained_codec(work)
    text_encoder = trained_text_encoder(work)
    unet = trained_base(work, stills(work, vae), text_encoder)
    modules = trained_motion_modules(work, clips(work, vae), unet, text_encoder)
    return refined_decoder(work, vae), text_encoder, unet, modules


def of_miniature(folder: Path) -> Networks:
    """Read the networks of a finished miniature."""
    models = load_models(
        folder / CHECKPOINT,
        motion_module=folder / MOTION_MODULE,
        device=torch.device("cpu"),
        dtype=torch.float32,
    )
    # The weights are stored as the file has them, in 16 bits: too coarse to learn in.
    network = models.unet.float()
    return models.codec.vae, models.text_encoder.network, network.unet, network.motion


if __name__ == "__main__":
    sys.exit(main())
