"""The page of a gallery: one HTML file beside its videos, without scripts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import NamedTuple
from urllib.parse import quote

from ..pipeline.request import ModelFiles
from ..pipeline.sampling import SamplingSettings


class Picture(NamedTuple):
    """A restyled video."""

    file_name: str
    prompt: str
    seconds: float
    """Time that it took, reading and writing included."""


class Row(NamedTuple):
    """A clip and what the prompts make of it."""

    source: str
    """File name of the frames that were restyled."""
    clip: str
    pictures: Sequence[Picture]


_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
body {{ margin: 2rem; background: #14181f; color: #e8ecf2; font: 16px/1.5 system-ui, sans-serif; }}
h1 {{ font-size: 1.6rem; margin: 0 0 .5rem; }}
h2 {{ font-size: 1.1rem; margin: 2rem 0 .5rem; }}
dl {{ display: grid; grid-template-columns: max-content 1fr; gap: 0 1rem; margin: 0; }}
dt {{ color: #9aa7b8; }}
dd {{ margin: 0; overflow-wrap: anywhere; }}
.row {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(16rem, 1fr)); gap: 1rem; }}
figure {{ margin: 0; }}
video {{ width: 100%; border-radius: 6px; background: #000; }}
small {{ color: #9aa7b8; }}
</style>
</head>
<body>
<h1>{title}</h1>
<dl>
{facts}
</dl>
{rows}
</body>
</html>
"""
_VIDEO = """<figure>
<video src="{source}" autoplay muted loop playsinline controls></video>
<figcaption>{caption}</figcaption>
</figure>"""


def page(rows: Iterable[Row], *, files: ModelFiles, settings: SamplingSettings) -> str:
    """Return the page; the videos lie beside it."""
    title = f"AnimateDiff V2V: {files.checkpoint.stem}"
    facts = "\n".join(
        f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>"
        for name, value in _facts(files, settings).items()
    )
    return _PAGE.format(title=escape(title), facts=facts, rows="\n".join(map(_row, rows)))


def _facts(files: ModelFiles, settings: SamplingSettings) -> dict[str, str]:
    loras = [f"{each.path.name} ({each.model_strength:g})" for each in files.loras]
    motion = files.motion_module
    return {
        "Checkpoint": files.checkpoint.name,
        "Motion module": motion.name if motion else "none",
        **({"LoRAs": ", ".join(loras)} if loras else {}),
        "Sampling": f"{settings.steps} steps, {settings.sampler}, {settings.scheduler}, guidance "
        f"{settings.guidance.scale:g}, denoise {settings.denoise:g}, seed {settings.seed}",
    }


def _row(row: Row) -> str:
    videos = [_video(row.source, "the source")]
    videos += [
        _video(
            each.file_name, f"{escape(each.prompt)} <small>{each.seconds:.1f} s</small>", raw=True
        )
        for each in row.pictures
    ]
    return f'<h2>{escape(row.clip)}</h2>\n<div class="row">\n' + "\n".join(videos) + "\n</div>"


def _video(file_name: str, caption: str, *, raw: bool = False) -> str:
    return _VIDEO.format(source=quote(file_name), caption=caption if raw else escape(caption))
