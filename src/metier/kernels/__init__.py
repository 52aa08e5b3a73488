"""Attention over a token tree: the reference, and the fast paths that equal it."""
