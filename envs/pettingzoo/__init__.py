"""PettingZoo's worlds behind the interface of `World`."""

from marl_tune.envs.pettingzoo.world import Pettingzoo, PettingzooConfig

__all__ = ["Pettingzoo", "PettingzooConfig"]
