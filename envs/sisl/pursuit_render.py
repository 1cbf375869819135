"""Draws pursuit as an RGB array, with NumPy only."""

import math

import numpy as np

from marl_tune.envs.drawing import GOLDEN_ANGLE, MARGIN, blend_disc, crowds, draw_bar, framed, heat_map

PICTURE_SIDE = 600  # pixels that the longer side of the map fills at most
RING = 5  # up to so many agents on a cell are drawn in a ring; more fill the cell
SEEN_BY = 4  # a cell is brightest if so many or more pursuers see it

GROUND = np.array(((22, 25, 37), (44, 38, 44), (58, 46, 46), (69, 52, 47), (78, 57, 48)), np.float32)
# colours of cells that 0, 1, ... SEEN_BY pursuers see
WALL, WALL_EDGE = (96, 106, 132), (128, 140, 168)
PURSUER, PURSUER_RIM, PURSUER_CORE = (244, 112, 82), (52, 16, 14), (255, 214, 186)
EVADER, EVADER_RIM, BAR_EMPTY = (92, 188, 240), (12, 36, 58), (26, 50, 70)


def draw_pursuit(walls: np.ndarray, pursuers: np.ndarray, evaders: np.ndarray, reach: int, left: float) -> np.ndarray:
    """Draws the map from above: x to the right, y down. The bar below shows how many evaders are left.

    Args:
        walls: (x_size, y_size) bool.
        pursuers: (N, 2) cell (x, y) of each; drawn large, in warm colours. The cells that they see are tinted.
        evaders: (E, 2) cell (x, y) of each that is not caught; drawn small, in cold colours.
        reach: number of cells that a pursuer sees to each side.
        left: share of evaders that are not caught, in [0, 1].

    Returns:
        (height, width, 3) uint8 pixels.
    """
    scale = max(PICTURE_SIDE // max(walls.shape), 2)  # pixels per cell
    canvas = framed(_ground(walls, pursuers, reach, scale))

    spots, radii = _spread(np.concatenate((pursuers, evaders)))
    for index, ((x, y), radius) in enumerate(zip(spots, radii * scale, strict=True)):
        centre = MARGIN + (x + 0.5) * scale, MARGIN + (y + 0.5) * scale
        if index < len(pursuers):
            blend_disc(canvas, centre, radius + 0.06 * scale, PURSUER_RIM)
            blend_disc(canvas, centre, radius, PURSUER)
            blend_disc(canvas, centre, 0.38 * radius, PURSUER_CORE)
        else:
            blend_disc(canvas, centre, 0.72 * radius + 0.05 * scale, EVADER_RIM)
            blend_disc(canvas, centre, 0.72 * radius, EVADER)

    draw_bar(canvas, left, EVADER, BAR_EMPTY)
    return np.clip(canvas, 0, 255).astype(np.uint8)


def _ground(walls: np.ndarray, pursuers: np.ndarray, reach: int, scale: int) -> np.ndarray:
    """The cells without agents, (height * scale, width * scale, 3)."""
    x, y = np.indices(walls.shape)[..., None]  # (x_size, y_size, 1)
    seen = (np.maximum(np.abs(x - pursuers[:, 0]), np.abs(y - pursuers[:, 1])) <= reach).sum(axis=-1)
    ground = heat_map(seen / SEEN_BY, scale, GROUND, line=0.8)
    solid = np.kron(walls.T, np.ones((scale, scale), np.bool_))  # (height * scale, width * scale)
    ground[solid] = heat_map(walls, scale, np.array((GROUND[0], WALL)), line=0.94)[solid]
    edge = max(scale // 12, 1)
    inner = np.pad(solid, edge)
    inner = inner[: -2 * edge, edge:-edge] & inner[edge:-edge, : -2 * edge]  # without the upper and the left edge
    ground[solid & ~inner] = WALL_EDGE
    return ground


def _spread(agents: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Moves agents that share a cell apart, in a ring or a spiral, and makes them smaller.

    Args:
        agents: (A, 2) cell of each.

    Returns:
        The centres (A, 2) and the radii (A,) of the agents, in cells.
    """
    spots, radii = agents.astype(np.float64), np.full(len(agents), 0.36)
    for crowd in crowds(agents):
        rank = np.arange(len(crowd))
        ring = len(crowd) <= RING
        angle = 2 * math.pi * (rank / len(crowd) + 0.125) if ring else GOLDEN_ANGLE * rank
        distance = 0.24 if ring else 0.36 * np.sqrt((rank[:, None] + 0.5) / len(crowd))
        spots[crowd] += distance * np.stack((np.cos(angle), np.sin(angle)), axis=-1)
        radii[crowd] = (0.34 if ring else 0.26) / math.sqrt(len(crowd))
    return spots, radii
