"""PettingZoo's worlds behind the interface of `World`."""

from envs.pettingzoo.world import Pettingzoo, PettingzooConfig

__all__ = ["Pettingzoo", "PettingzooConfig"]
