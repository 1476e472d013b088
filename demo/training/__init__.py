"""How the miniature is trained: what it sees, its networks, and a module for each stage."""
