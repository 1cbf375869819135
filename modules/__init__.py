"""RLModules: the networks of the agents. `MODULES` lists them.

Each module has a config dataclass in modules/schemas.py, and its values in conf/module/<stem>.yaml. Importing this
package imports neither torch nor ray: the class of a module is imported on first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from marl_tune.modules import schemas

if TYPE_CHECKING:
    from marl_tune.modules.base import ActorCritic

MODULES: dict[str, str] = {
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
}
# stem -> class, imported on first use; its config dataclass is <class>Config of modules/schemas.py


def _class_path(name: str) -> tuple[str, str]:
    if name not in MODULES:
        raise ValueError(f"module.name must be one of {', '.join(sorted(MODULES))}; got {name!r}")
    module, _, attribute = MODULES[name].partition(":")
    return module, attribute


def module_class(name: str) -> "type[ActorCritic]":
    """The class of a module. Raises ValueError for an unknown name."""
    module, attribute = _class_path(name)
    return getattr(import_module(module), attribute)


def config_class(name: str) -> type[schemas.ModuleConfig]:
    """The config dataclass of a module. Raises ValueError for an unknown name."""
    return getattr(schemas, f"{_class_path(name)[1]}Config")
