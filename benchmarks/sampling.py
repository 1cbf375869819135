"""How fast every world is sampled: agent-steps a second, our runner beside RLlib's on the same copies of it.

    python -m benchmarks.sampling [--only sisl/pursuit_v4,vmas] [--seconds 5] [--json]

Each world and runner in a process of its own, world by world in turn. An agent-step is a decision of one agent with all
that belongs to it: the world's step, the policy's forward pass, the draw, the record that a learner takes. Worlds that
need a package that is missing are said to. Exit code 0, or 1 when a run failed.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

from benchmarks.command import limit_threads, number, parser, positive, show, some_of
from benchmarks.measure import clock, machine
from benchmarks.processes import CommandError, run_json
from marl_tune.algorithms.rllib_config import algorithm_config
from marl_tune.config.compose import compose

ROLLOUTS = ("batched", "rllib")
COPIES = {"images": 4, "slow": 8, "usual": 16, "many": 64}
WORLDS = {
    "ant_colony": ("usual", "mlp"),
    "bio_grid": ("usual", "mlp"),
    "pricing": ("usual", "mlp"),
    "mpe/simple_spread": ("usual", "mlp"),
    "mpe/simple_adversary": ("usual", "mlp"),
    "mpe/simple_tag": ("usual", "mlp"),
    "sisl/pursuit": ("usual", "mlp"),
    "classic/connect_four": ("many", "mlp"),
    "classic/tictactoe": ("many", "mlp"),
    "vmas": ("usual", "mlp"),
    "mpe/simple_spread_v3": ("usual", "mlp"),
    "mpe/simple_adversary_v3": ("usual", "mlp"),
    "mpe/simple_tag_v3": ("usual", "mlp"),
    "sisl/pursuit_v4": ("slow", "mlp"),
    "sisl/multiwalker_v9": ("slow", "mlp"),
    "sisl/waterworld_v4": ("slow", "mlp"),
    "classic/tictactoe_v3": ("usual", "mlp"),
    "classic/connect_four_v3": ("usual", "mlp"),
    "classic/chess_v6": ("slow", "mlp"),
    "classic/go_v5": ("slow", "mlp"),
    "butterfly/knights_archers_zombies_v10": ("slow", "mlp"),
    "butterfly/cooperative_pong_v5": ("images", "cnn"),
    "butterfly/pistonball_v6": ("images", "cnn"),
}
# option of the group env -> how many copies, and the module
STEPS = 20  # of each copy in one fragment
TIMEOUT_S = 240


def sampled_per_s(option: str, rollout: str, seconds: float, threads: int) -> dict[str, Any]:
    """The fragments of one runner for so many seconds, after one of warm-up."""
    limit_threads(threads)
    pace, module = WORLDS[option]
    words = [f"env={option}", f"module={module}", f"cluster.num_envs_per_env_runner={COPIES[pace]}"]
    words += ["search=none", f"cluster.rollout={rollout}", "sharing=parameter_sharing"]
    config = algorithm_config(compose(words)[0])
    runner = config.env_runner_cls(config=config, worker_index=0)
    env_steps = STEPS * COPIES[pace]
    runner.sample(num_timesteps=env_steps)
    agent_steps, began = 0, clock()
    while clock() - began < seconds:
        agent_steps += sum(episode.agent_steps() for episode in runner.sample(num_timesteps=env_steps))
        runner.get_metrics()
    taken = clock() - began
    runner.stop()
    return {"world": option, "rollout": rollout, "copies": COPIES[pace], "sampled_per_s": agent_steps / taken}


def table(rows: dict[str, dict[str, Any]]) -> str:
    """A line a world."""
    lines = [f"{'agent-steps/s':<40}{'copies':>8}{'batched':>12}{'rllib':>12}{'times':>8}"]
    for option, runs in rows.items():
        rates = [runs[rollout].get("sampled_per_s") for rollout in ROLLOUTS]
        cells = "".join(f"{'-' if rate is None else number(rate):>12}" for rate in rates)
        times = f"{rates[0] / rates[1]:.1f}" if all(rates) else "-"
        lines.append(f"{option:<40}{COPIES[WORLDS[option][0]]:>8}{cells}{times:>8}")
    return "\n".join(lines)


def main(words: Sequence[str] | None = None) -> int:
    """Prints one table, or everything as one JSON object; with --rollout what that runner did on each world."""
    made = parser(__doc__)
    made.add_argument(
        "--only", type=some_of(WORLDS), default=list(WORLDS), help="options of the group env (default: all)"
    )
    made.add_argument("--seconds", type=positive, default=5, help="that are measured of each (default: 5)")
    made.add_argument("--rollout", choices=ROLLOUTS, help="measure one world with one runner in this process")
    arguments = made.parse_args(words)
    if arguments.rollout is not None:
        (option,) = arguments.only
        show(sampled_per_s(option, arguments.rollout, arguments.seconds, arguments.threads), arguments.json)
        return 0
    rows: dict[str, dict[str, Any]] = {}
    for option in arguments.only:
        for rollout in ROLLOUTS:
            command = ["-m", "benchmarks.sampling", "--only", option, "--rollout", rollout, "--json"]
            command += ["--seconds", str(arguments.seconds), "--threads", str(arguments.threads)]
            try:
                run = run_json(command, TIMEOUT_S, arguments.threads)
            except CommandError as error:
                run = {"error": str(error)}
                print(error, file=sys.stderr)
            rows.setdefault(option, {})[rollout] = run
    if arguments.json:
        print(json.dumps({"worlds": rows, "machine": machine()}))
    else:
        print(table(rows))
    return int(any("error" in run for runs in rows.values() for run in runs.values()))


if __name__ == "__main__":
    raise SystemExit(main())
