"""This pack's ControlNets and IP-Adapters for windows of ComfyUI's own sampling."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from ...pipeline.models.residuals import NO_RESIDUALS
from ...pipeline.sampling import AnyControl
from ...pipeline.sampling.cond_windows import WindowRows
from ...pipeline.sampling.noise_schedule import NoiseSchedule
from ...pipeline.sampling.style import StyleTrack

# The entry of ComfyUI's transformer_options that holds the guides.
GUIDES = "animatediff_v2v_guides"
_POSITIVE = 0


class WindowGuides:
    """Guides of a job, for the windows that ComfyUI's UNet would see."""

    def __init__(
        self,
        schedule: NoiseSchedule,
        controls: Sequence[AnyControl],
        styles: Sequence[StyleTrack],
        on_passes: Callable[[float], None],
    ) -> None:
        """Bind the guides to a job.

        Args:
            schedule: The noise levels, for the span of each guide.
            controls: ControlNets with their frames.
            styles: IP-Adapters with their images along the video.
            on_passes: Called after a window with the share of the model's call that is done.
        """
        self._schedule, self._controls, self._styles = schedule, controls, styles
        self._on_passes = on_passes
        self._done, self._passes = 0.0, 1

    def begin(self, passes: int) -> None:
        """Begin a call of the model, in which the video passes the UNet at most so many times."""
        self._done, self._passes = 0.0, passes

    def advance(self, rows: WindowRows) -> None:
        """Report that a window is done for the conditionings of a batch."""
        self._done += rows.conditionings / rows.windows
        self._on_passes(min(1.0, self._done / self._passes))

    def of(
        self,
        rows: WindowRows,
        sample: Tensor,
        timesteps: Tensor,
        context: Tensor,
        options: dict[str, Any],
    ) -> dict[str, Any]:
        """Return the `residuals` and `images` that guide a window, each from its span.

        Args:
            rows: The window.
            sample: [rows, 4, height, width], as the UNet gets it.
            timesteps: [rows], equal ones.
            context: [rows, tokens, channels].
            options: ComfyUI's transformer_options.
        """
        sigma = options["sigmas"].max().cpu()
        seen = [list(rows.window)] * rows.conditionings
        residuals = NO_RESIDUALS
        for control in self._controls:
            if control.span.contains(sigma, self._schedule):
                # A MODEL may compute in another dtype than this pack's networks.
                dtype = next(control.network.parameters()).dtype
                given = sample.to(dtype), timesteps[:1], context.to(dtype)
                residuals = residuals.plus(control.residuals(*given, seen).to(sample.dtype))
        windows = [(rows.window, kind != _POSITIVE) for kind in options["cond_or_uncond"]]
        images = [
            track.prompt(windows, sample)
            for track in self._styles
            if track.style.span.contains(sigma, self._schedule)
        ]
        return {"residuals": residuals, "images": images}
