"""The files and models that requests name: videos, uploads, LoRAs, checkpoints."""
