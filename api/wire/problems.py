"""Errors in the format that fal's clients expect."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from ...pipeline import AnimateDiffV2VError
from .outcome import Answer

ERROR_PAGES = "https://docs.fal.ai/errors/#"
# From pydantic's error types to fal's.
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
    """A request that is refused; `answer` is sent to its caller."""

    def __init__(self, answer: Answer) -> None:
        """Carry the answer of a failure."""
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
        """Return the entry as it is sent, with the input only if it is short."""
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
    """Return the 422 answer for invalid input."""
    entries = [each.as_json() for each in details]
    return Answer(422, {"detail": entries}, entries[0]["type"])


def refused(field_name: str, sentence: str, type: str, **ctx: Any) -> RequestRefused:
    """Return the error that names an invalid field of the input and the reason."""
    return RequestRefused(unprocessable(Detail(["body", field_name], sentence, type, ctx)))


def error_response(status: int, sentence: str, error_type: str) -> Answer:
    """Return the answer of an error that is not a 422."""
    return Answer(status, {"detail": sentence, "error_type": error_type}, error_type)


def validation_answer(error: ValidationError) -> Answer:
    """Return pydantic's errors in the hosted API's format."""
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
    """Return a value that JSON and UTF-8 can represent."""
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
    "The server stopped each time before the request was done; submit it again",
    "runner_disconnected",
)
STORAGE_FULL = error_response(507, "The server's disk is full; try again later", "storage_full")
QUEUE_FULL = error_response(503, "The queue is full; try again later", "queue_full")


def too_large(max_bytes: int) -> RequestRefused:
    """Return the error for a body of more than `max_bytes`."""
    return RequestRefused(
        error_response(
            413, f"The body is larger than the limit of {max_bytes} bytes", "request_too_large"
        )
    )
