"""Who acts by what, and what trains it: agents -> module -> optimizer, as a table of the dry run."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from marl_tune.learner import parameter_groups, step_size
from marl_tune.policy_map import PolicyMap

MOST_ROWS = 12  # modules that are shown
Row = tuple[str, str, str, str]
TITLES: Row = ("agents", "module", "parameters", "trained by")


def scheme_lines(policy_map: PolicyMap, modules: Mapping[str, Any], config: Any) -> list[str]:
    """A line for each module and each of its optimizers, under a line of titles, in columns.

    Args:
        policy_map: who acts by which module.
        modules: module id -> RLModule, as a learner has them: those that act for nobody too.
        config: the AlgorithmConfig of the trial: which modules it trains, and by which step size.
    """
    shown = list(modules)[:MOST_ROWS]
    rows = [TITLES, *(row for module_id in shown for row in _rows(policy_map, module_id, modules[module_id], config))]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = [
        f"  {agents:<{widths[0]}}  {module:<{widths[1]}}  {count:>{widths[2]}}  {trainer}"
        for agents, module, count, trainer in rows
    ]
    left = len(modules) - len(shown)
    return [*lines, f"  … and {left} modules more"] if left else lines


def _rows(policy_map: PolicyMap, module_id: str, module: Any, config: Any) -> list[Row]:
    """One row for each optimizer of a module, one for what none of them trains."""
    agents, rows = _whom(policy_map, module_id), []
    left = sum(parameter.numel() for parameter in module.parameters())
    if module_id not in policy_map.modules or _is_trained(module_id, config):
        for name, parameters in parameter_groups(module).items():
            count = sum(parameter.numel() for parameter in parameters if parameter.requires_grad)
            rate = step_size(module_id, config.get_config_for_module(module_id))
            what = "" if name == "default_optimizer" else f" ({name.removesuffix('_optimizer')})"
            if count:
                rows.append((f"{count:,}", f"Adam, lr {rate:g}{what}"))
                left -= count
    if left:
        rows.append((f"{left:,}", "nothing: frozen"))
    names = [(agents, module_id), *[("", "")] * len(rows)]
    return [(*name, *row) for name, row in zip(names, rows or [("0", "nothing")], strict=False)]


def _is_trained(module_id: str, config: Any) -> bool:
    """Whether the learner updates a module that acts: by RLlib's `policies_to_train`, None, ids or a function."""
    trained = config.policies_to_train
    if trained is None:
        return True
    return bool(trained(module_id, None)) if callable(trained) else module_id in trained


def _whom(policy_map: PolicyMap, module_id: str) -> str:
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
