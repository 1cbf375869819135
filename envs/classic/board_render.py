"""Draws the boards of connect four and tic-tac-toe as RGB arrays, with NumPy only."""

from collections.abc import Collection, Sequence

import numpy as np

from marl_tune.envs.drawing import MARGIN, blend_disc, draw_bar, framed

SIDE = 80  # pixels per cell of connect four
WIDE_SIDE = 140  # pixels per cell of tic-tac-toe
GROUND = (22, 25, 37)
BAR_EMPTY = (40, 45, 62)
FRAME, FRAME_EDGE, HOLE = (36, 82, 176), (24, 58, 134), (13, 15, 24)  # of connect four
PIECES = ((240, 84, 72), (250, 204, 72))  # red begins, yellow answers
PIECE_RIMS = ((168, 40, 40), (186, 138, 28))
MARKS = ((92, 188, 240), (244, 138, 92))  # cross, circle
GRID, WON_CELL = (70, 78, 104), (46, 58, 62)
WON_RING = (255, 255, 255)


def draw_connect_four(board: np.ndarray, won: Collection[int]) -> np.ndarray:
    """Draws a blue frame with round holes. The bar below it shows how full the board is.

    Args:
        board: (rows, columns), row 0 on top; 0: empty, 1: red, 2: yellow.
        won: cells of the winning line, `row * columns + column`, which get a ring.

    Returns:
        (height, width, 3) uint8 pixels.
    """
    rows, columns = board.shape
    canvas = framed(np.full((rows * SIDE, columns * SIDE, 3), FRAME, np.float32))
    for cell, piece in enumerate(board.ravel()):
        centre = _centre(cell, columns, SIDE)
        blend_disc(canvas, centre, 0.42 * SIDE, WON_RING if cell in won else FRAME_EDGE)
        blend_disc(canvas, centre, 0.38 * SIDE, HOLE)
        if piece:
            blend_disc(canvas, centre, 0.37 * SIDE, PIECES[piece - 1])
            blend_disc(canvas, centre, 0.27 * SIDE, PIECE_RIMS[piece - 1])
            blend_disc(canvas, centre, 0.235 * SIDE, PIECES[piece - 1])
    return _finished(canvas, board, PIECES)


def draw_tictactoe(board: np.ndarray, won: Collection[int]) -> np.ndarray:
    """Draws a grid with crosses and circles. The bar below it shows how full the board is.

    Args:
        board: (rows, columns); 0: empty, 1: cross, 2: circle.
        won: cells of the winning line, `row * columns + column`, which are highlighted.

    Returns:
        (height, width, 3) uint8 pixels.
    """
    (rows, columns), side, line = board.shape, WIDE_SIDE, 2
    field = np.full((rows * side, columns * side, 3), GROUND, np.float32)
    for cell in won:
        row, column = divmod(cell, columns)
        field[row * side : (row + 1) * side, column * side : (column + 1) * side] = WON_CELL
    for edge in range(1, rows):
        field[edge * side - line : edge * side + line] = GRID
    for edge in range(1, columns):
        field[:, edge * side - line : edge * side + line] = GRID
    canvas = framed(field)
    for cell, mark in enumerate(board.ravel()):
        centre = _centre(cell, columns, side)
        if mark == 1:
            _draw_cross(canvas, centre, 0.26 * side)
        elif mark == 2:
            blend_disc(canvas, centre, 0.34 * side, MARKS[1])
            blend_disc(canvas, centre, 0.21 * side, WON_CELL if cell in won else GROUND)
    return _finished(canvas, board, MARKS)


def _centre(cell: int, columns: int, side: int) -> tuple[float, float]:
    """The centre of a cell, (column, row) in pixels of the canvas."""
    row, column = divmod(cell, columns)
    return MARGIN + (column + 0.5) * side, MARGIN + (row + 0.5) * side


def _draw_cross(canvas: np.ndarray, centre: tuple[float, float], reach: float) -> None:
    """Draws two lines with round ends, as discs along both diagonals."""
    for along in np.linspace(-reach, reach, 60):
        for across in (along, -along):
            blend_disc(canvas, (centre[0] + along, centre[1] + across), 0.24 * reach, MARKS[0])


def _finished(canvas: np.ndarray, board: np.ndarray, colours: Sequence[tuple[int, int, int]]) -> np.ndarray:
    """Adds the bar, in the colour of the last player who moved."""
    filled = int(np.count_nonzero(board))
    draw_bar(canvas, filled / board.size, colours[(filled + 1) % 2], BAR_EMPTY)
    return np.clip(canvas, 0, 255).astype(np.uint8)
