"""Stock Tune: one trial of `tune.Tuner("PPO")` on the work, for one iteration; Ray starts by itself.

python -m benchmarks.reference.rllib_tune --work W2 --envs 8 --results FOLDER
"""

from __future__ import annotations

import argparse

from ray import tune

from benchmarks.reference.rllib_ppo import ppo_config
from benchmarks.works import WORKS


def main() -> None:
    """Tune writes the trial's progress.csv below the folder."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", choices=WORKS, default="W2")
    parser.add_argument("--envs", type=int, default=8)
    parser.add_argument("--results", required=True)
    arguments = parser.parse_args()
    tuner = tune.Tuner(
        "PPO",
        param_space=ppo_config(WORKS[arguments.work], arguments.envs),
        run_config=tune.RunConfig(storage_path=arguments.results, name="stock", stop={"training_iteration": 1}),
    )
    tuner.fit()


if __name__ == "__main__":
    main()
