"""Facts of a world: asked once for each world, for as many worlds as are remembered."""

import dataclasses

import pytest

from marl_tune import envs
from marl_tune.config.errors import ConfigError
from marl_tune.sharing import world_facts
from marl_tune.sharing.build_world import build_world
from marl_tune.sharing.world_facts import WorldFacts


@pytest.fixture
def built(monkeypatch):
    """Settings of the worlds that are built during the test."""
    found, make_world = [], envs.make_world

    def counted(config, num_envs):
        found.append(config)
        return make_world(config, num_envs)

    monkeypatch.setattr(envs, "make_world", counted)
    return found


def with_decay(sweep, decay):
    return dataclasses.replace(sweep, env=dataclasses.replace(sweep.env, pheromone_decay=decay))


def test_they_are_those_of_the_world(tiny):
    sweep = tiny()
    facts = world_facts.world_facts(sweep)
    with build_world(sweep) as world:
        assert facts == WorldFacts(world.groups, world.state_space, 4, False, world.least_acting)


def test_a_world_is_built_once_whatever_else_changes(tiny, built):
    sweep = with_decay(tiny(), 0.11)
    facts = world_facts.world_facts(sweep)
    other = dataclasses.replace(sweep, algorithm=dataclasses.replace(sweep.algorithm, lr=0.5), seed=9)
    assert world_facts.world_facts(other) is facts
    assert len(built) == 1
    world_facts.world_facts(with_decay(sweep, 0.12))
    assert len(built) == 2


def test_the_oldest_are_forgotten(tiny, built, monkeypatch):
    monkeypatch.setattr(world_facts, "REMEMBERED", 2)
    monkeypatch.setattr(world_facts, "KNOWN", type(world_facts.KNOWN)())
    first, second, third = (with_decay(tiny(), decay) for decay in (0.21, 0.22, 0.23))
    for sweep in (first, second, first, third):  # the first is asked for again, so the second is the oldest
        world_facts.world_facts(sweep)
    assert len(built) == 3
    world_facts.world_facts(first)
    assert len(built) == 3
    world_facts.world_facts(second)
    assert len(built) == 4


def test_what_the_world_refuses_is_a_setting_that_is_wrong(tiny, monkeypatch):
    def refuse(config, num_envs):
        raise ValueError("no such map")

    monkeypatch.setattr(envs, "make_world", refuse)
    with pytest.raises(ConfigError, match="no such map"):
        world_facts.world_facts(with_decay(tiny(), 0.31))
