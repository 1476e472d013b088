"""Parsers for option values with several parts."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from ..pipeline.curve import Curve, Strength
from ..pipeline.errors import AnimateDiffV2VError
from ..pipeline.files import LoraEntry, find_lora
from ..pipeline.keyframe_files import KeyframeFiles
from ..pipeline.prompts import PromptSchedule
from ..pipeline.prompts.style_weights import parse_weights
from ..pipeline.request import ControlFile, StyleFile
from ..pipeline.sampling import Span
from ..pipeline.video import Preprocessor
from .parsing import reworded


@dataclass(frozen=True)
class FileOption:
    """An option whose value is a file followed by optional numbers."""

    name: str
    form: str

    def split(self, text: str) -> tuple[str, list[float]]:
        """Split FILE[:NUMBER...] into the file and the numbers.

        Raises AnimateDiffV2VError for too many numbers, or parts that are not numbers.
        """
        most = self.form.count("[")
        reference, numbers = _split_numbers(text, most=most)
        shorter, _, rest = reference.rpartition(":")
        is_number = _split_number(reference)[1] is not None
        if (is_number or Path(shorter).is_file()) and not Path(reference).exists():
            what = f"at most {most} numbers" if most > 1 else "at most one number"
            raise AnimateDiffV2VError(
                f"{self.name} is {text!r}; it must be {self.form}, with {what} after the file"
                + ("." if is_number else f", and {rest!r} {_what_it_is(text, rest)}.")
            )
        return reference, numbers

    def split_or(self, text: str, *defaults: float) -> tuple[str, Sequence[float]]:
        """Split as `split` does, with defaults for the numbers that are missing."""
        reference, numbers = self.split(text)
        return reference, [*numbers, *defaults[len(numbers) :]]

    @contextmanager
    def named_in_errors(self, text: str) -> Iterator[None]:
        """Prefix errors with the option and its value."""
        try:
            yield
        except AnimateDiffV2VError as error:
            raise AnimateDiffV2VError(f"{self.name} {text}: {reworded(str(error))}") from error


LORA = FileOption("--lora", "FILE[:SCALE[:TEXT_SCALE[:START[:END]]]]")
MOTION_LORA = FileOption("--motion-lora", "FILE[:SCALE]")
CONTROL = FileOption("--control", "FILE[:STRENGTH[:START[:END]]]")
SPARSECTRL = FileOption("--sparsectrl", "FILE[:STRENGTH[:START[:END]]]")
IP_ADAPTER = FileOption("--ip-adapter", "FILE[:WEIGHT[:START[:END]]]")


# In FILE:0=0.2,24=1.0 and FILE:0%=1,50%=0.2:0.5, the curve, and the numbers behind it.
_CURVE = re.compile(r":(?P<curve>\s*[-\d][^:]*=[^:]*)(?P<numbers>(?::[^:]*)*)$")

# The curve of --denoise, behind a file: FILE:0:0,15:1.
_COLON_CURVE = re.compile(r":(\s*-?[\d.]+\s*%?\s*:\s*-?[\d.]+[^:,]*,.*|\s*[\d.]+\s*%\s*:.*)")


def lora_entry(text: str, option: FileOption = LORA) -> LoraEntry:
    """Parse a LoRA and its scales; the file is a path, or a reference to a downloaded file.

    Raises AnimateDiffV2VError naming the option when there is no such file (with the command that
    downloads it), or when a scale is out of range.
    """
    match = _CURVE.search(text)
    without_curve = text if match is None else f"{text[: match.start()]}:1{match['numbers']}"
    reference, numbers = option.split(without_curve)
    scale, *others = numbers or [1.0]
    text_scale = others[0] if others else scale if match is None else 0.0
    start, end = [*others[1:], *(0.0, 1.0)[len(others[1:]) :]]
    try:
        path, strength = find_lora(reference, folders=()), cast("Strength", scale)
        if match is not None or others[1:]:
            strength = Curve(match["curve"] if match else f"0: {scale}", start=start, end=end)
        return LoraEntry(path, strength, text_scale)
    except AnimateDiffV2VError as error:
        colons = None if match else _COLON_CURVE.search(text)
        if colons is None:
            raise AnimateDiffV2VError(f"{option.name}: {error}") from error
        curve = colons[1].strip()
        written = re.sub(r"\s*:\s*", "=", curve)
        raise AnimateDiffV2VError(
            f"{option.name}: {curve!r} is a curve with colons; after a file, write "
            f"FILE:{written}, with = in their place."
        ) from error


def _what_it_is(text: str, rest: str) -> str:
    if _CURVE.search(text):
        return "is not a number: no curve is taken here"
    return "is not a number"


def _split_numbers(text: str, *, most: int) -> tuple[str, list[float]]:
    r"""Split up to `most` numbers off the end; the colon of C:\loras belongs to the path.

    For example, "a.safetensors:0.8:0.5" becomes "a.safetensors" and [0.8, 0.5].
    """
    numbers: list[float] = []
    while len(numbers) < most:
        shorter, number = _split_number(text)
        if number is None:
            break
        text, numbers = shorter, [number, *numbers]
    return text, numbers


def _split_number(text: str) -> tuple[str, float | None]:
    reference, colon, number = text.rpartition(":")
    if colon and reference:
        try:
            return reference, float(number)
        except ValueError:
            return text, None
    return text, None


def interval(text: str) -> tuple[float, float]:
    """Parse START:END of --guidance-interval; raises AnimateDiffV2VError."""
    start, colon, end = text.partition(":")
    try:
        if not colon:
            raise ValueError
        return float(start), float(end)
    except ValueError:
        raise AnimateDiffV2VError(
            f"--guidance-interval is {text!r}; it must be two fractions of the noise schedule, "
            "for example 0:0.8."
        ) from None


# Not a schedule, which starts with a frame number or, in JSON, with a bracket.
_NAMED_TEXT_FILE = re.compile(r"(?!\s*[-\d]+\s*:)[^\n\"{]+\.(txt|json|csv|md|yaml|yml)")


def prompt_schedule(text: str, *, pre_text: str, app_text: str) -> PromptSchedule:
    """Parse a schedule, given as the name of a text file or as the text itself.

    pre_text, app_text: added before and after every prompt.

    Raises AnimateDiffV2VError for a malformed schedule or an unreadable file.
    """
    path = Path(text)
    try:
        if "\n" not in text and path.is_file():
            return _schedule(path.read_text(encoding="utf-8-sig"), pre_text, app_text)
    except OSError:  # too long for a name: it is the text
        pass
    except UnicodeDecodeError as error:
        raise AnimateDiffV2VError(
            f"--prompt-schedule: {path} is not UTF-8 text; save it as UTF-8."
        ) from error
    if _NAMED_TEXT_FILE.fullmatch(text):
        raise AnimateDiffV2VError(
            f"--prompt-schedule: there is no file {text}; check the path, or give the schedule "
            'itself, for example "0: a forest in spring".'
        )
    return _schedule(text, pre_text, app_text)


def _schedule(text: str, pre_text: str, app_text: str) -> PromptSchedule:
    try:
        return PromptSchedule(text, pre_text, app_text)
    except AnimateDiffV2VError as error:
        raise AnimateDiffV2VError(f"--prompt-schedule: {error}") from error


def control_files(
    controls: Sequence[str], sources: Sequence[str], masks: Sequence[str] = (), **settings: Any
) -> tuple[ControlFile, ...]:
    """Parse the values of --control, FILE[:STRENGTH[:START[:END]]], with their sources and masks.

    sources, masks: values of --control-source and --control-mask, one for all or one for each.
    settings: fields that all ControlNets share.
    Raises AnimateDiffV2VError when there are too few or too many of them, or a value is out of
    range.
    """
    seen = _for_each(controls, sources, "source") or ["canny"] * len(controls)
    acting: Sequence[str | None] = _for_each(controls, masks, "mask") or [None] * len(controls)
    return tuple(
        _control_file(text, source, mask, settings)
        for text, source, mask in zip(controls, seen, acting, strict=True)
    )


_KEYFRAME = re.compile(r"(-?\d{1,7}):(.+)", re.DOTALL | re.ASCII)


def keyframe_files(
    keyframes: Sequence[str], network: str | None, mask: str | None
) -> tuple[KeyframeFiles, ...]:
    """Parse the values of --keyframe, FRAME:PICTURE, with their model and mask.

    network: value of --sparsectrl, FILE[:STRENGTH[:START[:END]]].
    Raises AnimateDiffV2VError when one of the options is given without the other, or a value is
    malformed or out of range.
    """
    if bool(keyframes) != bool(network):
        raise AnimateDiffV2VError(
            "--keyframe needs --sparsectrl: give the SparseCtrl model, for example "
            "v3_sd15_sparsectrl_rgb.ckpt."
            if keyframes
            else "--sparsectrl needs --keyframe: give a picture and its frame, for example "
            "--keyframe 0:first.png."
        )
    if network is None:
        return ()
    matches = [_KEYFRAME.fullmatch(text) for text in keyframes]
    for text, match in zip(keyframes, matches, strict=True):
        if match is None:
            raise AnimateDiffV2VError(
                f"--keyframe is {text!r}; it must be FRAME:PICTURE, for example 0:first.png; the "
                "last frame is -1, as in --keyframe=-1:last.png."
            )
    reference, (strength, start, end) = SPARSECTRL.split_or(network, 1.0, 0.0, 1.0)
    with SPARSECTRL.named_in_errors(network):
        return (
            KeyframeFiles(
                network=cast(Path, reference),
                pictures=cast("tuple[Path, ...]", [match[2] for match in matches if match]),
                frames=tuple(int(match[1]) for match in matches if match),
                strength=strength,
                span=Span(start, end),
                mask=cast("Path | None", mask),
            ),
        )


def style_files(
    adapters: Sequence[str], *, images: Sequence[str], vision_model: str | None, **settings: Any
) -> tuple[StyleFile, ...]:
    """Parse the values of --ip-adapter, FILE[:WEIGHT[:START[:END]]], with images and vision model.

    settings: fields that all IP-Adapters share.
    Raises AnimateDiffV2VError when an option is given without the others, or a value is out of
    range.
    """
    if bool(adapters) != bool(images) or bool(adapters) != bool(vision_model):
        raise AnimateDiffV2VError(
            "--ip-adapter, --clip-vision and --style-image go together: give the IP-Adapter, its "
            "vision model, and at least one picture."
        )
    return tuple(_style_file(text, [*images], vision_model or "", settings) for text in adapters)


def _style_file(
    text: str, images: list[str], vision_model: str, settings: dict[str, Any]
) -> StyleFile:
    reference, (weight, start, end) = IP_ADAPTER.split_or(text, 0.8, 0.0, 1.0)
    with IP_ADAPTER.named_in_errors(text):
        return StyleFile(
            adapter=cast(Path, reference),
            vision_model=cast(Path, vision_model),
            images=cast("tuple[Path, ...]", images),
            weight=weight,
            span=Span(start, end),
            **settings,
        )


def device_names(text: str | None) -> tuple[str, ...]:
    """Parse the value of --devices, names separated by commas.

    Raises AnimateDiffV2VError for a name that is empty.
    """
    if text is None:
        return ()
    names = tuple(name.strip() for name in text.split(","))
    if "" in names:
        raise AnimateDiffV2VError(
            f"--devices is {text!r}; give names separated by commas, for example cuda:0,cuda:1."
        )
    return names


def style_weights(text: str | None) -> dict[int, float] | None:
    """Parse `frame: factor` pairs, separated by line breaks or semicolons.

    Raises AnimateDiffV2VError naming a malformed frame or factor.
    """
    try:
        return parse_weights((text or "").replace(";", "\n"))
    except AnimateDiffV2VError as error:
        raise AnimateDiffV2VError(f"--style-weights: {error}") from error


def _for_each(controls: Sequence[str], values: Sequence[str], what: str) -> list[str]:
    """Return one value for each ControlNet, or an empty list; raises AnimateDiffV2VError."""
    option = f"--control-{what}"
    if values and not controls:
        raise AnimateDiffV2VError(
            f"{option} is given without --control; name the ControlNet that it is for."
        )
    if len(values) == 1:
        return [*values] * len(controls)
    if values and len(values) != len(controls):
        raise AnimateDiffV2VError(
            f"{option} is given {len(values)} times and --control {len(controls)} times; "
            f"give one {what} for all ControlNets, or one for each."
        )
    return [*values]


def _control_file(
    text: str, source: str, mask: str | None, settings: dict[str, Any]
) -> ControlFile:
    reference, (strength, start, end) = CONTROL.split_or(text, 1.0, 0.0, 1.0)
    with CONTROL.named_in_errors(text):
        return ControlFile(
            network=cast(Path, reference),
            source=cast(Preprocessor, source),
            strength=strength,
            span=Span(start, end),
            mask=cast("Path | None", mask),
            **settings,
        )
