"""The map of pursuit: its walls, and the cells on which agents can start."""

from collections.abc import Sequence

import numpy as np

X_MARGIN, Y_MARGIN = 0.3, 0.2  # shares of each side of the map that are free of walls

Cell = tuple[int, int]


def wall_cells(x_size: int, y_size: int) -> np.ndarray:
    """The walls, which are a block in the middle of the map: (x_size, y_size) bool."""

    def middle(size: int, margin: float) -> np.ndarray:
        place = np.arange(size) / size
        return (place > margin) & (place < 1.0 - margin)

    return np.outer(middle(x_size, X_MARGIN), middle(y_size, Y_MARGIN))


def open_sides(walls: np.ndarray) -> np.ndarray:
    """Number of sides of each cell that pursuers must occupy to surround it: 4 minus the sides on walls or off the map.

    On a map that is one cell wide, two opposite sides are off the map. Only one of them is subtracted, so that no
    evader can be surrounded there.

    Args:
        walls: (x_size, y_size) bool.

    Returns:
        (x_size, y_size) int64.
    """
    x_size, y_size = walls.shape
    x, y = np.ogrid[:x_size, :y_size]
    on_edge = ((x == 0) | (x == x_size - 1)).astype(np.int64) + ((y == 0) | (y == y_size - 1))
    near = np.pad(walls, 1).astype(np.int64)
    return 4 - on_edge - near[:-2, 1:-1] - near[2:, 1:-1] - near[1:-1, :-2] - near[1:-1, 2:]


def draw_start(walls: np.ndarray, window: float, counts: Sequence[int], rng: np.random.Generator) -> np.ndarray | None:
    """Draws the start: a part of the map, then the cells of the agents in it, one agent after the other.

    Two agents of one kind start neither on one cell nor side by side. Agents of different kinds may.

    Args:
        walls: (x_size, y_size) bool.
        window: side of the part as a share of the map's side, in (0, 1].
        counts: number of agents of each kind.
        rng: random generator; the draws are those of PettingZoo.

    Returns:
        (sum of counts, 2) int64 cells (x, y), one kind after the other. None if there was no room for all agents.
    """
    starts = [rng.uniform(0.0, 1.0 - window) for _ in walls.shape]
    (x_low, x_high), (y_low, y_high) = (
        (int(size * start), int(size * (start + window))) for size, start in zip(walls.shape, starts, strict=True)
    )
    room = np.argwhere(~walls[x_low:x_high, y_low:y_high]) + np.array((x_low, y_low))  # (cells, 2)
    cells: list[Cell] = []
    for count in counts:
        free: set[Cell] = set(map(tuple, room.tolist()))
        for _ in range(count):
            if not free:
                return None
            x = y = -1
            while (x, y) not in free:
                x, y = int(rng.integers(x_low, x_high)), int(rng.integers(y_low, y_high))
            cells.append((x, y))
            free -= {(x, y), (x - 1, y), (x + 1, y), (x, y - 1), (x, y + 1)}
    return np.array(cells, np.int64)
