"""Draws a bio grid as an RGB array, layer by layer, with NumPy only."""

import math
from collections.abc import Sequence

import numpy as np

from marl_tune.envs.drawing import BACKGROUND, GOLDEN_ANGLE, blend_disc, crowds, heat_map

PICTURE_WIDTH, PICTURE_HEIGHT = 960, 720  # pixels that the layers fill at most
MARGIN = 14  # pixels around a layer
PIP = 4  # pixels; radius of the marks above a layer that show its number
ABREAST = 4  # up to so many layers are drawn in one row; more are drawn in a square

HEAT = np.array(((30, 34, 50), (56, 34, 98), (128, 42, 116), (196, 76, 84), (226, 150, 84)), np.float32)
# colours of pheromone levels from 0 to 1, at equal distances
PIP_ON, PIP_OFF = (238, 240, 245), (58, 64, 84)
NEST, NEST_HOLE = (214, 168, 108), (84, 56, 36)
NODE, NODE_OPEN, NODE_HOLE = (56, 132, 62), (120, 240, 122), (20, 50, 28)
LOAD = (104, 222, 106)
AGENT, AGENT_RIM = (238, 240, 245), (16, 16, 20)


def draw_grid(
    pheromone: np.ndarray,
    agents: np.ndarray,
    loads: np.ndarray,
    nodes: np.ndarray,
    amounts: np.ndarray,
    open_nodes: np.ndarray,
    nest: Sequence[int],
) -> np.ndarray:
    """Draws the layers of a grid from above, z = 0 first: x to the right, y down. The bright mark above a layer shows
    its number.

    Args:
        pheromone: (width, height, depth) in [0, 1].
        agents: (N, 3) cell (x, y, z) of each agent.
        loads: (N,) in [0, 1], drawn as a green core.
        nodes: (M, 3) cell of each node, drawn as a ring.
        amounts: (M,) in [0, 1], what is left in each node, drawn as a disc with this share of the ring's area.
        open_nodes: (M,) bool, whether there are enough agents to drain the node; the ring is then bright.
        nest: cell (x, y, z).

    Returns:
        (height, width, 3) uint8 pixels.
    """
    width, height, depth = pheromone.shape
    columns = depth if depth <= ABREAST else math.ceil(math.sqrt(depth))
    rows = math.ceil(depth / columns)
    scale = max(min(PICTURE_WIDTH // (columns * width), PICTURE_HEIGHT // (rows * height)), 2)  # pixels per cell
    across, down = width * scale + 2 * MARGIN, height * scale + 3 * MARGIN  # pixels that a layer takes
    canvas = np.empty((rows * down, columns * across, 3), np.float32)
    canvas[:] = BACKGROUND

    def centre(cell: Sequence[float]) -> tuple[float, float]:
        row, column = divmod(round(cell[2]), columns)
        return column * across + MARGIN + (cell[0] + 0.5) * scale, row * down + 2 * MARGIN + (cell[1] + 0.5) * scale

    for z in range(depth):
        left, top = (round(pixel - scale / 2) for pixel in centre((0, 0, z)))
        canvas[top : top + height * scale, left : left + width * scale] = heat_map(
            pheromone[:, :, z], scale, HEAT, line=0.7
        )
        _draw_pips(canvas, left, top, z, depth)
    blend_disc(canvas, centre(nest), 0.46 * scale, NEST)
    blend_disc(canvas, centre(nest), 0.38 * scale, NEST_HOLE)
    for cell, amount, is_open in zip(nodes, amounts, open_nodes, strict=True):
        blend_disc(canvas, centre(cell), 0.46 * scale, NODE_OPEN if is_open else NODE)
        blend_disc(canvas, centre(cell), 0.41 * scale, NODE_HOLE)
        blend_disc(canvas, centre(cell), 0.41 * scale * math.sqrt(max(amount, 0.0)), NODE)
    for spot, load in zip(_spread(agents), loads, strict=True):
        blend_disc(canvas, centre(spot), 0.1 * scale, AGENT_RIM)
        blend_disc(canvas, centre(spot), 0.082 * scale, AGENT)
        blend_disc(canvas, centre(spot), 0.06 * scale * math.sqrt(max(load, 0.0)), LOAD)
    return np.clip(canvas, 0, 255).astype(np.uint8)


def _draw_pips(canvas: np.ndarray, left: int, top: int, layer: int, depth: int) -> None:
    """Draws one mark per layer above the layer at (left, top), pixels. The mark of the layer itself is bright."""
    for z in range(depth):
        spot = left + PIP + 3 * PIP * z, top - MARGIN / 2 - PIP / 2
        blend_disc(canvas, spot, PIP, PIP_ON if z == layer else PIP_OFF)


def _spread(agents: np.ndarray) -> np.ndarray:
    """Moves agents that share a cell apart along x and y, in a spiral: cells (N, 3) -> centres (N, 3)."""
    spots = agents.astype(np.float64)
    for crowd in crowds(agents):
        rank = np.arange(len(crowd))
        radius = 0.36 * np.sqrt((rank + 0.5) / max(len(crowd), 6))
        angle = GOLDEN_ANGLE * rank
        spots[crowd, :2] += radius[:, None] * np.stack((np.cos(angle), np.sin(angle)), axis=-1)
    return spots
