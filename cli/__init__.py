"""The command `animatediff-v2v`."""
