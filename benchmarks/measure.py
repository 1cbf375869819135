"""What all measurements share: the clock, how repeated figures are summed up, and what is said of the machine."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from benchmarks.works import Work
from marl_tune.results.manifest import cpu_model, git_state, memory_bytes, package_versions

ROOT = Path(__file__).resolve().parent.parent  # of the repository

clock = time.perf_counter


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, least and greatest of repeated figures."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


@dataclass
class Iteration:
    """One PPO iteration: what it took (seconds) and what was really done in it."""

    seconds: float  # the whole iteration
    sampling: float  # of it: env steps and the policy's decisions
    learning: float  # of it: from sampled episodes to updated networks
    agent_steps: int  # sampled
    gradient_steps: int  # of the optimizer


def result(
    contestant: str, work: Work, choices: Mapping[str, Any], iterations: Sequence[Iteration], memory: Any
) -> dict[str, Any]:
    """What a contestant prints: the same names for all of them; rates are agent-steps a second, warm-up left out."""
    return {
        "contestant": contestant,
        "work": work.name,
        **choices,
        "iterations": len(iterations),
        "agent_steps": [i.agent_steps for i in iterations],
        "gradient_steps": [i.gradient_steps for i in iterations],
        "gradient_steps_meant": work.gradient_steps,
        "agent_steps_per_s": spread([i.agent_steps / i.seconds for i in iterations]),
        "sampled_per_s": spread([i.agent_steps / i.sampling for i in iterations]),
        "iteration_s": spread([i.seconds for i in iterations]),
        "sampling_s": spread([i.sampling for i in iterations]),
        "learning_s": spread([i.learning for i in iterations]),
        "memory": memory,
        "versions": package_versions(),
    }


def machine() -> dict[str, Any]:
    """Where and when: processor, memory, versions, the code's state."""
    return {
        "date": datetime.now().astimezone().isoformat(timespec="seconds"),
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
        "memory_bytes": memory_bytes(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "versions": package_versions(),
        "git": git_state(ROOT),
    }
