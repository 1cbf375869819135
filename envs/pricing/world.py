"""Pricing: stores with limited inventories set prices. Do they learn to compete or to collude?"""

from collections.abc import Sequence

import gymnasium as gym
import numpy as np

from marl_tune.envs.agent_group import Actions, AgentGroup, Observations
from marl_tune.envs.array_world import ArrayWorld
from marl_tune.envs.pricing.equilibrium import MARKET_SIZE, collusion_index, equilibrium
from marl_tune.envs.pricing.render import draw_market
from marl_tune.envs.pricing.settings import PricingConfig
from marl_tune.envs.world import Step

GROUP = "stores"
INVENTORY_UNIT = 100.0  # units of goods that an observed inventory of 1 stands for
PROFIT_UNIT = 100.0  # profit that a reward of 1 stands for


class Pricing(ArrayWorld):
    """A market of N stores, B copies at once.

    Description:
        All stores set their prices at once. Then the demand for store i is

            max(0, 100 d_i - own_slope * p_i + cross_slope * mean of the others' prices)

        and it sells min(demand, inventory), which may be a fraction of a unit. After the sales each store gets a
        restock of its own, drawn uniformly from `restock_range`. Units above `inventory_cap` are lost.

    Actions (Box, float32, (1,)):
        The price, in `price_range`. It may be below cost.

    Observations (Box, float32):
        | index | meaning | unit | range |
        |---|---|---|---|
        | 0 | own inventory | 100 units | [0, inf) |
        | 1 | own d | - | `demand_range` |
        | 2 | own last price | highest price | [0, 1] |
        | 3 .. 1 + N | last prices of the others, in the order of the agents | highest price | [0, 1] |

    Rewards:
        Each store gets its own profit / 100, with profit = (price - cost) * sales.

    Start:
        Inventories and d of each store are uniform in their ranges; d is constant during an episode. The last prices
        that are observed before the first step are uniform in `price_range`, and have no other effect.

    End:
        Truncated after `max_steps` steps, never terminated.

    Metrics:
        Means over stores and the steps of the episode so far: `price_mean`, `profit_mean`, `sales_mean` (units) and
        `stockout_rate`, the share of cases in which demand was above inventory. `nash_price`, `joint_price`: mean
        prices of the episode's stores, with their d, if they compete, and if they maximise the sum of their profits
        (`envs/pricing/equilibrium.py`). `collusion_index`: where price_mean lies between the two, 0 at nash_price and 1
        at joint_price.

    Arguments:
        config: the rules.
        num_envs: B, the number of copies.

    Source:
        Bertrand competition with differentiated goods. The question and the index are those of Calvano et al. 2020:
        Artificial intelligence, algorithmic pricing, and collusion, https://doi.org/10.1257/aer.20190623.
    """

    Config = PricingConfig

    def __init__(self, config: PricingConfig, num_envs: int = 1):
        self.config, self.num_envs = config, num_envs
        self.equilibrium = equilibrium(config)
        count = config.n_agents
        top = np.ones(2 + count, np.float32)
        top[:2] = np.inf
        self._prices = gym.spaces.Box(*config.price_range, (1,), np.float32)
        self.groups = (
            AgentGroup(
                name=GROUP,
                agents=tuple(f"store_{i}" for i in range(count)),
                observation_space=gym.spaces.Box(np.zeros_like(top), top, dtype=np.float32),
                action_space=self._prices,
            ),
        )
        self.own_state_space = gym.spaces.Box(0.0, np.inf, (3 * count,), np.float32)
        self._others = np.array([[j for j in range(count) if j != i] for i in range(count)])  # (N, N - 1)
        self._rngs = [np.random.default_rng() for _ in range(num_envs)]
        self._build_state()

    def _build_state(self) -> None:
        shape = self.num_envs, self.config.n_agents
        self.inventory = np.zeros(shape)  # (B, N) units
        self.d = np.zeros(shape)  # (B, N)
        self.price = np.zeros(shape)  # (B, N) last ones
        self.demand, self.sales = np.zeros(shape), np.zeros(shape)  # (B, N) of the last step; for the picture only
        self.totals = np.zeros((self.num_envs, 4))  # (B, 4) price, profit, sales, stockouts; over stores and steps
        self.episode_steps = np.zeros(self.num_envs, np.int64)  # (B,) steps since the copy's reset
        self._restock = np.zeros(shape)  # (B, N) of the last step, as a share of its range

    def reset(self, seeds: Sequence[int | None] | None = None, copies: np.ndarray | None = None) -> Observations:
        """See `World.reset`."""
        config, count = self.config, self.config.n_agents
        for copy, rng in self._restarted(seeds, copies):
            for drawn, (low, high) in (
                (self.d, config.demand_range),
                (self.inventory, config.inventory_range),
                (self.price, config.price_range),
            ):
                drawn[copy] = rng.uniform(low, high, count)
            self.demand[copy] = self.sales[copy] = 0.0
            self.totals[copy], self.episode_steps[copy] = 0.0, 0
        return self.observe()

    def observe(self) -> Observations:
        shown = (self.price / self.config.price_range[1]).astype(np.float32)
        observations = np.empty((*shown.shape, 2 + self.config.n_agents), np.float32)  # (B, N, 2 + N)
        observations[..., 0] = self.inventory / INVENTORY_UNIT
        observations[..., 1] = self.d
        observations[..., 2] = shown
        observations[..., 3:] = shown[:, self._others]
        return {GROUP: observations}

    def own_state(self) -> np.ndarray:
        """See `World.own_state`: inventories, d and last prices of all stores, in the units of the observation."""
        shown = self.price / self.config.price_range[1]
        return np.concatenate((self.inventory / INVENTORY_UNIT, self.d, shown), axis=1, dtype=np.float32)

    def step(self, actions: Actions) -> Step:
        """See `World.step`. Raises ValueError for a price outside the range or actions of the wrong shape."""
        action, box = np.asarray(actions[GROUP], np.float32), self._prices
        shape = (*self.price.shape, 1)
        if action.shape != shape or not ((box.low <= action) & (action <= box.high)).all():
            low, high = self.config.price_range
            raise ValueError(f"actions of {GROUP} must have the shape {shape} and be in [{low}, {high}]")
        config, price = self.config, action[..., 0].astype(np.float64)
        others = price[:, self._others].mean(axis=-1)  # (B, N)
        demand = np.maximum(MARKET_SIZE * self.d - config.own_slope * price + config.cross_slope * others, 0.0)
        sales = np.minimum(demand, self.inventory)
        profit = (price - config.cost) * sales
        self.totals += np.stack((price, profit, sales, demand > self.inventory), axis=-1).sum(axis=1)
        self.price[...], self.demand[...], self.sales[...] = price, demand, sales
        self.inventory -= sales
        self._deliver()
        self.episode_steps += 1
        truncated = self.episode_steps >= config.max_steps
        rewards = (profit / PROFIT_UNIT).astype(np.float32)
        return Step(self.observe(), {GROUP: rewards}, np.zeros_like(truncated), truncated)

    def _deliver(self) -> None:
        """Adds the restocks after the sales."""
        for rng, share in zip(self._rngs, self._restock, strict=True):
            rng.random(out=share)
        low, high = self.config.restock_range
        self.inventory += low + (high - low) * self._restock
        if self.config.inventory_cap is not None:
            np.minimum(self.inventory, self.config.inventory_cap, out=self.inventory)

    def episode_metrics(self, copies: np.ndarray) -> dict[str, np.ndarray]:
        """See `World.episode_metrics`; the names are explained at the class."""
        copies = np.asarray(copies, dtype=np.intp)
        store_steps = self.config.n_agents * np.maximum(self.episode_steps[copies], 1)
        price, profit, sales, stockouts = self.totals[copies].T / store_steps
        nash, joint = self._equilibria(copies)
        return {
            "price_mean": price,
            "profit_mean": profit,
            "sales_mean": sales,
            "stockout_rate": stockouts,
            "nash_price": nash,
            "joint_price": joint,
            "collusion_index": collusion_index(price, nash, joint, self.config.price_range),
        }

    def _equilibria(self, copies: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean Nash and joint price of the stores of some copies, with their d, each (copies,)."""
        d = self.d[copies]
        return self.equilibrium.nash_at(d).mean(axis=-1), self.equilibrium.joint_at(d).mean(axis=-1)

    def render(self, copy: int = 0) -> np.ndarray:
        """Bars of each store's price, inventory and last sales, `(height, width, 3)` uint8 pixels."""
        nash, joint = self._equilibria(np.array([copy]))
        return draw_market(
            price=self.price[copy],
            inventory=self.inventory[copy],
            sales=self.sales[copy],
            demand=self.demand[copy],
            price_range=self.config.price_range,
            nash=nash[0],
            joint=joint[0],
            elapsed=self.episode_steps[copy] / self.config.max_steps,
        )

    def _arrays(self) -> dict[str, np.ndarray]:
        return {
            "inventory": self.inventory,
            "d": self.d,
            "price": self.price,
            "demand": self.demand,
            "sales": self.sales,
            "totals": self.totals,
            "episode_steps": self.episode_steps,
        }
