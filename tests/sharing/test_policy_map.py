"""Who acts for whom: fixed maps, and maps that are drawn anew for every episode."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from probes import Unwrapped, sampled

from marl_tune.envs.agent_group import AgentGroup
from marl_tune.learning.train_batch import BatchSettings, EpisodesToTrainBatch
from marl_tune.sampling.assignment import Assignment
from marl_tune.sharing.policy_map import PolicyMap

BOX, OTHER, TWO = gym.spaces.Box(-1, 1, (3,)), gym.spaces.Box(-1, 1, (4,)), gym.spaces.Discrete(2)
GROUPS = (
    AgentGroup("cats", ("c0", "c1"), BOX, TWO),
    AgentGroup("dogs", ("d0", "d1", "d2"), BOX, TWO),
    AgentGroup("eels", ("e0",), OTHER, TWO),
)


def test_rows_stand_group_by_group_and_copy_by_copy():
    fixed = PolicyMap(GROUPS, {"c0": "x", "c1": "y", "d0": "y", "d1": "y", "d2": "y", "e0": "z"})
    assignment = Assignment(fixed, num_envs=2)
    assert fixed.modules["y"].agents == ("c1", "d0", "d1", "d2")
    ((group_x, places_x),), ((cats, places), (dogs, all_of_them)) = (
        assignment.row_sources["x"],
        assignment.row_sources["y"],
    )
    assert (group_x, list(places_x)) == ("cats", [0, 2])
    assert (cats, list(places), dogs, all_of_them) == ("cats", [1, 3], "dogs", None)
    assert list(assignment.copy_of_row["y"]) == [0, 1, 0, 0, 0, 1, 1, 1]
    assert list(assignment.slots["y"]) == [1, 3, 4, 5, 6, 7, 8, 9]
    assert list(assignment.slots["z"]) == [10, 11]
    assert list(assignment.rows_of("y", "dogs", np.array([0, 5]))) == [2, 7]
    assert list(assignment.rows_of("y", "cats", np.array([3]))) == [1]


def test_agents_with_different_spaces_cannot_share():
    with pytest.raises(ValueError, match="module x cannot serve both cats and eels"):
        PolicyMap(GROUPS, {agent: "x" for group in GROUPS for agent in group.agents})


def test_a_draw_outside_the_choices_is_refused():
    choices = {agent: ("x", "y") for group in GROUPS[:2] for agent in group.agents} | {"e0": "z"}
    with pytest.raises(ValueError, match=r"e0 was given module 'x', not one of \('z',\)"):
        Assignment(PolicyMap(GROUPS, choices, draw=lambda rng, turn: dict.fromkeys(choices, "x")), 1)


def one_captain(world):
    """In each episode one ant, drawn at random, is led by module `captain`, the others by `crew`."""
    agents = world.groups[0].agents

    def draw(rng, turn):
        captain = rng.integers(len(agents))
        return {agent: "captain" if i == captain else "crew" for i, agent in enumerate(agents)}

    return PolicyMap(world.groups, dict.fromkeys(agents, ("crew", "captain")), draw)


@pytest.mark.parametrize("module", ["mlp", "gru"])
def test_modules_change_from_episode_to_episode(tiny, module):
    """20-step episodes, fragments of 7 and 9 steps: the piece's module acted, from the state that belongs to it."""
    words = ["module=gru", "module.max_seq_len=4"] if module == "gru" else []
    fragments, _, rollout = sampled(tiny(*words), [7, 9] * 8, policy_map=one_captain)
    captains = {}
    for piece in (p for fragment in fragments for p in fragment):
        if piece.module_id == "captain":
            captains.setdefault(piece.multi_agent_episode_id, set()).add(piece.agent_id)
    assert len(captains) >= 15
    assert all(len(agents) == 1 for agents in captains.values()), "a captain was replaced within an episode"
    assert len(set().union(*captains.values())) == 4, "every ant leads some day"
    multi = {m: Unwrapped(module) for m, module in rollout.policies.modules.items()}
    batches = EpisodesToTrainBatch(lambda _: BatchSettings(gamma=0.9, lambda_=0.9))(
        rl_module=multi, episodes=fragments[-1], batch={}
    )
    assert {m: int(b.get("loss_mask", torch.ones(len(b["actions"]))).sum()) for m, b in batches.items()} == {
        "captain": 9 * 3,
        "crew": 9 * 3 * 3,
    }
    for module_id, batch in batches.items():
        with torch.no_grad():
            out = rollout.policies.modules[module_id]._forward_train(batch)["action_dist_inputs"]
        mask = batch.get("loss_mask", torch.ones(out.shape[:-1], dtype=torch.bool))
        assert torch.allclose(out[mask], batch["action_dist_inputs"][mask], atol=1e-6)


def test_a_restored_rollout_draws_the_same_modules(tiny):
    sweep = tiny("module=gru")
    _, _, first = sampled(sweep, [33], policy_map=one_captain)
    state, generator = first.get_state(), torch.get_rng_state()
    expected = first.sample(50)
    _, _, second = sampled(sweep, [3], policy_map=one_captain)
    second.set_state(state)
    torch.set_rng_state(generator)
    for a, b in zip(expected, second.sample(50), strict=True):
        assert (a.agent_id, a.module_id, a.t_started) == (b.agent_id, b.module_id, b.t_started)
        assert np.array_equal(a.actions.data, b.actions.data)


def test_returns_of_modules_are_of_whom_they_acted_for(tiny):
    _, _, rollout = sampled(tiny(), [50], policy_map=one_captain)
    assert len(rollout.finished) >= 6
    for record in rollout.finished:
        assert sum(record.module_returns.values()) == pytest.approx(sum(record.returns.values()))
        assert any(record.module_returns["captain"] == pytest.approx(value) for value in record.returns.values())
