"""The table of the dry run: who acts by what, and what trains it."""

import pytest

from marl_tune.__main__ import main
from marl_tune.algorithms.rllib_config import algorithm_config
from marl_tune.sharing.build_world import build_world
from marl_tune.sharing.module_specs import build_policy_map
from marl_tune.sharing.policy_map import PolicyMap
from marl_tune.sweep.module_table import folded, scheme_lines


def lines_of(sweep, change=None, policy_map=None):
    config = algorithm_config(sweep)
    modules = dict(config.rl_module_spec.build().items())
    if change is not None:
        change(config, modules)
    with build_world(sweep, 1) as world:
        who = build_policy_map(sweep, world) if policy_map is None else policy_map(world)
    return [line.split() for line in scheme_lines(who, modules, config)[1:]]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["ant_0", "ant_1", "ant_2"], "ant_0..ant_2"),
        (["ant_0", "ant_1"], "ant_0, ant_1"),
        (["a_8", "a_9", "a_10", "b"], "a_8..a_10, b"),
        (["a_0", "a_2", "a_3", "a_4"], "a_0, a_2..a_4"),
        (["x"], "x"),
    ],
)
def test_agents_are_folded(names, expected):
    assert folded(names) == expected


def test_a_module_has_a_row_for_each_optimizer(tiny):
    (first, second) = lines_of(tiny("module=curiosity", "algorithm.lr=3e-4"))
    assert first[:2] == ["ant_0..ant_3", "shared"]
    assert first[3:] == ["Adam,", "lr", "0.0003"]
    assert second[1:] == ["Adam,", "lr", "0.0003", "(curiosity)"]


def test_the_critic_is_shown_as_what_it_is(tiny):
    words = ("algorithm=mappo", "sharing=shared_critic", "sharing.actors=independent", "algorithm.critic_lr=0.002")

    def name_who_trains(config, modules):
        config.policies_to_train = [f"ant_{i}" for i in range(4)]  # RLlib accepts none that does not act

    *actors, critic = lines_of(tiny(*words), name_who_trains)
    assert [row[:2] for row in actors] == [[f"ant_{i}", f"ant_{i}"] for i in range(4)]
    assert " ".join(critic[:4]) == "nobody: learning only critic"
    assert critic[5:] == ["Adam,", "lr", "0.002"]


def test_what_modules_share_is_counted_once_and_trained_by_one_optimizer(tiny):
    from marl_tune.algorithms.ppo import Ppo

    sweep = tiny("module=shared_encoder", "sharing=independent", "env.n_agents=3", "algorithm.lr=3e-4")
    *own, common = lines_of(sweep)
    assert [row[:2] for row in own] == [[f"ant_{i}", f"ant_{i}"] for i in range(3)]
    assert " ".join(common[:6]) == "all of these what they share"
    assert {" ".join(row[-6:]) for row in (*own, common)} == {"Adam, lr 0.0003, one for all"}
    config = algorithm_config(sweep)
    learner = Ppo(config=config, module_spec=config.rl_module_spec)
    learner.build()
    assert len(learner._named_optimizers) == 1
    counted = sum(int(row[k].replace(",", "")) for row, k in [*((row, 2) for row in own), (common, 6)])
    assert counted == sum(parameter.numel() for parameter in learner._params.values())


def test_frozen_modules_and_drawn_ones_are_told(tiny):
    def freeze(config, modules):
        config.policies_to_train = ["ant_0", "ant_1"]
        for parameter in modules["ant_1"].policy_head.parameters():
            parameter.requires_grad_(False)

    def drawn(world):
        choices = {f"ant_{i}": (f"ant_{i}",) for i in range(4)} | {"ant_0": ("ant_0", "ant_1")}
        first = {agent: ids[0] for agent, ids in choices.items()}
        return PolicyMap(world.groups, choices, draw=lambda rng, turn: first)

    rows = [" ".join(row) for row in lines_of(tiny("sharing=independent"), freeze, drawn)]
    assert rows[0].startswith("ant_0 (drawn each episode) ant_0")
    assert rows[1].startswith("ant_0, ant_1 (drawn each episode) ant_1")
    assert rows[2].endswith("nothing: frozen"), "a part of ant_1"
    assert [row.endswith("nothing: frozen") for row in rows] == [False, False, True, True, True]


def test_many_modules_are_cut_off(tiny):
    assert lines_of(tiny("sharing=independent", "env.n_agents=20"))[-1] == ["…", "and", "8", "modules", "more"]


def test_the_dry_run_prints_it(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["+experiment=simple_spread_mappo", "dry_run=true"]) == 0
    printed = capsys.readouterr().out
    assert "agent_0..agent_2       shared" in printed
    assert "nobody: learning only  critic" in printed
    assert list(tmp_path.iterdir()) == []
