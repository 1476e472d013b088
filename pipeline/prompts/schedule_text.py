"""Taking the text of a schedule apart: JSON, `frame = prompt`, or Automatic1111's lines."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from ..errors import AnimateDiffV2VError
from .frame_index import EXPRESSION, INDEX, Frames, parse_frames

_CLOSING = {
    '"': '"', "'": "'", "＂": "＂", "“": "”“\"", "”": "”\"", "„": "“”\"", "‘": "’'", "’": "’'",
    "‚": "‘’'", "«": "»", "»": "«", "「": "」", "『": "』",
}  # fmt: skip
_QUOTES = "".join(dict.fromkeys("".join((*_CLOSING, *_CLOSING.values()))))
_APOSTROPHES = "'‘’"
_SEPARATOR = r"(?P<separator>[:：]\s*=|[:：=])"
_RANGE = rf"\d{{1,9}}\s*[-–—]\s*\d{{1,9}}|{INDEX}:{INDEX}(?=\s*[:：=])|{EXPRESSION}|{INDEX}"
_QUOTED_KEY = re.compile(
    rf"[{_QUOTES}]\s*(?P<key>[^{_QUOTES}\n]{{1,60}}?)\s*[{_QUOTES}]\s*{_SEPARATOR}"
)
_BARE_KEY = re.compile(rf"(?P<key>{_RANGE})\s*{_SEPARATOR}")
_NEXT = re.compile(r"[,，]\s*")
# What begins like a keyframe: one word or number, and a colon or an equals sign; or a bare number.
_LIKE_A_KEY = re.compile(
    rf"[{_QUOTES}]?\s*(?!embedding:)"
    r"(?:[^\s,，:：=()<>]{1,20}\s*[:：=]|[-+]?\d+(?:\.\d+)?(?:[\s;.|>)\]]|$)|[:：=])"
)
_KEY_INSIDE = re.compile(
    rf"[{_QUOTES}]\s*{INDEX}\s*[{_QUOTES}]?\s*[:：=]|\d\s*[:：=]\s*[{_QUOTES}]"
)
_COMMENT = re.compile(r"(?://|#)[^\n]*")
_COMMENT_BEHIND = re.compile(r"\s(?://|#(?=\s)).*")
_ESCAPES = {'"': '"', "'": "'", "\\": "\\", "/": "/", "n": "\n", "r": "\n", "t": "\t"}
_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|(.))", re.DOTALL)


@dataclass(frozen=True)
class Entry:
    """A keyframe: its frames, what it holds, and where it stands."""

    frames: Frames
    value: str
    line: int


@dataclass
class ScheduleText:
    """What a schedule says: its keyframes, and the lines before and after them."""

    entries: list[Entry] = field(default_factory=list)
    head: list[str] = field(default_factory=list)
    tail: list[str] = field(default_factory=list)


class ScheduleReader:
    """Reads one text from its beginning to its end."""

    def __init__(self, text: str, *, kind: str, example: str) -> None:
        """Take the text; kind, example: see parse_schedule."""
        self._text = text.lstrip("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
        self._kind, self._example = kind, example
        self._place, self._depth = 0, 0
        self._found = ScheduleText()

    def read(self) -> ScheduleText:
        """Return what the text says.

        Raises AnimateDiffV2VError quoting the line that is not understood.
        """
        while self._skip():
            key = self._key_at(self._place)
            if key is None:
                self._plain_line()
            else:
                self._entry(key)
        if self._depth:
            raise self._refused("has a curly bracket that is never closed", len(self._text))
        return self._found

    def _skip(self) -> bool:
        """Go on to what counts; False at the end."""
        while self._place < len(self._text):
            character = self._text[self._place]
            comment = _COMMENT.match(self._text, self._place)
            if comment:
                self._place = comment.end()
            elif character in "{}":
                self._bracket(character)
            elif character.isspace() or (character in ",，" and self._found.entries):
                self._place += 1
            else:
                return True
        return False

    def _bracket(self, character: str) -> None:
        self._depth += 1 if character == "{" else -1
        if self._depth not in (0, 1) or (character == "{" and self._found.entries):
            raise self._refused("has a curly bracket too many", self._place)
        self._place += 1

    def _key_at(self, place: int) -> re.Match[str] | None:
        for pattern in (_QUOTED_KEY, _BARE_KEY):
            match = pattern.match(self._text, place)
            if match and parse_frames(match["key"]):
                return match
        return None

    def _plain_line(self) -> None:
        start, line = self._place, self._rest_of_line()
        lines = self._found.tail if self._found.entries else self._found.head
        is_plain = not _LIKE_A_KEY.match(line) and not _KEY_INSIDE.search(line)
        if self._kind != "prompt" or self._depth or not is_plain:
            raise self._refused(self._advice, start)
        lines.append(line)

    def _entry(self, key: re.Match[str]) -> None:
        if self._found.tail:
            raise self._refused(
                f"comes after {self._found.tail[0]!r}, which is no keyframe: put what all prompts "
                "have in common before the first or after the last keyframe, and a prompt of "
                "several lines in quotes",
                key.start(),
            )
        frames = parse_frames(key["key"])
        assert frames is not None
        if len(key["separator"]) > 1:
            frames = Frames(frames.start, frames.end, frames.includes_end, holds=True)
        self._place = key.end()
        is_quoted_key = self._text[key.start()] in _QUOTES
        value = self._quoted(key.start(), has_quoted_key=is_quoted_key)
        if value is None:
            value = self._bare(frames)
        self._found.entries.append(Entry(frames, value, self._line_number(key.start())))

    def _quoted(self, start: int, *, has_quoted_key: bool) -> str | None:
        """Read a value in quotes; None where there is none."""
        space = re.compile(r"\s*" if has_quoted_key else r"[^\S\n]*").match(self._text, self._place)
        assert space is not None
        opened = space.end()
        if opened >= len(self._text) or self._text[opened] not in _CLOSING:
            return None
        for closed in self._closings(opened):
            if self._ends_at(closed + 1):
                inside = self._text[opened + 1 : closed]
                if _KEY_INSIDE.search(inside):
                    raise self._refused("has quotation marks that do not pair", start)
                self._place = closed + 1
                return _unescaped(inside).strip()
        rest = self._text[opened:].split("\n", 1)[0]
        is_closed = any(True for _ in self._closings(opened))
        is_text = is_closed or self._text[opened] in _APOSTROPHES
        if has_quoted_key or not is_text or _KEY_INSIDE.search(rest):
            pair = "marks that do not pair" if is_closed else "mark that is never closed"
            raise self._refused(f"has {'' if is_closed else 'a '}quotation {pair}", start)
        return None

    def _closings(self, opened: int) -> Iterator[int]:
        closing, place = _CLOSING[self._text[opened]], opened + 1
        while place < len(self._text):
            if self._text[place] == "\\":
                place += 1
            elif self._text[place] in closing:
                yield place
            place += 1

    def _ends_at(self, place: int) -> bool:
        """Whether nothing but a comma, a comment or the next keyframe follows."""
        rest = re.compile(r"[^\S\n]*").match(self._text, place)
        assert rest is not None
        place = rest.end()
        if place >= len(self._text) or self._text[place] in "\n,，}":
            return True
        return bool(_COMMENT.match(self._text, place) or self._key_at(place))

    def _bare(self, frames: Frames) -> str:
        """Read a value without quotes: up to the end of its line, or to the next keyframe on it."""
        start = self._place
        line = self._text[start:].split("\n", 1)[0]
        value = _COMMENT_BEHIND.sub("", line)
        for comma in _NEXT.finditer(value):
            if self._is_next_key(start + comma.end(), frames):
                value = value[: comma.start()]
                self._place = start + comma.start()
                return value.strip()
        self._place = start + len(line)
        if self._depth and value.rstrip().endswith("}"):
            value, self._depth = value.rstrip()[:-1], 0
        if _KEY_INSIDE.search(value):
            raise self._refused("has quotation marks that do not pair", start)
        return value.strip()

    def _is_next_key(self, place: int, frames: Frames) -> bool:
        """Whether a keyframe begins behind a comma: later than this one, and no time of day."""
        key = self._key_at(place)
        following = parse_frames(key["key"]) if key else None
        if key is None or following is None:
            return False
        if self._text[place] in _QUOTES:
            return True
        if not frames.is_relative and not following.is_relative:
            is_later = int(following.start.text) > int(frames.start.text)
        else:
            is_later = True
        begins = self._text[key.end() :].split("\n", 1)[0].lstrip()[:1]
        return is_later and (self._kind != "prompt" or not begins.isdigit())

    def _rest_of_line(self) -> str:
        start = self._place
        line = self._text[start:].split("\n", 1)[0]
        self._place = start + len(line)
        return _COMMENT_BEHIND.sub("", line).strip()

    def _line_number(self, place: int) -> int:
        return self._text.count("\n", 0, place) + 1

    @property
    def _advice(self) -> str:
        return f"names no frame; write `frame: {self._kind}`, for example `{self._example}`"

    def _refused(self, what: str, place: int) -> AnimateDiffV2VError:
        number = self._line_number(place)
        line = self._text.split("\n")[number - 1].strip()
        return AnimateDiffV2VError(f"Line {number} of the {self._kind} schedule, {line!r}, {what}.")


def _unescaped(text: str) -> str:
    r"""Resolve JSON's escapes, and leave `\(` and `\)`, which are brackets in a prompt."""

    def resolve(match: re.Match[str]) -> str:
        if match[1]:
            return chr(int(match[1], 16))
        return _ESCAPES.get(match[2], match[0])

    return _ESCAPE.sub(resolve, text)
