"""How the command reads its arguments, and words what is wrong in terms of its options."""

from __future__ import annotations

import argparse
import re
from typing import Any, NoReturn

from ..pipeline.errors import AnimateDiffV2VError
from .usage_errors import in_a_sentence, unknown_arguments

EXIT_UNUSABLE = 1
EXIT_WRONG_INPUT = 2
EXIT_INTERRUPTED = 130

# The library's fields and the options that set them. The others are called as their option is.
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
    "deep_cache_interval": "--deep-cache",
    "scale": "--guidance-scale",
    "start": "the start",
    "end": "the end",
    "guidance": "--guidance-scale",
    "guidance start": "the start of --guidance-interval",
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
            "dtype",
            "motion_scale",
            "clip_skip",
            "prompt",
            "prompt_schedule",
            "negative_prompt",
            "source_prompt",
            "source_mask",
            "source_blend",
            "source_blend_end",
            "preset",
            "steps",
            "guidance_scale",
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
_UNMISTAKABLE = "|".join(name for name in OPTIONS if "_" in name)
# Where the library's own sentences name a field: first of all, in brackets, or as a later subject.
# Elsewhere the same letters can be a file's name or a word of a prompt.
_FIELD = re.compile(
    rf"^(?:{_NAMES})(?=:| is (?!no ))"
    rf"|(?<=\()(?:{_UNMISTAKABLE})(?=\))"
    rf"|(?:(?<=, )|(?<= and )|(?<=; ))(?:{_UNMISTAKABLE})(?= is | -?\d)"
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
    "context window, or fp8_weights": "context window, or --fp8-weights",
}


def reworded(sentence: str) -> str:
    """Name the options of `run` in a sentence of the library, which names its fields.

    What is quoted is the user's, and stays.

    >>> reworded("steps is 0; it must be from 1 to 1000.")
    '--steps is 0; it must be from 1 to 1000.'
    """
    for phrase, ours in _PHRASES.items():
        sentence = sentence.replace(phrase, ours)
    if (first := _FIELD.match(sentence)) is not None:
        sentence = OPTIONS[first[0]] + sentence[first.end() :]
    parts = _QUOTED.split(sentence)
    parts[::2] = [_FIELD.sub(lambda match: OPTIONS[match[0]], part) for part in parts[::2]]
    return "".join(parts)


class Parser(argparse.ArgumentParser):
    """Words a wrong option as this pack words its errors, without the usage in front."""

    def error(self, message: str) -> NoReturn:
        """Raise AnimateDiffV2VError with argparse's message, as a sentence."""
        raise AnimateDiffV2VError(f"{in_a_sentence(message)} See `{self.prog} --help`.")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        """Refuse what is not known here: argparse would leave it to the parser of all commands."""
        parsed, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(unknown_arguments(unknown, options=self._option_string_actions))
        return parsed, unknown


class Help(argparse.ArgumentDefaultsHelpFormatter):
    """Tells defaults, and nothing of options that have none."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return super()._get_help_string(action) if action.default else action.help
