"""Fragments of experience against a record of what the world was asked and what it answered."""

import numpy as np
import pytest
import torch
from probes import Unwrapped, sampled

from marl_tune.sampling.recurrent_states import SEQUENCE_STARTS

LENGTH = 4  # max_seq_len of the stateful modules here


@pytest.mark.parametrize("sharing", ["parameter_sharing", "independent"])
def test_pieces_are_the_recorded_transitions(tiny, sharing):
    # 20-step episodes, fragments of 7: pieces begin and end inside episodes, at their ends, and across resets.
    fragments, world, _ = sampled(tiny(f"sharing={sharing}"), [7] * 9)
    group = world.groups[0]
    for column, agent in enumerate(group.agents):
        pieces = [p for fragment in fragments for p in fragment if p.agent_id == agent]
        assert sum(len(p) for p in pieces) == 7 * 9 * 3
        for piece in pieces:
            found = [
                (copy, episode)
                for copy in range(3)
                for episode in world.episodes[copy]
                if len(episode) >= piece.t_started + len(piece)
                and np.array_equal(
                    piece.observations.data[0], episode[piece.t_started]["observation"][group.name][column]
                )
                and matches(piece, episode, group.name, column)
            ]
            assert found, f"{piece} was never played"


def matches(piece, episode, group, column):
    steps = episode[piece.t_started : piece.t_started + len(piece)]
    ended = steps[-1]["done"] and piece.t_started + len(piece) == len(episode)
    return (
        np.array_equal(piece.observations.data[:-1], [s["observation"][group][column] for s in steps])
        and np.array_equal(piece.observations.data[-1], steps[-1]["next"][group][column])
        and np.array_equal(piece.actions.data, [s["action"][group][column] for s in steps])
        and np.array_equal(piece.rewards.data, np.float32([s["reward"][group][column] for s in steps]))
        and piece.is_terminated == (ended and steps[-1]["terminated"])
        and piece.is_truncated == (ended and not steps[-1]["terminated"])
    )


def test_finished_episodes_are_recorded_with_their_returns(tiny):
    _, world, rollout = sampled(tiny(), [50])
    done = [e for episodes in world.episodes for e in episodes if e and e[-1]["done"]]
    assert len(rollout.finished) == len(done) >= 6
    expected = sorted(sum(t["reward"]["ants"].sum() for t in e) for e in done)
    assert np.allclose(sorted(sum(r.returns.values()) for r in rollout.finished), expected, atol=1e-4)
    assert sorted(r.length for r in rollout.finished) == sorted(len(e) for e in done)


@pytest.mark.parametrize(("learners", "steps"), [(1, 9), (2, 9), (3, 9), (5, 9), (2, 6), (4, 5), (12, 3)])
def test_a_stateful_module_gives_the_same_logits_from_the_stored_states(tiny, learners, steps):
    """From the stored states come the sampled logits: the PPO ratio of the first minibatch is 1. So it is in the shares
    of several learners, for which RLlib cuts pieces in two."""
    from ray.rllib.utils.minibatch_utils import ShardEpisodesIterator

    from marl_tune.learning.train_batch import BatchSettings, EpisodesToTrainBatch

    sweep = tiny("module=gru", f"module.max_seq_len={LENGTH}")
    fragments, _, rollout = sampled(sweep, [7, steps])
    modules = rollout.policies.modules
    assert all(SEQUENCE_STARTS in piece.custom_data for piece in fragments[1])
    multi = {m: Unwrapped(module) for m, module in modules.items()}
    connector = EpisodesToTrainBatch(lambda _: BatchSettings(gamma=0.9, lambda_=0.9))
    total = 0
    for share in ShardEpisodesIterator(fragments[1], learners, 0) if learners > 1 else fragments[1:]:
        batch = connector(rl_module=multi, episodes=share, batch={})["shared"]
        with torch.no_grad():
            out = modules["shared"].forward_train({"obs": batch["obs"], "state_in": batch["state_in"]})
        mask = batch["loss_mask"]
        total += mask.sum()
        assert torch.allclose(out["action_dist_inputs"][mask], batch["action_dist_inputs"][mask], atol=1e-6)
    assert total == steps * 3 * 4


def test_a_restored_rollout_goes_on_as_if_it_had_not_stopped(tiny):
    sweep = tiny("module=gru")
    _, _, first = sampled(sweep, [13])
    state, generator = first.get_state(), torch.get_rng_state()
    expected = first.sample(11)
    _, _, second = sampled(sweep, [3])
    second.set_state(state)
    torch.set_rng_state(generator)
    again = second.sample(11)
    assert len(again) == len(expected)
    for a, b in zip(expected, again, strict=True):
        assert np.array_equal(a.observations.data, b.observations.data)
        assert np.array_equal(a.actions.data, b.actions.data)
        assert a.t_started == b.t_started
