"""The scripted gatherer of the bio grid does what it is for, and its play tells what the rules are good for."""

import numpy as np
import pytest

from marl_tune.envs import default_config
from marl_tune.envs.bio_grid import BioGrid
from marl_tune.envs.bio_grid.tracker import Tracker
from marl_tune.envs.testing import sample_actions


def test_the_tracker_delivers_far_more_than_chance():
    rng = np.random.default_rng(0)
    world = BioGrid(default_config("bio_grid"), 20)
    random, by_chance = play(world, lambda observations: sample_actions(world, observations, rng))
    scripted, delivered = play(world, Tracker(world).act)
    assert scripted.mean() > 5 * random.mean() > 0
    assert delivered.min() > 5 * by_chance.max()


@pytest.mark.parametrize(
    "changes",
    [
        {"grid_size": [8, 6, 4], "n_agents": 40, "nest": [4, 3, 0]},
        {"n_agents": 6},  # as many as the nodes need together would wait in vain, two at each
        {"grid_size": [6, 6, 1], "agents_per_node": 5, "node_scent": 0.04},
    ],
)
def test_the_tracker_plays_other_grids(changes):
    rng, world = np.random.default_rng(0), BioGrid(default_config("bio_grid", **changes), 8)
    random, _ = play(world, lambda observations: sample_actions(world, observations, rng))
    assert play(world, Tracker(world).act)[0].mean() > 3 * random.mean()


def play(world, act):
    """Summed returns and units delivered of one episode of each copy, (B,) each."""
    observations, returns = world.reset(list(range(world.num_envs))), np.zeros(world.num_envs)
    for _ in range(world.config.max_steps):
        step = world.step(act(observations))
        observations = step.observations
        returns += step.rewards["agents"].sum(axis=1)
    assert step.truncated.all()
    return returns, world.episode_metrics(np.arange(world.num_envs))["resources_delivered"]
