"""Managers: when they set goals, what workers see of them, and that both are paid for just their own steps."""

import dataclasses
from collections import defaultdict

import gymnasium as gym
import numpy as np
import pytest
import torch
from hierarchy_probes import TURNS, WORLDS
from probes import Unwrapped, turn_rollout
from ray.rllib.core.columns import Columns

from marl_tune.config.compose import compose
from marl_tune.config.schema.sharing import SharingConfig
from marl_tune.envs.agent_group import AgentGroup
from marl_tune.envs.hierarchy import Goals, Hierarchy
from marl_tune.envs.testing import check_world, sample_actions
from marl_tune.envs.world import Step, World
from marl_tune.learning.train_batch import BatchSettings, EpisodesToTrainBatch
from marl_tune.sampling.recurrent_states import SEQUENCE_STARTS
from marl_tune.sharing.build_world import build_world

TEAM, VECTOR = {"manager": "team"}, {"goals": None, "goal_dim": 2}
WAYS = [{}, TEAM, VECTOR, TEAM | VECTOR]
COPIES, SEED = 3, 5


@pytest.fixture(scope="module")
def base():
    """A tiny sweep with managers, composed once: that takes most of a second."""
    return compose(["+experiment=debug", "sharing=hierarchical", "sharing.interval=3"])[0]


def hierarchy(base, world, way=None, **module):
    """The sweep on another world, with other settings of the hierarchy."""
    sharing = dataclasses.replace(base.sharing, **(way or {}))
    return dataclasses.replace(base, env=WORLDS[world], sharing=sharing, **module)


# --- the world ---


@pytest.mark.parametrize("way", WAYS, ids=["agent", "team", "agent-vector", "team-vector"])
def test_the_contract_holds(base, way):
    sweep = hierarchy(base, "ant_colony", way)
    check_world(lambda copies: build_world(sweep, copies), steps=40)


@pytest.mark.parametrize("way", [{}, TEAM | VECTOR], ids=["agent", "team-vector"])
@pytest.mark.parametrize("world", ["mpe/simple_spread", "mpe/simple_spread_v3"])
def test_the_contract_holds_in_worlds_that_are_pettingzoos(base, world, way):
    sweep = hierarchy(base, world, way)
    check_world(lambda copies: build_world(sweep, copies), steps=30)


@pytest.mark.parametrize("world", ["mpe/simple_tag", *TURNS])
def test_the_contract_holds_in_groups_in_turns_and_with_deaths(base, world):
    sweep = hierarchy(base, world)
    check_world(lambda copies: build_world(sweep, copies), steps=40)


def test_goals_change_every_k_steps_and_workers_see_the_one_in_force(base):
    world = build_world(hierarchy(base, "ant_colony"), COPIES)
    rng, seen = np.random.default_rng(0), world.reset([1, 2, 3])
    expected, step_of = np.zeros((COPIES, 3, 4)), np.zeros(COPIES, int)
    for _ in range(50):
        actions = sample_actions(world, seen, rng)
        assert np.array_equal(seen["ants"][..., 9:], expected)
        assert np.array_equal(seen["managers_of_ants"], seen["ants"])
        due = step_of % 3 == 0
        assert np.array_equal(world.acting["managers_of_ants"], np.repeat(due[:, None], 3, 1))
        assert world.acting["ants"].all()
        expected[due] = np.eye(4)[actions["managers_of_ants"][due]]
        step = world.step(actions)
        seen, step_of = step.observations, step_of + 1
        done = np.flatnonzero(step.terminated | step.truncated)
        if len(done):
            assert not world.acting["ants"][done].any()
            assert (step.left["managers_of_ants"][done] == np.where(step.terminated[done], 1, 2)[:, None]).all()
            seen, step_of[done], expected[done] = world.reset(copies=done), 0, 0


