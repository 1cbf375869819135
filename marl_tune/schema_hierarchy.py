"""The settings of `sharing=hierarchical`: managers set goals for the agents, and both learn."""

from dataclasses import dataclass, field
from typing import Any, ClassVar

from marl_tune.config.errors import ConfigError
from marl_tune.config.range_checks import at_least, one_of, within
from marl_tune.schema import SharingConfig
from modules.schemas import LIVE


@dataclass
class HierarchicalConfig(SharingConfig):
    """Managers tell agents every few steps what to aim at; the agents share parameters, and so do their managers."""

    NAMES: ClassVar[tuple[str, ...]] = ("hierarchical",)

    interval: int  # steps of an agent between two goals, at least 1
    goals: int | None  # goals to choose from, at least 2; null: a goal is a vector
    goal_dim: int | None  # entries of a goal that is a vector in [-1, 1]^d, at least 1; null: goals are discrete
    manager: str  # agent: one for each agent, which sees what it sees | team: one for all, which sees what all see
    manager_gamma: float | None = field(metadata=LIVE)  # discount a decision of theirs, [0, 1]; null: algorithm.gamma
    manager_module: dict[str, Any]  # fields of `module` that the managers' module changes, such as {hidden_dims: [32]}

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least("sharing.interval", self.interval, 1)
        at_least("sharing.goals", self.goals, 2)
        at_least("sharing.goal_dim", self.goal_dim, 1)
        one_of("sharing.manager", self.manager, ("agent", "team"))
        within("sharing.manager_gamma", self.manager_gamma, 0, 1)
        if (self.goals is None) == (self.goal_dim is None):
            raise ConfigError(
                "exactly one of sharing.goals and sharing.goal_dim must be set (the other is null), got "
                f"{self.goals} and {self.goal_dim}"
            )
