"""One trial: a Tune Trainable around one RLlib Algorithm, which changes settings without a new process."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ray import tune
from ray.rllib.utils.metrics import (
    ALL_MODULES,
    ENV_RUNNER_RESULTS,
    EPISODE_AGENT_RETURN_MEAN,
    EPISODE_LEN_MEAN,
    EPISODE_RETURN_MEAN,
    LEARNER_RESULTS,
)

from marl_tune.algorithms.rllib_config import algorithm_config
from marl_tune.cluster import startup_patches
from marl_tune.cluster.algorithm_folder import without_folder
from marl_tune.config import convert, overrides
from marl_tune.config.curriculum_stages import stage_sweeps
from marl_tune.config.schema.self_play import has_opponents
from marl_tune.config.schema.sweep import SweepConfig
from marl_tune.config.trial_budget import last_agent_step, num_copies
from marl_tune.envs.curriculum import curriculum_of
from marl_tune.evaluation.play import evaluate_modules
from marl_tune.results import checkpoint_files
from marl_tune.results.metrics import (
    COPY,
    CURRICULUM,
    EVENTS,
    FINISHED_EPISODES,
    FINISHED_RETURNS,
    GAMES,
    INTRINSIC_REWARD_MEAN,
    RETURN_MEAN_AGENT,
    RETURN_SUM_TEAM,
    STAGE_CHANGE,
    flat_metrics,
)
from marl_tune.sampling.episode_metrics import by_runner, forget_world
from marl_tune.self_play.controller import SelfPlay
from marl_tune.self_play.shared_pool import SharedPool
from marl_tune.trial import checkpoint
from marl_tune.trial.breakthroughs import BreakthroughDetector
from marl_tune.trial.curriculum import Curriculum, values_of_episodes


class Trial(tune.Trainable):
    """Trains one sample of the search space.

    Its Tune config is a flat dict of dotted overrides on the sweep, `{"algorithm.lr": 3e-4}`; the sweep itself comes
    as a parameter.

    RLlib's own Trainable cannot be reset, so that Tune starts a process at every exploit and every resumed pause.
    Here `reset_config` only notes the new overrides; the next call decides: a checkpoint that is loaded into the same
    structure keeps the living Algorithm and changes its settings in place, anything else builds a new Algorithm in
    this process.
    """

    def setup(self, config: dict[str, Any], sweep: dict[str, Any], pool: str | None = None) -> None:
        """Tune's entry.

        Args:
            sweep: the SweepConfig as a plain dict.
            pool: folder of the frozen copies that a population under self-play shares; None: a pool of its own.
        """
        self._base, self._shared_pool = sweep, None if pool is None else SharedPool(pool)
        self._algorithm: Any = None  # Algorithm
        self._sweep: Any = None  # what the living algorithm was built from, or changed to
        self._world: Any = None  # settings of the world that it samples: the present stage's
        self._curriculum: Curriculum | None = None  # made before the algorithm; None where env.curriculum is null
        self._breakthroughs: BreakthroughDetector | None = None  # made with the algorithm
        self._self_play: SelfPlay | None = None  # made with the algorithm
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Notes new overrides; they take effect before the next step, or with the next loaded checkpoint."""
        self._wanted = self._resolve(new_config)
        self._fresh = True
        self._env_steps = self._agent_steps = 0
        return True

    def _resolve(self, trial_overrides: dict[str, Any]) -> SweepConfig:
        base = convert.from_dict(self._base)
        if "seed" not in trial_overrides:  # a trial differs from its siblings by its seed, unless the seed is searched
            trial_overrides = {**trial_overrides, "seed": base.seed + trial_number(self.trial_id)}
        return overrides.apply(base, trial_overrides)

    # -- the algorithm -----------------------------------------------------------------------------------------------

    def _build(self) -> None:
        """A new Algorithm from the wanted settings, in this process, in the present stage of their curriculum."""
        self._stop_algorithm()
        torch.set_num_threads(self._wanted.cluster.torch_threads)
        staged = self._staged()
        config = algorithm_config(staged)
        config.algo_class = without_folder(config.algo_class)
        with startup_patches.building(compiles=self._wanted.cluster.torch_compile):
            self._algorithm = config.build_algo()
        checkpoint.begin_with_others(self._wanted, self._algorithm)
        self._world, self._sweep, self._fresh = staged.env, self._wanted, False
        self._breakthroughs = self._detector()
        self._self_play = None
        if has_opponents(self._sweep):
            seed = self._base["seed"]
            self._self_play = SelfPlay(self._sweep, self._algorithm, self.trial_id, seed, self._shared_pool)
            self._self_play.begin()

    def _change(self) -> None:
        """Makes the living Algorithm one with the wanted settings, which differ in live keys only."""
        new = self._enter_stage()
        self._algorithm.learner_group.foreach_learner(lambda learner: learner.apply_settings(new))
        self._sweep, self._fresh = self._wanted, False

    def _new_curriculum(self, state: dict[str, Any] | None = None) -> Curriculum | None:
        """At its first stage, or where `state`, that of a checkpoint, says."""
        rules = curriculum_of(self._wanted.env)
        if rules is None:
            return None
        curriculum = Curriculum(rules, num_copies(self._wanted))
        if state is not None:
            curriculum.set_state(state)
        return curriculum

    def _staged(self) -> SweepConfig:
        """The wanted settings with the world of the present stage."""
        return stage_sweeps(self._wanted)[-1 if self._curriculum is None else self._curriculum.stage]

    def _enter_stage(self) -> Any:
        """Makes the living Algorithm sample the world of the present stage; policies, moments and counters stay.

        Returns:
            Its new AlgorithmConfig.
        """
        staged = self._staged()
        new = algorithm_config(staged)
        new.freeze()
        new_world = staged.env != self._world
        self._algorithm.config = new
        self._algorithm.env_runner_group.foreach_env_runner(lambda runner: runner.apply_settings(new, new_world))
        if new_world:
            forget_world(self._algorithm.metrics, ENV_RUNNER_RESULTS)
        self._world = staged.env
        return new

    def _stop_algorithm(self) -> None:
        if self._algorithm is not None:
            self._algorithm.stop()
            self._algorithm = None

    def cleanup(self) -> None:
        """Releases the algorithm's actors, if it has any."""
        self._stop_algorithm()

    # -- Tune's calls ------------------------------------------------------------------------------------------------

    def step(self) -> dict[str, Any]:
        """One iteration: one train batch sampled and learned from."""
        if self._fresh:
            self._curriculum = self._new_curriculum()
            self._build()
        self._anneal()
        result = self._algorithm.train()
        sampled = result[ENV_RUNNER_RESULTS]
        env_steps = int(sampled["num_env_steps_sampled"])
        agent_steps = int(sum(sampled["num_agent_steps_sampled"].values()))
        self._env_steps += env_steps
        self._agent_steps += agent_steps
        played = {}
        if self._self_play is not None:
            games = by_runner(sampled.pop(GAMES, []))
            played = self._self_play.play_on(games, self.iteration + 1, self._agent_steps)
        learners = {m: _scalars(v) for m, v in result[LEARNER_RESULTS].items() if m != ALL_MODULES}
        report = {
            "env_steps": self._env_steps,
            "agent_steps": self._agent_steps,
            **self._evaluate(),
            "steps_per_s": agent_steps / result["time_this_iter_s"],
            **_returns(sampled),
            **self._look_for_breakthroughs(sampled),
            **played,
            "env_runners": _episodes(sampled, learners),
            "learners": learners,
            "seconds": {
                "sampling": _timer(result, "env_runner_sampling_timer"),
                "learning": _timer(result, "learner_update_timer"),
            },
        }
        return report | self._follow_curriculum(report, sampled)

    def _anneal(self) -> None:
        """Tells the learners how much of lr and entropy_coeff is left at this point of the trial."""
        algorithm = self._sweep.algorithm
        factors, last = (algorithm.lr_end_factor, algorithm.entropy_end_factor), last_agent_step(self._sweep)
        if last is not None and factors != (1, 1):
            done = min(1.0, self._agent_steps / last)
            lr, entropy = (1 - done * (1 - factor) for factor in factors)
            self._algorithm.learner_group.foreach_learner(lambda learner: learner.anneal(lr, entropy))

    def _follow_curriculum(self, report: dict[str, Any], sampled: dict[str, Any]) -> dict[str, Any]:
        """Judges the stage by the episodes that ended in this iteration; the next one samples the stage that follows.

        Returns:
            What the result says of the stage that it was sampled in.
        """
        if self._curriculum is None:
            return {}
        finished = by_runner(sampled.get(FINISHED_EPISODES, []))
        values = values_of_episodes(self._curriculum.rules.metric, finished, flat_metrics(report))
        self._curriculum.add(values, (copy for runner in finished for copy in runner[COPY].tolist()))
        told: dict[str, Any] = {CURRICULUM: self._curriculum.numbers()}
        change = self._curriculum.judge()
        if change is None:
            return told
        self._enter_stage()
        if self._breakthroughs is not None:
            self._breakthroughs.begin_world(self._agents())
        return told | {STAGE_CHANGE: dataclasses.asdict(change)}

    def _evaluate(self) -> dict[str, Any]:
        """Held-out episodes, every `evaluation.interval` iterations."""
        rules = self._sweep.evaluation
        if rules.interval == 0 or (self.iteration + 1) % rules.interval != 0:
            return {}
        modules = dict(self._algorithm.env_runner_group.local_env_runner.module.items())
        seeds = range(rules.seed, rules.seed + rules.episodes)
        played = evaluate_modules(self._sweep, modules, seeds, rules.explore)
        means = {RETURN_MEAN_AGENT: played.mean_agent, RETURN_SUM_TEAM: played.sum_team, **played.metrics}
        return {"evaluation": {name: float(values.mean()) for name, values in means.items()}}

    def _detector(self) -> BreakthroughDetector | None:
        """One that has heard of no episode; None where nobody asks, or RLlib's runner does not tell of each."""
        if self._sweep.breakthroughs is None or self._sweep.cluster.rollout == "rllib":
            return None
        return BreakthroughDetector(self._sweep.breakthroughs, self._agents())

    def _agents(self) -> list[str]:
        """Ids of the agents of the world that is sampled, those whose returns count."""
        return self._algorithm.env_runner_group.local_env_runner.policy_map.counted

    def _look_for_breakthroughs(self, sampled: dict[str, Any]) -> dict[str, Any]:
        """What the episodes that ended in this iteration were: runner by runner, each one's in their order."""
        finished = sampled.pop(FINISHED_RETURNS, [])
        if self._breakthroughs is None:
            return {}
        returns = by_runner(finished)
        events = self._breakthroughs.add(np.concatenate(returns)) if returns else []
        told = {EVENTS: [dataclasses.asdict(event) for event in events]} if events else {}
        return self._breakthroughs.metrics() | told

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Writes weights, optimizer moments and counters; see `marl_tune.trial.checkpoint`."""
        if self._fresh:
            self._curriculum = self._new_curriculum()
            self._build()
        counters: dict[str, Any] = {"trial": self.trial_id}
        counters |= {"env_steps": self._env_steps, "agent_steps": self._agent_steps}
        if self._breakthroughs is not None:
            counters["breakthroughs"] = self._breakthroughs.get_state()
        if self._curriculum is not None:
            counters["curriculum"] = self._curriculum.get_state()
        if self._self_play is not None:
            counters["self_play"] = self._self_play.get_state()
        checkpoint.save(Path(checkpoint_dir), self._sweep, self._algorithm, counters)

    def load_checkpoint(self, checkpoint_dir: str) -> None:
        """Takes over weights, moments and counters; every setting stays this trial's own.

        A copy of another trial goes on with the donor's breakthroughs, their count and their baselines, and in its
        stage of the curriculum, as it does with its steps and its iteration: what it did before belongs to a policy
        that is gone.

        Raises:
            OtherVersion: for a checkpoint that this version cannot read.
        """
        folder = Path(checkpoint_dir)
        training = checkpoint_files.read_training(folder)
        with checkpoint_files.reading(folder):
            counters = training["counters"]
            self._curriculum = self._new_curriculum(counters.get("curriculum"))
        if self._fresh:
            if self._sweep is not None and only_live_changes(self._sweep, self._wanted):
                self._change()
            else:
                self._build()
        else:
            self._enter_stage()
        self._breakthroughs = self._detector()
        with checkpoint_files.reading(folder):
            checkpoint.load(folder, training, self._algorithm, self.trial_id)
            self._env_steps, self._agent_steps = counters["env_steps"], counters["agent_steps"]
            if self._breakthroughs is not None and "breakthroughs" in counters:
                self._breakthroughs.set_state(counters["breakthroughs"])
            if self._self_play is not None:
                self._self_play.set_state(counters["self_play"])


def only_live_changes(old: SweepConfig, new: SweepConfig) -> bool:
    """Whether a living algorithm of `old` can become one of `new`: all that differs is live, or the seed."""
    sections = ("env", "module", "sharing", "algorithm", "cluster")
    before, after = ({s: dataclasses.asdict(getattr(sweep, s)) for s in sections} for sweep in (old, new))
    return all(overrides.is_live(old, key) for s in sections for key in _differing(before[s], after[s], s))


def _differing(before: Any, after: Any, key: str) -> Iterator[str]:
    """Dotted keys of the values that differ; of sections that have other keys, their own."""
    if not isinstance(before, dict) or not isinstance(after, dict) or before.keys() != after.keys():
        if before != after:
            yield key
        return
    for name, value in before.items():
        yield from _differing(value, after[name], f"{key}.{name}")


def trial_number(trial_id: str) -> int:
    """The number that Tune gives a trial in the order of its creation: `a1b2c_00003` -> 3."""
    tail = trial_id.rsplit("_", 1)[-1]
    return int(tail) if tail.isdigit() else 0


def _returns(sampled: dict[str, Any]) -> dict[str, float]:
    """Both returns, of agents that count. Tune refuses a result without the metric; NaN: no episode has ended yet."""
    team, of_agents = float(sampled.get(EPISODE_RETURN_MEAN, math.nan)), sampled.get(EPISODE_AGENT_RETURN_MEAN, {})
    return {RETURN_MEAN_AGENT: team / len(of_agents) if of_agents else math.nan, RETURN_SUM_TEAM: team}


def _episodes(sampled: dict[str, Any], learners: dict[str, dict[str, float]]) -> dict[str, float]:
    """RLlib's numbers of the episodes, and the intrinsic return of an agent where there is one."""
    episodes = _scalars(sampled)
    rewards = [numbers[INTRINSIC_REWARD_MEAN] for numbers in learners.values() if INTRINSIC_REWARD_MEAN in numbers]
    if rewards and EPISODE_LEN_MEAN in episodes:
        # The reward of a step is known only where it is learned from: its mean, over an episode's length.
        episodes["intrinsic_return_mean"] = sum(rewards) / len(rewards) * episodes[EPISODE_LEN_MEAN]
    return episodes


def _scalars(values: dict[str, Any]) -> dict[str, float]:
    """The plain numbers of one level of RLlib's result."""
    return {k: float(v) for k, v in values.items() if not isinstance(v, dict) and _is_number(v)}


def _is_number(value: Any) -> bool:
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return True


def _timer(result: dict[str, Any], name: str) -> float:
    return float(result.get("timers", {}).get(name, math.nan))