def test_the_teams_manager_sees_all_and_sets_a_goal_for_each(base):
    world = build_world(hierarchy(base, "mpe/simple_tag", TEAM), 2)
    names = [group.name for group in world.groups[:-1]]
    assert names == ["adversary", "agent"]
    assert world.groups[-1].action_space == gym.spaces.MultiDiscrete([4] * 4)
    seen = world.reset([0, 1])
    actions = sample_actions(world, seen, np.random.default_rng(0))
    step = world.step(actions)
    joint = np.concatenate([step.observations[name].reshape(2, -1) for name in names], axis=1)
    assert np.array_equal(step.observations["manager"][:, 0], joint)
    goals = np.concatenate([step.observations[name][..., -4:] for name in names], axis=1)
    assert np.array_equal(goals.argmax(-1), actions["manager"][:, 0])
    rewards = np.concatenate([step.rewards[name] for name in names], axis=1)
    assert np.allclose(step.rewards["manager"], rewards.mean(axis=1, keepdims=True))


def test_vectors_are_cut_to_their_bounds_and_choices_refused():
    assert np.array_equal(Goals(None, 2).encode(np.array([[3.0, -0.5]])), np.float32([[1.0, -0.5]]))
    with pytest.raises(ValueError, match=r"goals must be in 0\.\.3, got 0 to 4"):
        Goals(4, None).encode(np.array([0, 4]))


def test_a_mask_stays_the_workers_and_a_picture_gets_planes(base):
    world = build_world(hierarchy(base, "tictactoe"), 1)
    worker, manager = world.groups
    assert worker.observation_space["action_mask"] == gym.spaces.Box(0, 1, (9,), np.int8)
    assert worker.observation_space["observation"].shape == manager.observation_space.shape == (3, 3, 2 + 4)
    seen = world.reset([0])
    actions = {worker.name: np.array([[4, 0]]), manager.name: np.array([[2, 0]])}
    world.step(actions)
    assert world.acting[manager.name].tolist() == [[False, True]]
    seen = world.step({worker.name: np.array([[0, 0]]), manager.name: np.array([[0, 1]])}).observations
    assert np.array_equal(seen[worker.name]["observation"][0, 0, ..., 2:], np.tile(np.eye(4)[2], (3, 3, 1)))


class Stub(World):
    """A world that shows whatever it is told to."""

    def __init__(self, space, agents=("a",), group="stubs", num_envs=2):
        self.num_envs = num_envs
        self.groups = (AgentGroup(group, tuple(agents), space, gym.spaces.Discrete(2)),)

    def _seen(self):
        group = self.groups[0]
        return {group.name: np.zeros((self.num_envs, len(group.agents), *group.observation_space.shape), np.uint8)}

    def reset(self, seeds=None, copies=None):
        return self._seen()

    def step(self, actions):
        ended = np.zeros(self.num_envs, bool)
        rewards = {g.name: np.ones((self.num_envs, len(g.agents)), np.float32) for g in self.groups}
        return Step(self._seen(), rewards, ended, ended)

    def episode_metrics(self, copies):
        return {}

    def render(self, copy=0):
        return np.zeros((1, 1, 3), np.uint8)

    def get_state(self):
        return {}

    def set_state(self, state):
        pass


def test_a_goal_is_as_bright_as_a_picture_of_bytes_can_be():
    world = Hierarchy(Stub(gym.spaces.Box(0, 255, (5, 6, 3), np.uint8)), 2, Goals(4, None), of_team=False)
    world.reset()
    seen = world.step({"stubs": np.array([[0], [0]]), "managers_of_stubs": np.array([[3], [1]])}).observations
    assert seen["stubs"].dtype == np.uint8
    assert np.array_equal(seen["stubs"][1, 0, 2, 3], [0, 0, 0, 0, 255, 0, 0])
    assert all(world.groups[0].observation_space.contains(row) for row in seen["stubs"][:, 0])


VECTOR_BOX, PICTURE = gym.spaces.Box(-1, 1, (3,)), gym.spaces.Box(0, 255, (5, 6, 3), np.uint8)


@pytest.mark.parametrize(
    ("space", "goals", "of_team", "message"),
    [
        (gym.spaces.Box(-1, 1, (3, 3)), Goals(2, None), False, "a goal needs observations that are a vector, or a"),
        (gym.spaces.Dict({"board": VECTOR_BOX}), Goals(2, None), False, "a goal needs observations that are a vector"),
        (PICTURE, Goals(None, 2), False, "goal_dim must be null, and goals set, where observations are whole numbers"),
        (PICTURE, Goals(2, None), True, "manager must be agent where agents see pictures, got 'team'"),
    ],
)
def test_observations_without_a_place_for_a_goal_are_refused(space, goals, of_team, message):
    with pytest.raises(ValueError, match=message):
        Hierarchy(Stub(space), 2, goals, of_team)


