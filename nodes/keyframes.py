"""Keyframes: pictures that some frames of a video show, and that guide those around them."""

from __future__ import annotations

from collections.abc import Sequence

from comfy_api.latest import io
from torch import Tensor

from ..pipeline import AnimateDiffV2VError, models, sampling
from ..pipeline.keyframe_files import parse_frames
from ..pipeline.ranges import CONTROL_STRENGTH
from . import host
from .checks import CheckedNode, Problem, problem_of
from .fingerprint import file_fingerprint
from .model_checks import file_problem
from .sockets import CATEGORY, ControlSocket
from .span_inputs import span_inputs, span_problem


class KeyframePictures(CheckedNode):
    """A SparseCtrl model with pictures of some frames; several can be chained."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id="ADV2V_Keyframes",
            display_name="Keyframes for AnimateDiff",
            category=CATEGORY,
            description="Say what some frames should look like: SparseCtrl carries these pictures "
            "on to the frames around them. It needs AnimateDiff's v3 motion module.",
            search_aliases=[
                "sparsectrl",
                "sparse control",
                "image to video",
                "acn",
                "animatediff",
                "first frame last frame",
                "pia",
                "i2v",
            ],
            inputs=_inputs(),
            outputs=[
                ControlSocket.Output(
                    display_name="control", tooltip="For the Sampler, or for Apply AnimateDiff."
                )
            ],
        )

    @classmethod
    def execute(
        cls,
        *,
        sparsectrl: str,
        images: Tensor,
        frames: str,
        strength: float,
        start: float,
        end: float,
        mask: Tensor | None = None,
        control: host.Chain | None = None,
    ) -> io.NodeOutput:
        """Append this one to the incoming chain."""
        chain = control or host.Chain()
        if strength == 0:
            return io.NodeOutput(chain)
        numbers = parse_frames(frames)
        network, patcher = _loaded(sparsectrl)
        link = sampling.Keyframes(
            network=network,
            pictures=_chosen(images[..., :3].cpu(), numbers),
            frames=numbers,
            strength=strength,
            span=sampling.Span(start, end),
            mask=None if mask is None else mask.reshape(-1, *mask.shape[-2:]).cpu(),
        )
        return io.NodeOutput(chain.plus(link, patcher))

    @classmethod
    def find_problem(
        cls,
        _node_id: str,
        *,
        sparsectrl: str | None = None,
        frames: str | None = None,
        start: float | None = None,
        end: float | None = None,
    ) -> Problem | None:
        """Find a wrong file, frames that are no numbers, or a span that ends before its start."""
        found = file_problem(("SparseCtrl",), sparsectrl=("controlnet", sparsectrl))
        if found is None and frames is not None:
            found = problem_of(lambda: parse_frames(frames), "frames")
        return found or span_problem(start, end)

    @classmethod
    def fingerprint_inputs(cls, sparsectrl: str | None, **_others: object) -> str | None:
        """Run again when the file has changed."""
        if sparsectrl is None:
            return None
        return file_fingerprint(host.model_path("controlnet", sparsectrl))


def _chosen(images: Tensor, frames: Sequence[int]) -> Tensor:
    """Return an image for each frame: the images themselves, or those of a whole video."""
    if len(images) == len(frames):
        return images
    outside = [frame for frame in frames if not -len(images) <= frame < len(images)]
    if outside:
        raise AnimateDiffV2VError(
            f"frames names frame {outside[0]}, and there are {len(images)} images: connect one "
            "image for each frame number, or all frames of a video, of which those are taken."
        )
    return images[list(frames)]


def _loaded(name: str) -> tuple[models.SparseControlNetwork, host.WholeModelPatcher]:
    """Load the network that a combo names, unless ComfyUI still holds it."""
    path, devices = host.model_path("controlnet", name), host.Devices.of_comfyui()
    return host.managed(
        ("sparsectrl", path.name, file_fingerprint(path), devices.unet_dtype),
        lambda: models.load_sparsectrl_network(
            path, device=devices.offload, dtype=devices.unet_dtype
        ),
        devices,
    )


def _inputs() -> list[io.Input]:
    return [
        io.Combo.Input(
            "sparsectrl",
            options=host.model_names("controlnet"),
            tooltip="A SparseCtrl model of AnimateDiff v3 from models/controlnet: "
            "v3_sd15_sparsectrl_rgb for pictures, v3_sd15_sparsectrl_scribble for drawings.",
        ),
        io.Image.Input(
            "images",
            tooltip="One picture for each frame number, of the video's shape; or all frames of a "
            "video, of which those that are named are taken.",
        ),
        io.String.Input(
            "frames",
            default="0",
            tooltip="The frame that each picture shows, separated by commas: 0, 24. Frames count "
            "from 0 in the output; -1 is the last one.",
        ),
        io.Float.Input(
            "strength",
            default=1.0,
            min=CONTROL_STRENGTH.low,
            max=CONTROL_STRENGTH.high,
            step=0.05,
            tooltip="How strictly the pictures are followed: 0 not at all, 1 as trained.",
        ),
        *span_inputs("the keyframes"),
        io.Mask.Input(
            "mask",
            optional=True,
            tooltip="Where the keyframes act: fully where white, not at all where black. One for "
            "each frame, or one for all.",
        ),
        ControlSocket.Input(
            "control",
            optional=True,
            tooltip="ControlNets and other keyframes; their effects add up.",
        ),
    ]
