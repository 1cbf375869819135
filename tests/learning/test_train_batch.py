"""The train batch against slow, obvious references: GAE by definition, and RLlib's own learner pipeline."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from probes import Unwrapped, sampled, targets_of

from marl_tune.learning.advantages import generalized_advantages
from marl_tune.learning.train_batch import BatchSettings, EpisodesToTrainBatch


def by_definition(rewards, values, bootstrap, terminated, gamma, lambda_):
    """A_t = sum_k (gamma lambda)^k delta_{t+k}, written out."""
    T = len(rewards)
    after = [*values[1:], 0.0 if terminated else bootstrap]
    delta = [rewards[t] + gamma * after[t] - values[t] for t in range(T)]
    return [sum((gamma * lambda_) ** (k - t) * delta[k] for k in range(t, T)) for t in range(T)]


@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=6),
    gamma=st.floats(0, 1),
    lambda_=st.floats(0, 1),
    seed=st.integers(0, 1000),
)
def test_gae_is_its_definition(lengths, gamma, lambda_, seed):
    rng = np.random.default_rng(seed)
    expected, rewards, values, after = [], [], [], []
    for n in lengths:
        r, v, last, terminated = rng.normal(size=n), rng.normal(size=n), rng.normal(), bool(rng.integers(2))
        expected += by_definition(r, v, last, terminated, gamma, lambda_)
        rewards += list(r)
        values += list(v)
        after += [*v[1:], 0.0 if terminated else last]
    got = generalized_advantages(
        *(np.array(x, np.float64) for x in (rewards, values, after)), np.array(lengths), gamma, lambda_
    )
    assert np.allclose(got, expected, atol=1e-9)


def test_reward_scale_scales_what_is_learned_and_not_what_is_reported(tiny):
    fragments, _, rollout = sampled(tiny("module=mlp"), [9])
    module, earned = {"shared": Unwrapped(rollout.policies.modules["shared"])}, [p.get_return() for p in fragments[0]]

    def batch(scale):
        made = EpisodesToTrainBatch(
            lambda _: BatchSettings(gamma=0.97, lambda_=1.0, use_critic=False, reward_scale=scale)
        )
        return made(rl_module=module, episodes=fragments[0], batch={})["shared"]

    assert torch.allclose(batch(0.25)["value_targets"], 0.25 * batch(1.0)["value_targets"], atol=1e-6)
    assert batch(1.0)["value_targets"].abs().max() > 0
    assert [p.get_return() for p in fragments[0]] == earned


@pytest.mark.parametrize("module", ["mlp", "gru"])
def test_targets_and_advantages_are_rllibs(tiny, module):
    """RLlib computes them piece by piece with a bootstrap row at the end of each; without those rows they are ours."""
    fragments, _, rollout = sampled(tiny(f"module={module}"), [7, 9])
    pieces = fragments[1]
    net = rollout.policies.modules["shared"]
    ours = EpisodesToTrainBatch(lambda _: BatchSettings(gamma=0.97, lambda_=0.9))(
        rl_module={"shared": Unwrapped(net)}, episodes=pieces, batch={}
    )
    ours = ours["shared"]
    targets, advantages = [], []
    for piece in pieces:
        values = values_of(net, piece)
        target = targets_of(piece, np.append(values, 0.0)[: len(piece) + 1])
        targets.append(target)
        advantages.append(target - values[:-1])
    targets, advantages = np.concatenate(targets), np.concatenate(advantages)
    advantages = (advantages - advantages.mean()) / advantages.std()
    mask = ours.get("loss_mask", torch.ones(len(ours["rewards"]), dtype=torch.bool))
    assert np.allclose(ours["value_targets"][mask].numpy(), targets, atol=1e-5)
    assert np.allclose(ours["advantages"][mask].numpy(), advantages, atol=1e-4)


def values_of(net, piece):
    """V of every observation of a piece, one forward at a time."""
    seen = torch.from_numpy(np.ascontiguousarray(piece.observations.data))
    with torch.no_grad():
        if not net.is_stateful():
            return net.compute_values({"obs": seen}).numpy()
        starts, out = piece.custom_data["sequence_starts"].states, []
        length = net.model_config["max_seq_len"]
        for number, begin in enumerate(range(0, len(seen), length)):
            state = {k: torch.from_numpy(v[number : number + 1]) for k, v in starts.items()}
            batch = {"obs": seen[None, begin : begin + length], "state_in": state}
            out.append(net.compute_values(batch)[0].numpy())
    return np.concatenate(out)
