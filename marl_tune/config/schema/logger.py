"""Settings of `logger`."""

from dataclasses import dataclass, field

from marl_tune.config.range_checks import one_of, word


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
    callbacks: list[str] = field(default_factory=list)
    # names of callbacks of plug-in packages, which are told of every result; [] as in runs saved before there were any

    def __post_init__(self) -> None:
        word("logger.name", self.name)
        one_of("logger.progress", self.progress, ("auto", "live", "plain", "off"))
