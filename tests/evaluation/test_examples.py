"""The examples in the docstrings of `marl_tune.evaluation` run, and each public class has one."""

import doctest
import importlib
import inspect

import pytest

MODULES = ("play", "scripted_opponents", "selection", "statistics", "tournament")


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_run(name: str) -> None:
    module = importlib.import_module(f"marl_tune.evaluation.{name}")
    outcome = doctest.testmod(module)
    assert outcome.attempted > 0
    assert outcome.failed == 0


@pytest.mark.parametrize("name", MODULES)
def test_each_public_class_has_an_example(name: str) -> None:
    module = importlib.import_module(f"marl_tune.evaluation.{name}")
    classes = [part for part in vars(module).values() if inspect.isclass(part) and part.__module__ == module.__name__]
    public = [part for part in classes if not part.__name__.startswith("_") and part.__bases__ != (dict,)]
    assert public
    assert [part.__name__ for part in public if ">>>" not in (part.__doc__ or "")] == []
