"""Prices of the stores in competition (Nash) and as a cartel (joint). The collusion index is 0 and 1 at these
prices."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.interpolate import PchipInterpolator  # type: ignore[import-untyped]

if TYPE_CHECKING:
    from marl_tune.envs.pricing.settings import PricingConfig

MARKET_SIZE = 100.0  # units that a store with d = 1 could sell in a step if all prices were 0
SAMPLES = 512  # episodes of which expectations are means
NODES = 257  # entries of a table of expected sales
TYPES = 33  # values of d for which prices are computed
HORIZON = 200  # highest number of steps of an episode
GRID, ZOOMS = 65, 4  # search for the best price: number of grid points, and of ever finer grids
ROUNDS, DAMPING, TOLERANCE = 200, 0.5, 1e-5  # of the fixed-point iteration; the tolerance is a difference of prices
SAME = 1e-3  # if Nash and joint price differ by less than this share of the price range, the index is 0

Sales = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True, eq=False)
class Equilibrium:
    """Nash and joint prices of the stores of a symmetric market, as functions of a store's own d."""

    d: np.ndarray
    # (K,) ascending values of d; prices between them are interpolated
    nash: np.ndarray
    # (K,) Nash prices: no store has a higher expected profit with another price of its own
    joint: np.ndarray
    # (K,) joint prices: the sum of all profits is highest

    def nash_at(self, d: np.ndarray) -> np.ndarray:
        """The Nash prices of stores with these d, of any shape."""
        return np.interp(d, self.d, self.nash)

    def joint_at(self, d: np.ndarray) -> np.ndarray:
        """The joint prices of stores with these d, of any shape."""
        return np.interp(d, self.d, self.joint)


class _Market(NamedTuple):
    """The settings of `PricingConfig` on which the prices depend."""

    n_agents: int
    price_range: tuple[float, float]
    cost: float
    demand_range: tuple[float, float]
    own_slope: float
    cross_slope: float
    inventory_range: tuple[float, float]
    restock_range: tuple[float, float]
    inventory_cap: float | None
    max_steps: int


def unconstrained(config: "PricingConfig", d: np.ndarray | float) -> tuple[np.ndarray, np.ndarray]:
    """Nash and joint price of stores that know their own d, if inventory never limits sales and every store sells.

    Store i sells q_i = 100 d_i - a p_i + b m_i, where m_i is the mean of the others' prices, and its profit is
    (p_i - c) q_i. D is the mean of 100 d; p and m also stand for their means:

        Nash:  100 d_i - 2 a p_i + a c + b m = 0,                so that p_nash  = (D + a c) / (2 a - b)
        joint: 100 d_i - 2 a p_i + a c + b m + b (m - c) = 0,    so that p_joint = (D + (a - b) c) / (2 (a - b))

    at d = D / 100. A store with another d charges (100 d_i - D) / (2 a) more in both cases. Prices are clipped to the
    price range.

    Competition in prices after Bertrand 1883; with differentiated goods and linear demand: Singh & Vives 1984,
    https://doi.org/10.2307/2555525.
    """
    a, b, c = config.own_slope, config.cross_slope, config.cost
    size = MARKET_SIZE * sum(config.demand_range) / 2
    own = (MARKET_SIZE * np.asarray(d) - size) / (2 * a)
    nash = (size + a * c) / (2 * a - b) + own
    joint = (size + (a - b) * c) / (2 * (a - b)) + own
    low, high = config.price_range
    return np.clip(nash, low, high), np.clip(joint, low, high)


def equilibrium(config: "PricingConfig") -> Equilibrium:
    """Both prices if inventory limits sales, as in the world. The first call takes a fraction of a second; later calls
    with the same settings return the same result at once.

    A store knows its own d but not those of others, and has one price for a whole episode. Its expected profit is (p -
    c) times the mean of G(100 d - a p + b m) over the others' d. G(x) are the mean sales per step of a store with the
    demand x in all steps. G is a table from 512 episodes, with a Latin hypercube of initial inventories and restocks,
    the same for every x. The inventories of other stores are ignored. Of a longer episode only the first 200 steps are
    used.

    `nash` is the fixed point of damped best responses, for each d. `joint` raises all Nash prices by one amount, that
    with the highest sum of profits. This is the best rule of a cartel if inventory does not limit sales.
    """
    values = (getattr(config, key) for key in _Market._fields)
    return solve(_Market._make(tuple(value) if isinstance(value, Sequence) else value for value in values))


