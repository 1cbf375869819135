"""Experience of agents that take turns, die or join, collected as arrays: piece by piece what a slow loop collects."""

from functools import cache

import numpy as np
import pytest
import torch
from ray.rllib.core.distribution.torch.torch_distribution import TorchCategorical, TorchDiagGaussian
from slow_turns import SlowTurnRollout
from turn_world import Bustle

from marl_tune.config.compose import compose
from marl_tune.envs import default_config, make_world
from marl_tune.envs.testing import check_world
from marl_tune.sampling.action_sampling import sample_actions
from marl_tune.sampling.policies import Policies
from marl_tune.sampling.recurrent_states import SEQUENCE_STARTS
from marl_tune.sampling.turn_based.rollout import TurnRollout
from marl_tune.sharing.module_specs import module_specs
from marl_tune.sharing.policy_map import PolicyMap

COPIES = 4
FRAGMENTS = (1, 5, 2, 17, 1, 1, 30)


def one_for_each_group(world):
    return PolicyMap(world.groups, {agent: group.name for group in world.groups for agent in group.agents})


def drawn_for_each_episode(world):
    choices = {agent: (f"{group.name}_0", f"{group.name}_1") for group in world.groups for agent in group.agents}
    return PolicyMap(
        world.groups, choices, lambda rng, _: {agent: ids[rng.integers(2)] for agent, ids in choices.items()}
    )


def one_for_all(world):
    return PolicyMap(world.groups, {agent: "shared" for group in world.groups for agent in group.agents})


@cache
def sweep_of(*words):
    return compose(["+experiment=debug", "search=none", *words])[0]


def modules_of(policy_map, module):
    """The modules of a map; where it draws from two kinds, `module` names both: those that end with 0, with 1."""
    built = [
        module_specs(sweep_of(f"module={m}", "module.max_seq_len=3") if m == "gru" else sweep_of(), policy_map).build()
        for m in module
    ]
    return {m: dict(built[int(m[-1]) if len(built) > 1 else 0].items())[m] for m in policy_map.module_ids}


def rollout_of(kind, make, module, who):
    """A rollout of that class, with the same seeds and weights each time."""
    world = make()
    policy_map = who(world)
    torch.manual_seed(0)
    modules = modules_of(policy_map, module)
    lengths = {m: net.model_config["max_seq_len"] for m, net in modules.items() if net.is_stateful()}
    return kind(world, Policies(modules, policy_map, world.num_envs, seed=2), lengths, seed=3)


def pettingzoo(world_id, **kwargs):
    return lambda: make_world(default_config("pettingzoo", id=world_id, kwargs=kwargs), COPIES)


def bustle():
    return Bustle(COPIES)


def board(name):
    return lambda: make_world(default_config(name), COPIES)


CASES = {
    "bustle": (bustle, ["mlp"], one_for_each_group),
    "bustle, gru": (bustle, ["gru"], one_for_each_group),
    "bustle, drawn": (bustle, ["mlp"], drawn_for_each_episode),
    "bustle, drawn, gru": (bustle, ["gru"], drawn_for_each_episode),
    "bustle, drawn, both": (bustle, ["gru", "mlp"], drawn_for_each_episode),
    "connect_four, gru": (board("classic/connect_four"), ["gru"], one_for_all),
    "tictactoe, drawn": (board("classic/tictactoe"), ["mlp"], drawn_for_each_episode),
    "mortals, gru": (pettingzoo("pettingzoo_probes", probe="mortals"), ["gru"], one_for_all),
    "late": (pettingzoo("pettingzoo_probes", probe="late"), ["mlp"], one_for_all),
    "duel": (pettingzoo("pettingzoo_turns"), ["mlp"], one_for_all),
}  # world, modules, who acts by which


def same_bits(a, b):
    if isinstance(a, dict):
        return list(a) == list(b) and all(same_bits(a[key], b[key]) for key in a)
    return (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())


def assert_same_pieces(ours, theirs, ids):
    """Equal in all that a learner reads, order included; `ids`: the one's episode -> the other's, filled in."""
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        assert ids.setdefault(a.multi_agent_episode_id, b.multi_agent_episode_id) == b.multi_agent_episode_id
        assert (a.agent_id, a.module_id, a.t_started, a.t) == (b.agent_id, b.module_id, b.t_started, b.t)
        assert (a.is_terminated, a.is_truncated) == (b.is_terminated, b.is_truncated)
        assert a.id_ == f"{a.multi_agent_episode_id}_{a.agent_id}"
        assert same_bits(a.observations.data, b.observations.data)
        assert same_bits(a.actions.data, b.actions.data)
        assert same_bits(a.rewards.data, b.rewards.data)
        assert a.infos.data == b.infos.data
        assert list(a.extra_model_outputs) == list(b.extra_model_outputs)
        for name, outputs in a.extra_model_outputs.items():
            assert same_bits(outputs.data, b.extra_model_outputs[name].data)
        assert a.custom_data.keys() == b.custom_data.keys()
        if SEQUENCE_STARTS in a.custom_data:
            starts, others = (each.custom_data[SEQUENCE_STARTS] for each in (a, b))
            assert starts.max_seq_len == others.max_seq_len
            assert same_bits(starts.states, others.states)


