"""LoRAs and their strengths, in the LORA_STACK format that node packs share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from comfy_api.latest import io

from ..pipeline.curve import Strength
from ..pipeline.ranges import LORA_STRENGTH
from . import host
from .checks import CheckedNode, Problem
from .fingerprint import file_fingerprint
from .model_checks import file_problem
from .sockets import CATEGORY, LoraStackSocket
from .strength_curve import strength_of

# Name, model strength, CLIP strength; in JSON, a curve is its text.
LoraStackEntries = Sequence[tuple[str, Strength | str, float]]

NO_LORA = "None"
# Saved graphs store widget values by index: slots may be added at the end, not removed.
LORA_SLOTS = 10


class LoraStack(CheckedNode):
    """Up to ten LoRAs; stacks can be chained. `web/js/lora_slots.js` hides unused slots."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        slots = [each for number in range(1, LORA_SLOTS + 1) for each in _slot(number)]
        return io.Schema(
            node_id="ADV2V_LoraStack",
            display_name="LoRA Stack",
            category=CATEGORY,
            description="Choose LoRAs and their strengths: a new slot appears when the last one "
            "is used. Chain several of these nodes for more than ten.",
            search_aliases=[
                "lora",
                "lora loader",
                "style",
                "lycoris",
                "locon",
                "multi lora",
                "animatediff",
                "load lora",
                "lora stacker",
            ],
            inputs=[
                *slots,
                LoraStackSocket.Input(
                    "lora_stack",
                    optional=True,
                    tooltip="LoRAs that come before the ones chosen here, from a LoRA Stack of "
                    "this pack or another one.",
                ),
            ],
            outputs=[
                LoraStackSocket.Output(
                    display_name="lora_stack",
                    tooltip="For Load AnimateDiff Model and any other node that takes a "
                    "LORA_STACK.",
                )
            ],
        )

    @classmethod
    def execute(cls, lora_stack: LoraStackEntries | None = None, **slots: Any) -> io.NodeOutput:
        """Append the chosen LoRAs, slot by slot, to the incoming stack."""
        chosen = [
            (
                str(slots.get(f"lora_{number}", NO_LORA)),
                strength_of(f"model_strength_{number}", slots.get(f"model_strength_{number}", 1.0)),
                float(slots.get(f"clip_strength_{number}", 1.0)),
            )
            for number in range(1, LORA_SLOTS + 1)
        ]
        return io.NodeOutput(without_idle([*(lora_stack or ()), *chosen]))

    @classmethod
    def find_problem(cls, _node_id: str, **slots: Any) -> Problem | None:
        """Find a LoRA that is missing or of the wrong kind, in a slot that is used."""
        chosen = {}
        for number in range(1, LORA_SLOTS + 1):
            name = slots.get(f"lora_{number}", NO_LORA)
            strengths = [slots.get(f"{kind}_strength_{number}", 1.0) for kind in ("model", "clip")]
            if without_idle([(name, *strengths)]):
                chosen[f"lora_{number}"] = ("loras", name)
        return file_problem(**chosen)

    @classmethod
    def fingerprint_inputs(cls, **slots: object) -> list[str]:
        """Run again when a chosen file has changed."""
        names = [slots.get(f"lora_{number}") for number in range(1, LORA_SLOTS + 1)]
        return [
            file_fingerprint(host.model_path("loras", str(name)))
            for name in names
            if name not in (NO_LORA, None)
        ]


def without_idle(stack: LoraStackEntries) -> list[tuple[str, Strength | str, float]]:
    """Return the stack without entries that do nothing: "None", or both strengths 0."""
    return [
        (name, model_strength, clip_strength)
        for name, model_strength, clip_strength in stack
        if name != NO_LORA and (model_strength or clip_strength)
    ]


def _slot(number: int) -> list[io.Input]:
    strength: dict[str, Any] = {
        "optional": True,
        "default": 1.0,
        "min": LORA_STRENGTH.low,
        "max": LORA_STRENGTH.high,
        "step": 0.05,
    }
    return [
        io.Combo.Input(
            f"lora_{number}",
            options=[NO_LORA, *host.model_names("loras")],
            optional=True,
            default=NO_LORA,
            tooltip="A LoRA for Stable Diffusion 1.5, from models/loras. None leaves the slot "
            "empty. LoRAs are merged in the order of the slots.",
        ),
        io.Float.Input(
            f"model_strength_{number}",
            **strength,
            tooltip="How strongly the LoRA changes the picture: 0 not at all, 1 as trained, below "
            "0 in the opposite direction. 0.5 to 1 is usual. If both strengths are 0, the slot is "
            "skipped. A Strength Curve can be connected.",
        ),
        io.Float.Input(
            f"clip_strength_{number}",
            **strength,
            tooltip="How strongly the LoRA changes the way the prompt is understood. Usually the "
            "same as the model strength; 0 leaves the text encoder unchanged.",
        ),
    ]
