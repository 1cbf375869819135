"""Every world that can be picked is learned from under every sharing scheme: an iteration of each, on few copies."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from marl_tune.algorithms.rllib_config import algorithm_config
from marl_tune.config.compose import compose
from marl_tune.config.schema.sharing import RoleConfig, SharedCriticConfig, SharingConfig
from marl_tune.envs.world import agents_per_step
from marl_tune.sharing.build_world import build_world

ENV = Path(__file__).resolve().parent.parent / "conf" / "env"
PICKED = sorted(path.relative_to(ENV).with_suffix("").as_posix() for path in ENV.rglob("*.yaml"))
TWO_SPACES = {"mpe/simple_adversary", "mpe/simple_adversary_v3", "mpe/simple_tag", "mpe/simple_tag_v3"}
QUICK = {
    ("bio_grid", "roles"),
    ("mpe/simple_tag", "independent"),
    ("sisl/pursuit", "roles"),
    ("mpe/simple_tag", "shared_critic"),
}  # the others: slow


def cases():
    for option in PICKED:
        for sharing in ("parameter_sharing", "independent", "roles", "shared_critic"):
            marks = () if (option, sharing) in QUICK else (pytest.mark.slow,)
            yield pytest.param(option, sharing, marks=marks, id=f"{option}-{sharing}")


def learned_modules(sweep):
    """The modules that an iteration of this sweep has trained."""
    algorithm = algorithm_config(sweep).build_algo()
    learners = algorithm.train()["learners"]
    algorithm.stop()
    losses = {name: loss["total_loss"] for name, loss in learners.items() if name != "__all_modules__"}
    assert np.isfinite(list(losses.values())).all()
    return set(losses)


@pytest.mark.parametrize(("option", "sharing"), list(cases()))
@pytest.mark.usefixtures("ray_session")
def test_it_is_learned_from(tiny, option, sharing):
    module = "cnn" if option.split("/")[0] in ("butterfly", "classic") else "mlp"
    sweep = tiny(f"module={module}", "cluster.num_envs_per_env_runner=2", "module.hidden_dims=[16]")
    sweep = dataclasses.replace(sweep, env=compose([f"env={option}"])[0].env)
    with build_world(sweep, 1) as world:
        groups, acting = world.groups, agents_per_step(world)
    batch = 24 * acting
    sweep = dataclasses.replace(
        sweep, algorithm=dataclasses.replace(sweep.algorithm, train_batch_size=batch, minibatch_size=8)
    )
    agents = [agent for group in groups for agent in group.agents]
    if sharing == "independent":
        sweep, modules = dataclasses.replace(sweep, sharing=SharingConfig(sharing, {})), set(agents)
    elif sharing == "roles":
        roles = {group.name: RoleConfig([group.name], {}) for group in groups[1:]}
        roles = {"first": RoleConfig([agents[0]], {"hidden_dims": [12]}), **roles, "rest": RoleConfig(["*"], {})}
        if len(groups[0].agents) == 1:
            del roles["rest"]
        sweep, modules = dataclasses.replace(sweep, sharing=SharingConfig(sharing, roles)), set(roles)
    else:
        modules = {group.name for group in groups} if option in TWO_SPACES else {"shared"}
    if sharing == "shared_critic":
        sweep = dataclasses.replace(sweep, sharing=SharedCriticConfig(sharing, {}, "parameter_sharing"))
        modules.add("critic")
    assert learned_modules(sweep) == modules
