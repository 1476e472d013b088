"""The hosted API on ComfyUI's own server."""
