"""Roles: what each learns by, whether it learns, and what it begins with."""

import json
import re

import pytest
import torch
from probes import learner_of

from marl_tune.__main__ import main
from marl_tune.config.compose import compose
from marl_tune.config.errors import ConfigError
from marl_tune.config.overrides import apply, is_live, trial_keys
from marl_tune.config.role_settings import LEARNING, role_algorithms
from marl_tune.validation.search_space import check_space
from marl_tune.validation.validate import check_trial, validate

ROLES = "+sharing.roles={scouts:{agents:['*_0']},workers:{agents:['*']}}"
OWN = {
    "lr": 3e-4,
    "gamma": 0.9,
    "lambda_": 0.8,
    "reward_scale": 0.5,
    "clip_param": 0.1,
    "entropy_coeff": 0.03,
    "vf_loss_coeff": 0.7,
}


def read_by(learner, role):
    """What the learner reads in an update of a role's module."""
    loss, batch = learner._update_settings(role), learner._batch_settings(role)
    (optimizer,) = (o for name, o in learner._named_optimizers.items() if name.startswith(role))
    parts = {**vars(loss), **vars(batch), "lr": optimizer.param_groups[0]["lr"]}
    return {name: parts[name] for name in LEARNING}


def weights_of(trial):
    """Module id -> name -> tensor, copied."""
    modules = learner_of(trial).module
    return {m: {k: v.clone() for k, v in modules[m].unwrapped().state_dict().items()} for m in modules.keys()}  # noqa: SIM118  iterating over it gives numbers


def same(one, other):
    return all(torch.equal(value, other[name]) for name, value in one.items())


def test_a_role_learns_by_settings_of_its_own(trial):
    own = {f"sharing.roles.scouts.{name}": value for name, value in OWN.items()}
    one = trial(own, "sharing=roles", ROLES)
    one.train()
    assert read_by(learner_of(one), "scouts") == pytest.approx(OWN)
    common = {name: getattr(one.living.sweep.algorithm, name) for name in LEARNING}
    assert read_by(learner_of(one), "workers") == pytest.approx(common)
    assert set(OWN) == set(LEARNING)


def test_a_clone_takes_its_own_settings_in_place(trial, tmp_path):
    key, words = "sharing.roles.scouts.lr", ("sharing=roles", ROLES)
    donor, clone = trial({key: 1e-3}, *words, number=0), trial({key: 2e-3}, *words, number=1)
    donor.train()
    clone.train()
    donor.save(str(tmp_path / "donor"))
    living = clone.algorithm
    clone.reset({key: 5e-4})
    clone.restore(str(tmp_path / "donor"))
    assert clone.algorithm is living, "the exploit was not in place"
    assert same(weights_of(clone)["scouts"], weights_of(donor)["scouts"])
    assert read_by(learner_of(clone), "scouts")["lr"] == pytest.approx(5e-4)


def test_a_role_that_does_not_train_stays_as_it_is(trial):
    one = trial({}, "sharing=roles", ROLES, "+sharing.roles.scouts.trains=false")
    one.build()
    before, result = weights_of(one), one.train()
    assert same(before["scouts"], weights_of(one)["scouts"])
    assert not same(before["workers"], weights_of(one)["workers"])
    assert [module_id for module_id, told in result["learners"].items() if "total_loss" in told] == ["workers"]


