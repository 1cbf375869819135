"""Whether an agent-step gets dearer with more ants or more worlds: its µs, by size of the colony and copies at once.

    python -m benchmarks.scaling [--whole] [--json]

Sampling is a step of the worlds, the policy's forward pass, and the storage up to the episodes that a learner takes.
With --whole, a PPO iteration of a trial is measured too: one pass over the batch in minibatches of 2,000.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from itertools import pairwise

import ray
import torch

from benchmarks.command import limit_threads, number, parser, positive, show
from benchmarks.measure import clock, machine, spread
from benchmarks.throughput import train
from benchmarks.works import WORKS
from marl_tune.cluster import connect
from marl_tune.config.schema.sweep import SweepConfig
from marl_tune.sampling.policies import Policies
from marl_tune.sampling.rollout import Rollout
from marl_tune.sharing.build_world import build_world
from marl_tune.sharing.module_specs import build_policy_map, module_specs

ANTS, WORLDS = (10, 50, 200), (1, 32, 256)
MINIBATCH = 2000  # agent-steps
STEPS = 25  # of each copy in one fragment: the same for all, since each fragment makes an episode of each agent
SAMPLED = 20_000  # agent-steps of one measurement, at least: small colonies sample several fragments

Cells = dict[str, dict[str, dict[str, float]]]  # ants -> worlds -> median, min, max


def colony(ants: int, worlds: int, threads: int) -> SweepConfig:
    """Work W2 with so many ants in so many copies, and a batch of `STEPS` steps of each."""
    work = WORKS["W2"]
    sweep = work.sweep(*work.setting("batched"), threads=threads)
    batch = STEPS * ants * worlds
    return dataclasses.replace(
        sweep,
        env=dataclasses.replace(sweep.env, n_agents=ants),
        algorithm=dataclasses.replace(
            sweep.algorithm,
            num_epochs=1,
            minibatch_size=min(MINIBATCH, batch),
            train_batch_size=batch,
        ),
        cluster=dataclasses.replace(sweep.cluster, num_envs_per_env_runner=worlds),
    )


def sampling_us(sweep: SweepConfig, repeats: int) -> dict[str, float]:
    """Microseconds of an agent-step while sampling, warm-up left out."""
    copies, batch = sweep.cluster.num_envs_per_env_runner, sweep.algorithm.train_batch_size
    world = build_world(sweep, copies)
    policy_map = build_policy_map(sweep, world)
    torch.manual_seed(0)
    modules = dict(module_specs(sweep, policy_map).build().items())
    rollout = Rollout(world, Policies(modules, policy_map, copies), max_seq_len={}, seed=0)
    fragments, seconds = math.ceil(SAMPLED / batch), []
    for _ in range(1 + repeats):
        began = clock()
        for _ in range(fragments):
            rollout.sample(STEPS)
            rollout.finished.clear()
        seconds.append(clock() - began)
    return spread([1e6 * second / (fragments * batch) for second in seconds[1:]])


def iteration_us(sweep: SweepConfig, repeats: int) -> dict[str, float]:
    """Microseconds of an agent-step in a whole iteration."""
    return spread([1e6 * i.seconds / i.agent_steps for i in train(sweep, 1, repeats)])


def growth(cells: Cells) -> dict[str, float]:
    """How many times as dear, at most, an agent-step is with the next more ants, and with the next more worlds."""
    median = {(ants, worlds): cells[str(ants)][str(worlds)]["median"] for ants in ANTS for worlds in WORLDS}
    with_ants = [median[more, w] / median[less, w] for less, more in pairwise(ANTS) for w in WORLDS]
    with_worlds = [median[a, more] / median[a, less] for less, more in pairwise(WORLDS) for a in ANTS]
    return {"with_ants": max(with_ants), "with_worlds": max(with_worlds)}


def table(title: str, cells: Cells) -> str:
    """Medians: a row for each number of ants, a column for each number of worlds."""
    lines = [[title, *(f"{worlds} at once" for worlds in WORLDS)]]
    for ants in ANTS:
        lines.append([f"{ants} ants", *(number(cells[str(ants)][str(worlds)]["median"]) for worlds in WORLDS)])
    dearer = growth(cells)
    last = (
        f"at most {dearer['with_ants']:.2f} times as dear with more ants, {dearer['with_worlds']:.2f} with more worlds"
    )
    return "\n".join([*(f"{row[0]:<24}" + "".join(f"{cell:>14}" for cell in row[1:]) for row in lines), last])


def measure(whole: bool, repeats: int, threads: int) -> dict[str, Cells]:
    """What is measured -> µs of an agent-step."""
    parts = {"sampling_us": sampling_us} | ({"iteration_us": iteration_us} if whole else {})
    if whole:
        connect.connect(colony(ANTS[0], WORLDS[0], threads).cluster)
    try:
        return {
            name: {str(a): {str(w): part(colony(a, w, threads), repeats) for w in WORLDS} for a in ANTS}
            for name, part in parts.items()
        }
    finally:
        ray.shutdown()


def main(words: Sequence[str] | None = None) -> int:
    """Prints a table for each part, or everything as one JSON object."""
    made = parser(__doc__)
    made.add_argument("--whole", action="store_true", help="measure whole PPO iterations too (minutes)")
    made.add_argument("--repeats", type=positive, default=3, help="measurements of each cell (default: 3)")
    arguments = made.parse_args(words)
    limit_threads(arguments.threads)
    parts = measure(arguments.whole, arguments.repeats, arguments.threads)
    if arguments.json:
        growths = {f"{name}_growth": growth(cells) for name, cells in parts.items()}
        show({**parts, **growths, "threads": arguments.threads, "machine": machine()}, as_json=True)
        return 0
    print("\n\n".join(table(name.replace("_us", ", µs"), cells) for name, cells in parts.items()))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
