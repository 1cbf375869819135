"""RLModules: the networks of the agents. `MODULES` is the list of them; each has a config dataclass in
modules/schemas.py and its values in conf/module/<stem>.yaml.

Importing this package imports neither torch nor ray: a module's class is imported when it is asked for.
"""

from importlib import import_module
from typing import Any

from modules import schemas

MODULES: dict[str, str] = {
    "mlp": "modules.mlp:Mlp",
    "cnn": "modules.cnn:Cnn",
    "lstm": "modules.lstm:Lstm",
    "gru": "modules.gru:Gru",
    "plasticity": "modules.plasticity:Plasticity",
    "pheromone_attention": "modules.pheromone_attention:PheromoneAttention",
    "communication": "modules.communication:Communication",
    "curiosity": "modules.curiosity:Curiosity",
    "shared_encoder": "modules.shared_encoder:SharedEncoder",
    "autoregressive": "modules.autoregressive:Autoregressive",
    "ant_colony": "modules.ant_colony:AntColony",
}
# stem -> class, imported on first use; its config dataclass is <class>Config of modules/schemas.py


def _class_path(name: str) -> tuple[str, str]:
    if name not in MODULES:
        raise ValueError(f"module.name must be one of {', '.join(sorted(MODULES))}; got {name!r}")
    module, _, attribute = MODULES[name].partition(":")
    return module, attribute


def module_class(name: str) -> Any:
    """The class of a module, a subclass of `modules.base.ActorCritic`. Raises ValueError for an unknown name."""
    module, attribute = _class_path(name)
    return getattr(import_module(module), attribute)


def config_class(name: str) -> type[schemas.ModuleConfig]:
    """The config dataclass of a module. Raises ValueError for an unknown name."""
    return getattr(schemas, f"{_class_path(name)[1]}Config")
