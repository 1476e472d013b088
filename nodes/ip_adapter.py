"""IP-Adapters, which give the video the style of images."""

from __future__ import annotations

from typing import Any, get_args

from comfy_api.latest import io
from torch import Tensor

from ..pipeline import models, sampling
from ..pipeline.prompts.style_weights import parse_weights
from ..pipeline.ranges import STYLE_WEIGHT
from ..pipeline.sampling import Arrangement
from . import host
from .checks import CheckedNode, Problem, problem_of
from .fingerprint import file_fingerprint
from .model_checks import file_problem
from .sockets import CATEGORY, StyleSocket
from .span_inputs import span_inputs, span_problem


class IPAdapter(CheckedNode):
    """One IP-Adapter with its images; several can be chained."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id="ADV2V_IPAdapter",
            display_name="IP-Adapter for AnimateDiff",
            category=CATEGORY,
            description="Give a video the style or the subject of images, the same throughout or "
            "changing from image to image.",
            search_aliases=[
                "ipadapter",
                "style transfer",
                "image prompt",
                "style travel",
                "animatediff",
                "ipadapter plus",
                "ipadapter batch",
            ],
            inputs=_inputs(),
            outputs=[StyleSocket.Output(display_name="style", tooltip="For the Sampler.")],
        )

    @classmethod
    def execute(
        cls,
        *,
        ip_adapter: str,
        clip_vision: Any,
        images: Tensor,
        weight: float,
        arrangement: Arrangement,
        start: float,
        end: float,
        weights: str = "",
        style: host.Chain | None = None,
    ) -> io.NodeOutput:
        """Append this one to the incoming chain."""
        chain = style or host.Chain()
        if weight == 0:
            return io.NodeOutput(chain)
        network, patcher = _loaded(ip_adapter)
        vision = host.VisionEncoder(clip_vision, as_tokens=network.takes_tokens)
        link = sampling.StyleImages(
            adapter=network,
            embeddings=vision.encode(images),
            empty=vision.empty(),
            weight=weight,
            weights=parse_weights(weights),
            arrangement=arrangement,
            span=sampling.Span(start, end),
        )
        return io.NodeOutput(chain.plus(link, patcher))

    @classmethod
    def find_problem(
        cls,
        _node_id: str,
        *,
        ip_adapter: str | None = None,
        start: float | None = None,
        end: float | None = None,
        weights: str | None = None,
    ) -> Problem | None:
        """Find a wrong file, a span that ends before its start, or weights that are unreadable."""
        found = file_problem(ip_adapter=(host.IP_ADAPTERS, ip_adapter)) or span_problem(start, end)
        return found or problem_of(lambda: parse_weights(weights or ""), "weights")

    @classmethod
    def fingerprint_inputs(cls, ip_adapter: str | None, **_others: object) -> str | None:
        """Run again when the file has changed."""
        if ip_adapter is None:
            return None
        return file_fingerprint(host.model_path(host.IP_ADAPTERS, ip_adapter))


def _loaded(name: str) -> tuple[models.IpAdapter, host.WholeModelPatcher]:
    """Load the network that a combo names, unless ComfyUI still holds it."""
    path, devices = host.model_path(host.IP_ADAPTERS, name), host.Devices.of_comfyui()
    return host.managed(
        ("ip adapter", path.name, file_fingerprint(path), devices.unet_dtype),
        lambda: models.load_ip_adapter_network(
            path, device=devices.offload, dtype=devices.unet_dtype
        ),
        devices,
    )


def _inputs() -> list[io.Input]:
    return [
        io.Combo.Input(
            "ip_adapter",
            options=host.model_names(host.IP_ADAPTERS),
            tooltip="An IP-Adapter for Stable Diffusion 1.5 from models/ipadapter: "
            "ip-adapter_sd15, or ip-adapter-plus_sd15, which stays closer to the image.",
        ),
        io.ClipVision.Input(
            "clip_vision",
            tooltip="From Load CLIP Vision: CLIP-ViT-H-14-laion2B-s32B-b79K for nearly all "
            "IP-Adapters of Stable Diffusion 1.5.",
        ),
        io.Image.Input(
            "images",
            tooltip="One or more style images; only the middle square of each is used.",
        ),
        io.Float.Input(
            "weight",
            default=0.8,
            min=STYLE_WEIGHT.low,
            max=STYLE_WEIGHT.high,
            step=0.05,
            tooltip="How much the images count compared with the prompt: 0 not at all, 1 as "
            "trained. 0.5 to 0.8 leaves room for the prompt.",
        ),
        io.Combo.Input(
            "arrangement",
            options=list(get_args(Arrangement)),
            default="average",
            tooltip="How several images are combined. average: their mean. concat: all of them at "
            "once. travel: one after another, spread over the video and blended in between. "
            "per_window: each context window uses the one image nearest to its middle.",
        ),
        *span_inputs("the IP-Adapter"),
        io.String.Input(
            "weights",
            multiline=True,
            default="",
            optional=True,
            tooltip="Factors for the weight over the course of the video, one per line: frame, "
            "colon, factor. 0: 1 and 24: 0 fades the style out over 24 frames. Empty: the same "
            "throughout.",
        ),
        StyleSocket.Input(
            "style", optional=True, tooltip="Other IP-Adapters; their effects add up."
        ),
    ]
