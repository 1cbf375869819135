"""Draws the signal world as an RGB array, with NumPy only."""

import colorsys

import numpy as np

from marl_tune.envs.drawing import BACKGROUND, blend_disc, draw_bar, framed

SIDE = 360  # pixels of the field
RING = 0.37 * SIDE  # pixels from its centre to an agent's
AGENT, RIM, NAMED, DOT = 30.0, 5.0, 12.0, 2.2  # pixels: radius of an agent, its rim, its last action, a line's dots
DOTS = 24  # of a line from an agent to its partner; they grow towards the partner
RIGHT, WRONG, LINE = (232, 236, 246), (86, 40, 48), (96, 104, 134)
FULL, EMPTY = (120, 206, 124), (38, 42, 58)  # of the bar


def draw_ring(
    partner: np.ndarray, symbols: np.ndarray, named: np.ndarray, right: np.ndarray, num_symbols: int, accuracy: float
) -> np.ndarray:
    """Draws agents as discs on a ring.

    The colour of a disc is the symbol that the agent sees now; a smaller disc in it is the symbol that the agent named
    last. The rim is bright if that was right. Dots lead to the agent's partner. The bar below shows the accuracy.

    Args:
        partner: (N,) number of each agent's partner.
        symbols: (N,) symbols that they see.
        named: (N,) last actions; -1 for none.
        right: (N,) whether these actions were right.
        num_symbols: K.
        accuracy: of the episode, in [0, 1].

    Returns:
        (height, width, 3) uint8 pixels.
    """
    canvas = framed(np.full((SIDE, SIDE, 3), BACKGROUND, np.float32))
    angle = 2 * np.pi * np.arange(len(partner)) / len(partner)
    middle = canvas.shape[1] / 2
    places = middle + RING * np.stack((np.sin(angle), -np.cos(angle)), axis=-1)  # (N, 2) column, row
    colours = [
        tuple(255 * part for part in colorsys.hsv_to_rgb(k / num_symbols, 0.65, 0.95)) for k in range(num_symbols)
    ]
    for own, other in zip(places, places[partner], strict=True):
        for share in np.linspace(0.0, 1.0, DOTS):
            blend_disc(canvas, own + share * (other - own), DOT * (0.4 + share), LINE)
    for place, symbol, name, hit in zip(places, symbols, named, right, strict=True):
        blend_disc(canvas, place, AGENT, RIGHT if hit else WRONG)
        blend_disc(canvas, place, AGENT - RIM, colours[symbol])
        if name >= 0:
            blend_disc(canvas, place, NAMED + 2, BACKGROUND)
            blend_disc(canvas, place, NAMED, colours[name])
    draw_bar(canvas, accuracy, FULL, EMPTY)
    return np.rint(canvas).astype(np.uint8)
