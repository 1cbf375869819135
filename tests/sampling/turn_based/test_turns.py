"""Agents that take turns, die or join: what they learn from, against a slow and obvious loop over the bare worlds."""

import dataclasses
from collections import defaultdict
from importlib import import_module

import numpy as np
import pytest
import torch
from probes import turn_rollout
from ray.rllib.core.columns import Columns

from marl_tune.algorithms.rllib_config import algorithm_config
from marl_tune.config.errors import ConfigError
from marl_tune.envs import default_config, make_world
from marl_tune.envs.pettingzoo import Pettingzoo
from marl_tune.envs.testing import ContractError, check_world
from marl_tune.envs.world import agents_per_step
from marl_tune.sampling.recurrent_states import SEQUENCE_STARTS
from marl_tune.validation.validate import check_trial

PROBES = "pettingzoo_probes"
WORLDS = [
    ("classic/tictactoe_v3", None),
    ("classic/connect_four_v3", None),
    (PROBES, "mortals"),
    (PROBES, "late"),
    ("pettingzoo_turns", None),
]
IDS = [probe or world_id for world_id, probe in WORLDS]
COPIES, SEED = 3, 5


def config(world_id, probe, **settings):
    return default_config("pettingzoo", id=world_id, kwargs={"probe": probe} if probe else {}, **settings)


def make_rollout(tiny, world_id, probe, *more):
    return turn_rollout(COPIES, SEED, dataclasses.replace(tiny(*more), env=config(world_id, probe)))


def by_agent(pieces):
    """(episode, agent) -> its pieces in order, without a gap or a step twice."""
    tracks = defaultdict(list)
    for piece in pieces:
        track = tracks[piece.multi_agent_episode_id, piece.agent_id]
        assert piece.t_started == sum(len(p) for p in track)
        assert not (track and (track[-1].is_terminated or track[-1].is_truncated)), "a piece after the end"
        track.append(piece)
    return tracks


def same(a, b):
    return all(np.array_equal(a[key], b[key]) for key in a) if isinstance(a, dict) else np.array_equal(a, b)


def row(observations, index):
    return {k: v[index] for k, v in observations.items()} if isinstance(observations, dict) else observations[index]


class Reference:
    """What one agent has learned from in one episode, noted step by step."""

    def __init__(self):
        self.seen, self.rewards, self.how = [], [], None


def turn_based(env, act):
    notes = defaultdict(Reference)
    for agent in env.agent_iter():
        observation, reward, terminated, truncated, _ = env.last()
        note = notes[agent]
        if note.seen:
            note.rewards[-1] += reward
        note.seen.append(observation)
        if terminated or truncated:
            note.how = "terminated" if terminated else "truncated"
            env.step(None)
        else:
            note.rewards.append(0.0)
            env.step(act(agent, len(note.seen) - 1))
    return notes


def parallel(env, observations, act):
    notes = defaultdict(Reference)
    while env.agents:
        actions = {}
        for agent in env.agents:
            notes[agent].seen.append(np.copy(observations[agent]))
            notes[agent].rewards.append(0.0)
            actions[agent] = act(agent, len(notes[agent].seen) - 1)
        observations, rewards, terminated, truncated, _ = env.step(actions)
        for agent in actions:
            notes[agent].rewards[-1] += rewards[agent]
            if terminated[agent] or truncated[agent]:
                notes[agent].how = "terminated" if terminated[agent] else "truncated"
                notes[agent].seen.append(np.copy(observations[agent]))
    return notes


def play_reference(env, seed, act):
    if hasattr(env, "agent_iter"):
        env.reset(seed=seed)
        return turn_based(env, act)
    return parallel(env, env.reset(seed=seed)[0], act)


def bare(world_id, probe):
    module = import_module(f"pettingzoo.{world_id.replace('/', '.')}" if "/" in world_id else world_id)
    return module.parallel_env(probe=probe) if probe else module.env()


