"""Train the miniature: a latent diffusion model, a motion module, a ControlNet, two LoRAs.

Usage: python demo/train.py [--work FOLDER] [--out FOLDER] [--threads N]

Everything is learned from clips that the script draws itself. A run that was stopped goes on where
it was; the same command with an empty work folder makes the weights anew.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from training.base_model import trained_base
from training.captions import trained_text_encoder
from training.control import trained_controlnet
from training.examples import clips, stills
from training.latent_codec import refined_decoder, trained_codec
from training.loras import trained_few_steps, trained_style
from training.motion import trained_motion_modules
from training.networks import write_checkpoint, write_controlnet, write_motion_module

DEMO = Path(__file__).parent


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=DEMO / "out" / "training", metavar="FOLDER")
    parser.add_argument("--out", type=Path, default=DEMO / "models", metavar="FOLDER")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), metavar="N")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    work, out = arguments.work, arguments.out
    work.mkdir(parents=True, exist_ok=True)

    vae = trained_codec(work)
    text_encoder = trained_text_encoder(work)
    unet = trained_base(work, stills(work, vae), text_encoder)
    moving = clips(work, vae)
    modules = trained_motion_modules(work, moving, unet, text_encoder)
    style = trained_style(work, stills(work, vae), unet, text_encoder)
    controlnet = trained_controlnet(work, stills(work, vae), unet, text_encoder)
    few_steps = trained_few_steps(work, moving, unet, text_encoder, modules)
    vae = refined_decoder(work, vae)

    checkpoint = out / "checkpoints" / "miniature.safetensors"
    write_checkpoint(checkpoint, unet=unet, vae=vae, text_encoder=text_encoder)
    write_motion_module(out / "animatediff_models" / "miniature_motion.safetensors", modules)
    style.write(out / "loras" / "miniature_outlined.safetensors")
    few_steps.write(out / "loras" / "miniature_few_steps.safetensors")
    write_controlnet(out / "controlnet" / "miniature_canny.safetensors", controlnet)
    print(f"The miniature is in {out}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
