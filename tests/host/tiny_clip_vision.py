"""A custom node for the tests: a CLIP_VISION as small as the other models.

ComfyUI's own loader knows CLIP's vision models in their real sizes alone.
"""

from types import SimpleNamespace

import torch

CHANNELS = 24


class TinyVision:
    image_mean = (0.5, 0.5, 0.5)

    def __init__(self, channels):
        generator = torch.Generator().manual_seed(0)
        self._weights = torch.randn(3, channels, generator=generator)

    def encode_image(self, image, crop=True):
        embedding = (image.mean(dim=(1, 2)).cpu() - 0.5) @ self._weights * 8
        return SimpleNamespace(image_embeds=embedding, penultimate_hidden_states=None)


class TinyClipVision:
    INPUT_TYPES = classmethod(
        lambda cls: {"required": {"channels": ("INT", {"default": CHANNELS})}}
    )
    RETURN_TYPES = ("CLIP_VISION",)
    FUNCTION = "load"
    CATEGORY = "test"

    def load(self, channels):
        return (TinyVision(channels),)


NODE_CLASS_MAPPINGS = {"TinyClipVision": TinyClipVision}
