"""The speed of this machine: measured on slices of the networks, and predicted for whole jobs."""
