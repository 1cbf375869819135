"""A signalling game, in which agents must tell each other what they see: the world, its pictures, a scripted policy."""

from marl_tune.envs.signal.world import Signal, SignalConfig

__all__ = ["Signal", "SignalConfig"]
