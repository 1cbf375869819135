"""Discs with smooth edges, which the pictures of our worlds are made of."""

from collections.abc import Sequence

import numpy as np


def blend_disc(canvas: np.ndarray, centre: Sequence[float], radius: float, colour: Sequence[float]) -> None:
    """Blends a filled disc into a picture, in place; what lies outside of it is left out.

    Args:
        canvas: (height, width, 3) floats.
        centre: (column, row), pixels.
        radius: pixels.
        colour: red, green, blue on the scale of the canvas.
    """
    height, width = canvas.shape[:2]
    left, right = _pixels(centre[0], radius, width)
    top, bottom = _pixels(centre[1], radius, height)
    rows, columns = np.ogrid[top:bottom, left:right]
    distance = np.hypot(columns + 0.5 - centre[0], rows + 0.5 - centre[1])
    cover = np.clip(radius - distance + 0.5, 0.0, 1.0)[..., None]
    patch = canvas[top:bottom, left:right]
    patch += cover * (np.asarray(colour, np.float32) - patch)


def _pixels(centre: float, radius: float, size: int) -> tuple[int, int]:
    """The first pixel that a disc may touch along one axis, and the one after the last."""
    first, end = int(np.floor(centre - radius)) - 1, int(np.ceil(centre + radius)) + 2
    return min(max(first, 0), size), min(max(end, 0), size)
