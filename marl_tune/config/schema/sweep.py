"""The settings of a sweep: plain dataclasses, the last place that knows the keys that a user types.

Imports neither torch, ray nor Hydra. Values live in conf/ only, types and meaning here only: a field has no default. A
field that ends in `| None` is off, or worked out, when null. The dataclasses of `env` and `module` stand beside their
classes in envs/ and modules/schemas.py; those of each other group are in a file of its name beside this one. Ranges are
checked when an object is made (`ConfigError`: key, rule, value); rules over several keys are in marl_tune/validation/.
"""

from dataclasses import dataclass, field
from typing import Any

from marl_tune.config.errors import ConfigError, invalid
from marl_tune.config.range_checks import above, at_least, word
from marl_tune.config.schema.algorithm import ActorCriticConfig
from marl_tune.config.schema.cluster import ClusterConfig
from marl_tune.config.schema.logger import LoggerConfig
from marl_tune.config.schema.search import SearchConfig
from marl_tune.config.schema.sharing import SharingConfig


@dataclass
class EvaluationConfig:
    """Held-out episodes played while a trial trains."""

    episodes: int  # episodes an evaluation, at least 1
    seed: int  # seed of the first of them (the next has the next seed), at least 0; not a seed of training
    interval: int  # iterations between two evaluations, at least 0; 0: none while training
    explore: bool  # act by sampling from the policy; off: by its most likely action

    def __post_init__(self) -> None:
        at_least("evaluation.episodes", self.episodes, 1)
        at_least("evaluation.seed", self.seed, 0)
        at_least("evaluation.interval", self.interval, 0)


@dataclass
class BreakthroughConfig:
    """What counts as a breakthrough in a return, of the team or of one agent; see marl_tune/trial/breakthroughs.py."""

    window: int  # newest finished episodes, whose mean is judged, at least 2
    deviations: float  # standard deviations of the difference by which it passes the episodes before, above 0
    min_episodes: int  # finished episodes, window and those before it together, that a judgement needs; 2 windows

    def __post_init__(self) -> None:
        at_least("breakthroughs.window", self.window, 2)
        above("breakthroughs.deviations", self.deviations, 0)
        if self.min_episodes < 2 * self.window:
            rule = f"be at least twice breakthroughs.window ({2 * self.window}): a window, and as many before it"
            raise invalid("breakthroughs.min_episodes", rule, self.min_episodes)


@dataclass
class CheckpointConfig:
    """When a trial is saved."""

    frequency: int  # iterations between two checkpoints, at least 0; 0: only at the end
    num_to_keep: int | None  # newest checkpoints kept of each trial, at least 1; null: all
    at_end: bool  # save a trial when it stops

    def __post_init__(self) -> None:
        at_least("checkpoint.frequency", self.frequency, 0)
        at_least("checkpoint.num_to_keep", self.num_to_keep, 1)


@dataclass
class PlateauConfig:
    """Stop a trial whose metric no longer improves."""

    patience: int  # iterations without an improvement after which a trial stops, at least 1
    min_delta: float  # change of search.metric that counts as one, in its unit, at least 0
    grace: int  # iterations before the count begins, at least 0

    def __post_init__(self) -> None:
        at_least("stop.plateau.patience", self.patience, 1)
        at_least("stop.plateau.min_delta", self.min_delta, 0)
        at_least("stop.plateau.grace", self.grace, 0)


@dataclass
class StopConfig:
    """When a trial ends: at the first of these that is reached. At least one is set."""

    iterations: int | None  # training iterations of a trial, at least 1
    agent_steps: int | None  # steps of a trial, summed over agents, at least 1
    wall_time_s: float | None  # seconds of the whole sweep, above 0
    target: float | None  # value of search.metric at which a trial is good enough
    plateau: PlateauConfig | None  # stop a trial that no longer improves

    def __post_init__(self) -> None:
        at_least("stop.iterations", self.iterations, 1)
        at_least("stop.agent_steps", self.agent_steps, 1)
        above("stop.wall_time_s", self.wall_time_s, 0)
        if self.target is not None and self.target != self.target:
            raise invalid("stop.target", "be a number", self.target)
        if all(value is None for value in vars(self).values()):
            raise ConfigError(f"stop must set at least one of {', '.join(vars(self))}, got null for each")


@dataclass
class SelectionConfig:
    """How the winner is proven: the best checkpoints of the sweep play again, greedily, on the same unseen seeds."""

    top_k: int  # checkpoints that play again, at least 1
    episodes: int  # episodes of each, at least 2 (an interval needs two)
    seed: int  # seed of the first of them, at least 0; not a seed of training or evaluation
    confidence: float  # level of the interval around the score, (0, 1)
    bootstrap: int  # resamples for that interval, at least 100
    explore: bool  # play by sampling from the policy, for worlds where a fixed rule gets stuck; off: greedily

    def __post_init__(self) -> None:
        at_least("selection.top_k", self.top_k, 1)
        at_least("selection.episodes", self.episodes, 2)
        at_least("selection.seed", self.seed, 0)
        at_least("selection.bootstrap", self.bootstrap, 100)
        if not 0 < self.confidence < 1:
            raise invalid("selection.confidence", "be above 0 and below 1", self.confidence)


@dataclass
class SweepConfig:
    """One sweep, whole. Its fields are the top-level keys that users and their scripts rely on."""

    name: str  # names the run's folder: results_dir/name/date_time
    seed: int  # seed of the search and base of the trials' own seeds, [0, 2**31)
    env: Any  # the world: a dataclass of envs/
    module: Any  # the network of an agent: a dataclass of modules/schemas.py
    sharing: SharingConfig  # which agents act by which module
    algorithm: ActorCriticConfig  # how the modules learn
    search: SearchConfig  # how settings are tried
    space: dict[
        str, Any
    ]  # what is searched: dotted key -> {distribution: arguments}; see marl_tune/config/search_space.py
    logger: LoggerConfig  # where results go
    cluster: ClusterConfig  # machines, and resources of a trial
    evaluation: EvaluationConfig  # held-out episodes while training
    checkpoint: CheckpointConfig  # when a trial is saved
    stop: StopConfig  # when a trial ends
    selection: SelectionConfig  # how the winner is proven
    results_dir: str  # folder that holds the runs' folders, made when missing
    resume: str | None  # folder of a run to continue; null: a new run
    dry_run: bool  # build every part, step once, print the plan, train nothing
    group_options: dict[str, dict[str, Any]] = field(default_factory=dict)
    # not typed by users: group -> option -> composed dataclass, for each option of a group that `space` searches
    breakthroughs: BreakthroughConfig | None = None  # which rises of a return are events; null, as in runs saved before
    # there were any: none are looked for

    def __post_init__(self) -> None:
        word("name", self.name)
        if not 0 <= self.seed < 2**31:
            raise invalid("seed", "be at least 0 and below 2**31", self.seed)
        if not self.results_dir.strip():
            raise invalid("results_dir", "name a folder", self.results_dir)
