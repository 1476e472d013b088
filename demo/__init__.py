"""The miniature: a trained model small enough for a repository, and how it was made."""
