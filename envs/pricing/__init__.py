"""Competing stores that set prices: the world, its pictures, its equilibria, the scripted store."""

from marl_tune.envs.pricing.settings import PricingConfig
from marl_tune.envs.pricing.world import Pricing

__all__ = ["Pricing", "PricingConfig"]
