"""A parser for the text of a schedule: JSON, `frame = prompt`, or Automatic1111's lines."""

from __future__ import annotations

import re
from bisect import bisect_left
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
_SPACES = re.compile(r"[^\S\n]*")
_NEXT = re.compile(r"[,，]\s*")
# The start of a keyframe: a word or number with a colon or an equals sign, or a bare number.
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
    """A keyframe: its frames, its value, and its position in the text."""

    frames: Frames
    value: str
    line: int


@dataclass
class ScheduleText:
    """A parsed schedule: its keyframes, and the lines before and after them."""

    entries: list[Entry] = field(default_factory=list)
    head: list[str] = field(default_factory=list)
    tail: list[str] = field(default_factory=list)


class ScheduleReader:
    """Parses one text from start to end."""

    def __init__(self, text: str, *, kind: str, example: str) -> None:
        """Set the text; for kind and example, see parse_schedule."""
        self._text = text.lstrip("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
        self._kind, self._example = kind, example
        self._position, self._depth = 0, 0
        self._found = ScheduleText()
        self._newlines = [match.start() for match in re.finditer("\n", self._text)]
        # Caches the last results for the following keyframes: a line can have thousands of them.
        self._first: dict[re.Pattern[str], tuple[int, int, re.Match[str] | None]] = {}
        self._closing: dict[tuple[str, bool], tuple[int, int | None]] = {}

    def read(self) -> ScheduleText:
        """Parse the text.

        Raises:
            AnimateDiffV2VError: quotes the line that cannot be parsed.
        """
        while self._skip():
            key = self._key_at(self._position)
            if key is None:
                self._plain_line()
            else:
                self._entry(key)
        if self._depth:
            raise self._refused("has a curly bracket that is never closed", len(self._text))
        return self._found

    def _skip(self) -> bool:
        """Skip spaces, commas and comments; return False at the end of the text."""
        while self._position < len(self._text):
            character = self._text[self._position]
            comment = _COMMENT.match(self._text, self._position)
            if comment:
                self._position = comment.end()
            elif character in "{}":
                self._bracket(character)
            elif character.isspace() or (character in ",，" and self._found.entries):
                self._position += 1
            else:
                return True
        return False

    def _bracket(self, character: str) -> None:
        self._depth += 1 if character == "{" else -1
        if self._depth not in (0, 1) or (character == "{" and self._found.entries):
            raise self._refused("has one curly bracket too many", self._position)
        self._position += 1

    def _key_at(self, position: int) -> re.Match[str] | None:
        for pattern in (_QUOTED_KEY, _BARE_KEY):
            match = pattern.match(self._text, position)
            if match and parse_frames(match["key"]):
                return match
        return None

    def _plain_line(self) -> None:
        start, line = self._position, self._rest_of_line()
        lines = self._found.tail if self._found.entries else self._found.head
        is_plain = not _LIKE_A_KEY.match(line) and not _KEY_INSIDE.search(line)
        if self._kind != "prompt" or self._depth or not is_plain:
            raise self._refused(self._advice, start)
        lines.append(line)

    def _entry(self, key: re.Match[str]) -> None:
        if self._found.tail:
            raise self._refused(
                f"comes after {self._found.tail[0]!r}, which is not a keyframe: put what all "
                "prompts have in common before the first or after the last keyframe, and a prompt "
                "of several lines in quotes",
                key.start(),
            )
        frames = parse_frames(key["key"])
        assert frames is not None
        if len(key["separator"]) > 1:
            frames = Frames(frames.start, frames.end, frames.includes_end, holds=True)
        self._position = key.end()
        is_quoted_key = self._text[key.start()] in _QUOTES
        value = self._quoted(key.start(), has_quoted_key=is_quoted_key)
        if value is None:
            value = self._bare(frames)
        self._found.entries.append(Entry(frames, value, self._line_number(key.start())))

    def _quoted(self, start: int, *, has_quoted_key: bool) -> str | None:
        """Parse a value in quotes; return None if there is none."""
        opened = self._after_spaces(self._position)
        while has_quoted_key and self._text[opened : opened + 1] == "\n":
            opened = self._after_spaces(opened + 1)
        if opened >= len(self._text) or self._text[opened] not in _CLOSING:
            return None
        closed = self._closed(opened, is_end=True)
        if closed is not None:
            inside = self._text[opened + 1 : closed]
            if _KEY_INSIDE.search(inside):
                raise self._refused("has quotation marks that do not pair", start)
            self._position = closed + 1
            return _unescaped(inside).strip()
        is_closed = self._closed(opened, is_end=False) is not None
        is_text = is_closed or self._text[opened] in _APOSTROPHES
        holds_key = self._first_match(_KEY_INSIDE, opened, self._line_end(opened)) is not None
        if has_quoted_key or not is_text or holds_key:
            pair = "marks that do not pair" if is_closed else "mark that is never closed"
            raise self._refused(f"has {'' if is_closed else 'a '}quotation {pair}", start)
        return None

    def _closed(self, opened: int, *, is_end: bool) -> int | None:
        """Return the position of the quotation mark that closes the one at `opened`, or None.

        Args:
            opened: the position of the opening mark.
            is_end: accept only a mark at which the value can end.
        """
        known = (self._text[opened], is_end)
        searched_from, closed = self._closing.get(known, (len(self._text), None))
        if opened < searched_from or (closed is not None and closed <= opened):
            closings = self._closings(opened)
            closed = next((c for c in closings if not is_end or self._ends_at(c + 1)), None)
            self._closing[known] = (opened, closed)
        return closed

    def _closings(self, opened: int) -> Iterator[int]:
        closing, position = _CLOSING[self._text[opened]], opened + 1
        while position < len(self._text):
            if self._text[position] == "\\":
                position += 1
            elif self._text[position] in closing:
                yield position
            position += 1

    def _ends_at(self, position: int) -> bool:
        """Return whether only a comma, a comment or the next keyframe follows."""
        position = self._after_spaces(position)
        if position >= len(self._text) or self._text[position] in "\n,，}":
            return True
        return bool(_COMMENT.match(self._text, position) or self._key_at(position))

    def _bare(self, frames: Frames) -> str:
        """Parse a value without quotes, up to the end of its line or the next keyframe on it."""
        start = self._position
        line_end, end = self._line_end(start), self._value_end(start)
        for comma in _NEXT.finditer(self._text, start, end):
            if self._is_next_key(comma.end(), frames):
                self._position = comma.start()
                return self._text[start : comma.start()].strip()
        self._position = line_end
        value = self._text[start:end].strip()
        if self._depth and value.endswith("}"):
            value, self._depth = value[:-1], 0
        if _KEY_INSIDE.search(value):
            raise self._refused("has quotation marks that do not pair", start)
        return value.strip()

    def _is_next_key(self, position: int, frames: Frames) -> bool:
        """Return whether a keyframe follows a comma: a later one, and not a time of day."""
        key = self._key_at(position)
        following = parse_frames(key["key"]) if key else None
        if key is None or following is None:
            return False
        if self._text[position] in _QUOTES:
            return True
        if not frames.is_relative and not following.is_relative:
            is_later = int(following.start.text) > int(frames.start.text)
        else:
            is_later = True
        begins = self._after_spaces(key.end())
        is_time = self._text[begins : begins + 1].isdigit()
        return is_later and (self._kind != "prompt" or not is_time)

    def _rest_of_line(self) -> str:
        start = self._position
        self._position = self._line_end(start)
        return self._text[start : self._value_end(start)].strip()

    def _after_spaces(self, position: int) -> int:
        spaces = _SPACES.match(self._text, position)
        assert spaces is not None
        return spaces.end()

    def _value_end(self, start: int) -> int:
        """Return the end of the line that contains `start`, or the start of its comment."""
        line_end = self._line_end(start)
        comment = self._first_match(_COMMENT_BEHIND, start, line_end)
        return comment.start() if comment else line_end

    def _line_end(self, position: int) -> int:
        line = bisect_left(self._newlines, position)
        return self._newlines[line] if line < len(self._newlines) else len(self._text)

    def _first_match(self, pattern: re.Pattern[str], start: int, end: int) -> re.Match[str] | None:
        known_from, known_end, match = self._first.get(pattern, (0, -1, None))
        if end != known_end or start < known_from or (match and match.start() < start):
            match = pattern.search(self._text, start, end)
            self._first[pattern] = (start, end, match)
        return match

    def _line_number(self, position: int) -> int:
        return bisect_left(self._newlines, position) + 1

    @property
    def _advice(self) -> str:
        return f"names no frame; write `frame: {self._kind}`, for example `{self._example}`"

    def _refused(self, what: str, position: int) -> AnimateDiffV2VError:
        number = self._line_number(position)
        line = self._text.split("\n")[number - 1].strip()
        return AnimateDiffV2VError(f"Line {number} of the {self._kind} schedule, {line!r}, {what}.")


def _unescaped(text: str) -> str:
    r"""Resolve JSON's escapes, but not `\(` and `\)`, which are brackets in a prompt."""

    def resolve(match: re.Match[str]) -> str:
        if match[1]:
            return chr(int(match[1], 16))
        return _ESCAPES.get(match[2], match[0])

    return _ESCAPE.sub(resolve, text)
