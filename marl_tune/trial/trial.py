"""One trial: a Tune Trainable around one RLlib Algorithm, which changes settings without a new process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ray import tune
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.utils.metrics import ENV_RUNNER_RESULTS

from marl_tune.config import convert, overrides
from marl_tune.config.schema.sweep import SweepConfig
from marl_tune.results import checkpoint_files
from marl_tune.self_play.shared_pool import SharedPool
from marl_tune.trial import checkpoint
from marl_tune.trial.curriculum import saved_stage
from marl_tune.trial.follower import Follower, Iteration, Numbers
from marl_tune.trial.followers import Followed, make_followers
from marl_tune.trial.iteration_report import in_order, report_of, steps_of
from marl_tune.trial.living_algorithm import LivingAlgorithm, only_live_changes

Overrides = dict[str, Any]  # dotted key -> value: what Tune calls a trial's config


class Trial(tune.Trainable):
    """Trains one sample of the search space.

    Its Tune config is a flat dict of dotted overrides on the sweep, `{"algorithm.lr": 3e-4}`. The sweep itself is a
    parameter.

    Tune cannot reset RLlib's own Trainable, so it would start a process at every exploit and every resumed pause.
    This one can be reset. `reset_config` only notes the new overrides, and the next call decides: loading a checkpoint
    of the same structure keeps the living Algorithm and changes its settings in place; anything else builds a new
    Algorithm in this process.
    """

    def setup(self, config: Overrides, sweep: dict[str, Any], pool: str | None = None) -> None:
        """Tune's entry.

        Args:
            sweep: the SweepConfig as a plain dict.
            pool: folder of the frozen copies that a population under self-play shares; None: a pool of its own.
        """
        self._base = sweep
        self.shared_pool = None if pool is None else SharedPool(pool)
        self._living: LivingAlgorithm | None = None
        self.followers: dict[str, Follower] = {}  # name -> what follows the living algorithm, in the order of acting
        self.reset_config(config)

    def reset_config(self, new_config: Overrides) -> bool:
        """Notes new overrides; they take effect before the next step, or with the next loaded checkpoint."""
        self._wanted = self._resolve(new_config)
        self._fresh = True
        self.env_steps = self.agent_steps = 0
        return True

    def _resolve(self, trial_overrides: Overrides) -> SweepConfig:
        base = convert.from_dict(self._base)
        if "seed" not in trial_overrides:  # a trial differs from its siblings by its seed, unless the seed is searched
            trial_overrides = {**trial_overrides, "seed": base.seed + trial_number(self.trial_id)}
        return overrides.apply(base, trial_overrides)

    # -- the algorithm -----------------------------------------------------------------------------------------------

    @property
    def living(self) -> LivingAlgorithm:
        """The algorithm and its present settings. Exists after `build`."""
        assert self._living is not None
        return self._living

    @property
    def algorithm(self) -> Algorithm:
        """RLlib's Algorithm. Exists after `build`."""
        return self.living.algorithm

    def build(self, stage: int = 0) -> None:
        """Builds a new Algorithm from the newest settings, in this process, and new followers.

        Args:
            stage: of the curriculum, from 0.

        Raises:
            ConfigError: a role's first checkpoint does not fit.
        """
        self.cleanup()
        self._living = LivingAlgorithm(self._wanted, stage)
        checkpoint.begin_with_others(self._wanted, self.algorithm)
        self._fresh = False
        self._follow()
        for follower in self.followers.values():
            follower.begin()

    def _follow(self) -> None:
        """New followers of the living algorithm, which know of no iteration."""
        seed = self._base["seed"]
        self.followers = make_followers(Followed(self.living, self.trial_id, seed, self.shared_pool, self._enter_stage))

    def _enter_stage(self, stage: int) -> None:
        self.living.enter_stage(stage)
        for follower in self.followers.values():
            follower.begin_world()

    def cleanup(self) -> None:
        """Releases the algorithm's actors, if it has any."""
        if self._living is not None:
            living, self._living = self._living, None
            living.stop()

    # -- Tune's calls ------------------------------------------------------------------------------------------------

    def step(self) -> Numbers:
        """One iteration: one train batch sampled and learned from."""
        if self._fresh:
            self.build()
        for follower in self.followers.values():
            follower.before_iteration(self.agent_steps)
        result = self.algorithm.train()
        env_steps, agent_steps = steps_of(result)
        self.env_steps += env_steps
        self.agent_steps += agent_steps
        report = report_of(result, self.env_steps, self.agent_steps, agent_steps)
        iteration = Iteration(self.iteration + 1, self.agent_steps, result[ENV_RUNNER_RESULTS], report)
        for follower in self.followers.values():
            report |= follower.after_iteration(iteration)
        return in_order(report)

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Writes weights, optimizer moments and counters; see `marl_tune.trial.checkpoint`."""
        if self._fresh:
            self.build()
        states = {name: follower.get_state() for name, follower in self.followers.items()}
        counters = {
            "trial": self.trial_id,
            "env_steps": self.env_steps,
            "agent_steps": self.agent_steps,
            **{name: state for name, state in states.items() if state is not None},
        }
        checkpoint.save(Path(checkpoint_dir), self.living.sweep, self.algorithm, counters)

    def load_checkpoint(self, checkpoint_dir: str) -> None:
        """Takes over weights, optimizer moments and counters; every setting stays this trial's own.

        A copy of another trial also takes over the states of the donor's followers: its breakthroughs, its stage of
        the curriculum, its ratings. What the copy did before belongs to a policy that is gone.

        Raises:
            OtherVersion: for a checkpoint that this version cannot read.
        """
        folder = Path(checkpoint_dir)
        training = checkpoint_files.read_training(folder)
        with checkpoint_files.reading(folder):
            counters = training["counters"]
            stage = saved_stage(self._wanted.env, counters.get("curriculum"))
        self._become(stage)
        with checkpoint_files.reading(folder):
            checkpoint.load(folder, training, self.algorithm, self.trial_id)
            self.env_steps, self.agent_steps = counters["env_steps"], counters["agent_steps"]
            for name, follower in self.followers.items():
                follower.set_state(counters.get(name))

    def _become(self, stage: int) -> None:
        """Gives the algorithm the newest settings and the world of `stage`: in place where that is possible."""
        if self._living is not None and not self._fresh:
            self._living.enter_stage(stage)
        elif self._living is not None and only_live_changes(self._living.sweep, self._wanted):
            self._living.change(self._wanted, stage)
            self._fresh = False
        else:
            self.build(stage)
            return
        self._follow()


def trial_number(trial_id: str) -> int:
    """The number that Tune gives a trial in the order of its creation: `a1b2c_00003` -> 3."""
    tail = trial_id.rsplit("_", 1)[-1]
    return int(tail) if tail.isdigit() else 0
