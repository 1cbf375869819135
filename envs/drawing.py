"""Drawing functions of our worlds: heat maps of grids, and discs with smooth edges, with NumPy only."""

import math
from collections.abc import Iterator, Sequence

import numpy as np

LINES_FROM = 8  # pixels per cell; there are no lines between smaller cells
GOLDEN_ANGLE = math.pi * (3 - math.sqrt(5))  # radians; places discs as evenly as the seeds of a sunflower
MARGIN = 10  # pixels around a framed field
BAR = 8  # pixels, height of the bar below it
BACKGROUND = (13, 15, 24)


def heat_map(levels: np.ndarray, scale: int, colours: np.ndarray, line: float) -> np.ndarray:
    """The cells of a grid as squares, x to the right and y down.

    Args:
        levels: (width, height), clipped to [0, 1].
        scale: pixels per cell.
        colours: (K, 3) colours of the levels from 0 to 1, at equal distances.
        line: factor on the colours at the left and the upper edge of a cell, in [0, 1].

    Returns:
        (height * scale, width * scale, 3) on the scale of the colours.
    """
    index = np.clip(levels.T, 0.0, 1.0) * (len(colours) - 1)
    mixed = np.stack([np.interp(index, np.arange(len(colours)), channel) for channel in colours.T], axis=-1)
    field = np.kron(mixed, np.ones((scale, scale, 1)))
    if scale >= LINES_FROM:
        field[::scale] *= line
        field[:, ::scale] *= line
    return field


def framed(field: np.ndarray) -> np.ndarray:
    """A canvas that holds a field (height, width, 3), a margin around it, and space for a bar below it."""
    height, width = field.shape[:2]
    canvas = np.empty((height + 3 * MARGIN + BAR, width + 2 * MARGIN, 3), np.float32)
    canvas[:] = BACKGROUND
    canvas[MARGIN : MARGIN + height, MARGIN : MARGIN + width] = field
    return canvas


def draw_bar(canvas: np.ndarray, share: float, full: Sequence[float], empty: Sequence[float]) -> None:
    """Draws a bar below the field of a `framed` canvas, in place. A share in [0, 1] of the bar is full."""
    bar, width = canvas[-MARGIN - BAR : -MARGIN], canvas.shape[1] - 2 * MARGIN
    bar[:, MARGIN : MARGIN + width] = empty
    bar[:, MARGIN : MARGIN + round(width * share)] = full


def crowds(cells: np.ndarray) -> Iterator[np.ndarray]:
    """For each cell with several agents, the numbers of these agents. `cells` are those of all agents, (N, axes)."""
    _, cell, sharing = np.unique(cells, axis=0, return_inverse=True, return_counts=True)
    for shared in np.flatnonzero(sharing > 1):
        yield np.flatnonzero(cell.ravel() == shared)


def blend_disc(canvas: np.ndarray, centre: Sequence[float], radius: float, colour: Sequence[float]) -> None:
    """Blends a filled disc into a picture, in place. Parts outside of the picture are not drawn.

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
    """The range of pixels that a disc may touch along one axis: the first one, and the one after the last."""
    first, end = int(np.floor(centre - radius)) - 1, int(np.ceil(centre + radius)) + 2
    return min(max(first, 0), size), min(max(end, 0), size)
