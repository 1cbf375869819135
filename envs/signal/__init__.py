"""Agents that must tell each other what they see: the world, its pictures, the scripted policy."""

from marl_tune.envs.signal.world import Signal, SignalConfig

__all__ = ["Signal", "SignalConfig"]