def test_ids_that_clash_are_refused():
    with pytest.raises(ValueError, match="a world with managers cannot have a 'manager_of_a' of its own"):
        Hierarchy(Stub(VECTOR_BOX, ("a", "manager_of_a")), 2, Goals(2, None), of_team=False)
    with pytest.raises(ValueError, match="cannot have a 'manager' of its own"):
        Hierarchy(Stub(VECTOR_BOX, group="manager"), 2, Goals(2, None), of_team=True)


# --- experience ---


def replayed(sweep, copy, records, own):
    """What workers and managers have gone through in one copy: a slow loop over the bare world, with the actions that
    they took. (episode, agent) -> [observations, rewards, how it ended]."""
    bare = dataclasses.replace(sweep, sharing=SharingConfig("parameter_sharing", {}))
    world, sharing = build_world(bare, 1), sweep.sharing
    seed = int(np.random.SeedSequence(SEED).generate_state(COPIES)[copy])
    notes = {}
    for record in records:
        taken = own(record.id)
        agents = {agent: (g.name, i) for g in world.groups for i, agent in enumerate(g.agents)}
        width = sharing.goals or sharing.goal_dim
        goal = {agent: np.zeros(width) for agent in agents}
        team = sharing.manager == "team"
        note = defaultdict(lambda: [[], [], None])
        seen = world.reset([seed])
        seed = None
        for t in range(record.length):
            told = {agent: np.concatenate([seen[name][0, i], goal[agent]]) for agent, (name, i) in agents.items()}
            for agent in agents:
                note[agent][0].append(told[agent])
                note[agent][1].append(0.0)
            if t % sharing.interval == 0:
                managers = {"manager": np.concatenate(list(told.values()))} if team else {}
                managers = managers or {f"manager_of_{agent}": row for agent, row in told.items()}
                for manager, row in managers.items():
                    note[manager][0].append(row)
                    note[manager][1].append(0.0)
            chosen = t // sharing.interval
            for place, agent in enumerate(agents):
                said = taken["manager"][chosen] if team else taken[f"manager_of_{agent}"][chosen]
                if sharing.goals:
                    goal[agent] = np.eye(width)[said[place] if team else said]
                else:
                    goal[agent] = np.clip(said[place * width : (place + 1) * width] if team else said, -1, 1)
            actions = {g.name: np.array([[taken[agent][t] for agent in g.agents]]) for g in world.groups}
            step = world.step(actions)
            seen = step.observations
            for agent, (name, i) in agents.items():
                note[agent][1][-1] += step.rewards[name][0, i]
                manager, share = ("manager", len(agents)) if team else (f"manager_of_{agent}", 1)
                note[manager][1][-1] += step.rewards[name][0, i] / share
        last = {agent: np.concatenate([seen[name][0, i], goal[agent]]) for agent, (name, i) in agents.items()}
        for agent in agents:
            note[agent][0].append(last[agent])
            if not team:
                note[f"manager_of_{agent}"][0].append(last[agent])
        if team:
            note["manager"][0].append(np.concatenate(list(last.values())))
        for agent in note:
            note[agent][2] = bool(step.terminated[0])
        notes[record.id] = note
    return notes