def test_a_role_begins_with_the_module_of_another_run(trial, tmp_path):
    words = ("sharing=roles", ROLES)
    other = trial({}, *words)
    other.train()
    other.save(str(tmp_path / "checkpoint"))
    first = f"+sharing.roles.workers.checkpoint={tmp_path}"
    one = trial({}, *words, first, "+sharing.roles.workers.trains=false", number=1)
    one.train()
    assert same(weights_of(one)["workers"], weights_of(other)["workers"])
    acting = one.algorithm.env_runner_group.local_env_runner.module["workers"].state_dict()
    chosen_by = {name: value for name, value in acting.items() if name.startswith(("encoder", "policy_head"))}
    assert same(chosen_by, weights_of(other)["workers"])
    assert not same(weights_of(one)["scouts"], weights_of(other)["scouts"])
    narrow = trial({}, *words, first, "module.hidden_dims=[8]", number=2)
    rule = r"sharing\.roles\.workers\.checkpoint must hold a module that fits the role \(size mismatch"
    with pytest.raises(ConfigError, match=rule):
        narrow.build()
    renamed = ROLES.replace("workers", "others")
    lost = trial({}, "sharing=roles", renamed, f"+sharing.roles.others.checkpoint={tmp_path}", number=3)
    with pytest.raises(ConfigError, match=r"roles\.others\.checkpoint must hold a module others, or one only \(it has"):
        lost.build()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["+sharing.roles.scouts.lr=0"], "sharing.roles.scouts.lr must be above 0, got 0"),
        (["+sharing.roles.scouts.gamma=2"], "sharing.roles.scouts.gamma must be between 0 and 1, got 2.0"),
        (["+sharing.roles.scouts.rate=1"], "sharing.roles.scouts.rate"),
        (["+sharing.roles.scouts.lr=fast"], "sharing.roles.scouts.lr must be a number, got 'fast'"),
        (["+sharing.roles.scouts.checkpoint=/nowhere"], "sharing.roles.scouts.checkpoint must be a run's folder"),
        (
            ["+sharing.roles.scouts.trains=false", "+sharing.roles.workers.trains=false"],
            "sharing.roles must have a role that trains",
        ),
    ],
)
def test_wrong_settings_are_refused(words, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        validate(compose(["sharing=roles", ROLES, *words])[0])


def test_a_missing_checkpoint_is_found_before_a_sweep_and_not_by_its_trials():
    lost, space = "+sharing.roles.scouts.checkpoint=/nowhere", "+space={algorithm.lr:{grid:[1e-3,1e-4]}}"
    sweep = compose(["search=grid", "sharing=roles", ROLES, lost, space])[0]
    rule = r"sharing\.roles\.scouts\.checkpoint must be a run's folder.*, reached by space\.algorithm\.lr"
    with pytest.raises(ConfigError, match=rule):
        check_space(sweep, check_trial)
    trial = apply(sweep, {"algorithm.lr": 1e-4})  # a run's folder may move while its sweep goes on
    assert trial.sharing.roles["scouts"].checkpoint == "/nowhere"
    with pytest.raises(ConfigError, match=r"sharing\.roles\.scouts\.lr must be above 0"):
        apply(sweep, {"sharing.roles.scouts.lr": -1.0})


def test_a_shared_encoder_that_a_role_does_not_suit_is_found_in_the_space():
    space = "+space={module:{grid:[mlp,shared_encoder]}}"
    sweep = compose(["search=grid", "sharing=roles", ROLES, "+sharing.roles.scouts.lr=1e-4", space])[0]
    rule = r"sharing\.roles\.scouts\.lr must be null under module=shared_encoder.*, reached by space\.module"
    with pytest.raises(ConfigError, match=rule):
        validate(sweep)


def test_settings_of_a_role_can_be_searched():
    sweep = compose(["sharing=roles", ROLES, "module=curiosity"])[0]
    for key in ("lr", "entropy_coeff", "module.intrinsic_weight"):
        assert f"sharing.roles.scouts.{key}" in trial_keys(sweep)
        assert is_live(sweep, f"sharing.roles.scouts.{key}")
    assert not is_live(sweep, "sharing.roles.scouts.module.hidden_dims")
    assert not is_live(sweep, "sharing.roles.scouts.agents")
    assert role_algorithms(sweep) == {}


def test_sides_are_told_apart_and_can_rank(tmp_path):
    """Also from the command line: one trial, judged by what one side earns."""
    words = ["+experiment=simple_tag_roles", f"results_dir={tmp_path}", "logger=csv", "logger.progress=off"]
    words += ["stop.iterations=1", "stop.agent_steps=null", "selection.episodes=4", "+sharing.roles.prey.trains=false"]
    words += ["algorithm.train_batch_size=400", "algorithm.minibatch_size=400", "cluster.num_envs_per_env_runner=4"]
    assert main(words) == 0
    (folder,) = tmp_path.glob("simple_tag_roles/*")
    summary = json.loads((folder / "summary.json").read_text())
    told = summary["best"]["evaluation"]
    of_groups = 3 * told["adversary_return_mean"] + told["agent_return_mean"]
    assert told["return_mean_agent"] == pytest.approx(of_groups / 4)
    assert summary["trials"][0]["score"] == summary["trials"][0]["score"], "a number"
