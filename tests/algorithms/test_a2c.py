"""A2C: PPO of one epoch, one minibatch and no clip, update by update; and what it refuses."""

import pytest
import torch

from marl_tune.algorithms.rllib_config import algorithm_config
from marl_tune.config.compose import compose
from marl_tune.config.errors import ConfigError
from marl_tune.validation.validate import validate

SMALL = (
    *("env=ant_colony", "env.grid_size=[8,8]", "env.n_agents=4", "env.n_food_sources=2", "env.max_steps=20"),
    *("cluster.num_envs_per_env_runner=5", "algorithm.train_batch_size=400", "search=none", "logger=csv"),
)
AS_A2C = (
    *("algorithm.num_epochs=1", "algorithm.minibatch_size=400", "algorithm.clip_param=1e9", "algorithm.lambda_=1.0"),
)


def built(*words):
    (sweep,) = compose([*SMALL, *words])
    validate(sweep)
    return algorithm_config(sweep).build_algo()


def parameters(algorithm):
    module = dict(algorithm.learner_group._learner.module.items())
    return {f"{m}.{name}": p for m, own in module.items() for name, p in own.unwrapped().named_parameters()}


@pytest.mark.usefixtures("ray_session")
@pytest.mark.parametrize(
    "words",
    [
        (),
        ("module=gru", "module.max_seq_len=7"),
        ("module=curiosity",),
        ("sharing=independent",),
        ("algorithm.use_critic=false",),
    ],
    ids=["mlp", "gru", "curiosity", "independent", "no critic"],
)
def test_three_updates_leave_the_parameters_that_ppo_of_one_whole_minibatch_leaves(words):
    """Huang et al. 2022, https://arxiv.org/abs/2205.09123. Adam's eps is large: it divides a vanishing gradient by
    itself, so that rounding would decide the direction."""
    learned = []
    for kind in (("algorithm=a2c",), AS_A2C):
        algorithm = built(*kind, "algorithm.adam_eps=1e-3", *words)
        before = {name: p.detach().clone() for name, p in parameters(algorithm).items()}
        for _ in range(3):
            algorithm.train()
        after = {name: p.detach().clone() for name, p in parameters(algorithm).items()}
        assert any(not torch.equal(before[name], after[name]) for name in after), "nothing was learned"
        learned.append(after)
        algorithm.stop()
    for name, ours in learned[0].items():
        assert torch.allclose(ours, learned[1][name], atol=1e-6), name


@pytest.mark.usefixtures("ray_session")
def test_with_a_central_critic_it_learns_by_its_values():
    algorithm = built("algorithm=a2c", "sharing=shared_critic")
    result = algorithm.train()
    assert {"vf_loss"} <= set(result["learners"]["critic"])
    assert "vf_loss" not in result["learners"]["shared"]
    algorithm.stop()


@pytest.mark.usefixtures("ray_session")
def test_a_living_learner_takes_new_settings_and_annealing_over():
    algorithm = built("algorithm=a2c")
    learner = algorithm.learner_group._learner
    (other,) = compose(
        [*SMALL, "algorithm=a2c", "algorithm.entropy_coeff=0.5", "algorithm.vf_loss_coeff=0.25", "algorithm.lr=0.1"]
    )
    learner.apply_settings(algorithm_config(other))
    learner.anneal(0.5, 0.1)
    settings = learner._update_settings("shared")
    assert (settings.entropy_coeff, settings.vf_loss_coeff) == (pytest.approx(0.05), 0.25)
    assert {group["lr"] for o in learner._named_optimizers.values() for group in o.param_groups} == {0.05}
    algorithm.stop()


def test_it_takes_whole_batches_alone():
    with pytest.raises(ConfigError, match=r"algorithm\.minibatch_size"):
        compose([*SMALL, "algorithm=a2c", "algorithm.minibatch_size=100"])
    (sweep,) = compose([*SMALL, "algorithm=a2c", "cluster.num_learners=2", "cluster.num_cpus=null"])
    assert (sweep.algorithm.passes, sweep.algorithm.minibatch) == (1, None)
