"""Exploration of PBT: values stay inside their range."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marl_tune.config.search_space import Distribution
from marl_tune.search.pbt import perturb


@given(value=st.floats(1e-5, 1e-3), factor=st.floats(0.1, 10))
def test_a_number_is_multiplied_and_kept_in_range(value, factor):
    moved = perturb(Distribution("loguniform", (1e-5, 1e-3)), value, factor)
    assert moved == min(max(value * factor, 1e-5), 1e-3)


@pytest.mark.parametrize(
    ("args", "value", "factor", "expected"),
    [((1, 10), 3, 1.2, 4), ((1, 10), 3, 0.8, 2), ((1, 10), 9, 1.2, 9), ((1, 10), 1, 0.8, 1), ((0, 3), 0, 1.2, 1)],
)
def test_a_whole_number_moves_by_one_at_least_and_stays_below_high(args, value, factor, expected):
    assert perturb(Distribution("randint", args), value, factor) == expected


def test_a_choice_moves_to_its_neighbour():
    choices = Distribution("choice", (1, 2, 4, 8))
    assert [perturb(choices, 2, 1.2), perturb(choices, 2, 0.8), perturb(choices, 8, 1.2)] == [4, 1, 8]


def test_a_quantised_number_stays_on_its_steps():
    assert perturb(Distribution("quniform", (0.0, 1.0, 0.25)), 0.5, 1.2) == pytest.approx(0.5)
    assert perturb(Distribution("quniform", (0.0, 1.0, 0.25)), 0.5, 1.5) == pytest.approx(0.75)
