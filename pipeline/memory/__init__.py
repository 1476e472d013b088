"""Devices, estimates of a job's memory, and offloading of networks."""
