"""Fetching files from addresses that callers name."""
