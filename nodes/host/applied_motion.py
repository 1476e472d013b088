"""Motion modules inside ComfyUI's own sampling.

Public means of ComfyUI alone: wrappers of a MODEL (`add_wrapper_with_key`), additional models
(`set_additional_models`) and object patches (`add_object_patch`). ComfyUI calls the UNet with all
frames of all conditionings as one batch; here that batch is cut into windows.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from comfy.patcher_extension import WrapperExecutor, WrappersMP
from torch import Tensor

from ...pipeline import AnimateDiffV2VError, ContextOptions
from ...pipeline.models.motion_module import MotionModules
from ...pipeline.models.ops.frame_norm import span_frames
from ...pipeline.models.pass_strengths import FULL_STRENGTH, PassStrengths
from ...pipeline.presets import few_frames_at_once
from ...pipeline.sampling import FreeInit, window_for
from ...pipeline.sampling.cond_windows import WindowRows, predict_by_window
from ...pipeline.sampling.frame_strengths import motion_strengths, steady_curves
from ...pipeline.sampling.noise_schedule import share_of
from .applied_guides import AppliedGuides
from .managed_models import WholeModelPatcher, patcher_of
from .native_unet import NativeUNet
from .patches import KEY, is_compiled, patches_without_effect
from .progress import raise_if_interrupted
from .sample_rounds import sample_in_rounds
from .warnings import warnings_on_node
from .window_guides import GUIDES, WindowGuides

logger = logging.getLogger(__name__)

_EVERY_LEVEL = (math.inf, 0.0)
# Of ComfyUI's cond_or_uncond.
_POSITIVE = 0
# Of the memory of a plain window.
_ROOM = {"ContextRef": 2.27 / 1.53, "FeatureBank": 2.19 / 1.53}


@dataclass(frozen=True)
class AppliedMotion:
    """The motion modules of a MODEL and how they act."""

    motion: MotionModules | None
    """None samples each frame by itself."""
    spans_frames: bool
    """True for v1 motion modules: every group norm spans the frames of a window."""
    context: ContextOptions | None = None
    """None is one window if the motion module supports so many frames; see `window_for`."""
    start: float = 0.0
    """Share of the noise schedule at which the motion modules begin to act; 0 is pure noise."""
    end: float = 1.0
    """Share at which they end."""
    free_init: FreeInit | None = None
    """How often the sampler runs, and with which noise; None is once."""
    guides: AppliedGuides | None = None
    """This pack's ControlNets and keyframes, whose networks are loaded `beside`."""
    names_few_frames: bool = True
    """Warn of a video that is too short for motion modules."""

    def apply_to(
        self, model: Any, offload: torch.device, *, beside: Sequence[WholeModelPatcher] = ()
    ) -> Any:
        """Return a copy of the MODEL that samples with the motion modules.

        Args:
            model: The MODEL.
            offload: Where the motion modules are while they are not used.
            beside: Networks that are loaded together with them.

        Raises:
            AnimateDiffV2VError: the MODEL has motion modules already, of this pack or another, or
                the windows have a memory that needs this pack's own model.
        """
        if self.context is not None and self.context.memory == "NaiveReuse":
            raise AnimateDiffV2VError(
                "memory is NaiveReuse, which needs a model of Load AnimateDiff Model: in Context "
                "Options, set memory to ContextRef or FeatureBank, which work here too, or to none."
            )
        if model.get_additional_models_with_key(KEY):
            raise AnimateDiffV2VError(
                "The connected MODEL has a motion module already: connect the MODEL from before "
                "the other Apply AnimateDiff."
            )
        if getattr(model, "injections", None):
            raise AnimateDiffV2VError(
                f"Another pack has put networks into the connected MODEL "
                f"({', '.join(model.injections)}): connect the MODEL from before its node."
            )
        networks = [*beside]
        if self.motion is not None:
            if self.spans_frames:
                span_frames(self.motion)
            networks.append(patcher_of(self.motion, model.load_device, offload, None))
        applied = model.clone()
        applied.set_additional_models(KEY, networks)
        run = _Sampling(self)
        applied.add_wrapper_with_key(WrappersMP.PREPARE_SAMPLING, KEY, run.prepare)
        applied.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, KEY, run.predict)
        if self.free_init is not None:
            rounds = partial(sample_in_rounds, self.free_init)
            applied.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, KEY, rounds)
        return applied


