"""A custom node for the tests: a CLIP_VISION of another size than the IP-Adapter's."""

from types import SimpleNamespace

import torch


class OtherVision:
    def encode_image(self, image, crop=True):
        return SimpleNamespace(image_embeds=torch.zeros(len(image), 1024))


class OtherClipVision:
    INPUT_TYPES = classmethod(lambda cls: {"required": {}})
    RETURN_TYPES = ("CLIP_VISION",)
    FUNCTION = "load"
    CATEGORY = "test"

    def load(self):
        return (OtherVision(),)


NODE_CLASS_MAPPINGS = {"OtherClipVision": OtherClipVision}
