"""How fast marl_tune trains: whole PPO iterations of one trial, in this process, without Tune.

    python -m benchmarks.throughput --work W2 --rollout batched --iterations 5 [--json]
    python -m benchmarks.throughput --work W1 --world pettingzoo --workers 2

The printed object: `contestant`, `work`, `world`, `envs`, `rollout`, `workers`, `threads`; `iterations`, and of each
`agent_steps` and `gradient_steps`; `gradient_steps_meant` by the work; median, min and max of `agent_steps_per_s`,
`sampled_per_s`, `iteration_s`, `sampling_s`, `learning_s`; `memory`: peak PSS in MiB of this process (`process_mb`) and
with all that it started (`tree_mb`), null where the system does not tell; `versions`.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

import ray

from benchmarks.command import limit_threads, show, work_parser
from benchmarks.measure import Iteration, result
from benchmarks.memory_meter import MemoryMeter
from benchmarks.phases import Phases
from benchmarks.works import WORKS
from marl_tune.cluster import connect
from marl_tune.config import convert
from marl_tune.config.schema.sweep import SweepConfig
from marl_tune.trial.trial import Trial


class BareTrial(Trial):
    """A trial outside Tune, which has no id to give it; its config is the sweep itself."""

    trial_id = "benchmark_00000"

    def setup(self, config: dict[str, Any]) -> None:
        """`config`: the SweepConfig as a plain dict."""
        super().setup({}, sweep=config)

    def iterate(self) -> int:
        """One iteration, as Tune asks for it; returns the agent-steps that it sampled."""
        before = self.agent_steps
        return self.train()["agent_steps"] - before

    def phases(self) -> Phases:
        """Hooks into the living algorithm, which the first iteration builds."""
        return Phases(self.algorithm)


def train(sweep: SweepConfig, warmup: int, iterations: int) -> list[Iteration]:
    """So many iterations of one trial, after at least one of warm-up that is left out."""
    trial = BareTrial(config=convert.to_dict(sweep))
    try:
        for _ in range(warmup):
            trial.iterate()
        phases = trial.phases()
        return [phases.iteration(trial.iterate) for _ in range(iterations)]
    finally:
        trial.stop()


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """The object that the command prints.

    Raises:
        ValueError: the arguments do not go together.
    """
    work = WORKS[arguments.work]
    world, envs = work.setting(arguments.world, arguments.envs)
    choices = {"rollout": arguments.rollout, "workers": arguments.workers, "threads": arguments.threads}
    sweep = work.sweep(world, envs, **choices)
    limit_threads(arguments.threads)
    with MemoryMeter() as meter:
        connect.connect(sweep.cluster)  # RLlib asks for Ray's object store, even where one process does all the work
        try:
            iterations = train(sweep, arguments.warmup, arguments.iterations)
        finally:
            ray.shutdown()
    return result("marl_tune", work, {"world": world, "envs": envs, **choices}, iterations, meter.peak)


def main(words: Sequence[str] | None = None) -> int:
    """Exit code 0, or 2 with a message when the arguments do not go together."""
    parser = work_parser(__doc__, iterations=5, warmup=2)
    parser.add_argument("--world", choices=("pettingzoo", "batched"), help="how W1 is stepped (default: pettingzoo)")
    parser.add_argument("--rollout", choices=("batched", "rllib"), default="batched", help="whose runner samples")
    parser.add_argument("--workers", type=int, default=0, help="processes that step PettingZoo worlds (default: 0)")
    arguments = parser.parse_args(words)
    try:
        measured = measure(arguments)
    except ValueError as error:  # ConfigError is one
        parser.error(str(error))
    show(measured, arguments.json)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
