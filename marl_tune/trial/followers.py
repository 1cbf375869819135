"""The followers of a trial, in the order in which they act. A new one is one class and one line in `FOLLOWERS`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import numpy as np

from marl_tune.config.schema.self_play import has_opponents
from marl_tune.config.schema.sweep import BreakthroughConfig, EvaluationConfig
from marl_tune.config.trial_budget import last_agent_step, num_copies
from marl_tune.envs.curriculum import CurriculumConfig, curriculum_of
from marl_tune.evaluation.play import evaluate_modules
from marl_tune.results.metrics import (
    COPY,
    CURRICULUM,
    EVALUATION,
    EVENTS,
    FINISHED_EPISODES,
    FINISHED_RETURNS,
    GAMES,
    RETURN_MEAN_AGENT,
    RETURN_SUM_TEAM,
    STAGE_CHANGE,
    flat_metrics,
)
from marl_tune.sampling.episode_metrics import by_runner
from marl_tune.self_play.controller import SelfPlay
from marl_tune.self_play.pool import PoolState
from marl_tune.self_play.shared_pool import SharedPool
from marl_tune.trial.breakthroughs import BreakthroughDetector, DetectorState
from marl_tune.trial.curriculum import Curriculum, CurriculumState, values_of_episodes
from marl_tune.trial.follower import Follower, Iteration, Numbers, State
from marl_tune.trial.living_algorithm import LivingAlgorithm


@dataclass(frozen=True)
class Followed:
    """What followers may know of their trial."""

    living: LivingAlgorithm
    trial_id: str
    sweep_seed: int  # the sweep's own seed, the same for all of its trials
    shared_pool: SharedPool | None  # where a population keeps its frozen copies; None: the trial has no such folder
    enter_stage: Callable[[int], None]  # makes the trial sample the world of another stage


class Annealing(Follower):
    """Lowers lr and entropy_coeff linearly, from 1 to their end factors at the trial's last agent-step."""

    def __init__(self, trial: Followed, last_step: int):
        self._living, self._last_step = trial.living, last_step

    @classmethod
    def of(cls, trial: Followed) -> Annealing | None:
        """None where nothing is annealed, or `stop` does not say how long the trial lasts."""
        algorithm, last = trial.living.sweep.algorithm, last_agent_step(trial.living.sweep)
        constant = (algorithm.lr_end_factor, algorithm.entropy_end_factor) == (1, 1)
        return None if constant or last is None else cls(trial, last)

    def before_iteration(self, agent_steps: int) -> None:
        settings = self._living.sweep.algorithm
        done = min(1.0, agent_steps / self._last_step)
        lr, entropy = (1 - done * (1 - end) for end in (settings.lr_end_factor, settings.entropy_end_factor))
        self._living.algorithm.learner_group.foreach_learner(lambda learner: learner.anneal(lr, entropy))

    def after_iteration(self, iteration: Iteration) -> Numbers:
        return {}


class Opponents(Follower):
    """Self-play and leagues: hands the games of each iteration to the pool."""

    def __init__(self, trial: Followed):
        living = trial.living
        self.self_play = SelfPlay(living.sweep, living.algorithm, trial.trial_id, trial.sweep_seed, trial.shared_pool)

    @classmethod
    def of(cls, trial: Followed) -> Opponents | None:
        """None under a sharing scheme without opponents."""
        return cls(trial) if has_opponents(trial.living.sweep) else None

    def begin(self) -> None:
        self.self_play.begin()

    def after_iteration(self, iteration: Iteration) -> Numbers:
        games = by_runner(iteration.sampled.get(GAMES, []))
        return self.self_play.play_on(games, iteration.number, iteration.agent_steps)

    def get_state(self) -> State:
        return self.self_play.get_state()

    def set_state(self, state: State | None) -> None:
        """Raises KeyError where the checkpoint has no pool: copies without their names and ratings are of no use."""
        if state is None:
            raise KeyError("self_play")
        self.self_play.set_state(cast(PoolState, state))


