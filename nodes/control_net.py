"""ControlNets, which keep the structure of a video."""

from __future__ import annotations

from comfy_api.latest import io
from torch import Tensor

from ..pipeline import models, sampling
from ..pipeline.ranges import CONTROL_STRENGTH
from . import host
from .checks import CheckedNode, Problem
from .fingerprint import file_fingerprint
from .model_checks import file_problem
from .sockets import CATEGORY, ControlSocket
from .span_inputs import span_inputs, span_problem


class ControlNet(CheckedNode):
    """One ControlNet with its control frames; several can be chained."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id="ADV2V_ControlNet",
            display_name="ControlNet for AnimateDiff",
            category=CATEGORY,
            description="Keep the structure of a video with a ControlNet and a control frame for "
            "each frame. Chain several of these nodes to combine ControlNets.",
            search_aliases=[
                "apply controlnet",
                "load controlnet",
                "t2i adapter",
                "canny",
                "depth",
                "animatediff",
                "advanced controlnet",
                "acn",
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
        control_net: str,
        images: Tensor,
        strength: float,
        start: float,
        end: float,
        mask: Tensor | None = None,
        control: host.Chain | None = None,
        repeat_last: bool = False,
    ) -> io.NodeOutput:
        """Append this one to the incoming chain."""
        chain = control or host.Chain()
        if strength == 0:
            return io.NodeOutput(chain)
        network, patcher = _loaded(control_net)
        link = sampling.Control(
            network=network,
            frames=images.cpu(),
            strength=strength,
            span=sampling.Span(start, end),
            mask=None if mask is None else mask.reshape(-1, *mask.shape[-2:]).cpu(),
            repeat_last=repeat_last,
        )
        return io.NodeOutput(chain.plus(link, patcher))

    @classmethod
    def find_problem(
        cls,
        _node_id: str,
        *,
        control_net: str | None = None,
        start: float | None = None,
        end: float | None = None,
    ) -> Problem | None:
        """Find a missing file, one of the wrong kind, or a span that ends before its start."""
        return file_problem(control_net=("controlnet", control_net)) or span_problem(start, end)

    @classmethod
    def fingerprint_inputs(cls, control_net: str | None, **_others: object) -> str | None:
        """Run again when the file has changed."""
        if control_net is None:
            return None
        return file_fingerprint(host.model_path("controlnet", control_net))


def _loaded(name: str) -> tuple[models.ControlNetwork, host.WholeModelPatcher]:
    """Load the network that a combo names, unless ComfyUI still holds it."""
    path, devices = host.model_path("controlnet", name), host.Devices.of_comfyui()
    return host.managed(
        ("control", path.name, file_fingerprint(path), devices.unet_dtype),
        lambda: models.load_control_network(path, device=devices.offload, dtype=devices.unet_dtype),
        devices,
    )


def _inputs() -> list[io.Input]:
    return [
        io.Combo.Input(
            "control_net",
            options=host.model_names("controlnet"),
            tooltip="A ControlNet or T2I-Adapter for Stable Diffusion 1.5 from models/controlnet, "
            "for example control_v11p_sd15_canny.",
        ),
        io.Image.Input(
            "images",
            tooltip="The control frames: one for each frame of the video, or one for all. They "
            "must be of the kind that the ControlNet was trained on: edges for canny, depth for "
            "depth.",
        ),
        io.Float.Input(
            "strength",
            default=1.0,
            min=CONTROL_STRENGTH.low,
            max=CONTROL_STRENGTH.high,
            step=0.05,
            tooltip="How strictly the structure is kept: 0 not at all, 1 as trained. 0.5 to 1 is "
            "usual.",
        ),
        *span_inputs("the ControlNet"),
        io.Mask.Input(
            "mask",
            optional=True,
            tooltip="Where the ControlNet acts: fully where white, not at all where black. One for "
            "each frame, or one for all.",
        ),
        ControlSocket.Input(
            "control",
            optional=True,
            tooltip="Keyframes and other ControlNets; their effects add up.",
        ),
        io.Boolean.Input(
            "repeat_last",
            default=False,
            optional=True,
            advanced=True,
            tooltip="Repeat the last control frame if there are fewer control frames than frames. "
            "Off: too few are refused.",
        ),
    ]
