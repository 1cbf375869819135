"""The examples in the docstrings of the search package run."""

import doctest
from importlib import import_module

import pytest


@pytest.mark.parametrize("name", ["pb2", "pbt", "searches", "stopping"])
def test_the_examples_are_true(name):
    failed, tried = doctest.testmod(import_module(f"marl_tune.search.{name}"))
    assert tried > 0
    assert failed == 0
