"""Pictures of pursuit: what is on the map is in them, however many agents share a cell."""

import numpy as np
import pytest
from scipy.ndimage import label  # type: ignore[import-untyped]

from marl_tune.envs import default_config, make_world
from marl_tune.envs.sisl.pursuit_render import EVADER, PURSUER, PURSUER_CORE, WALL

NAME = "sisl/pursuit"


def test_picture_shows_walls_pursuers_and_evaders():
    world = make_world(default_config(NAME), 2)
    world.reset([3, 4])
    frame = world.render(1)
    assert frame.dtype == np.uint8
    assert frame.shape[1] == 16 * 37 + 20
    for colour in (WALL, PURSUER, EVADER):
        assert (frame == colour).all(axis=-1).any()
    assert not np.array_equal(frame, world.render(0))
    bar = frame[-14]
    assert (bar == EVADER).all(axis=-1).sum() == 16 * 37, "all evaders are left"
    world.free[1, :15] = False
    assert (world.render(1)[-14] == EVADER).all(axis=-1).sum() == 16 * 37 // 2
    world.free[1] = False
    assert not (world.render(1) == EVADER).all(axis=-1).any()


@pytest.mark.parametrize("crowd", [2, 3, 9])
def test_agents_on_one_cell_are_drawn_apart(crowd):
    world = make_world(default_config(NAME, x_size=8, y_size=8, n_evaders=1, n_pursuers=crowd, obs_range=1))
    world.reset([0])
    world.pursuers[...], world.evaders[...] = world.next_cell[world.pursuers[0, 0], 4], world.pursuers[0, 0]

    def painted(colour):
        return (world.render() == colour).all(axis=-1)

    cores = painted(PURSUER_CORE)
    assert label(cores)[1] == crowd
    assert (painted(EVADER)[:-20]).any(), "above the bar"