def sampled(rollout, lengths, seed=7):
    torch.manual_seed(seed)
    return [rollout.sample(length) for length in lengths]


@pytest.mark.parametrize("case", CASES)
def test_pieces_are_those_of_lists_bit_by_bit(case):
    make, module, who = CASES[case]
    fast, slow = (rollout_of(kind, make, module, who) for kind in (TurnRollout, SlowTurnRollout))
    ids, steps = {}, 0
    for ours, theirs in zip(sampled(fast, FRAGMENTS), sampled(slow, FRAGMENTS), strict=True):
        assert_same_pieces(ours, theirs, ids)
        steps += sum(map(len, ours))
    assert len(ids) > COPIES
    assert steps > 100
    assert [(r.copy, r.returns, r.module_returns) for r in fast.finished] == [
        (r.copy, r.returns, r.module_returns) for r in slow.finished
    ]


@pytest.mark.parametrize("case", ["bustle, drawn, gru", "connect_four, gru", "tictactoe, drawn"])
def test_a_state_between_two_fragments_holds_the_open_decisions(case):
    make, module, who = CASES[case]
    fast, other, slow = (rollout_of(kind, make, module, who) for kind in (TurnRollout, TurnRollout, SlowTurnRollout))
    sampled(fast, (4, 3)), sampled(slow, (4, 3)), sampled(other, (9,))
    state = fast.get_state()
    sampled(fast, (2, 1, 30))  # which does not change what has been saved
    other.set_state(state)
    fast.set_state(state)
    expected = sampled(slow, (1, 1, 12), seed=8)
    for rollout in (other, fast):
        ids = {}
        for ours, theirs in zip(sampled(rollout, (1, 1, 12), seed=8), expected, strict=True):
            assert_same_pieces(ours, theirs, ids)


def test_greedy_play_has_no_log_p():
    fast, slow = (rollout_of(kind, *CASES["bustle"]) for kind in (TurnRollout, SlowTurnRollout))
    ids = {}
    for length in FRAGMENTS:
        assert_same_pieces(fast.sample(length, explore=False), slow.sample(length, explore=False), ids)


def test_the_world_of_this_test_keeps_the_contract():
    check_world(Bustle, steps=60)


def test_a_piece_says_when_each_decision_was_made():
    """In a world whose observations tell the time: the step of the fragment, below 0 for an open one of before."""
    rollout = rollout_of(TurnRollout, *CASES["bustle"])
    ended = []
    for group in rollout.decisions.values():
        group.end_fragment = lambda *seen, end=group.end_fragment: ended.append(end(*seen)) or ended[-1]
    open_before = 0
    for length in (3, 1, 8, 2, 9):
        ended.clear()
        rollout.sample(length)
        for timed in ended[0]:  # the workers
            times = timed.piece.observations.data[:, 0]
            assert len(timed.steps) == len(times) == len(timed.piece) + 1
            assert (np.diff(timed.steps) == np.diff(times)).all()
            assert (timed.steps[1:] >= 0).all()
            open_before += timed.steps[0] < 0
    assert open_before > 0


@pytest.mark.parametrize("shape", [(1, 2), (64, 7), (1000, 9), (5, 300)])
def test_categorical_draws_are_rllibs_bit_by_bit(shape):
    """Pins `torch.multinomial` of one draw: an upgrade that draws otherwise fails here."""
    torch.manual_seed(0)
    logits = torch.randn(shape) * 3
    logits[:, 1:][torch.rand(shape)[:, 1:] < 0.3] = torch.finfo(torch.float32).min
    for explore in (True, False):
        torch.manual_seed(5)
        actions, logp = sample_actions(TorchCategorical, logits, explore)
        after = torch.rand(3)
        torch.manual_seed(5)
        dist = TorchCategorical.from_logits(logits)
        expected = dist.sample() if explore else dist.to_deterministic().sample()
        assert torch.equal(actions, expected)
        assert actions.dtype == expected.dtype
        assert torch.equal(after, torch.rand(3)), "as much of the generator is used"
        assert (logp is None) if not explore else torch.equal(logp, dist.logp(expected))


def test_other_distributions_are_rllibs_own():
    inputs = torch.randn(4, 6)
    torch.manual_seed(1)
    actions, logp = sample_actions(TorchDiagGaussian, inputs, True)
    torch.manual_seed(1)
    dist = TorchDiagGaussian.from_logits(inputs)
    assert torch.equal(actions, dist.sample())
    assert torch.equal(logp, dist.logp(actions))


def test_logits_that_are_no_numbers_are_an_error():
    with pytest.raises(RuntimeError, match="logits are not finite"):
        sample_actions(TorchCategorical, torch.tensor([[0.0, float("nan")]]), True)
