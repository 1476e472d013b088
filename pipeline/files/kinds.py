"""The words in which recognition speaks: kinds of files, findings, and the rules' questions."""

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
    "IP-Adapter",
    "vision model",
    "other model",
    "not a model",
]


@dataclass(frozen=True)
class Finding:
    """What the keys of a file say.

    Attributes:
        kind: what it is.
        phrase: the same as it stands in a sentence: "a motion LoRA".
        base_model: the base model, "" where the keys do not tell.
        layout: whose names the keys have.
        contents: the parts inside.
        max_frames: of a motion module, the longest clip that it takes at once.
        usable: whether this pack can use it.
        advice: a sentence that says what to do with it.
        also: kinds that it can be used as beside its own.
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
    """The names and shapes of a file, with the questions that the rules ask."""

    shapes: Shapes

    def starts(self, *prefixes: str) -> bool:
        """Whether any name begins with one of these."""
        return any(name.startswith(prefixes) for name in self.shapes)

    def has(self, *parts: str) -> bool:
        """Whether any name contains one of these."""
        return any(part in name for name in self.shapes for part in parts)

    def sizes(self, ending: str, axis: int) -> set[int]:
        """The sizes along an axis of all tensors whose name ends so."""
        return {
            shape[axis]
            for name, shape in self.shapes.items()
            if name.endswith(ending) and len(shape) > axis
        }


Rule = Callable[[Keys], Finding | None]
