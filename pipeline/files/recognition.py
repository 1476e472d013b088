"""Recognition of model files by their keys and shapes, never by their names.

The layouts are those of guoyww/AnimateDiff, ComfyUI-AnimateDiff-Evolved, huggingface/diffusers,
CompVis/stable-diffusion, kohya-ss/sd-scripts, KohakuBlueleaf/LyCORIS and tencent-ailab/IP-Adapter.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..choices import checked_path
from ..errors import AnimateDiffV2VError
from . import adapter_kinds, checkpoint_kinds, guidance_kinds, motion_kinds
from .kinds import Finding, Keys, Kind, Rule
from .reading import Weights, is_pickle, read_header
from .tensor_specs import Shapes, shapes_of

_RULES: tuple[Rule, ...] = (
    *motion_kinds.RULES,
    *guidance_kinds.RULES,
    *adapter_kinds.RULES,
    *checkpoint_kinds.RULES,
)


@dataclass(frozen=True)
class FileReport:
    """The kind of a file, and whether this pack can use it.

    Attributes:
        path: the file.
        kind: the kind of file.
        base_model: the base model that it belongs to, such as "SD1.5"; "" if unknown.
        layout: the naming scheme of its keys: "LDM", "diffusers", "original", "kohya", "PEFT", or
            "".
        parameter_count: number of values in all its tensors.
        dtype: the dtype of most of these values, such as "float16".
        contents: the parts inside, such as "UNet, VAE, text encoder".
        max_frames: the largest number of frames that a motion module takes at once; else None.
        usable: True if this pack can use it.
        message: a sentence that says what to use it as, or why it cannot be used.
        also: other kinds that it can be used as.
    """

    path: Path
    kind: Kind
    base_model: str
    layout: str
    parameter_count: int
    dtype: str
    contents: str
    max_frames: int | None
    usable: bool
    message: str
    also: tuple[Kind, ...] = ()


def identify(path: str | Path) -> FileReport:
    """Recognise a file without reading its tensors; unreadable files get a report as well."""
    path = checked_path("path", path)
    try:
        header = read_header(path)
    except AnimateDiffV2VError as error:
        return FileReport(path, "not a model", "", "", 0, "", "", None, False, str(error))
    found = find_kind({name: tensor.shape for name, tensor in header.items()})
    sizes: Counter[str] = Counter()
    for tensor in header.values():
        sizes[tensor.dtype] += math.prod(tensor.shape)
    return FileReport(
        path=path,
        kind=found.kind,
        base_model=found.base_model,
        layout=found.layout,
        parameter_count=sizes.total(),
        dtype=sizes.most_common(1)[0][0] if sizes else "",
        contents=found.contents,
        max_frames=found.max_frames,
        usable=found.usable,
        message=_message(found),
        also=found.also,
    )


def find_kind(shapes: Shapes) -> Finding:
    """Recognise a file by its names and shapes, by the first rule that matches."""
    keys = Keys({name.removeprefix("module."): shape for name, shape in shapes.items()})
    for rule in _RULES:
        finding = rule(keys)
        if finding is not None:
            return finding
    names = " and ".join(list(keys.shapes)[:2])
    advice = f"Its keys are like {names}." if names else "It holds no tensors at all."
    return Finding("other model", "no model that this pack knows", advice=advice)


def _message(found: Finding) -> str:
    subject = f"This is {found.phrase}"
    return f"{subject}. {found.advice}" if found.advice else f"{subject}."


def refusal(weights: Weights, path: str | Path, *, wanted: Sequence[Kind]) -> str | None:
    """Return why a file cannot be used as one of the wanted kinds; None if it can be.

    Args:
        weights: its tensors.
        path: the file, for the message.
        wanted: the kinds that can be used, the usual one first.
    """
    return _refusal(find_kind(shapes_of(weights)), path, wanted)


def check_kind(path: Path, *, wanted: Sequence[Kind]) -> None:
    """Raise AnimateDiffV2VError if a safetensors file's header shows another kind of file.

    It takes milliseconds; a pickle, which takes PyTorch to read, is left to its loader.
    """
    if is_pickle(path):
        return
    header = read_header(path)
    found = find_kind({name: tensor.shape for name, tensor in header.items()})
    wrong = _refusal(found, path, wanted)
    if wrong:
        raise AnimateDiffV2VError(wrong)


def _refusal(found: Finding, path: str | Path, wanted: Sequence[Kind]) -> str | None:
    if found.usable and not {found.kind, *found.also}.isdisjoint(wanted):
        return None
    if found.kind in wanted:
        return f"{path} is {found.phrase}. {found.advice}".strip()
    article = "an" if wanted[0] == "IP-Adapter" else "a"
    sentence = f"{path} is {found.phrase}, where {article} {wanted[0]} is wanted."
    return f"{sentence} {found.advice}".strip()
