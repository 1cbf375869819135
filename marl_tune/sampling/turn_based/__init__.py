"""Sampling of environments where agents take turns, die or join."""
