"""Keep merges of LoRA stacks by what their files contain."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from ..errors import AnimateDiffV2VError
from .lora import LoraReport, merge_loras
from .lora_entry import LoraEntry
from .peft_config import config_file
from .reading import Weights

_KEPT_MERGES = 2  # enough to switch a LoRA on and off
_BLOCK_BYTES = 1 << 20

_Merge = tuple[dict[str, torch.Tensor], dict[str, torch.Tensor] | None, tuple[LoraReport, ...]]
_Key = tuple[tuple[str, float, float], ...]


class LoraMerger:
    """Merges stacks into one pair of networks, and remembers the latest merges.

    A stack that was merged before costs no more than reading its files once, under whatever
    names they come. Each merge that is kept holds the tensors that it touched, at most the size
    of the networks.
    """

    def __init__(self, *, unet: Weights, text_encoder: Weights | None) -> None:
        """Take the networks that every stack is merged into; see `merge_loras`."""
        self._unet = unet
        self._text_encoder = text_encoder
        self._merges: OrderedDict[_Key, _Merge] = OrderedDict()

    def merge(self, loras: Sequence[LoraEntry]) -> _Merge:
        """Give what `merge_loras` gives for this stack.

        Raises:
            AnimateDiffV2VError: as `merge_loras`.
        """
        active = [entry for entry in loras if entry.model_strength or entry.clip_strength]
        key = tuple((_digest(Path(e.path)), e.model_strength, e.clip_strength) for e in active)
        if key not in self._merges:
            self._merges[key] = merge_loras(
                unet=self._unet, text_encoder=self._text_encoder, loras=active
            )
        self._merges.move_to_end(key)
        while len(self._merges) > _KEPT_MERGES:
            self._merges.popitem(last=False)
        unet, text_encoder, reports = self._merges[key]
        named = zip(reports, active, strict=True)
        return unet, text_encoder, tuple(replace(r, path=Path(e.path)) for r, e in named)


def _digest(path: Path) -> str:
    """Digest of all that decides what a file changes."""
    digest = hashlib.sha256()
    for part in filter(None, (path, config_file(path))):
        try:
            with part.open("rb") as file:
                while block := file.read(_BLOCK_BYTES):
                    digest.update(block)
        except OSError as error:
            raise AnimateDiffV2VError(f"{part} cannot be read: {error.strerror}.") from error
    return digest.hexdigest()
