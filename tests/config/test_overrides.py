"""Dotted overrides on a sweep, and back and forth to plain data: what a trial's settings are made of."""

import copy
import json

import numpy as np
import pytest

from marl_tune.config.compose import compose
from marl_tune.config.convert import from_dict, to_dict
from marl_tune.config.errors import ConfigError
from marl_tune.config.overrides import apply, is_live, trial_keys
from marl_tune.config.registry import options, schema
from marl_tune.config.role_settings import role_modules


@pytest.fixture(scope="module")
def sweep():
    return compose(["+experiment=ant_colony"])[0]


@pytest.fixture(scope="module")
def modules_sweep():
    """A sweep over modules; words about one module's own key and about a common one."""
    words = ["search=grid", "module=lstm", "module.max_seq_len=7", "module.hidden_dims=[9]"]
    return compose([*words, "+space={module:{grid:[mlp,lstm,curiosity]},seed:{grid:[1,2]}}"])[0]


def test_apply_sets_and_leaves_the_sweep_alone(sweep):
    before = copy.deepcopy(sweep)
    trial = apply(sweep, {"algorithm.lr": 1e-4, "env.n_agents": 5, "seed": 7, "cluster.torch_threads": 2})
    assert (trial.algorithm.lr, trial.env.n_agents, trial.seed, trial.cluster.torch_threads) == (1e-4, 5, 7, 2)
    assert trial.algorithm.gamma == sweep.algorithm.gamma
    assert type(trial.env) is type(sweep.env)
    assert sweep == before


def test_apply_of_nothing_is_equal(sweep):
    assert apply(sweep, {}) == sweep


def test_keys_within_a_section_or_mapping_of_a_section():
    sweep = compose(["env=sisl/pursuit_v4", "search=none"])[0]
    trial = apply(sweep, {"env.preprocess.frame_stack": 3, "env.kwargs.n_evaders": 12})
    assert (trial.env.preprocess.frame_stack, trial.env.kwargs["n_evaders"]) == (3, 12)
    assert (sweep.env.preprocess.frame_stack, sweep.env.kwargs["n_evaders"]) == (None, 30)
    assert not is_live(sweep, "env.preprocess.frame_stack")
    with pytest.raises(ConfigError, match=r"env\.preprocess\.frame_stack must be null or at least 1, got 0"):
        apply(sweep, {"env.preprocess.frame_stack": 0})
    with pytest.raises(ConfigError, match=r"frame_stak.*frame_stack"):
        apply(sweep, {"env.preprocess.frame_stak": 3})


def test_samplers_numbers_are_taken(sweep):
    trial = apply(sweep, {"algorithm.num_epochs": 3.0, "env.n_agents": np.int64(6), "algorithm.lr": np.float32(0.5)})
    assert (trial.algorithm.num_epochs, trial.env.n_agents, trial.algorithm.lr) == (3, 6, 0.5)
    assert [type(trial.algorithm.num_epochs), type(trial.env.n_agents), type(trial.algorithm.lr)] == [int, int, float]
    assert apply(sweep, {"algorithm.lr": 1}).algorithm.lr == 1.0


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("algorithm.lr", "a", "algorithm.lr must be a number, got 'a'"),
        ("algorithm.lr", True, "algorithm.lr must be a number"),
        ("algorithm.lr", None, "algorithm.lr must be a number"),
        ("algorithm.lr", -1, "algorithm.lr must be above 0"),
        ("algorithm.num_epochs", 2.5, "algorithm.num_epochs must be a whole number"),
        ("algorithm.use_critic", 1, "algorithm.use_critic must be true or false"),
        ("module.hidden_dims", 64, "module.hidden_dims must be a list"),
        ("module.hidden_dims", [64, "a"], r"module.hidden_dims\[1\] must be a whole number"),
        ("module.activation", 3, "module.activation must be a string"),
        ("env.pheromone_decay", 2.0, "env.pheromone_decay must"),
        ("algorithm.lrr", 1, "key 'algorithm.lrr' is not known: did you mean 'algorithm.lr'"),
        ("algorithm.name", "ppo", "key 'algorithm.name' is not known"),
        ("search.num_samples", 3, "key 'search.num_samples' is not known"),
        ("cluster.num_learners", 3, "key 'cluster.num_learners' is not known"),
        ("stop", {}, "key 'stop' is not known"),
        ("seed", "a", "seed must be a whole number"),
        ("module", "lstm", "module must be an option that the sweep was composed with, got 'lstm'"),
        ("module", 3, "module must be the name of an option"),
    ],
)
def test_wrong_overrides_are_refused(sweep, key, value, message):
    with pytest.raises(ConfigError, match=message):
        apply(sweep, {key: value})


