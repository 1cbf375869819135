"""Where a world says that agents see their own position, they do."""

from dataclasses import replace

import numpy as np
import pytest

from marl_tune import envs
from marl_tune.envs.ant_colony import AntColony
from marl_tune.envs.testing import ContractError, check_world, sample_actions

WITH = {
    "ant_colony": {"ants": (0, 1)},
    "bio_grid": {"agents": (0, 1, 2)},
    "mpe/simple_spread": {"agent": (2, 3)},
    "mpe/simple_tag": {"adversary": (2, 3), "agent": (2, 3)},
}


def truth(world):
    """The positions of the agents as the simulation has them, by group, (B, N, axes)."""
    if hasattr(world, "members"):  # a particle world
        return {name: world.position[members].transpose(2, 0, 1) for name, members in world.members.items()}
    if isinstance(world, AntColony):
        xy = np.stack([world.cell_x.take(world.cell), world.cell_y.take(world.cell)], axis=-1)
        return {"ants": xy / (np.array([world.width, world.height]) - 1)}
    return {"agents": world.cell_xyz.take(world.cell, axis=0) / (np.array(world.sides) - 1)}


@pytest.mark.parametrize("name", WITH)
def test_the_entries_are_the_agents_own_position(name):
    world, rng = envs.make_world(envs.default_config(name), 3), np.random.default_rng(0)
    seen = world.reset([0, 1, 2])
    for _ in range(5):
        seen = world.step(sample_actions(world, seen, rng)).observations
    assert {group.name: group.positions for group in world.groups} == WITH[name]
    for group in world.groups:
        there = seen[group.name][..., list(group.positions)]
        assert np.allclose(there, truth(world)[group.name], atol=1e-6)
        assert np.ptp(there) > 0


def test_other_worlds_of_ours_have_none():
    for name in set(envs.ENVS) - set(WITH) - {"pettingzoo", "vmas"}:
        world = envs.make_world(envs.default_config(name))
        assert all(group.positions is None for group in world.groups), name


@pytest.mark.parametrize("positions", [(0, 9), (1, 1), ()])
def test_the_contract_rejects_positions_that_cannot_be(positions):
    class Wrong(AntColony):
        def __init__(self, config, num_envs=1):
            super().__init__(config, num_envs)
            self.groups = (replace(self.groups[0], positions=positions),)

    rules = envs.default_config("ant_colony", max_steps=5)
    with pytest.raises(ContractError, match="ants has positions outside its observation, or one twice"):
        check_world(lambda copies: Wrong(rules, copies), steps=10)
