"""Competing stores that set prices: the world, its pictures, its equilibria, a scripted policy."""

from marl_tune.envs.pricing.settings import PricingConfig
from marl_tune.envs.pricing.world import Pricing

__all__ = ["Pricing", "PricingConfig"]
