"""The examples in docstrings run, and every public class of these packages has one."""

import doctest
import importlib
import importlib.util
import inspect
import pkgutil
from pathlib import Path
from types import ModuleType

import pytest

PACKAGES = ("sampling", "learning", "evaluation", "search")
MOST_LINES = 8  # of source in one example
EXCEPTIONS = {
    "marl_tune.sampling.env_runner.BatchedEnvRunner": "needs the AlgorithmConfig of a whole sweep",
    "marl_tune.sampling.rllib_env_runner.RllibEnvRunner": "needs the AlgorithmConfig of a whole sweep",
    "marl_tune.learning.live_settings.LiveSettings": "abstract: a learner of RLlib, which an Algorithm builds",
    "marl_tune.search.pbt.Population": "abstract: the common part of Pbt and Pb2, which have examples",
    "marl_tune.learning.on_policy_learner.OnPolicyLearner": "abstract: a learner of RLlib, which an Algorithm builds",
}  # class -> why it has no example


def modules_of(package: str) -> list[str]:
    """Names of the modules of a package and of its sub-packages."""
    parent = importlib.import_module(f"marl_tune.{package}")
    return [module.name for module in pkgutil.walk_packages(parent.__path__, f"{parent.__name__}.")]


def public_classes(module: ModuleType) -> list[type]:
    """Classes that a module defines for others, apart from those that only describe types or errors."""
    own = [value for value in vars(module).values() if inspect.isclass(value) and value.__module__ == module.__name__]
    return [value for value in own if not (value.__name__.startswith("_") or only_describes(value))]


def only_describes(value: type) -> bool:
    """Whether a class is a TypedDict, a Protocol or an exception, which do nothing by themselves."""
    return hasattr(value, "__required_keys__") or getattr(value, "_is_protocol", False) or issubclass(value, Exception)


def has_example(name: str) -> bool:
    """Whether the source of a module holds an example."""
    spec = importlib.util.find_spec(name)
    return spec is not None and spec.origin is not None and ">>> " in Path(spec.origin).read_text(encoding="utf-8")


MODULES = [name for package in PACKAGES for name in modules_of(package) if has_example(name)]
COMPLETE = [name for package in PACKAGES for name in modules_of(package)]


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name: str) -> None:
    module = importlib.import_module(name)
    for test in doctest.DocTestFinder().find(module):
        report: list[str] = []
        results = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(test, out=report.append)
        assert results.failed == 0, "".join(report)


@pytest.mark.parametrize("name", COMPLETE)
def test_public_classes_have_an_example(name: str) -> None:
    module = importlib.import_module(name)
    examples = {test.name: test.examples for test in doctest.DocTestFinder().find(module)}
    for public in public_classes(module):
        path = f"{name}.{public.__name__}"
        lines = sum(len(example.source.splitlines()) for example in examples[path])
        if path not in EXCEPTIONS:
            assert 0 < lines <= MOST_LINES, f"{path} has an example of {lines} lines"


def test_every_exception_is_needed() -> None:
    for path in EXCEPTIONS:
        module, _, name = path.rpartition(".")
        assert ">>>" not in (getattr(importlib.import_module(module), name).__doc__ or ""), path
