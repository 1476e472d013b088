"""Reading and writing of videos: VideoHelperSuite's nodes and their like, as this pack's."""

from __future__ import annotations

import re
from pathlib import PureWindowsPath
from typing import Any

from ..graph import Node, Slot, Source
from ..known import Known
from .trace import maker
from .work import Work, given, values_of

LOAD, ENCODE = "ADV2V_LoadVideo", "ADV2V_EncodeVideo"
# Names of ComfyUI's folders that paths may begin with.
_FOLDERS = ("input", "output", "temp")
# Their formats: format here, hardware_encoder, and what differs.
FORMATS: dict[str, tuple[str, bool, str]] = {
    "image/gif": ("gif", False, ""),
    "image/webp": ("webp", False, ""),
    "video/ffmpeg-gif": ("gif", False, ""),
    "video/gifski": ("gif", False, ""),
    "video/h264-mp4": ("mp4-h264", False, ""),
    "video/h265-mp4": ("mp4-h265", False, ""),
    "video/av1-webm": ("mp4-av1", False, "AV1 is in an mp4 here, not in a webm."),
    "video/webm": ("webm-vp9", False, ""),
    "video/ProRes": ("mov-prores", False, ""),
    "video/ffv1-mkv": ("mkv-ffv1", False, ""),
    "video/8bit-png": ("png", False, ""),
    "video/16bit-png": ("png", False, "PNGs have 8 bits here; mkv-ffv1 is lossless, too."),
    "video/nvenc_h264-mp4": ("mp4-h264", True, "crf takes the place of the bitrate."),
    "video/nvenc_hevc-mp4": ("mp4-h265", True, "crf takes the place of the bitrate."),
    "video/nvenc_av1-mp4": ("mp4-av1", True, "crf takes the place of the bitrate."),
}
_WITH_CRF = ("mp4-h264", "mp4-h265", "mp4-av1", "webm-vp9")
# Parts of a date in the frontend's placeholder, and ComfyUI's own placeholders for them.
_DATE = re.compile(r"%date(?::([^%]*))?%")
_DATE_PARTS = {
    "yyyy": "%year%",
    "yy": "%year%",
    "MM": "%month%",
    "M": "%month%",
    "dd": "%day%",
    "d": "%day%",
    "hh": "%hour%",
    "h": "%hour%",
    "mm": "%minute%",
    "m": "%minute%",
    "ss": "%second%",
    "s": "%second%",
}


def load_video(work: Work, node: Node, known: Known) -> None:
    """Convert a node that reads a video or a folder of pictures."""
    values = values_of(node, known)
    inputs: dict[str, Slot | Source | None] = {
        new: node.slot(old) for old, new in known.inputs.items()
    }
    new = {
        ours: values[theirs]
        for theirs, ours in known.inputs.items()
        if theirs in values and ours not in ("video", "width", "height")
    }
    inputs["force_rate"] = _as_float(work, node, inputs.get("force_rate"))
    new["video"] = _path(work, node, values)
    if not isinstance(new.get("select_every_nth_frame", 1), int):
        new.pop("select_every_nth_frame")
    new.setdefault("select_every_nth_frame", 1)
    new |= _size(work, node, values, known)
    if str(values.get("format", "None")) not in ("None", "AnimateDiff"):
        work.note(
            node, f"format was {values['format']}; its sizes and frame numbers are not forced."
        )
    if _linked(node, "meta_batch"):
        work.note(node, "There is no meta batch: all frames are read; frame_load_cap limits them.")
    vae = node.slot("vae")
    encoder = vae.source if vae else None
    work.become(node, LOAD, new, inputs, {int(old): n for old, n in known.output_map.items()})
    if encoder is not None:
        _encode_after(work, node, encoder)


def _encode_after(work: Work, node: Node, vae: Source) -> None:
    """Encode the frames for those that took latents of the loader."""
    frames = Source(node.id, 0)
    consumers = work.graph.consumers(frames)
    why = "the loader encoded the frames itself"
    added = work.add(node, "VAEEncode", {}, {"pixels": frames, "vae": vae}, why)
    for consumer, slot in consumers:
        work.graph.link(consumer, slot, Source(added.id, 0))


def _path(work: Work, node: Node, values: dict[str, Any]) -> str:
    """Return the value of Load Video for a path: below ComfyUI's folders, with forward slashes."""
    name = next((n for n in ("video", "image", "directory") if isinstance(values.get(n), str)), "")
    path = values[name].strip().strip('"') if name else ""
    if path.startswith(("http://", "https://")):
        file = path.split("?")[0].rstrip("/").rsplit("/", 1)[-1]
        work.note(node, f"Nothing is downloaded: save {path} as {file} in ComfyUI's input folder.")
        return file
    windows = PureWindowsPath(path)
    parts = [each for each in windows.parts if each not in (".", windows.anchor)]
    if node.was or not parts:
        return path
    folder = next((each for each in _FOLDERS if each in parts[:-1]), None)
    if folder and (windows.anchor or parts[0] == folder):
        inner = parts[parts.index(folder) + 1 :]
        return "/".join(inner) + ("" if folder == "input" else f" [{folder}]")
    if windows.anchor:
        work.note(
            node, f"{path} is not in a folder of ComfyUI: put {parts[-1]} into its input folder."
        )
        return parts[-1]
    return "/".join(parts)


