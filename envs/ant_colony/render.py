"""Draws an ant colony as an RGB array, with NumPy only."""

import numpy as np

from marl_tune.envs.drawing import MARGIN, blend_disc, crowds, draw_bar, framed, heat_map

PICTURE_SIDE = 600  # pixels that the longer side of the grid fills at most

HEAT = np.array(((24, 27, 40), (58, 32, 96), (148, 44, 116), (226, 88, 72), (252, 196, 92)), np.float32)
# colours of pheromone levels 0 to 1, at equal distances after the square root
NEST, NEST_HOLE = (214, 168, 108), (84, 56, 36)
FOOD, FOOD_RIM = (104, 222, 106), (32, 96, 44)
ANT, ANT_RIM = (238, 240, 245), (16, 16, 20)


def draw_colony(
    pheromone: np.ndarray,
    pieces: np.ndarray,
    ants: np.ndarray,
    headings: np.ndarray,
    carrying: np.ndarray,
    nest: tuple[int, int],
    food_left: float,
) -> np.ndarray:
    """Draws a colony from above: x to the right, y down. The bar below shows how much food is not delivered yet.

    Args:
        pheromone: (width, height) in [0, 1].
        pieces: (width, height) pieces of food on each cell.
        ants: (N, 2) cell (x, y) of each ant.
        headings: (N, 2) unit vector of each ant's last move.
        carrying: (N,) bool.
        nest: cell (x, y).
        food_left: share of the food that is not delivered, in [0, 1].

    Returns:
        (height, width, 3) uint8 pixels.
    """
    scale = max(PICTURE_SIDE // max(pheromone.shape), 2)  # pixels per cell
    canvas = framed(heat_map(np.sqrt(np.clip(pheromone, 0.0, 1.0)), scale, HEAT, line=0.85))

    def centre(x: float, y: float) -> tuple[float, float]:
        return MARGIN + (x + 0.5) * scale, MARGIN + (y + 0.5) * scale

    blend_disc(canvas, centre(*nest), 1.05 * scale, NEST)
    blend_disc(canvas, centre(*nest), 0.5 * scale, NEST_HOLE)
    most = max(int(pieces.max()), 1)
    for x, y in np.argwhere(pieces > 0):
        radius = scale * (0.35 + 0.35 * np.sqrt(pieces[x, y] / most))
        blend_disc(canvas, centre(x, y), radius + 0.1 * scale, FOOD_RIM)
        blend_disc(canvas, centre(x, y), radius, FOOD)
    for spot, heading, loaded in zip(_spread(ants), headings, carrying, strict=True):
        _draw_ant(canvas, centre(*spot), heading, bool(loaded), scale)

    draw_bar(canvas, food_left, FOOD, FOOD_RIM)
    return np.clip(canvas, 0, 255).astype(np.uint8)


def _spread(ants: np.ndarray) -> np.ndarray:
    """Moves ants that share a cell apart, so that all are visible: cells (N, 2) -> centres (N, 2)."""
    spots = ants.astype(np.float64)
    for crowd in crowds(ants):
        angle = 2 * np.pi * np.arange(len(crowd)) / len(crowd)
        spots[crowd] += 0.25 * np.stack((np.cos(angle), np.sin(angle)), axis=-1)
    return spots


def _draw_ant(canvas: np.ndarray, centre: tuple[float, float], heading: np.ndarray, loaded: bool, scale: int) -> None:
    """Draws an ant as three discs in a row, and its food in front of the head."""
    body = ((-0.3, 0.24), (0.0, 0.16), (0.25, 0.18))  # distance from the centre along the heading, radius; in cells
    for rim, colour in ((0.08, ANT_RIM), (0.0, ANT)):
        for along, radius in body:
            spot = centre[0] + along * scale * heading[0], centre[1] + along * scale * heading[1]
            blend_disc(canvas, spot, (radius + rim) * scale, colour)
    if loaded:
        spot = centre[0] + 0.5 * scale * heading[0], centre[1] + 0.5 * scale * heading[1]
        blend_disc(canvas, spot, 0.3 * scale, FOOD_RIM)
        blend_disc(canvas, spot, 0.22 * scale, FOOD)