@pytest.mark.parametrize(("world_id", "probe"), WORLDS, ids=IDS)
@pytest.mark.parametrize("length", [1, 4, 13])
def test_experience_is_that_of_a_slow_loop(tiny, world_id, probe, length):
    """Fragments of every length cut the same decisions, rewards and ends out of the same games."""
    rollout = make_rollout(tiny, world_id, probe)
    pieces = []
    while len(rollout.finished) < 12:
        pieces += rollout.sample(length)
    tracks = by_agent(pieces)
    seeds = [int(s) for s in np.random.SeedSequence(SEED).generate_state(COPIES)]
    for copy in range(COPIES):
        env, seed = bare(world_id, probe), seeds[copy]
        for record in (r for r in rollout.finished if r.copy == copy):
            own = {agent: track for (episode, agent), track in tracks.items() if episode == record.id}
            actions = {agent: np.concatenate([p.actions.data for p in track]) for agent, track in own.items()}
            notes = play_reference(env, seed, lambda agent, k, a=actions: a[agent][k])
            seed = None
            acted = {agent: note for agent, note in notes.items() if note.rewards}
            assert acted.keys() == own.keys()
            for agent, note in acted.items():
                check_track(own[agent], note)


def check_track(track, note):
    steps = sum(len(piece) for piece in track)
    assert steps == len(note.rewards) == len(note.seen) - 1
    assert np.concatenate([p.rewards.data for p in track]).tolist() == [np.float32(r) for r in note.rewards]
    assert [p.is_terminated for p in track] == [False] * (len(track) - 1) + [note.how == "terminated"]
    assert [p.is_truncated for p in track] == [False] * (len(track) - 1) + [note.how == "truncated"]
    for piece in track:
        for k in range(len(piece) + 1):
            assert same(row(piece.observations.data, k), note.seen[piece.t_started + k])


