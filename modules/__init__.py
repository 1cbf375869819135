"""RLModules: the networks of the agents.

`MODULES` lists them, those of installed plug-in packages too (see `marl_tune.registry`).

Each module has a config dataclass in modules/schemas.py, and its values in conf/module/<stem>.yaml. Importing this
package imports neither torch nor ray: the class of a module is imported on first use.
"""

from typing import TYPE_CHECKING

from marl_tune.registry import Registry

if TYPE_CHECKING:
    from marl_tune.modules.base import ActorCritic
    from marl_tune.modules.schemas import ModuleConfig

MODULES = Registry(
    "marl_tune.modules",
    {
        "mlp": "marl_tune.modules.mlp:Mlp",
        "cnn": "marl_tune.modules.cnn:Cnn",
        "lstm": "marl_tune.modules.lstm:Lstm",
        "gru": "marl_tune.modules.gru:Gru",
        "plasticity": "marl_tune.modules.plasticity:Plasticity",
        "pheromone_attention": "marl_tune.modules.pheromone_attention:PheromoneAttention",
        "communication": "marl_tune.modules.communication:Communication",
        "curiosity": "marl_tune.modules.curiosity:Curiosity",
        "shared_encoder": "marl_tune.modules.shared_encoder:SharedEncoder",
        "autoregressive": "marl_tune.modules.autoregressive:Autoregressive",
        "ant_colony": "marl_tune.modules.ant_colony:AntColony",
    },
)
# stem -> class, imported on first use; its config dataclass is <class>Config of modules/schemas.py


def module_class(name: str) -> type["ActorCritic"]:
    """A module's class. Raises ValueError for an unknown name."""
    _require_known(name)
    return MODULES[name].load()


def config_class(name: str) -> type["ModuleConfig"]:
    """The config dataclass of a module. Raises ValueError for an unknown name."""
    _require_known(name)
    return MODULES[name].config_class()


def _require_known(name: str) -> None:
    if name not in MODULES:
        raise ValueError(f"module.name must be one of {', '.join(sorted(MODULES))}; got {name!r}")
