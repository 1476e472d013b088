"""What a request names, brought in: videos, uploads, LoRAs, models."""
