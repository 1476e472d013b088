"""Control frames and masks of a job from file to file, kept on disk instead of in memory.

The few pictures of keyframes are in memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from .keyframe_files import KeyframeFiles
from .models.controlnet import load_control_network
from .models.sparsectrl import (
    AnyControlNetwork,
    SparseControlNetwork,
    load_sparsectrl_network,
)
from .models.unet import MotionUNet
from .part_folder import PartFolder
from .request import ControlFile, Request
from .sampling import AnyControl, Control, Guides, Keyframes, SourceBlend, StyleImages
from .video import ControlFrameOptions, VideoReader
from .video.pictures import read_picture
from .video.spool import FrameSpool
from .video.suffixes import PICTURE_SUFFIXES

Frame = NDArray[np.uint8]


class SpooledControls:
    """ControlNets and masks, with frames that sampling reads from temporary files.

    A context manager: the files are removed when it ends. Memory does not grow with the video.
    """

    def __init__(
        self,
        request: Request,
        *,
        unet: MotionUNet,
        width: int,
        height: int,
        networks: Sequence[AnyControlNetwork] | None = None,
    ) -> None:
        """Load the networks, unless given, and prepare files for frames of this size.

        Raises:
            AnimateDiffV2VError: a file is missing, of another kind, or made for another UNet.
        """
        self._request, self._width, self._height = request, width, height
        self._frames: dict[ControlFrameOptions | Path, FrameSpool] = {}
        self._masks: dict[Path, FrameSpool] = {}
        self._stack = ExitStack()
        guiding: list[ControlFile | KeyframeFiles] = [*request.controls, *request.keyframes]
        self.networks = (
            [_network(each, unet) for each in guiding] if networks is None else list(networks)
        )
        self._pictures = [
            [_picture(path, (width, height)) for path in keyframes.pictures]
            for keyframes in request.keyframes
        ]
        if self._mask_files() or request.controls:
            folder = PartFolder(request.output)
            self._stack.callback(folder.remove)
            with self._stack.pop_all() as made:
                self._fill(folder.path)
                self._stack = made.pop_all()

    def _fill(self, folder: Path) -> None:
        """Create a file for each source, and fill those of sources other than the video itself."""
        for control in self._request.controls:
            source = _source(control)
            if source not in self._frames:
                spool = self._spool(folder, channels=3)
                self._frames[source] = spool
                if isinstance(source, Path):
                    for frame in self._read(source):
                        spool.write(frame)
        for path in self._mask_files():
            spool = self._masks[path] = self._spool(folder, channels=4)  # a float for each pixel
            for frame in self._read(path):
                spool.write(frame.mean(axis=2, dtype=np.float32) / np.float32(255))

    def _mask_files(self) -> list[Path]:
        request = self._request
        guiding: list[ControlFile | KeyframeFiles] = [*request.controls, *request.keyframes]
        masks = [each.mask for each in guiding] + [request.source_mask]
        return list(dict.fromkeys(each for each in masks if each is not None))

    def _spool(self, folder: Path, *, channels: int) -> FrameSpool:
        name = str(len(self._frames) + len(self._masks)) + f".{channels}"
        spool = FrameSpool(folder / name, frame_bytes=self._width * self._height * channels)
        self._stack.callback(spool.close)
        return spool

    def _read(self, path: Path) -> Iterator[Frame]:
        """Yield the frames of a video or folder, selected like the video's own, or one picture."""
        if path.suffix.lower() in PICTURE_SUFFIXES and path.is_file():
            yield _picture(path, (self._width, self._height))
            return
        with VideoReader(
            path,
            selection=self._request.selection,
            width=self._width,
            height=self._height,
            fit=self._request.fit,
        ) as reader:
            yield from reader

    def __enter__(self) -> SpooledControls:
        """Return itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Remove the files."""
        self._stack.close()

    def add(self, frames: Sequence[Frame]) -> None:
        """Make control frames of the video's next frames, uint8 [height, width, 3] each."""
        for source, spool in self._frames.items():
            if not isinstance(source, Path):
                for frame in frames:
                    spool.write(source.of(frame))

    def guides(self, styles: Sequence[StyleImages]) -> Guides:
        """Return the guides of sampling, including `styles`; called when all frames were added."""
        request = self._request
        blend = SourceBlend(
            mask=self.source_mask,
            strength=request.source_blend,
            end=request.source_blend_end,
        )
        controls: list[AnyControl] = [*self._controls(), *self._keyframes()]
        return Guides(controls=tuple(controls), styles=tuple(styles), source_blend=blend)

    @property
    def source_mask(self) -> Tensor | None:
        """The request's source mask, [masks, height, width], float 0..1; None if it has none."""
        return self._mask(self._request.source_mask)

    def _controls(self) -> tuple[Control, ...]:
        return tuple(
            Control(
                network=network,
                frames=self._mapped(self._frames[_source(control)], np.uint8),
                strength=control.strength,
                span=control.span,
                mask=self._mask(control.mask),
                repeat_last=control.repeat_last,
            )
            for network, control in zip(self.networks, self._request.controls, strict=False)
            if not isinstance(network, SparseControlNetwork)
        )

    def _keyframes(self) -> Iterator[Keyframes]:
        networks = [each for each in self.networks if isinstance(each, SparseControlNetwork)]
        for network, given, pictures in zip(
            networks, self._request.keyframes, self._pictures, strict=True
        ):
            yield Keyframes(
                network=network,
                pictures=torch.from_numpy(np.stack(pictures)),
                frames=given.frames,
                strength=given.strength,
                span=given.span,
                mask=self._mask(given.mask),
            )

    def _mask(self, path: Path | None) -> Tensor | None:
        if path is None:
            return None
        return self._mapped(self._masks[path], np.float32).reshape(-1, self._height, self._width)

    def _mapped(self, spool: FrameSpool, dtype: type[np.uint8 | np.float32]) -> Tensor:
        spool.flush()
        shape = (-1, self._height, self._width, 3 if dtype is np.uint8 else 1)
        # Copy-on-write, because torch warns about arrays that are read-only.
        return torch.from_numpy(np.memmap(spool.path, dtype, mode="c").reshape(shape))


def _source(control: ControlFile) -> ControlFrameOptions | Path:
    """Return the source of a ControlNet's frames; equal sources share a file."""
    return control.source if isinstance(control.source, Path) else control.preprocessing or Path()


def _picture(path: Path, size: tuple[int, int]) -> Frame:
    """Read a picture, cropped around the middle to `size`, width and height."""
    picture = Image.fromarray(read_picture(path))
    return np.asarray(ImageOps.fit(picture, size, Image.Resampling.BICUBIC))


def _network(guiding: ControlFile | KeyframeFiles, unet: MotionUNet) -> AnyControlNetwork:
    is_sparse = isinstance(guiding, KeyframeFiles)
    load = load_sparsectrl_network if is_sparse else load_control_network
    network: AnyControlNetwork = load(guiding.network, device=unet.device, dtype=unet.dtype)
    network.check_fits(unet)
    return network