def collusion_index(price: np.ndarray, nash: np.ndarray, joint: np.ndarray, price_range: Sequence[float]) -> np.ndarray:
    """Where mean prices lie between competition, 0, and a cartel, 1. They may also lie outside of this range.

    The index Delta of Calvano et al. 2020 (American Economic Review 110(10), https://doi.org/10.1257/aer.20190623), of
    prices instead of profits: (price - nash) / (joint - nash). It is 0 if both are equal, for example at the highest
    price.
    """
    gap = joint - nash
    differ = gap >= SAME * (price_range[1] - price_range[0])
    return np.where(differ, (price - nash) / np.where(differ, gap, 1.0), 0.0)


@lru_cache(maxsize=64)
def solve(market: _Market) -> Equilibrium:
    """See `equilibrium`; results are kept for each market."""
    (low, high), a, b = market.price_range, market.own_slope, market.cross_slope
    rng = np.random.default_rng(0)
    sales = _sales(market, rng)
    d = np.linspace(*market.demand_range, TYPES)
    drawn = _hypercube(rng, market.demand_range, market.n_agents).T  # (samples, N) d of a store and of the others

    def others(rule: np.ndarray) -> np.ndarray:
        """Mean of the other stores' prices in each sample, (samples,), if their prices follow `rule`, (K,)."""
        return np.interp(drawn[:, 1:], d, rule).mean(axis=1)

    def respond(rule: np.ndarray) -> np.ndarray:
        """The best prices (K,) against stores whose prices follow `rule`."""
        means = b * others(rule)
        net = np.linspace(MARKET_SIZE * d[0] - a * high, MARKET_SIZE * d[-1] - a * low, NODES)  # 100 d - a p
        expected = PchipInterpolator(net, sales(net[:, None] + means).mean(axis=1))
        size = MARKET_SIZE * d[:, None]
        return _best(lambda p: (p - market.cost) * expected(size - a * p), np.full(TYPES, low), np.full(TYPES, high))

    nash = answer = np.full(TYPES, (low + high) / 2)
    for _ in range(ROUNDS):
        answer = respond(nash)
        if np.abs(answer - nash).max() < TOLERANCE:
            break
        nash = nash + DAMPING * (answer - nash)

    def earned(rise: float) -> float:
        """Mean profit of a store per step if all prices are `rise` above the Nash prices."""
        rule = np.clip(answer + rise, low, high)
        price = np.interp(drawn[:, 0], d, rule)
        return ((price - market.cost) * sales(MARKET_SIZE * drawn[:, 0] - a * price + b * others(rule))).mean()

    def all_earned(rises: np.ndarray) -> np.ndarray:
        return np.array([[earned(rise) for rise in rises[0]]])

    rise = _best(all_earned, np.zeros(1), np.array([high - answer.min()]))
    return Equilibrium(d, answer, np.clip(answer + rise, low, high))


def _hypercube(rng: np.random.Generator, bounds: tuple[float, float], rows: int) -> np.ndarray:
    """A Latin hypercube, (rows, samples): each row has one number of each stratum of the range, in random order."""
    strata = np.tile((np.arange(SAMPLES) + 0.5) / SAMPLES, (rows, 1))
    return bounds[0] + (bounds[1] - bounds[0]) * rng.permuted(strata, axis=1)


def _sales(market: _Market, rng: np.random.Generator) -> Sales:
    """G: mean sales of a store per step, over steps and samples, as a function of its demand in all steps."""
    (low, high), steps = market.price_range, min(market.max_steps, HORIZON)
    highest = MARKET_SIZE * market.demand_range[1] - market.own_slope * low + market.cross_slope * high
    demand = np.linspace(0.0, max(highest, 1.0), NODES)
    inventory = np.repeat(_hypercube(rng, market.inventory_range, 1).T, NODES, axis=1)  # (samples, nodes)
    cap = np.inf if market.inventory_cap is None else market.inventory_cap
    total = np.zeros(NODES)
    for restock in _hypercube(rng, market.restock_range, steps):
        sales = np.minimum(demand, inventory)
        total += sales.mean(axis=0)
        inventory = np.minimum(inventory - sales + restock[:, None], cap)
    table = PchipInterpolator(demand, total / steps)
    return lambda faced: table(np.maximum(faced, 0.0))


def _best(value: Sales, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """The maximum of a function in [low, high], each (K,): searched on a grid, then on finer grids around its best
    points.

    The function takes (K, points) and returns values of the same shape.
    """
    rows = np.arange(len(low))
    for _ in range(ZOOMS):
        points = np.linspace(low, high, GRID, axis=1)
        best = value(points).argmax(axis=1)
        low, high = points[rows, np.maximum(best - 1, 0)], points[rows, np.minimum(best + 1, GRID - 1)]
    return points[rows, best]
