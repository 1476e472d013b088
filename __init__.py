"""AnimateDiff video-to-video for ComfyUI, and the same job as a library and a command."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .nodes.extension import AnimateDiffV2VExtension

WEB_DIRECTORY = "./web"


async def comfy_entrypoint() -> AnimateDiffV2VExtension:
    """Return this pack's nodes to ComfyUI.

    The import waits until here, so that `import animatediff_v2v.pipeline` needs no ComfyUI.
    """
    from .nodes import load_extension

    return load_extension()


def __getattr__(name: str) -> object:
    """Return `__version__`, and log an error in a ComfyUI that is too old.

    Such a ComfyUI only knows the legacy NODE_CLASS_MAPPINGS lookup, and would only say that the
    mappings are missing. Later versions try it as well, before they call the entrypoint.
    """
    if name == "__version__":
        from .version import package_version

        return package_version()
    if name == "NODE_CLASS_MAPPINGS":
        from .nodes import say_if_too_old

        say_if_too_old()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
