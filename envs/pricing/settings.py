"""Settings of `env=pricing`."""

from dataclasses import dataclass, field

from marl_tune.envs.curriculum import WorldConfig


@dataclass
class PricingConfig(WorldConfig):
    """Rules of the market. All but the structural fields can change between two episodes of a running trial."""

    name: str
    # stem of the world: pricing
    n_agents: int = field(metadata={"structural": True})
    # stores, >= 2
    price_range: list[float] = field(metadata={"structural": True})
    # [lowest, highest] price, 0 <= lowest < highest
    cost: float
    # cost of a unit that is sold, in [0, highest price)
    demand_range: list[float]
    # [lowest, highest] d, which scales a store's demand, drawn uniformly once an episode; 0 <= lowest <= highest
    own_slope: float
    # a: units of demand that a store loses per unit of its own price, above cross_slope
    cross_slope: float
    # b: units of demand that a store gains per unit of the others' mean price, >= 0
    inventory_range: list[float]
    # [lowest, highest] units in stock at the start, drawn uniformly; 0 <= lowest <= highest
    restock_range: list[float]
    # [lowest, highest] units that arrive after each step, drawn uniformly; 0 <= lowest <= highest
    inventory_cap: float | None
    # units that a store can hold, >= the highest of inventory_range; further units are lost; null: no limit
    max_steps: int
    # steps until an episode is truncated, >= 1

    def __post_init__(self) -> None:
        for key, low in (("n_agents", 2), ("max_steps", 1)):
            if getattr(self, key) < low:
                raise ValueError(f"env.{key} must be at least {low}, got {getattr(self, key)}")
        for key in ("price_range", "demand_range", "inventory_range", "restock_range"):
            bounds = list(getattr(self, key))
            if len(bounds) != 2 or not 0 <= bounds[0] <= bounds[1] < float("inf"):
                raise ValueError(f"env.{key} must be [lowest, highest] with 0 <= lowest <= highest, got {bounds}")
        low_price, high_price = self.price_range
        if low_price == high_price:
            raise ValueError(f"env.price_range must leave a choice, lowest < highest, got {list(self.price_range)}")
        if not 0 <= self.cost < high_price:
            raise ValueError(f"env.cost must be in [0, {high_price}), below the highest price, got {self.cost}")
        if not 0 <= self.cross_slope < float("inf"):
            raise ValueError(f"env.cross_slope must be finite and at least 0, got {self.cross_slope}")
        if not self.cross_slope < self.own_slope < float("inf"):
            raise ValueError(
                f"env.own_slope must be finite and above env.cross_slope, {self.cross_slope}, got {self.own_slope}"
            )
        if self.inventory_cap is not None and not self.inventory_range[1] <= self.inventory_cap < float("inf"):
            raise ValueError(
                "env.inventory_cap must be finite and at least the highest of env.inventory_range, "
                f"{self.inventory_range[1]}, or null for none, got {self.inventory_cap}"
            )
