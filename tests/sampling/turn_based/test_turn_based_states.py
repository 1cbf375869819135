"""A central critic where agents take turns, die or join: every decision has the state in which it was made."""

import dataclasses

import numpy as np
import pytest
import torch
from probes import Unwrapped
from test_turns import COPIES, IDS, SEED, WORLDS, config

from marl_tune.envs.joint_observation import joint_observation
from marl_tune.learning.train_batch import BatchSettings, EpisodesToTrainBatch
from marl_tune.sampling.global_states import STATE_ROWS
from marl_tune.sampling.policies import Policies
from marl_tune.sampling.turn_based.rollout import TurnRollout
from marl_tune.sharing.build_world import build_world
from marl_tune.sharing.module_specs import build_policy_map, critic_specs, module_specs

LENGTHS = [5, 3, 11, 1, 8]  # of fragments: decisions wait over some of their ends


class NumbersItsStates:
    """A world whose state is the number of the copy and of the moment: of resets and steps so far."""

    def __init__(self, world):
        self.world, self.moment = world, 0
        self.seen = {}  # moment -> group -> observations

    def reset(self, *args, **kwargs):
        return self._note(self.world.reset(*args, **kwargs))

    def step(self, actions):
        step = self.world.step(actions)
        self._note(step.observations)
        return step

    def _note(self, observations):
        self.moment += 1
        self.seen[self.moment] = observations
        return observations

    def state(self, observations):
        return np.array([[copy, self.moment] for copy in range(self.num_envs)], np.float32)

    def __getattr__(self, name):
        return getattr(self.world, name)


def rollout_of(tiny, world_id, probe, wrap=lambda world: world):
    sweep = dataclasses.replace(tiny("sharing=shared_critic"), env=config(world_id, probe))
    world = wrap(build_world(sweep, COPIES))
    policy_map = build_policy_map(sweep, world)
    torch.manual_seed(0)
    modules = dict(module_specs(sweep, policy_map).build().items())
    return sweep, TurnRollout(world, Policies(modules, policy_map, COPIES, seed=SEED), {}, SEED, with_state=True)


@pytest.mark.parametrize(("world_id", "probe"), WORLDS, ids=IDS)
def test_each_observation_has_the_state_of_its_moment(tiny, world_id, probe):
    _, rollout = rollout_of(tiny, world_id, probe, NumbersItsStates)
    place = {agent: (g.name, i) for g in rollout.world.groups for i, agent in enumerate(g.agents)}
    pieces = [piece for steps in LENGTHS for piece in rollout.sample(steps)]
    assert len(pieces) > 10
    for piece in pieces:
        rows = piece.custom_data[STATE_ROWS]
        assert len(rows.index) == len(piece) + 1
        group, column = place[piece.agent_id]
        for (copy, moment), own in zip(rows.array[rows.index], _each(piece.observations.data), strict=True):
            seen = rollout.world.seen[int(moment)][group]
            assert _same(own, _pick(seen, int(copy), column))


def _each(data):
    if isinstance(data, dict):
        return [dict(zip(data, values, strict=True)) for values in zip(*data.values(), strict=True)]
    return list(data)


def _pick(seen, copy, column):
    return {key: a[copy, column] for key, a in seen.items()} if isinstance(seen, dict) else seen[copy, column]


def _same(a, b):
    return all(np.array_equal(a[key], b[key]) for key in a) if isinstance(a, dict) else np.array_equal(a, b)


@pytest.mark.parametrize(("world_id", "probe"), [WORLDS[0], WORLDS[2]], ids=[IDS[0], IDS[2]])
def test_the_critic_learns_of_those_that_acted_only(tiny, world_id, probe):
    sweep, rollout = rollout_of(tiny, world_id, probe)
    pieces = [rollout.sample(steps) for steps in LENGTHS][2]
    critic = critic_specs(sweep, rollout.world)["critic"].build()
    modules = {m: Unwrapped(module) for m, module in rollout.policies.modules.items()} | {"critic": Unwrapped(critic)}
    made = EpisodesToTrainBatch(lambda _: BatchSettings(gamma=0.9, lambda_=0.9))
    batch = made(rl_module=modules, episodes=pieces, batch={})["critic"]
    assert int(batch["loss_mask"].sum()) == sum(map(len, pieces))
    assert batch["loss_mask"].any(dim=1).all()
    for column, agent in enumerate(critic.agents):
        own = sum(len(piece) for piece in pieces if piece.agent_id == agent)
        assert int(batch["loss_mask"][:, column].sum()) == own
    arrays = {id(piece.custom_data[STATE_ROWS].array) for piece in pieces}
    assert len(arrays) <= len({piece.multi_agent_episode_id for piece in pieces}), "one an episode, or a copy"


def test_a_restored_rollout_knows_the_states_of_open_decisions(tiny):
    _, first = rollout_of(tiny, *WORLDS[0])
    first.sample(7)
    state, generator = first.get_state(), torch.get_rng_state()
    expected = first.sample(9)
    _, second = rollout_of(tiny, *WORLDS[0])
    second.sample(2)
    second.set_state(state)
    torch.set_rng_state(generator)
    for a, b in zip(expected, second.sample(9), strict=True):
        rows, again = a.custom_data[STATE_ROWS], b.custom_data[STATE_ROWS]
        assert np.array_equal(rows.array[rows.index], again.array[again.index])


def test_the_default_state_of_a_board_is_what_its_players_see(tiny):
    _, rollout = rollout_of(tiny, *WORLDS[0])
    world = rollout.world
    seen = rollout.observations
    state = world.state(seen)
    assert np.array_equal(state, joint_observation(world.groups, seen))
    boards = [seen[g.name]["observation"][:, n] for g in world.groups for n in range(len(g.agents))]
    assert np.array_equal(state, np.concatenate(boards, axis=-1)), "all planes on one board, and no action mask"
