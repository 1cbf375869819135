"""The contract kit of marl_tune on this package's options; run after `pip install .`"""

from marl_tune.testing import check_env, check_module


def test_gather_keeps_the_contract():
    check_env("gather", steps=40, max_steps=10)


def test_residual_keeps_the_contract():
    check_module("residual")
