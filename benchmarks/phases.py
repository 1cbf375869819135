"""Where the seconds of an RLlib algorithm's iterations go, read from outside: the code under test stays as it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks.measure import Iteration, clock


class Phases:
    """Times sampling and learning of one algorithm, and counts the steps that its optimizers take.

    Args:
        algorithm: samples and learns in its own process (no env runner or learner processes), with one module.
    """

    def __init__(self, algorithm: Any):
        self._seconds = {"sampling": 0.0, "learning": 0.0}
        self._gradient_steps = 0
        runner, learners = algorithm.env_runner_group.local_env_runner, algorithm.learner_group
        runner.sample = self._timed("sampling", runner.sample)
        learners.update = self._timed("learning", learners.update)
        learners.foreach_learner(self._count_steps)

    def iteration(self, train: Callable[[], int]) -> Iteration:
        """Runs `train`, one iteration that returns the agent-steps it has sampled, and tells what it took."""
        self._seconds.update(sampling=0.0, learning=0.0)
        self._gradient_steps = 0
        began = clock()
        agent_steps = train()
        return Iteration(clock() - began, **self._seconds, agent_steps=agent_steps, gradient_steps=self._gradient_steps)

    def _timed(self, phase: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            began = clock()
            try:
                return function(*args, **kwargs)
            finally:
                self._seconds[phase] += clock() - began

        return timed

    def _count_steps(self, learner: Any) -> None:
        for module_id in learner.module.keys():  # noqa: SIM118 (a MultiRLModule cannot be iterated)
            for _, optimizer in learner.get_optimizers_for_module(module_id):
                optimizer.register_step_post_hook(self._stepped)

    def _stepped(self, *_: Any) -> None:
        self._gradient_steps += 1
