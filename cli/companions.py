"""Options of `animatediff-v2v run` that have no effect unless another one is given."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from ..pipeline.errors import AnimateDiffV2VError

_UNIFORM = ("standard_uniform", "looped_uniform")


def _has_control(parsed: argparse.Namespace) -> bool:
    return bool(parsed.control)


def _has_free_init(parsed: argparse.Namespace) -> bool:
    return parsed.free_init is not None


def _is_refined(parsed: argparse.Namespace) -> bool:
    return bool(parsed.refine > 1)


def _has_style(parsed: argparse.Namespace) -> bool:
    return bool(parsed.ip_adapter)


def _sees(preprocessor: str) -> Callable[[argparse.Namespace], bool]:
    """Return a test for a ControlNet with this preprocessor; the default one is canny."""
    return lambda parsed: (
        bool(parsed.control) and preprocessor in (parsed.control_source or ["canny"])
    )


# For each option: a function that tests whether its companion is given, and the companion.
_COMPANIONS: dict[str, tuple[Callable[[argparse.Namespace], bool], str]] = {
    "--canny-low": (_sees("canny"), "--control with --control-source canny"),
    "--canny-high": (_sees("canny"), "--control with --control-source canny"),
    "--tile-factor": (_sees("tile"), "--control with --control-source tile"),
    "--repeat-last-control": (_has_control, "--control"),
    "--keyframe-mask": (lambda parsed: bool(parsed.keyframe), "--keyframe"),
    "--free-init-filter": (_has_free_init, "--free-init"),
    "--free-init-spatial-stop": (_has_free_init, "--free-init"),
    "--free-init-temporal-stop": (_has_free_init, "--free-init"),
    "--free-init-order": (
        lambda parsed: _has_free_init(parsed) and parsed.free_init_filter == "butterworth",
        "--free-init with --free-init-filter butterworth",
    ),
    "--style-arrangement": (_has_style, "--ip-adapter"),
    "--style-weights": (_has_style, "--ip-adapter"),
    "--source-prompt": (lambda parsed: parsed.noise_type == "unsample", "--noise-type unsample"),
    "--source-blend-end": (lambda parsed: parsed.source_blend != 0, "--source-blend"),
    "--refine-denoise": (_is_refined, "--refine"),
    "--refine-upscale": (_is_refined, "--refine"),
    "--restore-frames": (
        lambda parsed: parsed.select_every_nth_frame > 1 or parsed.force_rate != "0",
        "--select-every-nth-frame 2 or more",
    ),
    "--closed-loop": (
        lambda parsed: parsed.context_schedule == "looped_uniform",
        "--context-schedule looped_uniform",
    ),
    "--context-memory-end": (
        lambda parsed: parsed.context_memory != "none",
        "--context-memory ContextRef, NaiveReuse or FeatureBank",
    ),
    "--context-stride": (
        lambda parsed: parsed.context_stride <= 1 or parsed.context_schedule in _UNIFORM,
        "--context-schedule standard_uniform or looped_uniform",
    ),
}


def check_companions(parsed: argparse.Namespace) -> None:
    """Raise AnimateDiffV2VError for the first option that would be ignored."""
    for option, (has_companion, companion) in _COMPANIONS.items():
        value = getattr(parsed, option.removeprefix("--").replace("-", "_"))
        if value is not None and value is not False and not has_companion(parsed):
            raise AnimateDiffV2VError(
                f"{option} has no effect without {companion}: give that as well, or leave {option} "
                "out."
            )
