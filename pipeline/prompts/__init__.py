"""Prompts: weights in them, and how they are laid out for CLIP."""
