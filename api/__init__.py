"""fal's queue protocol, served on your own machine."""
