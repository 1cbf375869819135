"""One encoder under several policies, trained by one optimizer."""

import re

import numpy as np
import pytest
import torch
from probes import learner_of
from ray.rllib.core.columns import Columns
from ray.rllib.utils.metrics import ALL_MODULES

from marl_tune.config.compose import compose
from marl_tune.config.errors import ConfigError
from marl_tune.evaluation.play import evaluate_checkpoint
from marl_tune.results import checkpoint_folder
from marl_tune.sharing.build_world import build_world
from marl_tune.sharing.module_specs import build_policy_map, module_specs
from marl_tune.validation.validate import validate

WORDS = ("module=shared_encoder", "sharing=independent", "env.n_agents=3")


def team_of(sweep):
    with build_world(sweep, 1) as world:
        return module_specs(sweep, build_policy_map(sweep, world)).build()


def test_the_encoder_gets_gradients_from_all_heads(tiny):
    team = team_of(tiny(*WORDS))
    policies = [team[m] for m in team.keys()]  # noqa: SIM118  iterating over it gives pairs
    encoder = policies[0].encoder
    assert len(policies) == 3
    assert all(policy.encoder is encoder for policy in policies)
    assert len({id(policy.policy_head) for policy in policies}) == 3
    obs = torch.rand(4, *policies[0].observation_space.shape)
    weight = encoder.dense[0].weight
    parts = []
    for policy in policies:
        out = policy.forward_train({Columns.OBS: obs})[Columns.ACTION_DIST_INPUTS]
        parts.append(torch.autograd.grad(out.square().sum(), weight)[0])
        assert parts[-1].any()
    whole = sum(p.forward_train({Columns.OBS: obs})[Columns.ACTION_DIST_INPUTS].square().sum() for p in policies)
    assert torch.allclose(torch.autograd.grad(whole, weight)[0], sum(parts), atol=1e-6)


def test_one_optimizer_trains_all(trial, tmp_path):
    one = trial({}, *WORDS)
    one.build()
    learner = learner_of(one)
    (name,) = learner._named_optimizers
    parameters = learner._named_optimizers[name].param_groups[0]["params"]
    modules = [learner.module[m].unwrapped() for m in learner.module.keys()]  # noqa: SIM118
    assert learner._optimizer_name_to_module[name] == ALL_MODULES
    assert {id(p) for p in parameters} == {id(p) for module in modules for p in module.parameters()}
    assert len({id(p) for p in parameters}) == len(parameters)
    before = modules[0].encoder.dense[0].weight.clone()
    result = one.train()
    assert not torch.equal(before, modules[0].encoder.dense[0].weight)
    assert all(np.isfinite(told["gradients_default_optimizer_global_norm"]) for told in result["learners"].values())
    runner = one.algorithm.env_runner_group.local_env_runner.module
    acting = [runner[m] for m in runner.keys()]  # noqa: SIM118
    assert all(policy.encoder is acting[0].encoder for policy in acting)
    assert torch.equal(acting[0].encoder.dense[0].weight, modules[0].encoder.dense[0].weight)

    one.save(str(tmp_path / "here"))
    expected = one.train()["learners"]["ant_0"]["policy_loss"]
    other = trial({}, *WORDS)
    other.restore(str(tmp_path / "here"))
    assert other.train()["learners"]["ant_0"]["policy_loss"] == pytest.approx(expected, rel=1e-6)
    clone = trial({"algorithm.lr": 5e-4}, *WORDS, number=1)
    clone.train()
    clone.restore(str(tmp_path / "here"))
    (optimizer,) = learner_of(clone)._named_optimizers.values()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(5e-4)
    assert np.isfinite(evaluate_checkpoint(tmp_path / "here", range(2)).mean_agent).all()
    assert checkpoint_folder.is_whole(tmp_path / "here")


BOARD = ["env=classic/tictactoe", "search.metric=self_play/elo"]
ROLES = ["sharing=roles", "+sharing.roles={a:{agents:['*_0']},b:{agents:['*']}}"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([*ROLES, "+sharing.roles.a.lr=1e-3"], "sharing.roles.a.lr must be null under module=shared_encoder"),
        ([*ROLES, "+sharing.roles.a.trains=false"], "sharing.roles.a.trains must be true under module=shared_encoder"),
        (["sharing=independent", "cluster.num_learners=2"], "cluster.num_learners must be at most 1 under module"),
        ([*BOARD, "sharing=self_play"], "module must be one without a shared encoder under sharing=self_play"),
        ([*BOARD, "sharing=league"], "module must be one without a shared encoder under sharing=league"),
    ],
)
def test_what_one_encoder_and_one_optimizer_cannot_do_is_refused(words, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        validate(compose(["module=shared_encoder", *words])[0])


def test_teams_that_cannot_share_are_refused(tiny):
    with pytest.raises(ValueError, match=r"needs one policy for each of several agents or roles .* got shared only$"):
        team_of(tiny("module=shared_encoder"))
    with pytest.raises(ValueError, match=r"needs agents that see alike: adversary_0 sees Box.*, agent_0 sees Box"):
        team_of(compose(["module=shared_encoder", "sharing=independent", "env=mpe/simple_tag"])[0])