@pytest.mark.parametrize(
    ("world", "way", "length"),
    [
        ("ant_colony", {}, 1),
        ("ant_colony", {}, 7),
        ("ant_colony", TEAM | {"interval": 1}, 4),
        ("ant_colony", VECTOR, 13),
        ("mpe/simple_spread", TEAM | VECTOR, 5),
        ("mpe/simple_spread", {"interval": 50}, 5),
    ],
)
def test_experience_is_that_of_a_slow_loop(base, world, way, length):
    sweep = hierarchy(base, world, way)
    rollout, pieces = turn_rollout(COPIES, SEED, sweep), []
    while len(rollout.finished) < 6:
        pieces += rollout.sample(length)
    tracks = defaultdict(list)
    for piece in pieces:
        tracks[piece.multi_agent_episode_id, piece.agent_id].append(piece)

    def own(episode):
        return {
            agent: np.concatenate([p.actions.data for p in track])
            for (of, agent), track in tracks.items()
            if of == episode
        }

    for copy in range(COPIES):
        records = [record for record in rollout.finished if record.copy == copy]
        for episode, notes in replayed(sweep, copy, records, own).items():
            assert notes.keys() == own(episode).keys()
            for agent, (seen, rewards, terminated) in notes.items():
                track = tracks[episode, agent]
                np.testing.assert_allclose(np.concatenate([p.rewards.data for p in track]), rewards, atol=1e-4)
                assert (track[-1].is_terminated, track[-1].is_truncated) == (terminated, not terminated)
                for piece in track:
                    stop = piece.t_started + len(piece) + 1
                    np.testing.assert_allclose(piece.observations.data, seen[piece.t_started : stop], atol=1e-6)
        for record in records:
            counted = [sum(p.rewards.data.sum() for p in tracks[record.id, agent]) for agent in record.returns]
            np.testing.assert_allclose(list(record.returns.values()), counted, atol=1e-3)


@pytest.mark.parametrize("world", TURNS)
def test_where_agents_take_turns_or_die_k_counts_their_own_steps(base, world):
    rollout, tracks = turn_rollout(COPIES, SEED, hierarchy(base, world)), defaultdict(list)
    while len(rollout.finished) < 9:
        for piece in rollout.sample(4):
            tracks[piece.multi_agent_episode_id, piece.agent_id].append(piece)
    checked = 0
    for record in rollout.finished:
        for agent in record.returns:
            assert not agent.startswith("manager")
            worker, manager = tracks[record.id, agent], tracks[record.id, f"manager_of_{agent}"]
            steps, decisions = (sum(len(piece) for piece in track) for track in (worker, manager))
            assert decisions == -(-steps // 3)
            rewards, paid = (np.concatenate([p.rewards.data for p in t] or [[]]) for t in (worker, manager))
            sums = [rewards[k : k + 3].sum() for k in range(0, steps, 3)]
            np.testing.assert_allclose(paid, sums, atol=1e-5)
            checked += decisions
    assert checked > 15


def test_memories_of_managers_keep_their_own_time(base):
    """Their state moves on with their decisions, not with the steps of the world."""
    gru = dataclasses.replace(compose(["module=gru"])[0].module, max_seq_len=2, state_dim=8)
    rollout = turn_rollout(COPIES, SEED, hierarchy(base, "ant_colony", module=gru))
    module, checked = rollout.policies.modules["managers_of_ants"], 0
    states = {}
    for piece in (piece for _ in range(6) for piece in rollout.sample(9)):
        if piece.module_id != "managers_of_ants":
            continue
        who = piece.multi_agent_episode_id, piece.agent_id
        state = states.get(who) or {k: v[None] for k, v in module.get_initial_state().items()}
        for k in range(len(piece)):
            for name, value in state.items():
                if k % 2 == 0:
                    starts = piece.custom_data[SEQUENCE_STARTS].states[name]
                    np.testing.assert_allclose(starts[k // 2], value[0], atol=1e-6)
                    checked += 1
            seen = torch.from_numpy(piece.observations.data[k])[None, None]
            with torch.inference_mode():
                state = module.forward_inference({Columns.OBS: seen, Columns.STATE_IN: state})[Columns.STATE_OUT]
        states[who] = state
    assert checked > 50


def test_managers_discount_their_own_steps(base):
    rollout = turn_rollout(COPIES, SEED, hierarchy(base, "ant_colony"))
    pieces, modules = rollout.sample(25), {m: Unwrapped(module) for m, module in rollout.policies.modules.items()}

    def targets(gamma, **own):
        made = EpisodesToTrainBatch(lambda module_id: BatchSettings(own.get(module_id, gamma), 0.9))
        batches = made(rl_module=modules, episodes=pieces, batch={})
        return {module_id: batch["value_targets"] for module_id, batch in batches.items()}

    both = targets(gamma=0.9, managers_of_ants=0.5)
    assert torch.equal(both["shared"], targets(gamma=0.9)["shared"])
    assert torch.equal(both["managers_of_ants"], targets(gamma=0.5)["managers_of_ants"])
    assert not torch.equal(both["managers_of_ants"], targets(gamma=0.9)["managers_of_ants"])
