"""The options of every group: the registries behind `env=ant_colony`, `search=pbt` and the rest.

A group's registry is one list of lines, name -> class or function, to which plug-in packages add theirs; see
`marl_tune.registry`. Those of `env` and `module` stand beside their classes, `marl_tune.envs.ENVS` and
`marl_tune.modules.MODULES`. The others stand here, as text, so that nobody imports torch or ray to read them. The
dataclasses of these groups lie in `marl_tune/config/schema/`, which is why the lines name them.
"""

from collections.abc import Mapping

from marl_tune import envs, modules
from marl_tune.config.errors import ConfigError, unknown
from marl_tune.config.schema.cluster import ClusterConfig
from marl_tune.config.schema.logger import LoggerConfig
from marl_tune.registry import BrokenPlugIn, Option, Registry

_SCHEMA = "marl_tune.config.schema"
_SCHEMES, _SEARCHES = "marl_tune.sharing.schemes", "marl_tune.search.searches"

SHARING = Registry(
    "marl_tune.sharing",
    {
        "parameter_sharing": (f"{_SCHEMES}:parameter_sharing", f"{_SCHEMA}.sharing:SharingConfig"),
        "independent": (f"{_SCHEMES}:independent", f"{_SCHEMA}.sharing:SharingConfig"),
        "roles": (f"{_SCHEMES}:roles", f"{_SCHEMA}.sharing:SharingConfig"),
        "shared_critic": (f"{_SCHEMES}:shared_critic", f"{_SCHEMA}.sharing:SharedCriticConfig"),
        "self_play": ("marl_tune.sharing.game_sides:versus", f"{_SCHEMA}.self_play:SelfPlayConfig"),
        "league": ("marl_tune.sharing.game_sides:versus", f"{_SCHEMA}.self_play:LeagueConfig"),
        "hierarchical": (f"{_SCHEMES}:hierarchical", f"{_SCHEMA}.sharing:HierarchicalConfig"),
    },
)
ALGORITHMS = Registry(
    "marl_tune.algorithms",
    {
        "ppo": ("marl_tune.algorithms.ppo:Ppo", f"{_SCHEMA}.algorithm:PpoConfig"),
        "mappo": ("marl_tune.algorithms.mappo:Mappo", f"{_SCHEMA}.algorithm:MappoConfig"),
        "a2c": ("marl_tune.algorithms.a2c:A2c", f"{_SCHEMA}.algorithm:A2cConfig"),
    },
)
SEARCHES = Registry(
    "marl_tune.searches",
    {
        "none": (f"{_SEARCHES}:no_search", f"{_SCHEMA}.search:SearchConfig"),
        "random": (f"{_SEARCHES}:random_search", f"{_SCHEMA}.search:SearchConfig"),
        "grid": (f"{_SEARCHES}:grid_search", f"{_SCHEMA}.search:SearchConfig"),
        "optuna": (f"{_SEARCHES}:optuna_search", f"{_SCHEMA}.search:OptunaConfig"),
        "asha": (f"{_SEARCHES}:asha", f"{_SCHEMA}.search:AshaConfig"),
        "pbt": (f"{_SEARCHES}:pbt", f"{_SCHEMA}.search:PbtConfig"),
        "pb2": (f"{_SEARCHES}:pb2", f"{_SCHEMA}.search:Pb2Config"),
    },
)
CALLBACKS = Registry("marl_tune.callbacks", {})
# of plug-ins only: what listens to a sweep beside our own loggers, chosen by logger.callbacks

REGISTRIES: Mapping[str, Registry] = {
    "env": envs.ENVS,
    "module": modules.MODULES,
    "sharing": SHARING,
    "algorithm": ALGORITHMS,
    "search": SEARCHES,
}
VALUE_SETS: Mapping[str, Mapping[str, type]] = {
    "logger": dict.fromkeys(("wandb", "tensorboard", "csv", "all"), LoggerConfig),
    "cluster": dict.fromkeys(("local", "auto"), ClusterConfig),
}
# groups whose options are no classes, but sets of values of one dataclass

GROUPS = (*REGISTRIES, *VALUE_SETS)
SWAPPABLE = ("env", "module", "sharing", "algorithm")  # groups whose option can differ from trial to trial


def options(group: str) -> list[str]:
    """Names of the group's registered options, in the registry's order."""
    return list(REGISTRIES[group] if group in REGISTRIES else VALUE_SETS[group])


def schema(group: str, name: str) -> type:
    """The dataclass of the group's option `name`; `ConfigError` where there is none, or a plug-in's is broken."""
    if name not in options(group):
        raise unknown(f"{group}.name", name, options(group))
    if group in VALUE_SETS:
        return VALUE_SETS[group][name]
    try:
        return REGISTRIES[group][name].config_class()
    except BrokenPlugIn as error:
        raise ConfigError(str(error)) from error


def plug_in(group: str, name: str) -> Option | None:
    """The option where a plug-in brings it; None for one of ours."""
    option = REGISTRIES[group][name] if group in REGISTRIES else None
    return None if option is None or option.origin is None else option


def check_loads(group: str, name: str) -> None:
    """`ConfigError` where the class of a plug-in's option cannot be imported; ours are taken to be whole."""
    if group in REGISTRIES:
        _check_loads(REGISTRIES[group][name])


def check_callbacks(names: list[str]) -> None:
    """`ConfigError` for a name in `logger.callbacks` that no plug-in has, or whose class cannot be imported."""
    for name in names:
        if name not in CALLBACKS:
            raise unknown("logger.callbacks: plug-in", name, CALLBACKS)
        _check_loads(CALLBACKS[name])


def _check_loads(option: Option) -> None:
    if option.origin is None:
        return
    try:
        option.load()
    except BrokenPlugIn as error:
        raise ConfigError(str(error)) from error


def refused() -> list[str]:
    """A line for every entry point that is no option, because its name is taken or it cannot be read."""
    return [line for registry in (*REGISTRIES.values(), CALLBACKS) for line in registry.refused()]
