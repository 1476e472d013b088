from typing import Any

import torch
from PIL import Image

class LatentPreviewer:
    def decode_latent_to_preview(self, x0: torch.Tensor) -> Image.Image: ...
    def decode_latent_to_preview_image(
        self, preview_format: str, x0: torch.Tensor
    ) -> tuple[str, Any, int | None]: ...

def get_previewer(device: torch.device, latent_format: object) -> LatentPreviewer | None: ...
