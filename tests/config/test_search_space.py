"""The search space: parsing, bounds, counting, and the combinations that are tried before a sweep starts."""

import itertools

import pytest

from marl_tune.config.compose import compose
from marl_tune.config.errors import ConfigError
from marl_tune.config.search_space import Distribution, grid_points, normalise, parse, parse_entry, trial_count
from marl_tune.validation.search_space import FULL_PRODUCT, combinations

SPACE = {
    "algorithm.lr": {"loguniform": [1e-5, 1e-3]},
    "algorithm.num_epochs": {"randint": [2, 9]},
    "module.hidden_dims": {"choice": [[8], [9, 9]]},
    "module": {"grid": ["mlp", "lstm"]},
}


def test_parse_keeps_kind_arguments_and_order():
    space = parse(SPACE)
    assert list(space) == list(SPACE)
    assert space["algorithm.lr"] == Distribution("loguniform", (1e-5, 1e-3))
    assert space["module.hidden_dims"].choices == ([8], [9, 9])
    assert space["algorithm.lr"].choices == ()


@pytest.mark.parametrize(
    ("entry", "low", "high"),
    [
        ({"uniform": [0.5, 2]}, 0.5, 2),
        ({"quniform": [64, 256, 64]}, 64, 256),
        ({"randint": [5, 20]}, 5, 19),
    ],
)
def test_ends_are_the_least_and_greatest_draw(entry, low, high):
    distribution = parse_entry("space.x", entry)
    assert (distribution.low, distribution.high) == (low, high)
    assert {low, high} <= set(distribution.probes())
    assert all(low <= value <= high for value in distribution.probes())
    assert distribution.clip(low - 1) == low
    assert distribution.clip(high + 1) == high
    assert distribution.clip((low + high) // 2) == (low + high) // 2


def test_choices_are_not_clipped_and_each_is_tried():
    distribution = Distribution("choice", ("a", "b"))
    assert distribution.clip("c") == "c"
    assert distribution.probes() == ("a", "b")


@pytest.mark.parametrize(
    "entry",
    [
        {},
        {"uniform": [0, 1], "choice": [1]},
        {"uniform": [1, 1]},
        {"uniform": [0, float("inf")]},
        {"uniform": [False, True]},
        {"uniform": ["0", 1]},
        {"quniform": [0, 1]},
        {"quniform": [0, 1, 0]},
        {"quniform": [0, 1, 2]},
        {"randint": [0.0, 2.0]},
        {"grid": [1, 1]},
        {"choice": "ab"},
        {"lognormal": [0, 1]},
    ],
)
def test_wrong_entries_are_refused_by_key(entry):
    with pytest.raises(ConfigError, match=r"^space\.x"):
        parse_entry("space.x", entry)


def test_whole_and_nested_keys_mean_the_same():
    nested = {"algorithm": {"lr": {"uniform": [0, 1]}, "gamma": {"choice": [0.9]}}, "seed": {"grid": [1, 2]}}
    whole = {"algorithm.lr": {"uniform": [0, 1]}, "algorithm.gamma": {"choice": [0.9]}, "seed": {"grid": [1, 2]}}
    assert normalise(nested) == whole == normalise(whole)


def test_the_later_entry_wins_and_null_takes_out():
    file = {"algorithm.lr": {"uniform": [0, 1]}, "algorithm.gamma": {"choice": [0.9]}, "seed": {"grid": [1]}}
    typed = {"algorithm": {"lr": {"loguniform": [1, 2]}, "gamma": None}, "seed": {"grid": None, "choice": [1]}}
    assert normalise(file | typed) == {"algorithm.lr": {"loguniform": [1, 2]}, "seed": {"choice": [1]}}


def test_command_line_changes_an_experiments_space():
    words = ["+space.algorithm.lr.uniform=[0.1,0.2]", "+space.algorithm.clip_param=null", "+space.seed.choice=[1,2]"]
    space = compose(["+experiment=ant_colony", *words])[0].space
    assert space["algorithm.lr"] == {"uniform": [0.1, 0.2]}
    assert space["seed"] == {"choice": [1, 2]}
    assert "algorithm.clip_param" not in space
    assert "algorithm.entropy_coeff" in space


@pytest.mark.parametrize(
    ("search", "num_samples", "trials"),
    [("none", 3, 3), ("random", 3, 6), ("optuna", 3, 6), ("grid", 3, 12)],
)
def test_trial_count(search, num_samples, trials):
    assert trial_count(search, num_samples, parse(SPACE)) == trials


def test_grid_points():
    assert grid_points(parse(SPACE), choices_too=False) == 2
    assert grid_points(parse(SPACE), choices_too=True) == 4
    assert grid_points({}, choices_too=True) == 1


def test_a_small_space_is_tried_whole():
    space = parse({"a": {"choice": [1, 2]}, "b": {"uniform": [0, 1]}, "c": {"randint": [0, 3]}})
    tried = list(combinations(space))
    assert len(tried) == 2 * 3 * 2
    assert {"a": 2, "b": 1, "c": 2} in tried


def test_a_large_space_is_tried_by_pairs_of_ends():
    space = parse({f"k{i}": {"uniform": [i, i + 1]} for i in range(9)} | {"c": {"choice": [0, 1]}})
    tried = list(combinations(space))
    assert len(tried) < FULL_PRODUCT < 3**9 * 2
    assert all(set(point) == set(space) for point in tried)
    for one, other in itertools.combinations(range(9), 2):
        for here, there in itertools.product((one, one + 1), (other, other + 1)):
            assert any(point[f"k{one}"] == here and point[f"k{other}"] == there for point in tried)
    assert {point["c"] for point in tried} == {0, 1}
