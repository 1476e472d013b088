"""The rules by which nodes of other packs are converted."""
