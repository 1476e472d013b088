"""How the nodes of other packs are converted."""
