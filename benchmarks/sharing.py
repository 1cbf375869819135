"""What a sharing scheme costs: world steps a second of whole iterations, beside parameter sharing with networks
of the same size on the same world.

    python -m benchmarks.sharing [--only self_play,mappo] [--rounds 7] [--json]

Both trials live in this process and take turns, an iteration each; a ratio is that of one round, so that a machine that
drifts slows both.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from benchmarks.command import limit_threads, number, parser, positive, some_of
from benchmarks.measure import clock, machine, spread
from marl_tune.algorithms.rllib_config import algorithm_config
from marl_tune.config.compose import compose

TEAM = ("+experiment=simple_spread", "algorithm.num_epochs=4", "algorithm.train_batch_size=15000")
BOARD = ("env=classic/connect_four", "search=none", "cluster.num_envs_per_env_runner=64")
BOARD += ("algorithm.train_batch_size=8192", "algorithm.minibatch_size=1024")
SCHEMES: dict[str, tuple[Sequence[str], Sequence[str]]] = {
    "independent": (TEAM, ("sharing=independent",)),
    "shared_encoder": (TEAM, ("sharing=independent", "module=shared_encoder", "module.hidden_dims=[128,128]")),
    "shared_critic": (TEAM, ("sharing=shared_critic",)),
    "mappo": (TEAM, ("sharing=shared_critic", "algorithm=mappo")),
    "communication": (TEAM, ("module=communication", "module.hidden_dims=[128,128]")),
    "self_play": (BOARD, ("sharing=self_play",)),
    "league": (BOARD, ("sharing=league",)),
}
# name -> words of the world, words that the scheme adds
Algorithm = Any


def trial_of(words: Sequence[str]) -> Algorithm:
    """An algorithm after an iteration of warm-up."""
    algorithm = algorithm_config(compose([*words, "logger=csv"])[0]).build_algo()
    algorithm.train()
    return algorithm


def steps_per_s(algorithm: Algorithm) -> float:
    """World steps a second of one iteration."""
    began = clock()
    result = algorithm.train()
    return float(result["env_runners"]["num_env_steps_sampled"] / (clock() - began))


def compared(scheme: str, rounds: int) -> dict[str, Any]:
    """Rates of both and their ratios, round by round."""
    world, words = SCHEMES[scheme]
    base, other = trial_of(world), trial_of([*world, *words])
    rates = [(steps_per_s(base), steps_per_s(other)) for _ in range(rounds)]
    for algorithm in (base, other):
        algorithm.stop()
    return {
        "parameter_sharing": spread([ours for ours, _ in rates]),
        "scheme": spread([theirs for _, theirs in rates]),
        "ratio": spread([theirs / ours for ours, theirs in rates]),
    }


def main(words: Sequence[str] | None = None) -> int:
    """Prints one table, or everything as one JSON object."""
    made = parser(__doc__)
    made.add_argument("--only", type=some_of(SCHEMES), default=list(SCHEMES), help="schemes (default: all)")
    made.add_argument("--rounds", type=positive, default=7, help="iterations of each (default: 7)")
    arguments = made.parse_args(words)
    limit_threads(arguments.threads)
    rows = {scheme: compared(scheme, int(arguments.rounds)) for scheme in arguments.only}
    if arguments.json:
        print(json.dumps({"schemes": rows, "machine": machine()}))
        return 0
    print(f"{'world steps/s':<18}{'shared':>10}{'scheme':>10}{'ratio':>8}")
    for scheme, row in rows.items():
        low, high = row["ratio"]["min"], row["ratio"]["max"]
        shared, own = (number(row[part]["median"]) for part in ("parameter_sharing", "scheme"))
        print(f"{scheme:<18}{shared:>10}{own:>10}{row['ratio']['median']:>8.2f} [{low:.2f}, {high:.2f}]")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
