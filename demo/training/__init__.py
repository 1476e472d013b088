"""The training of the miniature: data, networks, and a module for each stage."""