def test_an_optional_key_takes_null(sweep):
    assert apply(sweep, {"algorithm.grad_clip": None, "env.sense_radius": None}).algorithm.grad_clip is None


def test_other_options_of_a_searched_group_are_composed(modules_sweep):
    composed = modules_sweep.group_options["module"]
    assert set(composed) == {"mlp", "lstm", "curiosity"}
    assert all(module.hidden_dims == [9] for module in composed.values())
    assert composed["lstm"] == modules_sweep.module
    assert composed["lstm"].max_seq_len == 7
    assert type(composed["curiosity"]) is schema("module", "curiosity")


def test_a_group_is_swapped_before_its_keys(modules_sweep):
    trial = apply(modules_sweep, {"module.icm_beta": 0.5, "module": "curiosity"})
    assert (trial.module.name, trial.module.icm_beta, trial.module.hidden_dims) == ("curiosity", 0.5, [9])
    assert apply(modules_sweep, {"module": "lstm"}).module == modules_sweep.module
    with pytest.raises(ConfigError, match=r"module\.max_seq_len"):
        apply(modules_sweep, {"module.max_seq_len": 5, "module": "mlp"})
    apply(modules_sweep, {"module": "mlp"}).module.hidden_dims.append(1)
    assert modules_sweep.group_options["module"]["mlp"].hidden_dims == [9]


def test_sweeps_come_back_from_plain_data(modules_sweep):
    plain = json.loads(json.dumps(to_dict(modules_sweep)))
    assert from_dict(plain) == modules_sweep
    assert apply(from_dict(plain), {"module": "curiosity"}).module == modules_sweep.group_options["module"]["curiosity"]
    with pytest.raises(ConfigError, match="algorithm"):
        from_dict(plain | {"algorithm": {"name": "dqn"}})
    with pytest.raises(ConfigError, match="key 'speed' is not known: did you mean 'seed'"):
        from_dict(plain | {"speed": 1})
    del plain["algorithm"]["lr"]
    with pytest.raises(ConfigError, match=r"algorithm\.lr must be set"):
        from_dict(plain)


@pytest.mark.parametrize(
    ("key", "live"),
    [
        ("algorithm.lr", True),
        ("algorithm.adam_beta1", True),
        ("algorithm.minibatch_size", True),
        ("algorithm.name", False),
        ("algorithm.lrr", False),
        ("algorithm", False),
        ("env.pheromone_decay", True),
        ("env.n_agents", False),
        ("env.name", False),
        ("module.intrinsic_weight", True),
        ("module.hidden_dims", False),
        ("module", False),
        ("seed", False),
        ("cluster.torch_threads", False),
        ("stop.iterations", False),
    ],
)
def test_live_keys(key, live):
    assert is_live(compose(["module=curiosity"])[0], key) is live


@pytest.mark.parametrize("module", options("module"))
def test_every_key_that_may_be_searched_can_be_applied(module):
    sweep = compose([f"module={module}", "sharing=roles", "+sharing.roles.ants={agents:['*']}"])[0]
    for key in trial_keys(sweep):
        section, _, name = key.partition(".")
        if name and "." not in name:
            assert apply(sweep, {key: getattr(getattr(sweep, section), name)}) == sweep


def test_roles_change_their_module():
    words = [
        "sharing=roles",
        "+sharing.roles.scouts={agents:['*_[0-4]'],module:{activation:relu,hidden_dims:[5]}}",
        "+sharing.roles.workers={agents:['*']}",
    ]
    sweep = compose(words)[0]
    modules = role_modules(sweep)
    assert list(modules) == ["scouts", "workers"]
    assert (modules["scouts"].hidden_dims, modules["scouts"].activation) == ([5], "relu")
    assert modules["workers"] == sweep.module
    trial = apply(sweep, {"sharing.roles.workers.module.hidden_dims": [3]})
    assert role_modules(trial)["workers"].hidden_dims == [3]
    assert role_modules(sweep)["workers"].hidden_dims == sweep.module.hidden_dims
    with pytest.raises(ConfigError, match=r"sharing\.roles\.workers\.module\.hidden_dims must be a list"):
        apply(sweep, {"sharing.roles.workers.module.hidden_dims": 3})
