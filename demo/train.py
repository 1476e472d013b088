"""Train the miniature: latent diffusion model, motion module, LoRAs, and networks that guide it.

Usage: python demo/train.py [--work FOLDER] [--out FOLDER] [--start FOLDER] [--threads N]
                            [--only-sparsectrl]

Everything is learned from videos that the script draws itself. A stopped run continues where it
was; the same command with an empty work folder trains from scratch. It needs diffusers and
transformers, which are in the extra `test` of this package.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from animatediff_v2v.pipeline.files import load_checkpoint, load_control
from animatediff_v2v.pipeline.models.motion_module import MotionModules
from animatediff_v2v.pipeline.models.sparsectrl import SparseControlNetwork
from animatediff_v2v.pipeline.models.text_encoder import ClipTextModel
from diffusers import AutoencoderKL, ControlNetModel, UNet2DConditionModel
from safetensors.torch import load_file
from training.base_model import refined_base, trained_base
from training.captions import trained_text_encoder
from training.control import trained_controlnet
from training.examples import stills, videos, videos_for_keyframes
from training.keyframes import trained_sparsectrl
from training.latent_codec import refined_decoder, trained_codec
from training.loras import trained_few_steps, trained_style
from training.motion import refined_motion_modules, trained_motion_modules
from training.networks import (
    new_controlnet,
    new_motion_modules,
    new_text_encoder,
    new_unet,
    new_vae,
    write_checkpoint,
    write_controlnet,
    write_ip_adapter,
    write_motion_module,
    write_sparsectrl,
    write_vision_model,
)
from training.style_image import trained_ip_adapter
from training.vision import trained_vision

DEMO = Path(__file__).parent
CHECKPOINT = Path("checkpoints", "miniature.safetensors")
MOTION_MODULE = Path("animatediff_models", "miniature_motion.safetensors")
CONTROLNET = Path("controlnet", "miniature_canny.safetensors")
SPARSECTRL = Path("controlnet", "miniature_sparsectrl.safetensors")
VISION_MODEL = Path("clip_vision", "miniature_vision.safetensors")
IP_ADAPTER = Path("ipadapter", "miniature_style.safetensors")
Networks = tuple[AutoencoderKL, ClipTextModel, UNet2DConditionModel, MotionModules]
START_HELP = (
    "go on from the networks of a finished miniature: the stages of from_nothing are left out"
)

ONLY_HELP = "train nothing but the SparseCtrl, for the finished miniature in --start or demo/models"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=DEMO / "out" / "training", metavar="FOLDER")
    parser.add_argument("--out", type=Path, default=DEMO / "models", metavar="FOLDER")
    parser.add_argument("--start", type=Path, metavar="FOLDER", help=START_HELP)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), metavar="N")
    parser.add_argument("--only-sparsectrl", action="store_true", help=ONLY_HELP)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    work, out = arguments.work, arguments.out
    work.mkdir(parents=True, exist_ok=True)

    if arguments.only_sparsectrl:
        return only_sparsectrl(work, out, arguments.start or DEMO / "models")
    start = arguments.start
    networks = of_miniature(start) if start else from_nothing(work)
    earlier = controlnet_of_miniature(start) if start else None
    vae, text_encoder, unet, modules = networks
    frames, moving = stills(work, vae), videos(work, vae)
    unet = refined_base(work, frames, unet, text_encoder)
    modules = refined_motion_modules(work, moving, unet, text_encoder, modules)
    style = trained_style(work, frames, unet, text_encoder)
    controlnet = trained_controlnet(work, frames, unet, text_encoder, earlier)
    few_steps = trained_few_steps(work, moving, unet, text_encoder, modules)
    vision = trained_vision(work)
    ip_adapter = trained_ip_adapter(work, frames, unet, text_encoder, vision)
    sparsectrl = sparsectrl_for(work, (vae, text_encoder, unet, modules), controlnet)

    write_checkpoint(out / CHECKPOINT, unet=unet, vae=vae, text_encoder=text_encoder)
    write_motion_module(out / MOTION_MODULE, modules)
    style.write(out / "loras" / "miniature_outlined.safetensors")
    few_steps.write(out / "loras" / "miniature_few_steps.safetensors")
    write_controlnet(out / CONTROLNET, controlnet)
    write_vision_model(out / VISION_MODEL, vision)
    write_ip_adapter(out / IP_ADAPTER, ip_adapter)
    write_sparsectrl(out / SPARSECTRL, sparsectrl)
    print(f"The miniature is in {out}.")
    return 0


def only_sparsectrl(work: Path, out: Path, start: Path) -> int:
    """Train the SparseCtrl of a finished miniature."""
    sparsectrl = sparsectrl_for(work, of_miniature(start), controlnet_of_miniature(start))
    write_sparsectrl(out / SPARSECTRL, sparsectrl)
    print(f"The miniature's SparseCtrl is {out / SPARSECTRL}.")
    return 0


def sparsectrl_for(
    work: Path, networks: Networks, controlnet: ControlNetModel
) -> SparseControlNetwork:
    """Train a SparseCtrl for these networks and this ControlNet."""
    vae, text_encoder, unet, modules = networks
    return trained_sparsectrl(
        work,
        videos_for_keyframes(work, vae),
        unet,
        vae=vae,
        text_encoder=text_encoder,
        modules=modules,
        controlnet=controlnet,
    )


def from_nothing(work: Path) -> Networks:
    """Train from scratch: VAE, text encoder, UNet, and the motion module's first part."""
    vae = trained_codec(work)
    text_encoder = trained_text_encoder(work)
    unet = trained_base(work, stills(work, vae), text_encoder)
    modules = trained_motion_modules(work, videos(work, vae), unet, text_encoder)
    return refined_decoder(work, vae), text_encoder, unet, modules


def of_miniature(folder: Path) -> Networks:
    """Load the networks of a finished miniature."""
    weights = load_checkpoint(folder / CHECKPOINT)
    vae, text_encoder, unet, modules = (
        new_vae(),
        new_text_encoder(),
        new_unet(),
        new_motion_modules(),
    )
    vae.load_state_dict(weights.vae)
    text_encoder.load_state_dict(weights.text_encoder)
    unet.load_state_dict(weights.unet)
    modules.load_state_dict(load_file(folder / MOTION_MODULE))
    return vae, text_encoder, unet, modules


def controlnet_of_miniature(folder: Path) -> ControlNetModel:
    """Load the ControlNet of a finished miniature."""
    controlnet = new_controlnet(new_unet())
    controlnet.load_state_dict(load_control(folder / CONTROLNET).tensors)
    return controlnet


if __name__ == "__main__":
    sys.exit(main())
