"""Runners and learners in processes of their own."""

import numpy as np
import pytest
import torch

pytestmark = pytest.mark.usefixtures("ray_session")
RUNNERS = ("cluster.num_env_runners=2", "cluster.num_cpus_per_env_runner=0.5")
LEARNERS = ("cluster.num_learners=2", "cluster.num_cpus_per_learner=0.5")


def runner_weights(trial):
    groups = trial.algorithm.env_runner_group
    states = groups.foreach_env_runner(lambda r: r.get_state()["rl_module"]["shared"], local_env_runner=False)
    # Only what acts is sent: a runner's critic, if it was built at all, is never used.
    acting = [{k: v for k, v in state.items() if not k.startswith(("critic", "value"))} for state in states]
    return [{k: torch.tensor(v) for k, v in state.items()} for state in acting]


@pytest.mark.slow
def test_runners_sample_with_the_learners_weights_and_keep_their_state(trial, tmp_path):
    one = trial(None, *RUNNERS, "module=gru")
    first, second = one.train(), one.train()
    assert first["agent_steps"] == 400
    assert second["agent_steps"] == 800
    assert second["env_runners"]["num_episodes_lifetime"] == 10
    learned = one.algorithm.learner_group._learner.module["shared"].state_dict()
    for weights in runner_weights(one):
        assert len(weights) >= 6
        assert all(torch.allclose(weights[k], learned[k]) for k in weights)
    one.save(str(tmp_path / "here"))
    expected = one.train()["learners"]["shared"]["policy_loss"]
    one.reset({})
    one.restore(str(tmp_path / "here"))
    assert one.train()["learners"]["shared"]["policy_loss"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.slow
def test_settings_reach_runners_in_place(trial, tmp_path):
    one = trial(None, *RUNNERS)
    one.train()
    one.save(str(tmp_path / "here"))
    living = one.algorithm
    one.reset({"env.pheromone_decay": 0.5, "algorithm.lr": 7e-4})
    one.restore(str(tmp_path / "here"))
    one.train()
    assert one.algorithm is living
    decays = living.env_runner_group.foreach_env_runner(
        lambda runner: runner.env.config.pheromone_decay, local_env_runner=False
    )
    assert decays == [0.5, 0.5]


def weights_of_learners(trial):
    """Of each learner: (module, name) -> array."""
    states = trial.algorithm.learner_group.foreach_learner(
        lambda learner: {
            (m, name): tensor.numpy()
            for m, module in learner.module.items()
            for name, tensor in module.unwrapped().state_dict().items()
        }
    )
    return [state.get() for state in states]


def test_two_learners_share_a_batch_and_agree(trial, tmp_path):
    one = trial(None, *LEARNERS)
    result = one.train()
    assert result["agent_steps"] == 400
    first, second = weights_of_learners(one)
    assert all(np.array_equal(first[name], second[name]) for name in first)
    one.save(str(tmp_path / "here"))
    one.reset({"algorithm.lr": 5e-4})
    one.restore(str(tmp_path / "here"))
    one.train()
    rates = one.algorithm.learner_group.foreach_learner(
        lambda learner: [group["lr"] for o in learner._named_optimizers.values() for group in o.param_groups]
    )
    assert [rate.get() for rate in rates] == [[5e-4], [5e-4]]


# Of shares for which pieces are cut in two: 9 of 20 steps and 9 of 1 are 189 agent-steps, 94 and 95.
CUT = (*LEARNERS, "cluster.num_envs_per_env_runner=3", "env.n_agents=3")
CUT += ("algorithm.train_batch_size=189", "algorithm.minibatch_size=45")


@pytest.mark.slow  # two more processes
def test_two_learners_share_a_central_critic_and_its_moments(trial):
    one = trial(None, *CUT, "algorithm=mappo", "sharing=shared_critic")
    for _ in range(2):
        result = one.train()
    assert np.isfinite(result["learners"]["critic"]["vf_loss"])
    first, second = weights_of_learners(one)
    assert first["critic", "moments.weight"] > 1e-5
    assert all(np.array_equal(first[name], second[name]) for name in first)


@pytest.mark.slow  # two more processes
def test_two_learners_share_the_sequences_of_a_module_with_a_memory(trial):
    """Pieces of 20 steps are cut where no sequence of 3 begins."""
    one = trial(None, *CUT, "module=gru", "module.max_seq_len=3")
    for _ in range(2):
        result = one.train()
    assert result["learners"]["shared"]["num_module_steps_trained"] >= 94
    first, second = weights_of_learners(one)
    assert all(np.array_equal(first[name], second[name]) for name in first)