def test_recurrent_states_are_those_before_each_sequence(tiny):
    rollout = make_rollout(tiny, "classic/connect_four_v3", None, "module=gru", "module.max_seq_len=3")
    pieces = [piece for _ in range(6) for piece in rollout.sample(7)]
    module = rollout.policies.modules["shared"]
    checked = 0
    for track in by_agent(pieces).values():
        state = {k: torch.as_tensor(v)[None] for k, v in module.get_initial_state().items()}
        for piece in track:
            starts = piece.custom_data[SEQUENCE_STARTS].states
            for k in range(len(piece) + 1):
                if k % 3 == 0:
                    for name, value in state.items():
                        np.testing.assert_allclose(starts[name][k // 3], value[0], atol=1e-6)
                        checked += 1
                if k < len(piece):
                    seen = {key: torch.from_numpy(a[k])[None, None] for key, a in piece.observations.data.items()}
                    with torch.inference_mode():
                        state = module._forward_inference({Columns.OBS: seen, Columns.STATE_IN: state})[
                            Columns.STATE_OUT
                        ]
            assert len(starts[name]) == len(piece) // 3 + 1
    assert checked > 30


def test_only_those_that_act_are_asked(tiny):
    rollout = make_rollout(tiny, "classic/tictactoe_v3", None)
    rows = []
    module = rollout.policies.modules["shared"]
    forward = module._forward_exploration
    module._forward_exploration = lambda batch: rows.append(len(batch[Columns.OBS]["action_mask"])) or forward(batch)
    rollout.sample(10)
    assert rows == [COPIES] * 10, "of two players one has its turn"


def test_going_on_from_a_state_is_going_on(tiny):
    one = make_rollout(tiny, "classic/tictactoe_v3", None)
    one.sample(6)
    state = one.get_state()
    torch.manual_seed(3)
    expected = [piece for _ in range(3) for piece in one.sample(5)]
    other = make_rollout(tiny, "classic/tictactoe_v3", None)
    other.set_state(state)
    torch.manual_seed(3)
    for a, b in zip(expected, [piece for _ in range(3) for piece in other.sample(5)], strict=True):
        assert (a.agent_id, a.t_started, len(a), a.is_terminated) == (b.agent_id, b.t_started, len(b), b.is_terminated)
        assert same(a.observations.data, b.observations.data)
        assert np.array_equal(a.rewards.data, b.rewards.data)


@pytest.mark.parametrize(("world_id", "probe"), WORLDS, ids=IDS)
def test_the_contract_holds(world_id, probe):
    check_world(lambda copies: make_world(config(world_id, probe), copies), steps=60)


IN_WORKERS = [pytest.param(*world, id=name, marks=() if name == "mortals" else pytest.mark.slow)
              for world, name in zip(WORLDS, IDS, strict=True)]  # fmt: skip


@pytest.mark.parametrize(("world_id", "probe"), IN_WORKERS)
def test_the_contract_holds_in_workers(world_id, probe):
    check_world(lambda copies: make_world(config(world_id, probe, workers=2), copies), steps=60)


def test_the_contract_refuses_the_dead_that_act():
    class Undead(Pettingzoo):
        def step(self, actions):
            step = super().step(actions)
            self.acting = {name: np.ones_like(acting) for name, acting in self.acting.items()}
            return step

    with pytest.raises(ContractError, match="an agent of walker acts that has left"):
        check_world(lambda copies: Undead(config(PROBES, "mortals"), copies), steps=60)


def test_agents_per_step_is_what_the_batch_counts_with():
    def of(*world):
        return agents_per_step(make_world(config(*world)))

    assert of("classic/tictactoe_v3", None) == 1
    assert of(PROBES, "mortals") == 3
    assert of("mpe/simple_spread_v3", None) == 3


@pytest.mark.parametrize("module", ["mlp", "gru"])
@pytest.mark.parametrize("sharing", ["parameter_sharing", "independent"])
@pytest.mark.usefixtures("ray_session")
def test_a_learner_takes_what_they_learned_from(tiny, module, sharing):
    batch = ["algorithm.train_batch_size=60", "algorithm.minibatch_size=20", "cluster.num_envs_per_env_runner=3"]
    sweep = tiny(f"module={module}", f"sharing={sharing}", *batch)
    sweep = dataclasses.replace(sweep, env=config("classic/tictactoe_v3", None))
    algorithm = algorithm_config(sweep).build_algo()
    results = [algorithm.train() for _ in range(3)]
    algorithm.stop()
    runner, losses = results[-1]["env_runners"], results[-1]["learners"]
    assert runner["num_env_steps_sampled_lifetime"] == 3 * 60
    decided = sum(runner["num_agent_steps_sampled_lifetime"].values())
    assert 3 * 60 - 2 * 3 <= decided <= 3 * 60, "all but the decisions that are open at the end"
    assert np.isfinite([values["total_loss"] for name, values in losses.items() if name != "__all_modules__"]).all()


@pytest.mark.usefixtures("ray_session")
@pytest.mark.parametrize(("world_id", "probe"), [WORLDS[0], WORLDS[2], WORLDS[4]], ids=[IDS[0], IDS[2], IDS[4]])
def test_rllibs_runner_plays_them_too(tiny, world_id, probe):
    """To compare with: the same games, by the agents' own steps."""
    sweep = dataclasses.replace(tiny("cluster.rollout=rllib"), env=config(world_id, probe))
    algorithm = algorithm_config(sweep)
    runner = algorithm.env_runner_cls(config=algorithm, worker_index=0)
    episodes = [episode for _ in range(4) for episode in runner.sample(num_timesteps=60)]
    ended = [episode for episode in episodes if episode.is_done]
    assert len(ended) > 3
    for episode in ended:
        assert set(episode.agent_ids) <= set(runner.env.envs[0].unwrapped.possible_agents)
        lasts = [e for e in episode.agent_episodes.values() if len(e)]
        assert all(e.is_done for e in lasts)
    runner.stop()


def test_a_minibatch_is_refused_that_the_steps_of_such_a_world_do_not_fill(tiny):
    batch = ["algorithm.train_batch_size=60", "algorithm.minibatch_size=30", "cluster.num_envs_per_env_runner=2"]
    sweep = dataclasses.replace(tiny(*batch), env=config(PROBES, "mortals"))
    with pytest.raises(
        ConfigError, match=r"algorithm\.minibatch_size must be at most 20, the steps of the world.*got 30"
    ):
        check_trial(sweep)
    check_trial(dataclasses.replace(sweep, env=config(PROBES, "walkers", fixed_team=True)))
