"""The letterbox: fal's queue protocol, answered at home."""
