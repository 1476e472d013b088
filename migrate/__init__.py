"""Brings graphs that were made for other packs over to this one. Needs no ComfyUI."""

from __future__ import annotations

from .convert import Converted, convert
from .report import Entry, Report

__all__ = ["Converted", "Entry", "Report", "convert"]
