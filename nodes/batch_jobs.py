"""The clips that the batch node restyles, each with the settings of its row."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from ..batch.clips import Clip, find_clips, switch
from ..batch.unit import SPREAD, Job
from ..pipeline import AnimateDiffV2VError
from . import host
from .job_inputs import FORMAT, JobInputs

# Columns as the command calls them.
OTHER_NAMES = {"steps": "num_inference_steps", "checkpoint": "base_model"}
LORA = "lora"
_SOCKETS = {"lora_stack", "motion_lora_stack", "speed", "context_options"}
_TYPES = {each.name: str(each.type) for each in fields(JobInputs) if each.name not in _SOCKETS}


def batch_jobs(
    clips: str, out: Path, given: JobInputs, *, style: host.Chain, metadata: dict[str, str]
) -> list[Job]:
    """Return a job for each clip; results are in the output folder under the clips' names.

    Args:
        clips: A video, folder, pattern or table in ComfyUI's input folder.
        out: The output folder.
        given: The values of the node; a row of a table has others for its clip.
        style: IP-Adapters for all clips.
        metadata: Written into all results.

    Raises:
        AnimateDiffV2VError: there is no clip, or a row of a table cannot be used.
    """
    guides = style_digest(style)
    is_whole = any(link.weights or link.arrangement in SPREAD for link in style.links)
    jobs = []
    for clip in find_clips([host.clips_path(clips)], out=out):
        with _telling(clip.origin):
            own = _with_row(given, clip)
            source = host.path_in_folders(clip.path)
            if source is None:
                raise AnimateDiffV2VError(
                    f"{clip.path} is not in ComfyUI's input folder: move the clip there."
                )
            target = out / clip.name.with_name(clip.name.name + FORMAT.extension)
            request = own.request(source, target, metadata)
            jobs.append(Job(request, own.files(), guides=guides, is_whole=is_whole))
    return jobs


@contextmanager
def _telling(origin: str) -> Iterator[None]:
    try:
        yield
    except AnimateDiffV2VError as error:
        if not origin:
            raise
        raise AnimateDiffV2VError(f"{origin}: {error}") from error


def _with_row(given: JobInputs, clip: Clip) -> JobInputs:
    """Return the values of the node with those of a table's row in their place."""
    values: dict[str, Any] = {}
    for column, value in clip.settings.items():
        name = OTHER_NAMES.get(column, column)
        if name == LORA:
            entries = value if isinstance(value, list) else [value]
            values["lora_stack"] = [*(given.lora_stack or ()), *map(_lora, entries)]
        elif name in _TYPES:
            values[name] = _converted(column, value, _TYPES[name])
        else:
            columns = ", ".join([*_TYPES, LORA])
            raise AnimateDiffV2VError(
                f"the column {column} means nothing to this node; beside input and output it knows "
                f"{columns}."
            )
    return replace(given, **values)


def _converted(column: str, value: Any, kind: str) -> Any:
    if kind == "bool":
        return switch(column, str(value))
    if kind not in ("int", "float"):
        return str(value)
    try:
        return int(str(value)) if kind == "int" else float(str(value))
    except ValueError:
        wanted = "a whole number" if kind == "int" else "a number"
        raise AnimateDiffV2VError(f"{column} is {value!r}; give {wanted}.") from None


def _lora(text: Any) -> tuple[str, float, float]:
    """Return an entry of a LoRA stack.

    >>> _lora("detail.safetensors:0.8")
    ('detail.safetensors', 0.8, 0.8)
    """
    name, *strengths = str(text).split(":")
    try:
        model = float(strengths[0]) if strengths else 1.0
        return name, model, float(strengths[1]) if len(strengths) > 1 else model
    except ValueError:
        raise AnimateDiffV2VError(
            f"lora is {text!r}; give a file in models/loras, or with its strength NAME:0.8."
        ) from None


def style_digest(style: host.Chain) -> str:
    """Return a digest of loaded IP-Adapters and their images; empty if there are none."""
    if not style.links:
        return ""
    digest = hashlib.sha256()
    for link, patcher in zip(style.links, style.patchers, strict=True):
        facts = (patcher.origin, link.weight, link.weights, link.arrangement, link.span)
        digest.update(repr(facts).encode())
        digest.update(link.embeddings.float().cpu().numpy().tobytes())
    return digest.hexdigest()
