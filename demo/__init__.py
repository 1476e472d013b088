"""The miniature, a trained model small enough for a repository, and the code that made it."""
