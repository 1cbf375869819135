"""Draws a market of the pricing world as an RGB array, with NumPy only."""

from collections.abc import Callable, Sequence

import numpy as np

WIDTH, HEIGHT = 780, 400  # pixels
TITLE_TOP, TOP, FLOOR = 18, 70, 350  # rows of the titles, of a full bar's top and of the bars' foot
PANELS = ((20, 220), (370, 180), (580, 180))  # first column and width of prices, inventories, sales
BAR_SHARE = 0.62  # width of a bar as a share of a store's space in a panel
TIMER = (375, 8)  # row and height of the bar that shows how much of the episode has passed
TEXT = 3  # pixels of a dot of the letters, which have 3 x 5 dots
STEP = 4 * TEXT  # pixels from one letter to the next
GAP = 4  # pixels between a text and its bar or line
OUTLINE = 2  # pixels
FULL = 100.0  # units of a full bar; doubled until all bars fit

BACKGROUND, PANEL, RIM, INK = (13, 15, 24), (24, 27, 40), (62, 68, 92), (214, 218, 230)
STORES = ((94, 160, 240), (236, 150, 76), (120, 206, 124), (206, 122, 214), (232, 208, 92), (96, 208, 208))
NASH, JOINT = (240, 242, 250), (240, 74, 84)
LETTERS = "0123456789./-ACDEHIJKLMNOPRST "
ROWS = (
    "75557 26227 71747 71717 55711 74717 74757 71122 75757 75717 00002 11244 00700 75755 74447 65556 74647 "
    "55755 72227 11157 55655 44447 57755 65555 75557 75744 75655 74717 72222 00000"
)
GLYPHS = dict(zip(LETTERS, ROWS.split(" "), strict=True))
# letter -> five rows of three dots, an octal digit each


def draw_market(
    price: np.ndarray,
    inventory: np.ndarray,
    sales: np.ndarray,
    demand: np.ndarray,
    price_range: Sequence[float],
    nash: float,
    joint: float,
    elapsed: float,
) -> np.ndarray:
    """Draws three panels with a bar for each store, in the store's colour, and a bar for the time that has passed.

    The first panel shows prices, from the lowest to the highest possible one, with a line at the Nash and the joint
    price. The second shows the inventories at the next step. The third shows sales; an outline shows the demand.

    Args:
        price: (N,) last prices.
        inventory: (N,) units.
        sales: (N,) units in the last step.
        demand: (N,) units in the last step.
        price_range: lowest and highest price.
        nash: mean Nash price.
        joint: mean joint price.
        elapsed: share of the episode, in [0, 1].

    Returns:
        (height, width, 3) uint8 pixels.
    """
    canvas = np.empty((HEIGHT, WIDTH, 3), np.uint8)
    canvas[:] = BACKGROUND
    low, high = price_range

    def level(value: float) -> float:
        return (value - low) / (high - low)

    _draw_panel(canvas, PANELS[0], f"PRICE {low:g}-{high:g}", price, price, "{:.1f}", level)
    for name, value, colour, above in (("NASH", nash, NASH, False), ("JOINT", joint, JOINT, True)):
        _draw_line(canvas, PANELS[0], level(value), f"{name} {value:.1f}", colour, above)
    _draw_panel(canvas, PANELS[1], "STOCK", inventory, inventory, "{:.0f}", _scale(inventory))
    _draw_panel(canvas, PANELS[2], "SALES / DEMAND", sales, demand, "{:.0f}", _scale(demand))

    row, thick = TIMER
    canvas[row : row + thick, PANELS[0][0] : WIDTH - PANELS[0][0]] = PANEL
    canvas[row : row + thick, PANELS[0][0] : PANELS[0][0] + round((WIDTH - 2 * PANELS[0][0]) * elapsed)] = RIM
    return canvas


def _row(level: float) -> int:
    """The row of pixels of a height: 0 at the foot of the bars, 1 at the top of a full bar."""
    return FLOOR - round((FLOOR - TOP) * min(max(level, 0.0), 1.0))


def _scale(units: np.ndarray) -> Callable[[float], float]:
    """A function from units to heights, with a scale at which all bars fit."""
    full = FULL * 2.0 ** np.ceil(np.log2(max(units.max() / FULL, 1.0)))
    return lambda value: value / full


def _draw_panel(
    canvas: np.ndarray,
    panel: tuple[int, int],
    title: str,
    values: np.ndarray,
    frames: np.ndarray,
    form: str,
    level: Callable[[float], float],
) -> None:
    """A titled panel with a bar for each value in an outline as high as its frame, and its number if there is room."""
    left, width = panel
    _write(canvas, title, left, TITLE_TOP, INK)
    canvas[TOP:FLOOR, left : left + width] = PANEL
    room = width / len(values)
    for store, (value, frame) in enumerate(zip(values, frames, strict=True)):
        first = left + round((store + (1 - BAR_SHARE) / 2) * room)
        end = max(left + round((store + (1 + BAR_SHARE) / 2) * room), first + 1)
        colour, rim = STORES[store % len(STORES)], _row(level(frame))
        canvas[rim:FLOOR, first:end] = colour
        canvas[rim + OUTLINE : FLOOR, first + OUTLINE : end - OUTLINE] = PANEL
        canvas[_row(level(value)) : FLOOR, first:end] = colour
        text = form.format(value)
        if len(text) * STEP <= room:
            _write(canvas, text, round(left + (store + 0.5) * room - len(text) * STEP / 2), rim - 5 * TEXT - GAP, INK)
    canvas[FLOOR : FLOOR + 2, left : left + width] = RIM


def _draw_line(
    canvas: np.ndarray, panel: tuple[int, int], level: float, text: str, colour: tuple[int, int, int], above: bool
) -> None:
    """A dashed line across a panel, and what it stands for beside it, above or below its height."""
    left, width = panel
    row = _row(level)
    for first in range(left, left + width, 12):
        canvas[row - 1 : row + 1, first : first + 7] = colour
    canvas[row - 1 : row + 1, left + width : left + width + len(text) * STEP] = colour
    _write(canvas, text, left + width + GAP, row - 5 * TEXT - GAP if above else row + GAP, colour)


def _write(canvas: np.ndarray, text: str, left: int, top: int, colour: tuple[int, int, int]) -> None:
    """Writes capitals and numbers, the first letter's upper left corner at (left, top), up to the picture's edge."""
    for index, letter in enumerate(text[: (WIDTH - left) // STEP]):
        rows = GLYPHS.get(letter, GLYPHS[" "])
        dots = np.array([[int(row) >> bit & 1 for bit in (2, 1, 0)] for row in rows], np.bool_)
        dots = np.kron(dots, np.ones((TEXT, TEXT), np.bool_))
        first = left + index * STEP
        canvas[top : top + 5 * TEXT, first : first + 3 * TEXT][dots] = colour