def _size(work: Work, node: Node, values: dict[str, Any], known: Known) -> dict[str, int]:
    if "custom_width" not in known.widgets:
        return {}
    width = given(node, values, "custom_width", 0)
    height = given(node, values, "custom_height", 0)
    forced = values.get("force_size")
    if isinstance(forced, str):
        width, height = _forced(forced, width, height)
    is_linked = _linked(node, "custom_width") or _linked(node, "custom_height")
    if not (width or height or is_linked):
        work.note(
            node,
            "If the video has a side longer than 768, it is scaled down to 768 here, and was not "
            "before: set width or height to keep its size.",
        )
    return {"width": width, "height": height}


def _forced(choice: str, width: int, height: int) -> tuple[int, int]:
    """Return the size that the former choice force_size stands for.

    >>> _forced("512x?", 0, 0), _forced("Custom Height", 512, 640), _forced("Disabled", 1, 1)
    ((512, 0), (0, 640), (0, 0))
    """
    custom = {
        "Custom": (width, height),
        "Custom Width": (width, 0),
        "Custom Height": (0, height),
    }
    sides = re.fullmatch(r"(\d{1,4}|\?)x(\d{1,4}|\?)", choice)
    if sides:
        first, second = (0 if side == "?" else int(side) for side in sides.groups())
        return first, second
    return custom.get(choice, (0, 0))


def combine(work: Work, node: Node, known: Known) -> None:
    """Convert a node that writes a video."""
    values = values_of(node, known)
    chosen = values.get("format", "image/gif")
    form, hardware, differs = FORMATS.get(str(chosen), ("mp4-h264", False, ""))
    if chosen not in FORMATS:
        work.note(node, f"format was {chosen}, which is not here; now it is {form}.")
    for sentence in (differs, *_lost(node, values)):
        if sentence:
            work.note(node, sentence)
    crf = values.get("crf")
    new = {
        "format": form,
        "hardware_encoder": hardware,
        "fps": float(given(node, values, "frame_rate", 8.0)),
        "filename_prefix": prefix(given(node, values, "filename_prefix", "AnimateDiff")),
        "crf": crf if form in _WITH_CRF and type(crf) is int and not hardware else -1,
        "pingpong": given(node, values, "pingpong", False),
        "loop_count": given(node, values, "loop_count", 0),
        "save_output": given(node, values, "save_output", given(node, values, "save_image", True)),
    }
    images = node.slot("images")
    vae = node.slot("vae")
    decoded: Source | None = None
    if images is not None and vae is not None and vae.source and images.source:
        made = _type_of(work, images)
        if made != "IMAGE":
            links = {"samples": images.source, "vae": vae.source}
            added = work.add(node, "VAEDecode", {}, links, "the node decoded latents itself")
            decoded = Source(added.id, 0)
    inputs: dict[str, Slot | Source | None] = {
        new_name: node.slot(old) for old, new_name in known.inputs.items()
    }
    inputs["fps"] = _as_float(work, node, inputs["fps"])
    work.become(node, ENCODE, new, inputs | ({"images": decoded} if decoded else {}), {})


def _as_float(work: Work, node: Node, link: Slot | Source | None) -> Slot | Source | None:
    """Return a link to a decimal number; ComfyUI does not convert whole ones by itself."""
    if not isinstance(link, Slot) or link.source is None or _type_of(work, link) != "INT":
        return link
    found = maker(work.graph, link)
    if found and found[0].type == "PrimitiveNode":  # it takes the type of what it is linked to
        found[0].outputs[0].type = found[0].outputs[0].raw["type"] = "FLOAT"
        return link
    why = "the frame rate is a whole number, and fps takes decimals"
    added = work.add(node, "ComfyNumberConvert", {}, {"value": link.source}, why)
    return Source(added.id, 0)


def _type_of(work: Work, slot: Slot) -> str:
    found = maker(work.graph, slot)
    if found is None or found[1].output >= len(found[0].outputs):
        return slot.type
    return found[0].outputs[found[1].output].type


def prefix(text: str) -> str:
    """Replace the frontend's date by ComfyUI's own placeholders, which this pack fills in.

    >>> prefix("%date:yyyy-MM-dd%/AD")
    '%year%-%month%-%day%/AD'
    """

    def parts(match: re.Match[str]) -> str:
        form = match.group(1) or "yyyyMMddhhmmss"
        return re.sub(r"yyyy|yy|MM?|dd?|hh?|mm?|ss?", lambda part: _DATE_PARTS[part[0]], form)

    return _DATE.sub(parts, text).replace("\\", "/")


def _lost(node: Node, values: dict[str, Any]) -> list[str]:
    found = []
    if values.get("trim_to_audio") is True:
        found.append("trim_to_audio was on; here the sound is cut to the frames, not the reverse.")
    if "10le" in str(values.get("pix_fmt", "")) and values.get("format") == "video/h264-mp4":
        found.append("pix_fmt had 10 bits; H.264 has 8 here, and mp4-h265 or mp4-av1 have 10.")
    if _linked(node, "meta_batch"):
        found.append("There is no meta batch: all frames come at once.")
    return found


def _linked(node: Node, name: str) -> bool:
    slot = node.slot(name)
    return slot is not None and slot.source is not None
