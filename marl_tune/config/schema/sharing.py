"""Settings of `sharing`: how agents share modules."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from marl_tune.config.errors import ConfigError, invalid
from marl_tune.config.range_checks import at_least, named, one_of, within, word
from marl_tune.modules.schemas import LIVE

ACTORS = ("parameter_sharing", "independent")


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
class SharedCriticConfig(SharingConfig):
    """Agents act by modules that see their own observations; one critic, which sees the state of the world, values for
    all of them and is needed in training only."""

    actors: str  # who acts by which module: parameter_sharing (one module a group) | independent (one an agent)

    def __post_init__(self) -> None:
        named("sharing.name", self.name, "shared_critic")
        if len(self.roles) > 0:
            raise invalid("sharing.roles", "be empty under sharing=shared_critic", sorted(self.roles))
        one_of("sharing.actors", self.actors, ACTORS)


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
