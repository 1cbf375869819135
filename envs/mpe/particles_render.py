"""Draws a particle world as an RGB array, with NumPy only."""

import numpy as np

from marl_tune.envs.drawing import blend_disc

SIDE = 700  # pixels of the picture's width and height
UNIT = SIDE / 2  # pixels of a distance of 1, if the camera shows [-1, 1]
INSET = 0.9  # the centre of the farthest entity lies at this share of half the picture
BRIGHTNESS = 200.0  # of a colour of 1
OUTLINE = 1.0  # pixels
BLACK = (0.0, 0.0, 0.0)


def draw_particles(position: np.ndarray, radius: np.ndarray, colour: np.ndarray, to_scale: bool) -> np.ndarray:
    """Draws entities from above: x to the right, y upwards, the origin in the middle. The zoom shows the centre of the
    farthest entity near the edge.

    Args:
        position: (E, 2) centre of each entity; later ones are drawn over earlier ones.
        radius: (E,) of each disc.
        colour: (E, 3) red, green, blue in [0, 1].
        to_scale: true: the zoom scales the discs, too; false: their size in pixels is always the same.

    Returns:
        (700, 700, 3) uint8 pixels.
    """
    canvas = np.full((SIDE, SIDE, 3), 255.0, np.float32)
    zoom = INSET / max(np.abs(position).max(), np.finfo(np.float64).tiny)
    centres = UNIT + UNIT * zoom * position * (1.0, -1.0)
    radii = radius * UNIT * (zoom if to_scale else 1.0)
    for centre, size, paint in zip(centres, radii, colour * BRIGHTNESS, strict=True):
        blend_disc(canvas, centre, size, BLACK)
        blend_disc(canvas, centre, size - OUTLINE, paint)
    return np.rint(canvas).astype(np.uint8)
