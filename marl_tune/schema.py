"""The settings of a sweep: plain dataclasses, the last place that knows the keys that a user types.

Imports neither torch, ray nor Hydra. Values live in conf/ only, types and meaning here only: a field has no default. A
field that ends in `| None` is off, or worked out, when null. The dataclasses of `env` and `module` stand beside their
classes in envs/ and modules/schemas.py; those of `search` are in marl_tune/schema_search.py. Ranges are checked when an
object is made (`ConfigError`: key, rule, value); rules over several keys are in marl_tune/validate.py.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from marl_tune.config.errors import ConfigError, invalid
from marl_tune.config.range_checks import above, at_least, named, one_of, within, word
from marl_tune.schema_search import SearchConfig


@dataclass
class RoleConfig:
    """One role of a heterogeneous team: who plays it, and how its module and its learning differ from the others'.

    A role is written by the user, so what it leaves out is as in `module` and `algorithm`. All but the first four
    fields are settings of `algorithm` by the same names, with the same ranges, and can change in a live trial.
    """

    agents: list[str]  # shell-style patterns (ant_*, ants, *) on agent ids and group names; the first role that matches
    module: dict[str, Any] = field(default_factory=dict)
    # fields of `module` that this role's own module changes, such as {hidden_dims: [32]}
    trains: bool = True  # false: its module stays as it is
    checkpoint: str | None = None
    # folder of a run or checkpoint whose module of the role's name (or its only one) it begins with; null: at random
    lr: float | None = None
    gamma: float | None = None
    lambda_: float | None = None
    reward_scale: float | None = None
    clip_param: float | None = None
    entropy_coeff: float | None = None
    vf_loss_coeff: float | None = None

    def __post_init__(self) -> None:
        if self.checkpoint is not None:  # trials have other working directories
            self.checkpoint = str(Path(self.checkpoint).expanduser().absolute())


@dataclass
class SharingConfig:
    """Which agents act by which module. Schemes with settings of their own have a subclass."""

    NAMES: ClassVar[tuple[str, ...]] = ("parameter_sharing", "independent", "roles")

    name: str  # parameter_sharing: one module a group; independent: one an agent; roles: one a role
    roles: dict[str, RoleConfig]  # name of a role (and its module) -> role, tried in this order; {} but under roles

    def __post_init__(self) -> None:
        one_of("sharing.name", self.name, self.NAMES)
        if self.name != "roles" and len(self.roles) > 0:
            raise invalid("sharing.roles", f"be empty under sharing={self.name}", sorted(self.roles))
        if self.name == "roles" and len(self.roles) == 0:
            example = "'+sharing.roles.scouts={agents:[ant_*]}'"
            raise invalid("sharing.roles", f"name at least one role under sharing=roles, such as {example}", {})
        for name, role in self.roles.items():
            word("sharing.roles", name)
            if len(role.agents) == 0 or not all(role.agents):
                raise invalid(f"sharing.roles.{name}.agents", "hold at least one pattern", role.agents)
        if self.roles and not any(role.trains for role in self.roles.values()):
            raise ConfigError("sharing.roles must have a role that trains, got trains=false for each")


@dataclass
class PpoConfig:
    """Proximal policy optimisation (Schulman et al. 2017, https://arxiv.org/abs/1707.06347); RLlib's names.

    Advantages are always by generalised advantage estimation. Every field but `name` can change in a live trial.
    """

    NAME = "ppo"

    name: str  # ppo
    lr: float  # step size of Adam, above 0
    lr_end_factor: float  # share of lr that is left where stop ends the trial, reached linearly, [0, 1]; 1: constant
    gamma: float  # discount a step, [0, 1]
    lambda_: float  # decay of the advantage estimate a step, [0, 1]: 0 = one-step, 1 = Monte Carlo
    reward_scale: float  # factor on rewards as they are learned from, above 0; returns are reported without it
    clip_param: float  # the new policy's probability ratio is clipped to [1 - c, 1 + c], above 0
    entropy_coeff: float  # weight of the entropy bonus in the loss, at least 0
    entropy_end_factor: float  # as lr_end_factor, of entropy_coeff
    use_critic: bool  # train the value function; off: advantages have no baseline
    vf_loss_coeff: float  # weight of the value loss, at least 0
    vf_clip_param: float | None  # largest squared value error that counts, above 0; null: no limit
    use_kl_loss: bool  # add kl_coeff * KL(old, new) to the loss
    kl_coeff: float  # first weight of that term, at least 0; adapted towards kl_target
    kl_target: float  # KL an update aims at, nats, above 0
    num_epochs: int  # passes over each batch, at least 1
    minibatch_size: int  # agent-steps a gradient step, from 1 to train_batch_size / learners
    train_batch_size: int  # agent-steps an iteration, all modules and learners together, at least 1
    shuffle_batch_per_epoch: bool  # draw the minibatches anew in every epoch
    grad_clip: float | None  # limit of the gradient, above 0, measured as grad_clip_by says; null: none
    grad_clip_by: str  # global_norm (of a module's whole gradient) | norm (of each parameter) | value (of each entry)
    adam_beta1: float  # decay of Adam's running mean, [0, 1)
    adam_beta2: float  # decay of Adam's running square, [0, 1)
    adam_eps: float  # added to Adam's denominator, above 0
    weight_decay: float  # L2 penalty added to the gradient, at least 0

    def __post_init__(self) -> None:
        named("algorithm.name", self.name, self.NAME)
        for key in ("lr", "reward_scale", "clip_param", "vf_clip_param", "kl_target", "grad_clip", "adam_eps"):
            above(f"algorithm.{key}", getattr(self, key), 0)
        for key in ("entropy_coeff", "vf_loss_coeff", "kl_coeff", "weight_decay"):
            at_least(f"algorithm.{key}", getattr(self, key), 0)
        for key in ("num_epochs", "minibatch_size", "train_batch_size"):
            at_least(f"algorithm.{key}", getattr(self, key), 1)
        for key in ("gamma", "lambda_", "lr_end_factor", "entropy_end_factor"):
            within(f"algorithm.{key}", getattr(self, key), 0, 1)
        for key in ("adam_beta1", "adam_beta2"):
            if not 0 <= getattr(self, key) < 1:
                raise invalid(f"algorithm.{key}", "be at least 0 and below 1", getattr(self, key))
        one_of("algorithm.grad_clip_by", self.grad_clip_by, ("global_norm", "norm", "value"))


@dataclass
class WandbConfig:
    """Weights & Biases: one run a trial, grouped by sweep."""

    project: str  # project that the runs go to
    entity: str | None  # user or team; null: the account's own
    mode: str  # auto: online when a key is set, else offline; or online | offline
    tags: list[str]  # words put on every run, besides the names of env, module and search

    def __post_init__(self) -> None:
        word("logger.wandb.project", self.project)
        one_of("logger.wandb.mode", self.mode, ("auto", "online", "offline"))


@dataclass
class LoggerConfig:
    """Where results go besides the run's own CSV files, which are always written."""

    name: str  # the option of the group: wandb | tensorboard | csv | all
    wandb: WandbConfig | None  # null: nothing for Weights & Biases
    tensorboard: bool  # write event files into tensorboard/ of the run's folder
    progress: str  # what the terminal shows: live table, plain lines, off, or auto (live on a terminal, else plain)

    def __post_init__(self) -> None:
        word("logger.name", self.name)
        one_of("logger.progress", self.progress, ("auto", "live", "plain", "off"))


@dataclass
class ClusterConfig:
    """The machines, and what one trial takes of them.

    A trial takes 1 CPU for its own process, and besides that what its env runners and learners take.
    """

    name: str  # local: start Ray on this machine | auto: join a running cluster
    num_cpus: int | None  # CPUs that the sweep may use, at least 1; null: all
    num_gpus: float | None  # GPUs that the sweep may use, at least 0; null: all
    address: str | None  # host:port of the cluster's head, or auto; null under local
    num_env_runners: int  # processes a trial that sample, at least 0; 0: the trial's own process samples
    num_envs_per_env_runner: int  # copies of the world stepped at once in each, at least 1
    num_cpus_per_env_runner: float  # CPUs of each such process, at least 0
    num_gpus_per_env_runner: float  # GPUs of each, fractions allowed, at least 0
    num_learners: int  # processes a trial that compute gradients, at least 0; 0: the trial's own process
    num_cpus_per_learner: float  # CPUs of each such process, at least 0
    num_gpus_per_learner: float  # GPUs of each (of the trial's process when num_learners is 0), fractions allowed
    rollout: str  # batched: one forward pass for all agents and copies | rllib: RLlib's own env runner
    torch_threads: int  # threads that torch may use in each process, at least 1
    torch_compile: bool  # compile the learner's forward pass: a minute at the start, pays for large networks
    precision: str  # of the learner's forward and backward pass: float32 | bfloat16 (mixed; losses stay float32)
    max_failures: int  # times that a failed trial is started again from its last checkpoint, at least 0; -1: no limit

    def __post_init__(self) -> None:
        one_of("cluster.name", self.name, ("local", "auto"))
        if self.name == "local" and self.address is not None:
            raise invalid("cluster.address", "be null under cluster=local (use cluster=auto to join)", self.address)
        if self.name == "auto" and not self.address:
            raise invalid("cluster.address", "be host:port or auto under cluster=auto", self.address)
        for key in ("num_cpus", "num_envs_per_env_runner", "torch_threads"):
            at_least(f"cluster.{key}", getattr(self, key), 1)
        for key in ("num_env_runners", "num_learners", "num_gpus"):
            at_least(f"cluster.{key}", getattr(self, key), 0)
        for part in ("env_runner", "learner"):
            at_least(f"cluster.num_cpus_per_{part}", getattr(self, f"num_cpus_per_{part}"), 0)
            gpus = getattr(self, f"num_gpus_per_{part}")
            at_least(f"cluster.num_gpus_per_{part}", gpus, 0)
            if gpus > 1 and gpus != int(gpus):
                raise invalid(f"cluster.num_gpus_per_{part}", "be a whole number where it is above 1", gpus)
        one_of("cluster.rollout", self.rollout, ("batched", "rllib"))
        one_of("cluster.precision", self.precision, ("float32", "bfloat16"))
        if self.torch_compile and self.num_learners > 0:
            raise invalid("cluster.torch_compile", "be false where cluster.num_learners is above 0", True)
        at_least("cluster.max_failures", self.max_failures, -1)


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
    """What counts as a breakthrough in a return, of the team or of one agent; see marl_tune/breakthroughs.py."""

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
    algorithm: PpoConfig  # how the modules learn
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