class _Sampling:
    """The wrappers through which ComfyUI samples with the motion modules."""

    def __init__(self, applied: AppliedMotion) -> None:
        self._applied = applied
        self._levels, self._memory_end = _EVERY_LEVEL, 0.0
        self._log_sigmas: Tensor | None = None
        self._windows: dict[int, ContextOptions] = {}
        self._guides: WindowGuides | None = None
        self._warnings: list[str] | None = None
        # Not a method of this object, which would keep itself alive.
        self._entry: Any = _Sampling._predict_within

    def prepare(self, execute: Any, model: Any, noise_shape: Any, *args: Any, **kwargs: Any) -> Any:
        """Let ComfyUI make room for what a window needs, not all frames, before sampling starts."""
        applied = self._applied
        model_sampling = model.get_model_object("model_sampling")
        to_sigma = model_sampling.percent_to_sigma
        self._log_sigmas = model_sampling.sigmas.float().cpu().log()
        self._levels = (to_sigma(applied.start), to_sigma(applied.end))
        frames, *shape = noise_shape
        if applied.motion is not None:
            applied.motion.masks.check_count(frames)
        window = self._window(frames)
        self._memory_end = to_sigma(window.memory_end)
        length = _frames_to_make_room_for(frames, window)
        if applied.guides is not None:
            self._guides = applied.guides.prepared(model, noise_shape, window)
        if is_compiled(model):
            # Importing the compiler takes seconds; here it is imported already.
            disable: Any = torch.compiler.disable
            self._entry = disable(self._entry)
        self._warnings = self._warnings_of(frames, model)
        return execute(model, [length, *shape], *args, **kwargs)

    def _warnings_of(self, frames: int, model: Any) -> list[str]:
        """Return a sentence for each patch that cannot act, and for a video that is too short."""
        applied = self._applied
        few = None
        if applied.motion is not None and applied.names_few_frames:
            length = applied.context.length if applied.context else frames
            few = few_frames_at_once(frames, length, "Give the sampler a larger batch of latents.")
        return [*filter(None, (few, patches_without_effect(model)))]

    def _warn(self, options: dict[str, Any]) -> None:
        """Show the warnings before the first step, which alone knows the noise it begins with."""
        if self._warnings is None:
            return
        warnings, self._warnings = self._warnings, None
        motion, levels = self._applied.motion, options.get("sample_sigmas")
        if motion is not None and levels is not None and self._log_sigmas is not None:
            strengths = (("motion_scale", motion.scale), ("motion_effect", motion.effect))
            warnings += steady_curves(strengths, share_of(float(levels.max()), self._log_sigmas))
        with warnings_on_node():
            for warning in warnings:
                logger.warning("%s", warning)

    def _window(self, frames: int) -> ContextOptions:
        """Return the window options for a video, which are looked up and logged once."""
        if frames not in self._windows:
            motion = self._applied.motion
            limit = None if motion is None else motion.max_frames
            self._windows[frames] = window_for(limit, frames, self._applied.context)
        return self._windows[frames]

    def predict(self, *arguments: Any, **named: Any) -> Any:
        """Take the place of the UNet's pass; see `_predict_within`."""
        return self._entry(self, *arguments, **named)

    def _predict_within(self, execute: Any, *arguments: Any, **named: Any) -> Any:
        """Predict the noise within the wrappers of other packs.

        Args:
            execute: The rest of ComfyUI's call: wrappers that were added later, and the UNet.
            arguments: Those of ComfyUI's UNet.
            named: More of them.
        """
        unet = execute.class_obj
        rest = WrapperExecutor.new_class_executor(
            partial(self._predict, unet), unet, execute.wrappers, execute.idx + 1
        )
        return rest.execute(*arguments, **named)

    def _predict(self, unet: UNetModel, *arguments: Any, **_named: Any) -> Tensor:
        """Predict the noise of all frames and conditionings, window by window.

        Args:
            unet: ComfyUI's network.
            arguments: The latents [conditionings * frames, channels, height, width], the training
                steps and the prompts [conditionings * frames, ...], None, the residuals of
                ControlNets, and transformer_options.
        """
        sample, timesteps, context, _, control, options = arguments
        _refuse_gligen(options)
        self._warn(options)
        conditionings = len(options.get("cond_or_uncond", (0,)))
        frames = len(sample) // conditionings
        applied = self._applied

        def predict(rows: WindowRows) -> Tensor:
            raise_if_interrupted()
            inputs = (
                rows.of_batch(sample),
                rows.of_batch(timesteps),
                rows.of_batch(context),
            )
            guides: WindowGuides | None = options.get(GUIDES, self._guides)
            motion = applied.motion if self._is_active(options) else None
            run = NativeUNet(
                unet,
                motion,
                num_frames=len(rows.window),
                spans_frames=applied.spans_frames,
                options=_options_of(options, rows),
                strengths=_strengths_of(motion, rows, self._share(options)),
                memory=rows.memory,
                **(guides.of(rows, *inputs, options) if guides else {}),
            )
            noise = run(*inputs, _control_of(control, rows))
            if guides is not None:
                guides.advance(rows)
            return noise

        return predict_by_window(
            predict,
            sample,
            conditionings=conditionings,
            options=self._window(frames),
            step=_sampling_step(options),
            remembered=self._remembered(frames, options),
        )

    def _remembered(self, frames: int, options: dict[str, Any]) -> list[bool] | None:
        """Return for each conditioning whether it has a memory; None if there is none now."""
        window = self._window(frames)
        if window.memory == "none" or frames <= window.length:
            return None
        if "sigmas" in options and float(options["sigmas"].max()) < self._memory_end:
            return None
        return [kind == _POSITIVE for kind in options.get("cond_or_uncond", (_POSITIVE,))]

    def _is_active(self, options: dict[str, Any]) -> bool:
        highest, lowest = self._levels
        return "sigmas" not in options or lowest <= float(options["sigmas"].max()) <= highest

    def _share(self, options: dict[str, Any]) -> float:
        """Return the share of the noise schedule at which a pass is."""
        if self._log_sigmas is None or "sigmas" not in options:
            return 0.0
        return share_of(float(options["sigmas"].max()), self._log_sigmas)


