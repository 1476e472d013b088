"""AnimateDiff video-to-video for ComfyUI, and the same job as a library and a command."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .nodes import AnimateDiffV2VExtension

WEB_DIRECTORY = "./web"


async def comfy_entrypoint() -> AnimateDiffV2VExtension:
    """Give ComfyUI this pack's nodes.

    The import waits until here, so that `import animatediff_v2v.pipeline` needs no ComfyUI.
    """
    from .nodes import load_extension

    return load_extension()
