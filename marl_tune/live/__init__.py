"""The state of a running sweep and its views in a terminal."""
