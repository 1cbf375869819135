"""What pheromone attention looks at: its weights on the four directions, by pheromone level.

    python -m benchmarks.attention_readout RUN_OR_CHECKPOINT [--episodes 8] [--seed 3000000]

Plays the policy and prints, for each head, the mean weight on the direction with the most pheromone, the second, … the
least (0.25 would be blindness), apart for ants that search and ants that carry food home; for the latter also the
weight on the direction that points home. Only steps count whose four levels differ by more than 0.05.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from marl_tune.cluster.ray_quiet import quiet_ray
from marl_tune.evaluation.play import load_modules
from marl_tune.results import checkpoint_files
from marl_tune.results.checkpoint_folder import find_policy
from marl_tune.sampling.policies import Policies
from marl_tune.sharing.build_world import build_world
from marl_tune.sharing.module_specs import build_policy_map

CARRYING, TO_TARGET = 2, slice(7, 9)  # of an ant's observation


def observations_of(folder: Path, episodes: int, seed: int) -> tuple[np.ndarray, object]:
    """(rows, 9) observations that the policy meets when it plays as it was trained, and its module."""
    sweep = checkpoint_files.load_sweep(folder)
    modules = load_modules(folder, sweep)
    world = build_world(sweep, episodes)
    policies = Policies(modules, build_policy_map(sweep, world), episodes)
    torch.manual_seed(seed)
    seen, met = world.reset(list(range(seed, seed + episodes))), []
    for _ in range(sweep.env.max_steps):
        met.append(seen["ants"].reshape(-1, 9))
        step = world.step(policies.act(seen, explore=True)[1])
        seen = step.observations
        if (step.terminated | step.truncated).any():
            break
    return np.concatenate(met), modules["shared"]


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("path")
    parser.add_argument("--episodes", type=int, default=8)
    parser.add_argument("--seed", type=int, default=3_000_000)
    arguments = parser.parse_args()
    quiet_ray()
    rows, module = observations_of(find_policy(arguments.path, "PATH"), arguments.episodes, arguments.seed)
    tokens = module.model_config["tokens"]
    levels, directions = rows[:, tokens["indices"]], np.array(tokens["directions"])
    clear = np.ptp(levels, axis=1) > 0.05
    with torch.no_grad():
        weights = module.attention_weights(torch.from_numpy(rows)).numpy()  # (rows, heads, 4)
    by_level = np.take_along_axis(weights, np.argsort(-levels, axis=1)[:, None], axis=2)
    home = (rows[:, TO_TARGET] @ directions.T).argmax(axis=1)
    on_home = np.take_along_axis(weights, home[:, None, None], axis=2)[..., 0]
    for name, chosen in (("searching", rows[:, CARRYING] < 0.5), ("carrying", rows[:, CARRYING] > 0.5)):
        picked = chosen & clear
        print(f"{name}: {picked.sum()} steps; weight on the direction with the most … the least pheromone")
        for head, means in enumerate(by_level[picked].mean(axis=0)):
            line = "  ".join(f"{value:.2f}" for value in means)
            more = f"   towards home {on_home[picked][:, head].mean():.2f}" if name == "carrying" else ""
            print(f"  head {head}: {line}{more}")


if __name__ == "__main__":
    main()