class HeldOutEvaluation(Follower):
    """Plays held-out episodes every `evaluation.interval` iterations."""

    def __init__(self, trial: Followed, rules: EvaluationConfig):
        self._living, self._rules = trial.living, rules

    @classmethod
    def of(cls, trial: Followed) -> HeldOutEvaluation | None:
        """None where `evaluation.interval` is 0."""
        rules = trial.living.sweep.evaluation
        return None if rules.interval == 0 else cls(trial, rules)

    def after_iteration(self, iteration: Iteration) -> Numbers:
        rules = self._rules
        if iteration.number % rules.interval != 0:
            return {}
        modules = dict(self._living.algorithm.env_runner_group.local_env_runner.module.items())
        seeds = range(rules.seed, rules.seed + rules.episodes)
        played = evaluate_modules(self._living.sweep, modules, seeds, rules.explore)
        means = {RETURN_MEAN_AGENT: played.mean_agent, RETURN_SUM_TEAM: played.sum_team, **played.metrics}
        return {EVALUATION: {name: float(values.mean()) for name, values in means.items()}}


class Breakthroughs(Follower):
    """Looks for breakthroughs in the returns of finished episodes."""

    def __init__(self, trial: Followed, rules: BreakthroughConfig):
        self._living = trial.living
        self.detector = BreakthroughDetector(rules, trial.living.agents)

    @classmethod
    def of(cls, trial: Followed) -> Breakthroughs | None:
        """None where `breakthroughs` is null, or RLlib's own runner samples, which does not report single episodes."""
        sweep = trial.living.sweep
        if sweep.breakthroughs is None or sweep.cluster.rollout == "rllib":
            return None
        return cls(trial, sweep.breakthroughs)

    def begin_world(self) -> None:
        self.detector.begin_world(self._living.agents)

    def after_iteration(self, iteration: Iteration) -> Numbers:
        """Takes in the finished episodes, runner by runner, each runner's in their order."""
        returns = by_runner(iteration.sampled.get(FINISHED_RETURNS, []))
        events = self.detector.add(np.concatenate(returns)) if returns else []
        numbers: Numbers = dict(self.detector.metrics())
        if events:
            numbers[EVENTS] = [dataclasses.asdict(event) for event in events]
        return numbers

    def get_state(self) -> State:
        return self.detector.get_state()

    def set_state(self, state: State | None) -> None:
        if state is not None:
            self.detector.set_state(cast(DetectorState, state))


class Stages(Follower):
    """The curriculum: judges the present stage after each iteration, and enters the next."""

    def __init__(self, trial: Followed, rules: CurriculumConfig):
        self._enter_stage = trial.enter_stage
        self.curriculum = Curriculum(rules, num_copies(trial.living.sweep))

    @classmethod
    def of(cls, trial: Followed) -> Stages | None:
        """None where `env.curriculum` is null."""
        rules = curriculum_of(trial.living.sweep.env)
        return None if rules is None else cls(trial, rules)

    def after_iteration(self, iteration: Iteration) -> Numbers:
        """Returns the numbers of the stage in which the iteration was sampled, and the change of stage, if any."""
        curriculum = self.curriculum
        finished = by_runner(iteration.sampled.get(FINISHED_EPISODES, []))
        values = values_of_episodes(curriculum.rules.metric, finished, flat_metrics(iteration.report))
        curriculum.add(values, (copy for runner in finished for copy in runner[COPY].tolist()))
        numbers: Numbers = {CURRICULUM: curriculum.numbers()}
        change = curriculum.judge()
        if change is None:
            return numbers
        self._enter_stage(change.entered)
        return numbers | {STAGE_CHANGE: dataclasses.asdict(change)}

    def get_state(self) -> State:
        return self.curriculum.get_state()

    def set_state(self, state: State | None) -> None:
        if state is not None:
            self.curriculum.set_state(cast(CurriculumState, state))


FOLLOWERS: dict[str, Callable[[Followed], Follower | None]] = {  # name of its state in a checkpoint -> what makes it
    "annealing": Annealing.of,
    "self_play": Opponents.of,
    "evaluation": HeldOutEvaluation.of,
    "breakthroughs": Breakthroughs.of,
    "curriculum": Stages.of,  # last: its metric can be any number that the others report, and it changes the world
}


def make_followers(trial: Followed) -> dict[str, Follower]:
    """Name -> follower, for those that the trial's settings ask for, in the order in which they act."""
    made = {name: make(trial) for name, make in FOLLOWERS.items()}
    return {name: follower for name, follower in made.items() if follower is not None}