def _frames_to_make_room_for(frames: int, window: ContextOptions) -> int:
    """Return how many plain frames take the memory of a window.

    A memory also keeps features of the frames: counted for 16 frames of 512x512, 2.27 GB with
    ContextRef and 2.19 with FeatureBank, in place of 1.53.
    """
    share = _ROOM.get(window.memory, 1.0) if frames > window.length else 1.0
    return math.ceil(min(frames, window.length) * share)


def _strengths_of(motion: MotionModules | None, rows: WindowRows, share: float) -> PassStrengths:
    if motion is None:
        return FULL_STRENGTH
    return motion_strengths(motion, rows.window * rows.conditionings, rows.num_frames, share)


def _options_of(options: dict[str, Any], rows: WindowRows) -> dict[str, Any]:
    """Return ComfyUI's transformer_options for a window.

    `ad_params` is AnimateDiff-Evolved's: patches of other packs cut their images and masks by it.
    """
    return {
        **options,
        **{name: rows.of_frames(options[name]) for name in ("sigmas",) if name in options},
        "ad_params": {
            "full_length": rows.num_frames,
            "context_length": len(rows.window),
            "sub_idxs": None if rows.is_whole else rows.window,
        },
    }


def _control_of(control: Any, rows: WindowRows) -> Any:
    """Return the residuals of a window, in lists of their own: the UNet empties them."""
    if not control:
        return None
    return {
        name: [rows.of_batch(residual) for residual in residuals]
        for name, residuals in control.items()
    }


def _sampling_step(options: dict[str, Any]) -> int:
    """Return the index of the sampling step, by which uniform windows shift.

    A sampler's second call in a step lies between two levels and counts for the nearer one.
    """
    levels = options.get("sample_sigmas")
    if levels is None or "sigmas" not in options:
        return 0
    return int((levels - options["sigmas"].max().to(levels)).abs().argmin())


def _refuse_gligen(options: dict[str, Any]) -> None:
    patches = options.get("patches", {}).get("middle_patch", ())
    if any(getattr(patch, "__module__", "").startswith("comfy.gligen") for patch in patches):
        raise AnimateDiffV2VError(
            "GLIGEN cannot be used with a motion module: remove GLIGEN Textbox Apply, and use "
            "Conditioning (Set Area) instead."
        )
