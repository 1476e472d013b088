"""The control frames of a job from file to file: made while the clip streams, kept on the disk."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .models.controlnet import ControlNetwork, load_control_network
from .models.unet import MotionUNet
from .part_folder import PartFolder
from .request import ControlFile, Request
from .sampling import Control
from .video import ControlFrameOptions, Preprocessor, VideoReader
from .video.spool import FrameSpool

Frame = NDArray[np.uint8]


class SpooledControls:
    """ControlNets with their frames, which sampling reads window by window from a file.

    A context manager: the files go when it ends. Memory does not grow with the clip.
    """

    def __init__(self, request: Request, *, unet: MotionUNet, width: int, height: int) -> None:
        """Load the networks, and make room for frames of this size beside the output.

        Raises AnimateDiffV2VError when a file is missing, of another kind, or made for another
        UNet.
        """
        self._request, self._width, self._height = request, width, height
        self._files: dict[Preprocessor | Path, FrameSpool] = {}
        self._stack = ExitStack()
        self.networks = [_network(control, unet) for control in request.controls]
        if request.controls:
            folder = PartFolder(request.output)
            self._stack.callback(folder.remove)
            self._fill(folder.path)

    def _fill(self, folder: Path) -> None:
        """Make a file for each source; videos of control frames are read into theirs at once."""
        for index, source in enumerate(
            dict.fromkeys(each.source for each in self._request.controls)
        ):
            spool = FrameSpool(folder / str(index), frame_bytes=self._width * self._height * 3)
            self._stack.callback(spool.close)
            self._files[source] = spool
            if isinstance(source, Path):
                with VideoReader(
                    source,
                    selection=self._request.selection,
                    width=self._width,
                    height=self._height,
                    fit=self._request.fit,
                ) as reader:
                    for frame in reader:
                        spool.write(frame)

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
        """Make control frames of the clip's next frames, uint8 [height, width, 3] each."""
        for source, spool in self._files.items():
            if not isinstance(source, Path):
                options = ControlFrameOptions(preprocessor=source)
                for frame in frames:
                    spool.write(options.of(frame))

    def controls(self) -> list[Control]:
        """Give what sampling takes, once the whole clip was added."""
        return [
            Control(
                network=network,
                frames=self._frames(self._files[control.source]),
                strength=control.strength,
                span=control.span,
            )
            for network, control in zip(self.networks, self._request.controls, strict=True)
        ]

    def _frames(self, spool: FrameSpool) -> Tensor:
        spool.flush()
        shape = (-1, self._height, self._width, 3)
        # Copy on write, because torch wants what it could write to.
        return torch.from_numpy(np.memmap(spool.path, np.uint8, mode="c").reshape(shape))


def _network(control: ControlFile, unet: MotionUNet) -> ControlNetwork:
    network = load_control_network(control.network, device=unet.device, dtype=unet.dtype)
    network.check_fits(unet)
    return network
