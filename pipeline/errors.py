"""The one kind of error that a user of this pack is meant to see."""

from __future__ import annotations


class AnimateDiffV2VError(Exception):
    """Something the person at the keyboard can put right.

    The message is one sentence, or two: what was wrong, the value, and what would work.
    Everything else that escapes from this pack is a bug of the pack.
    """


class Cancelled(AnimateDiffV2VError):
    """The job was stopped by its cancel callback; nothing was left half-written."""


class DiskFull(AnimateDiffV2VError):
    """There is no room for a file; other jobs on the same disk would fail as well."""
