"""Which dataclass a group's option is: the registry behind `module=mlp`, `search=pbt` and the rest.

Options of `env` and `module` are registered where their classes are, `marl_tune.envs.ENVS` and
`marl_tune.modules.MODULES`.
"""

from collections.abc import Mapping

from marl_tune import envs, modules
from marl_tune.config.errors import unknown
from marl_tune.config.schema.algorithm import A2cConfig, MappoConfig, PpoConfig
from marl_tune.config.schema.cluster import ClusterConfig
from marl_tune.config.schema.logger import LoggerConfig
from marl_tune.config.schema.search import AshaConfig, OptunaConfig, Pb2Config, PbtConfig, SearchConfig
from marl_tune.config.schema.self_play import LeagueConfig, SelfPlayConfig
from marl_tune.config.schema.sharing import HierarchicalConfig, SharedCriticConfig, SharingConfig

OPTIONS: Mapping[str, Mapping[str, type]] = {
    "sharing": {
        **dict.fromkeys(SharingConfig.NAMES, SharingConfig),
        "shared_critic": SharedCriticConfig,
        "self_play": SelfPlayConfig,
        "league": LeagueConfig,
        "hierarchical": HierarchicalConfig,
    },
    "algorithm": {"ppo": PpoConfig, "mappo": MappoConfig, "a2c": A2cConfig},
    "search": {
        "none": SearchConfig,
        "random": SearchConfig,
        "grid": SearchConfig,
        "optuna": OptunaConfig,
        "asha": AshaConfig,
        "pbt": PbtConfig,
        "pb2": Pb2Config,
    },
    "logger": dict.fromkeys(("wandb", "tensorboard", "csv", "all"), LoggerConfig),
    "cluster": dict.fromkeys(("local", "auto"), ClusterConfig),
}
ALGORITHMS: Mapping[str, str] = {
    "ppo": "marl_tune.algorithms.ppo:Ppo",
    "mappo": "marl_tune.algorithms.mappo:Mappo",
    "a2c": "marl_tune.algorithms.a2c:A2c",
}
# option of `algorithm` -> its learner's class, imported when a trial is built
GROUPS = ("env", "module", *OPTIONS)
SWAPPABLE = ("env", "module", "sharing", "algorithm")  # groups whose option can differ from trial to trial


def options(group: str) -> list[str]:
    """Names of the group's registered options, in the registry's order."""
    if group == "env":
        return list(envs.ENVS)
    if group == "module":
        return list(modules.MODULES)
    return list(OPTIONS[group])


def schema(group: str, name: str) -> type:
    """The dataclass of the group's option `name`; `ConfigError` where there is none."""
    if name not in options(group):
        raise unknown(f"{group}.name", name, options(group))
    if group == "env":
        return envs.config_class(name)
    if group == "module":
        return modules.config_class(name)
    return OPTIONS[group][name]
