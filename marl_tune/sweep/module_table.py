"""A table of the dry run: which module acts for which agents, and which optimizer trains it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.core.learner.learner import DEFAULT_OPTIMIZER
from ray.rllib.core.rl_module.torch.torch_rl_module import TorchRLModule
from torch.nn import Parameter

from marl_tune.learning.live_settings import parameter_groups, step_size
from marl_tune.sharing.policy_map import PolicyMap

MOST_MODULES = 12  # that are shown
Row = tuple[str, str, str, str]
ONE = ", one for all"  # optimizer of modules that share parameters
TITLES: Row = ("agents", "module", "parameters", "trained by")


def scheme_lines(policy_map: PolicyMap, modules: Mapping[str, TorchRLModule], config: AlgorithmConfig) -> list[str]:
    """A line of titles, then a line for each module and each of its optimizers, in columns.

    Parameters that several modules share are counted only in a last line of their own: one optimizer trains all.

    Args:
        policy_map: which module acts for which agents.
        modules: module id -> RLModule, as a learner has them, with those that act for no agent.
        config: the AlgorithmConfig of the trial: which modules it trains, and with which step size.
    """
    shown = list(modules)[:MOST_MODULES]
    common = _in_several(modules.values())
    rows = [TITLES]
    for module_id in shown:
        rows += _rows(policy_map, module_id, modules[module_id], config, set(common))
    if common:
        rows.append(("all of these", "what they share", f"{_count(common.values()):,}", f"Adam, lr {config.lr:g}{ONE}"))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = [
        f"  {agents:<{widths[0]}}  {module:<{widths[1]}}  {count:>{widths[2]}}  {trainer}"
        for agents, module, count, trainer in rows
    ]
    left = len(modules) - len(shown)
    return [*lines, f"  … and {left} modules more"] if left else lines


def _in_several(modules: Iterable[TorchRLModule]) -> dict[int, Parameter]:
    """The parameters that are the same object in several modules, by their `id`."""
    seen: dict[int, Parameter] = {}
    common: dict[int, Parameter] = {}
    for module in modules:
        own = {id(parameter): parameter for parameter in module.parameters()}
        common |= {key: parameter for key, parameter in own.items() if key in seen}
        seen |= own
    return common


def _count(parameters: Iterable[Parameter]) -> int:
    return sum(parameter.numel() for parameter in parameters)


def _rows(
    policy_map: PolicyMap, module_id: str, module: TorchRLModule, config: AlgorithmConfig, common: set[int]
) -> list[Row]:
    """One row for each optimizer of a module, one for what no optimizer trains; parameters in `common` left out."""
    agents = _agents(policy_map, module_id)
    rows: list[tuple[str, str]] = []
    left = _count(parameter for parameter in module.parameters() if id(parameter) not in common)
    if module_id not in policy_map.modules or _is_trained(module_id, config):
        for name, parameters in parameter_groups(module).items():
            count = _count(each for each in parameters if each.requires_grad and id(each) not in common)
            rate = step_size(module_id, config.get_config_for_module(module_id))
            what = "" if name == DEFAULT_OPTIMIZER else f" ({name.removesuffix('_optimizer')})"
            if count:
                rows.append((f"{count:,}", f"Adam, lr {rate:g}{ONE if common else what}"))
                left -= count
    if left:
        rows.append((f"{left:,}", "nothing: frozen"))
    names = [(agents, module_id), *[("", "")] * len(rows)]
    return [(*name, *row) for name, row in zip(names, rows or [("0", "nothing")], strict=False)]


def _is_trained(module_id: str, config: AlgorithmConfig) -> bool:
    """Whether the learner updates a module that acts. RLlib's `policies_to_train` is None, ids or a function."""
    trained = config.policies_to_train
    if trained is None:
        return True
    return bool(trained(module_id, None)) if callable(trained) else module_id in trained


def _agents(policy_map: PolicyMap, module_id: str) -> str:
    """The agents that a module acts for, as text."""
    if module_id not in policy_map.modules:
        return "nobody: learning only"
    agents = policy_map.modules[module_id].agents
    drawn = any(len(policy_map.choices[agent]) > 1 for agent in agents)
    return folded(agents) + (" (drawn each episode)" if drawn else "")


def folded(names: Sequence[str]) -> str:
    """Names with consecutive numbers as one: a_0, a_1, a_2, b -> a_0..a_2, b."""
    runs: list[list[str]] = []
    for name in names:
        if runs and _follows(runs[-1][-1], name):
            runs[-1].append(name)
        else:
            runs.append([name])
    return ", ".join(_flat(run if len(run) < 3 else [f"{run[0]}..{run[-1]}"] for run in runs))


def _flat(parts: Iterable[list[str]]) -> list[str]:
    return [name for part in parts for name in part]


def _follows(before: str, name: str) -> bool:
    first, second = (re.fullmatch(r"(.*?)(\d+)", each) for each in (before, name))
    return bool(first and second and first[1] == second[1] and int(second[2]) == int(first[2]) + 1)
