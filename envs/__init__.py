"""Environments: pure simulation, without Ray, Hydra or modules.

`ENVS` lists the worlds, those of installed plug-in packages too (see `marl_tune.registry`). The dataclass beside each
world types its settings; conf/env/<stem>.yaml holds their values. To use a world in another framework, wrap it as a
PettingZoo `ParallelEnv`: see `marl_tune.envs.parallel_env`.
"""

from collections.abc import Mapping
from dataclasses import fields
from functools import partial
from typing import TYPE_CHECKING, Any

from marl_tune.envs.curriculum import WorldConfig, world_itself
from marl_tune.envs.world import World
from marl_tune.registry import Registry, imported

if TYPE_CHECKING:
    from marl_tune.envs.classic.players import BoardPlayer

ENVS = Registry(
    "marl_tune.envs",
    {
        "ant_colony": "marl_tune.envs.ant_colony:AntColony",
        "bio_grid": "marl_tune.envs.bio_grid:BioGrid",
        "mpe/simple_spread": "marl_tune.envs.mpe.simple_spread:SimpleSpread",
        "mpe/simple_adversary": "marl_tune.envs.mpe.simple_adversary:SimpleAdversary",
        "mpe/simple_tag": "marl_tune.envs.mpe.simple_tag:SimpleTag",
        "sisl/pursuit": "marl_tune.envs.sisl.pursuit:Pursuit",
        "classic/connect_four": "marl_tune.envs.classic.connect_four:ConnectFour",
        "classic/tictactoe": "marl_tune.envs.classic.tictactoe:Tictactoe",
        "pettingzoo": "marl_tune.envs.pettingzoo:Pettingzoo",
        "vmas": "marl_tune.envs.vmas:Vmas",
        "pricing": "marl_tune.envs.pricing:Pricing",
        "signal": "marl_tune.envs.signal:Signal",
    },
)
# stem -> class, imported on first use; the class attribute `Config` is the dataclass of its settings

BASELINES: dict[str, str] = {
    "ant_colony": "marl_tune.envs.ant_colony.forager:Forager",
    "bio_grid": "marl_tune.envs.bio_grid.tracker:Tracker",
    "mpe/simple_spread": "marl_tune.envs.mpe.dispatcher:Dispatcher",
    "pricing": "marl_tune.envs.pricing.bertrand:Bertrand",
    "signal": "marl_tune.envs.signal.switchboard:Switchboard",
}
# stem -> scripted policy: `Baseline(world)` and `act(observations) -> actions`, both dicts of arrays per agent group

_CONNECT_FOUR = {
    "random": "marl_tune.envs.classic.players:RandomPlayer",
    "one_ply": "marl_tune.envs.classic.players:ConnectFourOnePly",
}
_TICTACTOE = {
    "random": "marl_tune.envs.classic.players:RandomPlayer",
    "one_ply": "marl_tune.envs.classic.players:TictactoeOnePly",
    "perfect": "marl_tune.envs.classic.players:TictactoePerfect",
}
PLAYERS: dict[str, dict[str, str]] = {
    "classic/connect_four": _CONNECT_FOUR,
    "classic/connect_four_v3": _CONNECT_FOUR,
    "classic/tictactoe": _TICTACTOE,
    "classic/tictactoe_v3": _TICTACTOE,
}
# stem of a batched world, or id of a PettingZoo world -> name -> scripted player of single agents:
# `BoardPlayer(groups, seed)` and `act(observations, acting) -> actions`, see
# `marl_tune.envs.classic.players.BoardPlayer`


def env_class(name: str) -> type[World]:
    """The class of a world. Raises ValueError for an unknown name."""
    _require_known(ENVS, name, "class")
    return ENVS[name].load()


def config_class(name: str) -> type[WorldConfig]:
    """The config dataclass of a world. Raises ValueError for an unknown name."""
    _require_known(ENVS, name, "class")
    return ENVS[name].config_class()


def baseline_class(name: str) -> type:
    """The scripted policy that is shipped for a world. Raises ValueError for a world without one."""
    _require_known(BASELINES, name, "baseline")
    return imported(BASELINES[name])


def _require_known(known: Mapping[str, object], name: str, kind: str) -> None:
    if name not in known:
        raise ValueError(f"env.name must be a world with a {kind}, one of {', '.join(sorted(known))}; got {name!r}")


def player_class(world: str, name: str) -> "type[BoardPlayer]":
    """A scripted player of a world.

    Args:
        world: the stem of a batched world, or the id of a PettingZoo world.
        name: of the player.

    Raises:
        ValueError: if the world has no scripted players, or none of that name.
    """
    if world not in PLAYERS:
        raise ValueError(f"{world!r} has no scripted players: {', '.join(sorted(PLAYERS))} have")
    if name not in PLAYERS[world]:
        raise ValueError(f"a scripted player of {world} must be one of {', '.join(PLAYERS[world])}, got {name!r}")
    return imported(PLAYERS[world][name])


def default_config(name: str, **settings: object) -> Any:
    """The config of a world: `settings`, and for the other fields the values of its package's conf/env/<name>.yaml.

    Raises:
        ValueError: if there is no such world, or it has no such setting.
    """
    import yaml  # needed only where no framework has read the file already

    config = config_class(name)
    known = [field.name for field in fields(config)]
    if unknown := sorted(set(settings) - set(known)):
        raise ValueError(f"env.{unknown[0]} is not a setting of {name}, which has {', '.join(known)}")
    values = yaml.safe_load(ENVS[name].values.read_text(encoding="utf-8")) | {"name": name} | settings
    return config(**{key: value for key, value in values.items() if key in known})


def make_world(config: WorldConfig, num_envs: int = 1) -> World:
    """Makes B = `num_envs` copies of a world.

    The result is the world itself, whatever the curriculum says: the stages are made by who trains in them.

    If the config has `workers` above 1, that many processes, this one included, step the copies; at most one process a
    copy. Close such a world after use.

    Args:
        config: an instance of `config_class(config.name)`.
        num_envs: B.
    """
    config = world_itself(config)
    make, workers = partial(env_class(config.name), config), min(getattr(config, "workers", 0), num_envs)
    if workers <= 1:
        return make(num_envs)
    from marl_tune.envs.workers.world import WorkerWorld  # only here, as few worlds need it

    return WorkerWorld(make, num_envs, workers)
