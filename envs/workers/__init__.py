"""Stepping the copies of a world in several processes at the same time: see `world.py`."""
