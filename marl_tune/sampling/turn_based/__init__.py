"""Rollouts of worlds whose agents take turns, die or join."""
