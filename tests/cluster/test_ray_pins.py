"""Behaviour of the pinned Ray that our code is built around: where one fails after an upgrade, a workaround may too."""

import inspect

import pytest
import torch
from gymnasium.spaces import Discrete
from probes import learner_of
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.core.learner.learner import Learner
from ray.rllib.core.learner.torch.torch_learner import TorchLearner
from ray.rllib.env.env_runner_group import EnvRunnerGroup
from ray.rllib.env.multi_agent_episode import MultiAgentEpisode
from ray.tune import Trainable
from ray.tune.schedulers import PopulationBasedTraining
from ray.tune.schedulers.pb2 import PB2


def test_a_loaded_optimizer_state_brings_the_donors_settings(trial, monkeypatch, tmp_path):
    """Why Ppo._set_optimizer_state writes its own settings again (ray#62173, #53831)."""
    from marl_tune.algorithms.ppo import Ppo

    donor, clone = trial({"algorithm.lr": 1e-3, "algorithm.adam_beta1": 0.8}), trial({"algorithm.lr": 7e-4}, number=1)
    for one in (donor, clone):
        one.train()
    state = learner_of(donor)._get_optimizer_state()
    monkeypatch.setattr(Ppo, "_set_optimizer_state", TorchLearner._set_optimizer_state)
    learner_of(clone)._set_optimizer_state(state)
    (optimizer,) = learner_of(clone)._named_optimizers.values()
    (group,) = optimizer.param_groups
    assert group["lr"] == 1e-3
    assert group["betas"][0] == 0.8


def test_rllib_cannot_reset_an_algorithm():
    """Why Trial is our own Trainable."""
    assert Algorithm.reset_config is Trainable.reset_config
    assert Trainable.reset_config(None, {}) is False


@pytest.mark.parametrize("scheduler", [PopulationBasedTraining, PB2])
def test_the_hooks_of_pbt(scheduler):
    assert list(inspect.signature(scheduler._exploit).parameters) == [
        "self",
        "tune_controller",
        "trial",
        "trial_to_clone",
    ]
    assert list(inspect.signature(scheduler._get_new_config).parameters) == ["self", "trial", "trial_to_clone"]
    source = inspect.getsource(PopulationBasedTraining._exploit)
    assert "self._get_new_config(trial, trial_to_clone)" in source
    assert "trial.set_config(new_config)" in source


def test_the_hooks_of_the_learner():
    """Our learner has an `update` of its own: what RLlib's does around the gradient steps must be what ours does."""
    source = inspect.getsource(Learner.update)
    for hook in (
        "self.before_gradient_based_update(timesteps=timesteps or {})",
        "training_data.solve_refs()",
        "self._weights_seq_no += 1",
        "self.after_gradient_based_update(timesteps=timesteps or {})",
        "return self.metrics.reduce()",
    ):
        assert hook in source
    assert "_set_optimizer_state" in inspect.getsource(Learner.set_state)
    assert "weights_seq_no == 0 or self._weights_seq_no < weights_seq_no" in inspect.getsource(Learner.set_state)


def test_a_local_runner_is_not_called_by_a_methods_name():
    """Why checkpoints hand `foreach_env_runner` a function: by name the local runner returns the bound method."""
    assert "[getattr(self.local_env_runner, func)]" in inspect.getsource(EnvRunnerGroup.foreach_env_runner)


def test_adam_reads_its_settings_from_the_group_at_every_step():
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.Adam([weight], lr=1.0)
    weight.grad = torch.ones(1)
    optimizer.param_groups[0].update(lr=0.25)
    optimizer.step()
    assert weight.item() == pytest.approx(-0.25)


def test_rllib_takes_a_truncation_of_all_agents_for_a_termination():
    """So its learner never bootstraps at a time limit; our runner tells the two apart."""
    episode = MultiAgentEpisode(
        observation_space={"a": Discrete(2)}, action_space={"a": Discrete(2)}, agent_to_module_mapping_fn=lambda *_: "m"
    )
    episode.add_env_reset(observations={"a": 0})
    episode.add_env_step(
        observations={"a": 1},
        actions={"a": 0},
        rewards={"a": 0.0},
        terminateds={"a": False, "__all__": False},
        truncateds={"a": True, "__all__": True},
    )
    assert (episode.is_truncated, episode.is_terminated) == (True, True)
    assert episode.agent_episodes["a"].is_terminated
