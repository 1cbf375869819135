"""Stock RLlib: PPO on the new API stack with its own MultiAgentEnvRunner, learner connectors and PPOTorchLearner.

    python -m benchmarks.reference.rllib_ppo --work W2 --envs 8 [--json]

RLlib counts minibatches in agent-steps of a module, and adds a row to each piece of an episode before it cuts them:
`gradient_steps` may be a few more than are meant.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Sequence
from typing import Any

import ray
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig
from ray.tune.registry import register_env

from benchmarks.command import limit_threads, show, work_parser
from benchmarks.measure import Iteration, result
from benchmarks.memory_meter import MemoryMeter
from benchmarks.phases import Phases
from benchmarks.reference.worlds import multi_agent_env
from benchmarks.works import WORKS, Work

ENV, POLICY = "benchmark", "shared"


def ppo_config(work: Work, envs: int) -> PPOConfig:
    """The work as RLlib's user would set it up; everything that is not named here is RLlib's default."""
    register_env(ENV, multi_agent_env)
    return (
        PPOConfig()
        .environment(ENV, env_config={"work": work.name})
        .multi_agent(policies={POLICY}, policy_mapping_fn=lambda *_, **__: POLICY)
        .env_runners(num_env_runners=0, num_envs_per_env_runner=envs)
        .rl_module(
            model_config=DefaultModelConfig(
                fcnet_hiddens=list(work.hidden_dims), fcnet_activation="tanh", vf_share_layers=False
            )
        )
        .training(
            train_batch_size_per_learner=work.env_steps,  # counted in env steps, RLlib's default for many agents
            minibatch_size=work.minibatch_size,
            num_epochs=work.num_epochs,
            lr=work.lr,
            gamma=work.gamma,
            lambda_=work.lambda_,
            clip_param=work.clip_param,
            use_kl_loss=False,
            vf_clip_param=math.inf,
            entropy_coeff=0.0,
        )
    )


def train(work: Work, envs: int, warmup: int, iterations: int) -> list[Iteration]:
    """So many iterations after the warm-up."""
    algorithm = ppo_config(work, envs).build_algo()

    def iterate() -> int:
        sampled: dict[str, Any] = algorithm.train()["env_runners"]["num_module_steps_sampled"]
        return int(sampled[POLICY])

    try:
        phases = Phases(algorithm)
        return [phases.iteration(iterate) for _ in range(warmup + iterations)][warmup:]
    finally:
        algorithm.stop()


def main(words: Sequence[str] | None = None) -> int:
    """Prints the figures under the names of `benchmarks.throughput`."""
    arguments = work_parser(__doc__, iterations=3, warmup=1).parse_args(words)
    work, envs = WORKS[arguments.work], arguments.envs or 8
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    limit_threads(arguments.threads)
    with MemoryMeter() as meter:
        ray.init(address="local", include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
        try:
            iterations = train(work, envs, arguments.warmup, arguments.iterations)
        finally:
            ray.shutdown()
    choices = {"envs": envs, "threads": arguments.threads}
    show(result("RLlib", work, choices, iterations, meter.peak), arguments.json)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
