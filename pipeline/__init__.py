"""Restyle videos with AnimateDiff: the whole job, and its parts, without ComfyUI."""
