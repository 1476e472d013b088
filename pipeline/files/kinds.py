"""The vocabulary of recognition: kinds of files, findings, and queries on keys."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from .tensor_specs import Shapes

Kind = Literal[
    "checkpoint",
    "VAE",
    "text encoder",
    "motion module",
    "motion LoRA",
    "v3 domain adapter",
    "LoRA",
    "textual inversion",
    "ControlNet",
    "SparseCtrl",
    "IP-Adapter",
    "vision model",
    "other model",
    "not a model",
]
LORA_KINDS: tuple[Kind, ...] = ("LoRA", "v3 domain adapter")
MOTION_LORA_KINDS: tuple[Kind, ...] = ("motion LoRA",)
"""The kinds of files that a LoRA stack, and a stack of motion LoRAs, may contain."""


@dataclass(frozen=True)
class Finding:
    """The result of recognising a file by its keys.

    Attributes:
        kind: the kind of file.
        phrase: the kind in a sentence: "a motion LoRA".
        base_model: the base model, "" if the keys do not tell.
        layout: the naming scheme of the keys.
        contents: the parts inside.
        max_frames: the largest number of frames that a motion module takes at once.
        usable: True if this pack can use it.
        advice: a sentence that says what to do with it.
        also: other kinds that it can be used as.
    """

    kind: Kind
    phrase: str
    base_model: str = ""
    layout: str = ""
    contents: str = ""
    max_frames: int | None = None
    usable: bool = False
    advice: str = ""
    also: tuple[Kind, ...] = ()


@dataclass(frozen=True)
class Keys:
    """The names and shapes of a file, with the queries that the rules use."""

    shapes: Shapes

    def starts(self, *prefixes: str) -> bool:
        """Return whether any name begins with one of these."""
        return any(name.startswith(prefixes) for name in self.shapes)

    def has(self, *parts: str) -> bool:
        """Return whether any name contains one of these."""
        return any(part in name for name in self.shapes for part in parts)

    def sizes(self, ending: str, axis: int) -> set[int]:
        """Return the sizes along an axis of all tensors whose names have this ending."""
        return {
            shape[axis]
            for name, shape in self.shapes.items()
            if name.endswith(ending) and len(shape) > axis
        }


Rule = Callable[[Keys], Finding | None]
