"""What goes wrong, in the words and numbers that fal's clients know."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from ...pipeline import AnimateDiffV2VError
from .outcome import Answer

ERROR_PAGES = "https://docs.fal.ai/errors/#"
# pydantic's names on the left, the hosted ones on the right.
HOSTED_TYPES = {
    "string_too_long": "sequence_too_long",
    "string_too_short": "sequence_too_short",
    "too_long": "sequence_too_long",
    "too_short": "sequence_too_short",
    "literal_error": "one_of",
}
HOSTED_CTX = {"gt", "ge", "lt", "le", "multiple_of", "min_length", "max_length", "expected"}
LONGEST_ECHO = 200


class RequestRefused(AnimateDiffV2VError):
    """A request that cannot be done; `answer` is what its caller is told."""

    def __init__(self, answer: Answer) -> None:
        """Carry an answer that is no success."""
        super().__init__(answer.error or "")
        self.answer = answer


@dataclass(frozen=True)
class Detail:
    """One entry of a 422 answer's `detail`."""

    loc: Sequence[str | int]
    msg: str
    type: str
    ctx: Mapping[str, Any] = field(default_factory=dict)
    input: Any = None

    def as_json(self) -> dict[str, Any]:
        """The entry as it is sent; the input only where it is short."""
        entry: dict[str, Any] = {
            "loc": list(self.loc),
            "msg": self.msg,
            "type": self.type,
            "url": ERROR_PAGES + self.type,
        }
        if self.ctx:
            entry["ctx"] = dict(self.ctx)
        is_short = isinstance(self.input, int | float | str) and len(str(self.input)) < LONGEST_ECHO
        return entry | {"input": self.input} if is_short else entry


def unprocessable(*details: Detail) -> Answer:
    """422: something in the input will not do."""
    entries = [each.as_json() for each in details]
    return Answer(422, {"detail": entries}, entries[0]["type"])


def refused(field_name: str, sentence: str, type: str, **ctx: Any) -> RequestRefused:
    """The error that says which field of the input will not do, and why."""
    return RequestRefused(unprocessable(Detail(["body", field_name], sentence, type, ctx)))


def error_response(status: int, sentence: str, error_type: str) -> Answer:
    """An answer that is no fault of the input's."""
    return Answer(status, {"detail": sentence, "error_type": error_type}, error_type)


def validation_answer(error: ValidationError) -> Answer:
    """Word pydantic's errors as the hosted API does."""
    return unprocessable(*(_detail(each) for each in error.errors(include_url=False)))


def _detail(error: Any) -> Detail:
    ctx = {key: value for key, value in error.get("ctx", {}).items() if key in HOSTED_CTX}
    type = HOSTED_TYPES.get(error["type"], error["type"])
    if type == "one_of":
        ctx = {"expected": [each.strip().strip("'") for each in _choices(ctx["expected"])]}
    return Detail(["body", *error["loc"]], error["msg"], type, ctx, _echo(error["input"]))


def _choices(expected: str) -> list[str]:
    return expected.replace(" or ", ", ").split(", ")


def _echo(value: Any) -> Any:
    """The value where JSON and UTF-8 can carry it."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    return value


CANCELLED = error_response(499, "Request was cancelled", "request_cancelled")
TIMED_OUT = error_response(504, "Request timed out", "request_timeout")
IN_PROGRESS = Answer(400, {"detail": "Request is still in progress"}, None)
NOT_FOUND = error_response(404, "Request not found", "not_found")
BROKEN = error_response(
    500,
    "Internal server error; the server's log has the details under the request's id",
    "internal_server_error",
)
INTERRUPTED = error_response(
    500,
    "What ran the request ended each time before it was done; submit it again",
    "runner_disconnected",
)
STORAGE_FULL = error_response(
    507, "The server has no room on its disk; try again when there is some", "storage_full"
)
QUEUE_FULL = error_response(
    503, "The queue is full; try again when some requests are done", "queue_full"
)


def too_large(max_bytes: int) -> RequestRefused:
    """Return the error for a body of more than `max_bytes`."""
    return RequestRefused(
        error_response(
            413, f"The body is larger than {max_bytes} bytes, the most taken", "request_too_large"
        )
    )
