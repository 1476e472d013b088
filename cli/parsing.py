"""The argument parser, and the rewording of the library's errors in terms of options."""

from __future__ import annotations

import argparse
import re
from contextlib import suppress
from typing import Any, NoReturn

from ..pipeline.curve import Curve, Strength
from ..pipeline.curve_text import EXAMPLE
from ..pipeline.errors import AnimateDiffV2VError
from .usage_errors import in_a_sentence, unknown_arguments

EXIT_UNUSABLE = 1
EXIT_WRONG_INPUT = 2
EXIT_INTERRUPTED = 130

# From the library's fields to the options that set them.
OPTIONS = {
    "input": "INPUT",
    "output": "OUTPUT",
    "network": "--control",
    "source": "--control-source",
    "control strength": "the strength of --control",
    "control source": "--control-source",
    "control mask": "--control-mask",
    "low_threshold": "--canny-low",
    "high_threshold": "--canny-high",
    "start_time_seconds": "--start-time",
    "duration_seconds": "--duration",
    "max_memory_gb": "--max-memory",
    "max_ram_gb": "--max-ram",
    "deep_cache_interval": "--deep-cache",
    "reduced_precision": "--fast",
    "scale": "--guidance-scale",
    "start": "the start",
    "end": "the end",
    "guidance": "--guidance-scale",
    "rescale": "--guidance-rescale",
    "parallel": "--guidance-parallel",
    "guidance start": "the start of --guidance-interval",
    "free_init": "--free-init",
    "free_init iterations": "--free-init",
    "free_init filter": "--free-init-filter",
    "free_init spatial_stop": "--free-init-spatial-stop",
    "free_init temporal_stop": "--free-init-temporal-stop",
    "free_init order": "--free-init-order",
    "guidance end": "the end of --guidance-interval",
    "guidance_start": "the start of --guidance-interval",
    "guidance_end": "the end of --guidance-interval",
    "length": "--context-length",
    "overlap": "--context-overlap",
    "stride": "--context-stride",
    "schedule": "--context-schedule",
    "fuse": "--context-fuse",
    "context": "--context-length",
    "context length": "--context-length",
    "context overlap": "--context-overlap",
    "context stride": "--context-stride",
    "memory": "--context-memory",
    "context memory": "--context-memory",
    "memory_end": "--context-memory-end",
    "adapter": "--ip-adapter",
    "vision_model": "--clip-vision",
    "images": "--style-image",
    "weights": "--style-weights",
    "arrangement": "--style-arrangement",
    "style weight": "the weight of --ip-adapter",
    "styles": "--ip-adapter",
    "loras": "--lora",
    "motion_loras": "--motion-lora",
    "controls": "--control",
    "keyframes": "--sparsectrl",
    "keyframe": "--keyframe",
    "keyframe mask": "--keyframe-mask",
    "keyframe strength": "the strength of --sparsectrl",
    "audio": "--no-audio",
    "select_every_nth_frame": "--select-every-nth-frame",
    **{
        name: "--" + name.replace("_", "-")
        for name in (
            "checkpoint",
            "motion_module",
            "vae",
            "text_encoder",
            "embeddings",
            "device",
            "devices",
            "dtype",
            "motion_scale",
            "motion_effect",
            "clip_skip",
            "prompt",
            "prompt_schedule",
            "negative_prompt",
            "source_prompt",
            "source_mask",
            "source_blend",
            "source_blend_end",
            "match_source",
            "refine",
            "refine_denoise",
            "refine_upscale",
            "preset",
            "steps",
            "guidance_scale",
            "guidance_rescale",
            "guidance_parallel",
            "denoise",
            "seed",
            "sampler",
            "scheduler",
            "beta_schedule",
            "noise_type",
            "skip_first_frames",
            "frame_load_cap",
            "force_rate",
            "width",
            "height",
            "fit",
            "format",
            "crf",
            "pingpong",
            "loop_count",
            "hardware_encoder",
            "restore_frames",
            "overwrite",
            "tile_factor",
            "repeat_last_control",
            "closed_loop",
            "fp8_weights",
            "compile",
        )
    },
}
_NAMES = "|".join(sorted(map(re.escape, OPTIONS), reverse=True))
_UNAMBIGUOUS = "|".join(name for name in OPTIONS if "_" in name)
# The positions in which the library's sentences name a field: at the start, in brackets, or as the
# subject of a later clause. Elsewhere the word may be part of a file name or a prompt.
_FIELD = re.compile(
    rf"^(?:{_NAMES})(?=:| is (?!no ))|^(?:{_UNAMBIGUOUS})(?= -?\d)"
    rf"|(?<=\()(?:{_UNAMBIGUOUS})(?=\))"
    rf"|(?:(?<=, )|(?<= and )|(?<=; ))(?:{_UNAMBIGUOUS})(?= is | -?\d)"
)
_QUOTED = re.compile(r"""((?<!\w)'[^']*'(?!\w)|(?<!\w)"[^"]*"(?!\w))""")
_PHRASES = {
    ", as pathlib.Path or text": "",
    "set overwrite to replace it": "give --overwrite to replace it",
    "leave crf out": "leave --crf out",
    "styles are given together with max_memory_gb": "--ip-adapter is given together with "
    "--max-memory",
    "leave out styles, or max_memory_gb": "leave out --ip-adapter, or --max-memory",
    "change the name or the format": "change the name or --format",
    "give one as vae": "give one with --vae",
    "give one as text_encoder": "give one with --text-encoder",
    "a smaller select_every_nth_frame": "a smaller --select-every-nth-frame",
    "a higher force_rate, or": "a higher --force-rate, or",
    ", and devices is given as well": ", and --devices is given as well",
    "context window, or fp8_weights": "context window, or --fp8-weights",
}


def reworded(sentence: str) -> str:
    """Replace the library's field names in a sentence by the options of `run`.

    Quoted text comes from the user and stays unchanged.

    >>> reworded("steps is 0; it must be from 1 to 1000.")
    '--steps is 0; it must be from 1 to 1000.'
    """
    for phrase, replacement in _PHRASES.items():
        sentence = sentence.replace(phrase, replacement)
    if (first := _FIELD.match(sentence)) is not None:
        sentence = OPTIONS[first[0]] + sentence[first.end() :]
    parts = _QUOTED.split(sentence)
    parts[::2] = [_FIELD.sub(lambda match: OPTIONS[match[0]], part) for part in parts[::2]]
    return "".join(parts)


STRENGTH = "NUMBER|CURVE"


def strength(text: str) -> Strength:
    """Parse a number, or a curve along the frames; raise ArgumentTypeError with a sentence."""
    if not re.search("[:=]", text):
        with suppress(ValueError):
            return float(text)
        raise argparse.ArgumentTypeError(
            f"is {text!r}; it must be a number, or a curve, with a colon between frame and number: "
            f"{EXAMPLE}."
        )
    try:
        return Curve(text)
    except AnimateDiffV2VError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


class Parser(argparse.ArgumentParser):
    """An argument parser that raises errors as AnimateDiffV2VError, without printing the usage."""

    def error(self, message: str) -> NoReturn:
        """Raise AnimateDiffV2VError with argparse's message, as a sentence."""
        raise AnimateDiffV2VError(f"{in_a_sentence(message)} See `{self.prog} --help`.")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        """Refuse unknown arguments here; argparse would pass them on to the main parser."""
        parsed, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(unknown_arguments(unknown, options=self._option_string_actions))
        return parsed, unknown


class Help(argparse.ArgumentDefaultsHelpFormatter):
    """Shows the defaults of the options that have one."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return super()._get_help_string(action) if action.default else action.help
