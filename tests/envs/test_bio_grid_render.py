"""The picture of a bio grid shows what is where, for grids of any shape."""

import numpy as np
import pytest

from marl_tune.envs import default_config
from marl_tune.envs.bio_grid import BioGrid
from marl_tune.envs.bio_grid.render import draw_grid

SCALE = 960 // 12  # pixels of a cell where three layers of 4 x 3 cells lie side by side


def draw(**changes):
    """Three agents in one cell, a node that is half full and a nest, as whole numbers."""
    scene = {
        "pheromone": np.zeros((4, 3, 3)),
        "agents": np.array([(1, 0, 0)] * 3),
        "loads": np.zeros(3),
        "nodes": np.array([(3, 2, 2)]),
        "amounts": np.array([0.5]),
        "open_nodes": np.array([False]),
        "nest": (0, 0, 1),
    }
    return draw_grid(**(scene | changes)).astype(int)


def patch(image, x, y, z):
    """The pixels of a cell."""
    left, top = z * (4 * SCALE + 28) + 14 + x * SCALE, 28 + y * SCALE
    return image[top : top + SCALE, left : left + SCALE]


def test_nest_agents_and_node_lie_in_their_cells():
    image = draw()
    assert image.shape == (3 * SCALE + 42, 3 * (4 * SCALE + 28), 3)
    ground = patch(image, 2, 1, 1)
    for cell in np.ndindex(4, 3, 3):
        bare = np.array_equal(patch(image, *cell), ground)
        assert bare == (cell not in {(1, 0, 0), (3, 2, 2), (0, 0, 1)})


@pytest.mark.parametrize(
    ("changes", "cell"),
    [
        ({"loads": np.array([0.0, 0.0, 0.3])}, (1, 0, 0)),
        ({"agents": np.array([(1, 0, 0)] * 4), "loads": np.zeros(4)}, (1, 0, 0)),
        ({"amounts": np.array([0.1])}, (3, 2, 2)),
        ({"open_nodes": np.array([True])}, (3, 2, 2)),
    ],
)
def test_what_changes_is_seen_there_and_nowhere_else(changes, cell):
    differs = (draw() != draw(**changes)).any(axis=-1)
    assert patch(differs, *cell).sum() > 20
    assert differs.sum() == patch(differs, *cell).sum()


def test_more_pheromone_is_brighter():
    pheromone = np.zeros((4, 3, 3))
    pheromone[:, 2, 1] = (0.0, 0.1, 0.5, 1.0)
    light = [patch(draw(pheromone=pheromone), x, 2, 1).sum() for x in range(4)]
    assert light == sorted(light)
    assert len(set(light)) == 4


@pytest.mark.parametrize("sides", [[40, 2, 3], [1, 1, 30], [3, 50, 7], [2, 2, 1]])
def test_any_grid_fits(sides):
    world = BioGrid(default_config("bio_grid", grid_size=sides, n_nodes=1))
    world.reset([0])
    image = world.render()
    assert image.dtype == np.uint8
    assert max(image.shape) < 1300
