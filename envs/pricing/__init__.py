"""Competing stores that set prices: the world, its pictures, its equilibria, the scripted store."""

from envs.pricing.settings import PricingConfig
from envs.pricing.world import Pricing

__all__ = ["Pricing", "PricingConfig"]
