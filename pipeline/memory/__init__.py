"""Memory: estimates, limits, offloading and the devices themselves."""
