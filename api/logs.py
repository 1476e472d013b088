"""The log of the standalone server: one line per event, as text or JSON."""

from __future__ import annotations

import json
import logging
from datetime import datetime, timezone

from aiohttp.http_exceptions import BadHttpMessage


def configure(*, level: str, form: str) -> None:
    """Log this package, at `level` and above, and its libraries to stderr, as text or JSON."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter())
    handler.addFilter(one_line_for_malformed)
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.captureWarnings(True)
    logging.getLogger(str(__package__).partition(".")[0]).setLevel(level.upper())


class TextFormatter(logging.Formatter):
    """Time, level and sentence."""

    def format(self, record: logging.LogRecord) -> str:
        """Return a record as one line, followed by the traceback if there is one."""
        text = f"{_time(record)} {record.levelname} {one_line(record.getMessage())}"
        trace = _trace(self, record)
        return f"{text}\n{trace}" if trace else text


class JsonFormatter(logging.Formatter):
    """One JSON object per line: time, level, message, and the fields of an event."""

    def format(self, record: logging.LogRecord) -> str:
        """Return a record as a JSON object."""
        entry = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if hasattr(record, "event"):
            entry |= {"event": record.event} | getattr(record, "fields", {})
        trace = _trace(self, record)
        return json.dumps(entry | ({"traceback": trace} if trace else {}), default=str)


def one_line_for_malformed(record: logging.LogRecord) -> bool:
    """Drop the traceback of a malformed call, which is the client's fault; a logging filter.

    Returns True: every record is logged.
    """
    error = record.exc_info[1] if record.exc_info else None
    if record.name == "aiohttp.server" and _is_clients_fault(error):
        first = next(iter(str(error).splitlines()), "")
        record.msg = f"{record.getMessage()}: {type(error).__name__}: {first[:200]}"
        record.args, record.exc_info, record.exc_text = None, None, None
        record.levelno, record.levelname = logging.WARNING, "WARNING"
    return True


def one_line(text: str) -> str:
    """Return a text with line breaks and control characters escaped."""
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)


def _is_clients_fault(error: BaseException | None) -> bool:
    return isinstance(error, BadHttpMessage)


def _time(record: logging.LogRecord) -> str:
    moment = datetime.fromtimestamp(record.created, timezone.utc)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _trace(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    return formatter.formatException(record.exc_info) if record.exc_info else ""
