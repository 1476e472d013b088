"""The queue: its store, its order, and the workers that render videos."""
